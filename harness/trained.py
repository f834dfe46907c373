"""The predictor that a finished run left, with the weights that its record reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf

from harness.config import ExperimentConfig, typed
from harness.records import RunFolder, recorded_spec
from harness.registry import load
from harness.training import Weights, load_weights, weight_sets
from predictors.base import Predictor
from predictors.fitted import FittedPredictor

FITTED = {"fitted": Weights("fitted.ckpt", averaged=False)}
"""The only weights of a predictor that is fitted in one go."""


def reported_weights(predictor: Predictor, config: ExperimentConfig) -> Mapping[str, Weights]:
    """The weights that a run of ``predictor`` reports, by name."""
    return FITTED if isinstance(predictor, FittedPredictor) else weight_sets(config.recipe.ema > 0)


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
