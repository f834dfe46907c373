"""narbench in Python: run experiments, read their results and ask trained predictors."""

from __future__ import annotations

from pathlib import Path

from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from datasets.store import GraphStore
from harness import experiment
from harness.config import compose
from harness.experiment import Result
from harness.prediction import Failure, Prediction, TrainedPredictor
from predictors.base import Predictor, PredictorConfig

__all__ = [
    "Failure",
    "GraphBatch",
    "GraphStore",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Result",
    "TaskSpec",
    "TrainedPredictor",
    "UserError",
    "load",
    "run",
]


def run(*overrides: str) -> Result:
    """Run one experiment: ``narbench.run("predictor=nnformer", "dataset=digits201", "seed=1")``.

    ``narbench.run("resume=runs/...")`` finishes an interrupted one under the configuration it was started with.

    Raises:
        UserError: for any mistake in the overrides or the data.
    """
    config = compose(overrides)
    if config.resume is not None:
        config = experiment.resumed(config, list(overrides))
    return experiment.run(config)


def load(run: str | Path) -> TrainedPredictor:
    """Load the predictor of a finished run: ``narbench.load("runs/...").predict("model.onnx").latency_ms``.

    Raises:
        UserError: if the run is unfinished or not one on the latency of whole networks.
    """
    return TrainedPredictor(run)
