"""Finished runs sent to wandb: what a logger wrote while offline, or else what the record holds."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import UserError
from harness import loggers
from harness.evaluation import Predictions
from harness.records import PREDICTIONS, RECORD, RunFolder, test_predictions

MADE = "pushed"
"""File beside wandb's that says that they are complete, and not what a killed push left."""


def finished_runs(places: Iterable[Path]) -> list[RunFolder]:
    """The finished runs at or below ``places``, in order.

    Raises:
        UserError: if there are none.
    """
    folders = sorted({path.parent for place in places for path in place.rglob(RECORD)})
    if not folders:
        raise UserError(f"{', '.join(map(str, places))}: no finished run; give folders of runs")
    return [RunFolder(folder) for folder in folders]


def write_local(folder: RunFolder) -> bool:
    """Make wandb's files of a run, unless its logger or an earlier push did, and say whether they were made."""
    import wandb

    record = folder.finished()
    made = folder.path / "wandb" / MADE
    if made.exists() or (record["config"]["logger"]["kind"] == "wandb" and _logged(folder)):
        return False
    for unfinished in _logged(folder):
        shutil.rmtree(unfinished.parent)
    logger = loggers.wandb_logger(record["config"], folder, "offline", run_id(record))
    for step, values in _curves(folder.path / "csv" / "metrics.csv"):
        logger.log_metrics(values, step)
    loggers.log_result(logger, record, _predictions(folder.path / PREDICTIONS))
    wandb.teardown()  # wandb.finish() does not wait until the files are complete
    made.touch()
    return True


def _logged(folder: RunFolder) -> list[Path]:
    return list(folder.path.glob("wandb/*run-*/*.wandb"))


def upload(folders: Iterable[RunFolder]) -> int:
    """Send what was not sent yet, and say how many of wandb's folders that were.

    Raises:
        UserError: if wandb could not send them; another call goes on where this one stopped.
    """
    found = [path for folder in folders for path in sorted(folder.path.glob("wandb/offline-run-*/*.wandb"))]
    unsent = [os.fspath(path.parent) for path in found if not path.with_name(f"{path.name}.synced").exists()]
    if unsent and subprocess.run([sys.executable, "-m", "wandb", "sync", *unsent]).returncode:
        raise UserError("wandb sync failed; see its message above, log in with `wandb login`, then push again")
    return len(unsent)


def run_id(record: Mapping[str, Any]) -> str:
    """Wandb's id of a record: the same whenever and wherever it is pushed."""
    return hashlib.sha256(f"{record['id']} {record['started']} {record['config_hash']}".encode()).hexdigest()[:16]


def _curves(path: Path) -> Iterable[tuple[int, dict[str, float]]]:
    """Steps and metrics of the CSV logger, without the final metrics, which have no epoch."""
    if path.is_file():
        with path.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("epoch"):
                    yield int(row["step"]), {key: float(row[key]) for key in row if row[key] and key != "step"}


def _predictions(path: Path) -> dict[str, Predictions]:
    """Predictions of the test set, by split as a run has them; empty where only the record was kept."""
    if not path.is_file():
        return {}
    table = test_predictions(path)
    label, prediction = (table[name].to_numpy().astype(np.float64) for name in ("label", "prediction"))
    return {"test": Predictions(np.arange(len(label)), prediction, label)}
