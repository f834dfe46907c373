"""Mirrors of a run: wandb, CSV or TensorBoard; never the source of truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from datasets.errors import UserError
from harness.config import ExperimentConfig, plain
from harness.evaluation import Predictions
from harness.records import RunFolder


def build(config: ExperimentConfig, folder: RunFolder) -> Logger | None:
    """The configured logger, its files in the run's folder.

    Raises:
        UserError: for TensorBoard when it is not installed.
    """
    kind = config.logger.kind
    if kind == "none":
        return None
    if kind == "csv":
        return CSVLogger(folder.path, name="csv", version="")
    if kind == "tensorboard":
        return _tensorboard(folder)
    return _wandb(config, folder)


def log_result(logger: Logger | None, record: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> None:
    """Send the final metrics, and to wandb also a metrics table and a predicted-vs-true scatter; then close."""
    if logger is None:
        return
    flat = {f"{split}/{name}": value for split, values in record["metrics"].items() for name, value in values.items()}
    logger.log_metrics(flat)
    if isinstance(logger, WandbLogger):
        _wandb_media(logger, record, predictions)
    logger.finalize("success")


def _tensorboard(folder: RunFolder) -> Logger:
    try:
        return TensorBoardLogger(folder.path, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UserError("logger=tensorboard needs TensorBoard: pip install 'narbench[tensorboard]'") from None


def _wandb(config: ExperimentConfig, folder: RunFolder) -> Logger:
    import wandb

    run = wandb.init(
        project=config.logger.project,
        name=folder.path.name,
        group=f"{config.dataset.name}-{config.protocol.name}",
        dir=folder.path,
        mode="offline" if config.logger.mode == "offline" else "online",
        config=plain(config),
        settings=wandb.Settings(silent=True, console="off", quiet=True),
    )
    return WandbLogger(experiment=run)


def _wandb_media(logger: WandbLogger, record: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> None:
    import wandb

    from harness.figures import scatter

    rows = [
        [weights, split, name, value]
        for weights, splits in record["weights"].items()
        for split, values in splits.items()
        for name, value in values.items()
    ]
    figure = scatter(predictions["test"], record["dataset"]["unit"], record["predictor"])
    logger.experiment.log(
        {
            "metrics": wandb.Table(columns=["weights", "split", "metric", "value"], data=rows),
            "predicted_vs_true": wandb.Image(figure),
        }
    )
    wandb.finish()
