"""The parts of an experiment, made from its configuration."""

from __future__ import annotations

from datasets.base import Benchmark, LoadingConfig
from datasets.graph import TaskSpec
from harness.config import ExperimentConfig
from harness.registry import load
from predictors.base import Predictor


def build_data(config: ExperimentConfig) -> Benchmark:
    """The benchmark's data module under the configured protocol."""
    loading = LoadingConfig(config.recipe.batch_size, config.trainer.eval_nodes)
    data: Benchmark = load(config.dataset.target)(config.dataset, config.protocol, loading, config.seed)
    return data


def build_predictor(config: ExperimentConfig, spec: TaskSpec) -> Predictor:
    """The predictor with its initial weights."""
    predictor: Predictor = load(config.predictor.target)(config.predictor, spec)
    predictor.recipe = config.recipe
    return predictor
