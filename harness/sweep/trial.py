"""One trial: an ordinary experiment for each seed, its validation metric and, if asked, its speed."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from optuna import Trial, TrialPruned

from harness import experiment, loggers
from harness.assembly import build_data
from harness.bench import median_seconds
from harness.config import compose
from harness.evaluation import predict
from harness.experiment import Result
from harness.sweep.space import MILLISECONDS, OBJECTIVES, Space, as_overrides
from harness.trained import trained

TIMINGS = 3
"""Passes over the validation graphs of which the median is the time of a prediction."""


class Pruning(Callback):
    """Reports each validation to the trial, by epoch, and ends the training that the pruner gives up."""

    def __init__(self, trial: Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the better of the raw and the averaged weights, as selection does.

        Raises:
            TrialPruned: if the trial is not worth finishing.
        """
        found = [
            float(value)
            for name in ("val", "val_ema")
            for value in [trainer.callback_metrics.get(f"{name}/{self.metric}")]
            if value is not None
        ]
        better = max if OBJECTIVES[self.metric].higher_is_better else min
        epoch = trainer.current_epoch + 1
        if found:
            self.trial.report(better(found), epoch)
        if self.trial.should_prune():
            raise TrialPruned(f"epoch {epoch}")


def run_trial(trial: Trial, space: Space, out: Path) -> list[float]:
    """Run the trial's seeds in ``out/trials`` and return its objectives, means over them.

    Only the first seed may be pruned: curves of later ones would be compared with those of the first.

    Raises:
        TrialPruned: if the pruner gives up the trial.
    """
    results = []
    for index, seed in enumerate(space.seeds):
        config = trial_config(space, trial.params, seed, out / "trials" / f"{trial.number:05}-s{seed}")
        prunable = space.pruner != "none" and index == 0
        try:
            results.append(experiment.run(config, [Pruning(trial, space.objectives[0])] if prunable else []))
        except TrialPruned:
            loggers.close_unfinished()
            raise
    return [statistics.fmean(_objective(objective, result) for result in results) for objective in space.objectives]


def trial_config(space: Space, values: dict[str, object], seed: int, folder: Path) -> DictConfig:
    """The configuration of one run of a trial."""
    config = compose([*space.overrides, *as_overrides(values)])
    for key, value in {"seed": seed, "out": str(folder), "logger.group": space.name}.items():
        OmegaConf.update(config, key, value)
    return config


def milliseconds(result: Result) -> float:
    """Time of one prediction in ms: batches of the configured size of validation graphs, on one device, all in memory."""
    config, predictor, _ = trained(result.folder, result.record)
    data = build_data(config)
    data.setup()
    if config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        predictor.cuda()
    rows, batches = data.parts.val, list(data.val_dataloader())
    return 1000 * median_seconds(lambda: predict(predictor, batches, len(rows)), TIMINGS) / len(rows)


def _objective(name: str, result: Result) -> float:
    """An objective of one run; a metric that could not be computed counts as the worst there is."""
    if name == MILLISECONDS:
        return milliseconds(result)
    return float(result.record["metrics"]["val"].get(name, OBJECTIVES[name].worst))
