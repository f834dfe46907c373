"""The predictor that a finished run left, with the weights that its record reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from datasets.errors import UserError
from datasets.graph import TaskSpec
from harness.config import ExperimentConfig, typed
from harness.records import RunFolder
from harness.registry import load
from harness.training import Weights, load_weights, weight_sets
from predictors.base import Predictor
from predictors.fitted import FittedPredictor

FITTED = {"fitted": Weights("fitted.ckpt", averaged=False)}
"""The only weights of a predictor that is fitted in one go."""


def reported_weights(predictor: Predictor, config: ExperimentConfig) -> Mapping[str, Weights]:
    """The weights that a run of ``predictor`` reports, by name."""
    return FITTED if isinstance(predictor, FittedPredictor) else weight_sets(config.recipe.ema > 0)


def recorded_spec(record: Mapping[str, Any]) -> TaskSpec:
    """The task of a record, as ``dataclasses.asdict`` and JSON left it.

    Raises:
        UserError: if the record is older than its being kept there.
    """
    if "spec" not in record:
        raise UserError(f"{record['id']}: made by an older narbench, which did not record what this needs; run it again")
    content = record["spec"]
    tuples = {name: tuple(content[name]) for name in ("operations", "static", "platforms")}
    attributes = {name: tuple(slots) for name, slots in content["attributes"].items()}
    return TaskSpec(**{**content, **tuples, "attributes": attributes})


def recorded_features(record: Mapping[str, Any]) -> str:
    """How the networks of a record were read; ``as_code`` where the benchmark leaves no choice."""
    return str(record["config"]["dataset"].get("features", "as_code"))


def trained_platforms(record: Mapping[str, Any]) -> dict[str, int]:
    """Devices whose latencies a run was trained on, each with its place among those of the benchmark.

    Transfer trains one of them and its source all others; a record older than their being kept counts as having all.
    """
    known = recorded_spec(record).platforms
    return {name: known.index(name) for name in record["ranges"].get("platforms") or known}


def trained(folder: RunFolder, record: Mapping[str, Any]) -> tuple[ExperimentConfig, Predictor, int]:
    """Configuration, predictor and training step of the weights of the finished run in ``folder``, which left ``record``.

    Torch's random numbers stay as they were; the predictor is in evaluation mode, on the CPU.

    Raises:
        UserError: if the run is damaged, or was made by an older narbench.
    """
    config = typed(OmegaConf.create(folder.config()))
    with torch.random.fork_rng(devices=[]):
        predictor: Predictor = load(config.predictor.target)(config.predictor, recorded_spec(record))
    weights = reported_weights(predictor, config)[record["selected_weights"]]
    step = load_weights(predictor, folder.checkpoints, weights)
    return config, predictor.eval(), step
