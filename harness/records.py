"""The result of a run: its folder, its record and its predictions, each written whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml
from filelock import FileLock, Timeout

from datasets.errors import UserError

if TYPE_CHECKING:
    from datasets.store import GraphStore
    from harness.config import ExperimentConfig
    from harness.evaluation import Predictions

RECORD, CONFIG, PREDICTIONS, CHECKPOINTS = "record.json", "config.yaml", "predictions.parquet", "checkpoints"
SEED_FOLDERS = "seeds.json"
"""File in the folder of a stack that names the folders of its seeds."""

START = "init.json"
"""File in the folder of a run that says which encoder it started from, for its record and a resumption."""

SCHEMA_VERSION = 1

NEEDED = (
    *("id", "started", "predictor", "seed", "config", "config_hash", "metrics.test"),
    *("dataset.name", "dataset.fingerprint", "dataset.task", "dataset.labels.val", "dataset.labels.test"),
    *("protocol.name", "protocol.version", "protocol.sha256", "protocol.leaks", "protocol.sizes.train"),
)
"""Dotted keys of a record without which nothing can read it."""


class BusyError(UserError):
    """Another process is running it."""


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its files."""

    path: Path

    @classmethod
    def create(cls, config: ExperimentConfig) -> RunFolder:
        """A new folder holding the run's configuration: ``config.out``, or one in ``config.runs`` named for the run.

        Raises:
            UserError: if ``config.out`` holds something already, or the folder cannot be written.
        """
        from harness.config import plain  # which loads every predictor's libraries; reading records does without

        try:
            if config.out:
                path = _claimed(Path(config.out))
            else:
                path = _fresh(Path(config.runs), config)
                (path / CHECKPOINTS).mkdir()
            write_text(path / CONFIG, yaml.safe_dump(plain(config), sort_keys=False))
        except OSError as error:
            where = f"out={config.out}" if config.out else f"runs={config.runs}"
            raise UserError(f"{where}: cannot be written ({error.strerror}); choose another folder") from None
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that holds a run.

        Raises:
            UserError: if it does not.
        """
        if not (path / CONFIG).is_file():
            raise UserError(
                f"{path}: no run here ({CONFIG} is missing); `narbench runs` lists the runs there are, also begun ones"
            )
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path:
        """What an interrupted training goes on from."""
        return self.checkpoints / "last.ckpt"

    def start(self) -> dict[str, Any] | None:
        """The encoder that the run started from, None without one."""
        path = self.path / START
        content: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return content

    def write_start(self, start: Mapping[str, Any] | None) -> None:
        """Write ``init.json`` for a run that starts from an encoder."""
        if start is not None:
            write_text(self.path / START, json.dumps(start, indent=1) + "\n")

    def lock(self) -> AbstractContextManager[object]:
        """Keep other processes from running it; also a process that is killed lets go.

        Raises:
            BusyError: if one is running it.
        """
        try:
            return FileLock(self.path / ".lock").acquire(timeout=0)
        except Timeout:
            raise BusyError(f"{self.path}: another process is running it; wait for it, or end it") from None

    def config(self) -> dict[str, Any]:
        """The configuration the run was started with."""
        content: dict[str, Any] = yaml.safe_load((self.path / CONFIG).read_text())
        return content

    def record(self) -> dict[str, Any] | None:
        """The run's record, None while it is unfinished.

        Raises:
            UserError: if it is damaged, incomplete or of another version.
        """
        path = self.path / RECORD
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); delete it or run the experiment again") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version}, this narbench reads {SCHEMA_VERSION}; run the experiment again"
            )
        if missing := [key for key in NEEDED if not _has(content, key.split("."))]:
            raise UserError(
                f"{path}: no record of a run, it lacks {', '.join(missing)}; delete it or run the experiment again"
            )
        try:
            start_time(content)
        except ValueError:
            raise UserError(
                f"{path}: started {content['started']!r}: no time; delete it or run the experiment again"
            ) from None
        return content

    def finished(self) -> dict[str, Any]:
        """The record of a run that must be finished.

        Raises:
            UserError: if it is not, or is a stack of seeds.
        """
        record = self.record()
        if record is None:
            runs = _runs_of(self.path)
            if all((run / RECORD).exists() for run in runs):
                raise UserError(f"{self.path}: a stack of seeds; choose one of {', '.join(map(os.path.normpath, runs))}")
            raise UserError(f"{self.path}: not finished; finish it with resume={self.path}")
        return record

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write ``record.json``."""
        write_text(self.path / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")

    def write_predictions(self, store: GraphStore, splits: Mapping[str, Predictions]) -> None:
        """Write ``predictions.parquet``: key, split, label, prediction."""
        tables = [
            pa.table(
                {
                    "key": store.keys(part.rows),
                    "split": pa.array([split] * len(part.rows)).dictionary_encode(),
                    "label": part.label.astype(np.float32),
                    "prediction": part.prediction.astype(np.float32),
                }
            )
            for split, part in splits.items()
        ]
        temporary = self.path / f".{PREDICTIONS}"
        pa.parquet.write_table(pa.concat_tables(tables).unify_dictionaries(), temporary, compression="zstd")
        temporary.replace(self.path / PREDICTIONS)


def start_time(record: Mapping[str, Any]) -> datetime:
    """When the run of a record was started, in UTC: each record has the time of its own machine's zone.

    Raises:
        ValueError: if the record has no time there.
    """
    return datetime.fromisoformat(str(record["started"])).astimezone(UTC)


def test_predictions(path: Path) -> pa.Table:
    """Keys, labels and predictions of the test graphs of a run's ``predictions.parquet``.

    Raises:
        UserError: if the file is missing or damaged.
    """
    columns = ["key", "label", "prediction"]
    try:
        return pa.parquet.read_table(path, columns=columns, filters=[("split", "==", "test")]).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable as predictions ({error}); run the experiment again") from None


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_text(text)
    temporary.replace(path)


def require_folder(path: Path, option: str) -> None:
    """Make a folder that results go to, before the work for them is done.

    Raises:
        UserError: naming ``option`` if nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise UserError(f"{option}: cannot be written ({error.strerror}); choose another place") from None
    if not writable:
        raise UserError(f"{option}: cannot be written (no permission); choose another place")


def list_runs(root: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Folders and records of the finished runs below ``root``, oldest first, and what is wrong with unreadable ones."""
    found, wrong = [], []
    for path in sorted(root.glob(f"*/{RECORD}")):
        try:
            if record := RunFolder(path.parent).record():
                found.append((path.parent, record))
        except UserError as error:
            wrong.append(str(error))
    return sorted(found, key=lambda item: start_time(item[1])), wrong


def list_unfinished(root: Path) -> list[Path]:
    """Folders below ``root`` of runs and stacks that were begun and lack a record: interrupted, or still running."""
    begun = [path.parent for path in root.glob(f"*/{CONFIG}")]
    return sorted(folder for folder in begun if not all((run / RECORD).exists() for run in _runs_of(folder)))


def _runs_of(folder: Path) -> list[Path]:
    """The folder itself, or those of the seeds of a stack."""
    seeds = folder / SEED_FOLDERS
    return [folder / name for name in json.loads(seeds.read_text())] if seeds.is_file() else [folder]


def _has(content: Any, keys: Sequence[str]) -> bool:
    if not keys:
        return True
    return isinstance(content, dict) and keys[0] in content and _has(content[keys[0]], keys[1:])


def _claimed(path: Path) -> Path:
    """A folder that was absent or empty; of several processes that want it, on any host, one makes its first entry."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        if any(path.iterdir()):
            raise FileExistsError
        (path / CHECKPOINTS).mkdir()
    except FileExistsError:
        raise UserError(f"out={path}: not empty; choose another folder, or resume={path} to finish that run") from None
    return path


def _fresh(runs: Path, config: ExperimentConfig) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    size = str(config.train).replace("%", "pct")
    name = f"{stamp}-{config.predictor.name}-{config.dataset.name}-{config.protocol.name}-{size}-s{config.seed}"
    for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
        path = runs / (name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise UserError(f"{runs}: a thousand runs started this second; set out=DIR")
