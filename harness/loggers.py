"""Mirrors of a run: wandb, CSV or TensorBoard; never the source of truth."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
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
    return wandb_logger(plain(config), folder, config.logger.mode)


def go_on(logger: Logger | None, step: int) -> None:
    """Let a CSV curve go on where a run is resumed: what was logged before ``step`` stays, the abandoned rest does not."""
    if not isinstance(logger, CSVLogger):
        return
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if None not in row.values()]  # a kill can cut the last one
    logger.experiment.metrics += [row for row in rows if int(row["step"]) < step]  # the first access deletes the file
    logger.save()


def log_result(logger: Logger | None, record: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> None:
    """Send the final metrics, and to wandb also the record, a metrics table and a predicted-vs-true scatter; then close."""
    if logger is None:
        return
    flat = {f"{split}/{name}": value for split, values in record["metrics"].items() for name, value in values.items()}
    logger.log_metrics(flat, record.get("timings", {}).get("train_steps", 0))
    if isinstance(logger, WandbLogger):
        kept = {key: value for key, value in record.items() if key not in ("config", "metrics", "weights")}
        logger.experiment.config.update({"record": kept})
        _wandb_media(logger, record, predictions)
    logger.finalize("success")


def close_unfinished() -> None:
    """Close the wandb run that an exception left open, so that the next run in this process gets one of its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _tensorboard(folder: RunFolder) -> Logger:
    try:
        return TensorBoardLogger(folder.path, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UserError("logger=tensorboard needs TensorBoard: pip install -e '.[tensorboard]' in the checkout") from None


def wandb_logger(content: Mapping[str, Any], folder: RunFolder, mode: str, run_id: str | None = None) -> WandbLogger:
    """A run of wandb, its files in the run's folder.

    Args:
        content: the experiment's configuration in plain types.
        folder: of the run.
        mode: ``offline`` or ``online``.
        run_id: wandb's id; by default a new one.
    """
    import wandb

    settings = content["logger"]
    run = wandb.init(
        project=settings["project"],
        id=run_id,
        name=folder.path.name,
        group=settings.get("group") or f"{content['dataset']['name']}-{content['protocol']['name']}",
        dir=folder.path,
        mode="offline" if mode == "offline" else "online",
        config=dict(content),
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
    media = {"metrics": wandb.Table(columns=["weights", "split", "metric", "value"], data=rows)}
    if "test" in predictions:
        figure = scatter(predictions["test"], record["dataset"]["unit"], record["predictor"])
        media["predicted_vs_true"] = wandb.Image(figure)
    logger.experiment.log(media)
    wandb.finish()
