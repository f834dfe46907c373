"""The runs that a table is made of: which there are, what they are called, and which come first."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from datasets.base import Benchmark
from datasets.errors import UserError
from harness.assembly import build_data
from harness.config import ExperimentConfig, compose, config_hash, typed
from harness.grid import Job
from harness.records import RunFolder
from harness.tables.build import Entry, missing_seeds
from harness.tables.cells import Cell, find_cell
from harness.tables.definition import Column, Definition, Row
from harness.tables.estimate import seconds
from harness.tables.missing import overrides
from harness.tables.recorded import Recorded
from harness.tables.source_digest import source_digest
from harness.transfer import origin

OWN_KEYS = ("seed", "seeds", "out", "resume")
"""Keys that a table sets for each of its runs."""


@dataclass(frozen=True)
class Planned:
    """A run to be made, and its estimated time."""

    job: Job
    seconds: float


def plan(
    definition: Definition,
    records: Sequence[Recorded],
    changes: Sequence[str],
    only_missing: bool,
    max_hours: float | None = None,
) -> list[Planned]:
    """The runs to make, cheapest first; one whose folder holds a result already is left out.

    Args:
        definition: the table.
        records: of earlier runs; they fill cells and tell how long a run takes.
        changes: overrides of every run, such as ``dataset.root=FOLDER``.
        only_missing: leave out what some record fills, whichever code and data it is of.
        max_hours: after which no run is started any more.

    Raises:
        UserError: for a mistake in the overrides, or data that are absent.
    """
    for change in changes:
        if change.startswith("hydra/"):
            raise UserError(f"{change}: give --launcher {change.partition('=')[2]}")
        if change.lstrip("+~").partition("=")[0] in OWN_KEYS:
            raise UserError(f"{change}: the table sets that of every run; leave it out")
    deadline = None if max_hours is None else time.time() + 3600 * max_hours
    planned: dict[str, Planned] = {}
    stores: dict[str, Benchmark] = {}
    for config in _configs(_columns(definition, records, only_missing), changes):
        experiment = typed(config)
        data = _opened(experiment, stores)
        folder = Path(experiment.runs) / name(experiment, data.store.manifest.fingerprint)
        if RunFolder(folder).record() is None and folder.name not in planned:
            config.out = str(folder)
            job = Job.of(folder.name, config, f"table-{definition.name}", resumable=True, start_before=deadline)
            planned[folder.name] = Planned(job, seconds(experiment, data, records))
    return sorted(planned.values(), key=lambda one: one.seconds)


def name(config: ExperimentConfig, fingerprint: str) -> str:
    """The name of a run's folder: what it is and a digest of its configuration, data, encoder to start from, and code."""
    code = source_digest(config.predictor.target, config.dataset.target)
    encoder = [origin(config.init)] if config.init else []
    key = hashlib.sha256("\n".join([config_hash(config), fingerprint, code, *encoder]).encode()).hexdigest()
    size = str(config.train).replace("%", "pct")
    what = f"{config.predictor.name}-{config.dataset.name}-{config.protocol.name}-{size}-s{config.seed}"
    return f"{what}-{key[:12]}"


def _columns(definition: Definition, records: Iterable[Recorded], only_missing: bool) -> Iterator[list[Entry]]:
    """The cells of each column of a table, each with the seeds to run as its missing ones."""

    def entry(row: Row, column: Column) -> Entry:
        cell = find_cell(records, row, column, definition.seeds)
        missing = missing_seeds(row, column, definition.seeds, cell if only_missing else Cell())
        return Entry(row, column, cell, summary=None, published=None, missing=missing)

    for column in definition.single_columns():
        yield [entry(row, column) for row in definition.rows]


def _configs(columns: Iterable[Sequence[Entry]], changes: Sequence[str]) -> Iterator[DictConfig]:
    """The configuration of each run; seeds of one cell share a composition."""
    for column in columns:
        for entry in (entry for entry in column if entry.missing):
            composed = compose([*overrides(entry, column), *changes])
            for seed in entry.missing:
                yield OmegaConf.merge(composed, {"seed": seed})  # type: ignore[misc]


def _opened(config: ExperimentConfig, stores: dict[str, Benchmark]) -> Benchmark:
    """The run's benchmark with its store, which is opened (and converted, if need be) once."""
    data = build_data(config)
    key = json.dumps([config.dataset.root, config.dataset.cache, data.store_name, config.dataset.target])
    if key not in stores:
        data.store = data.open_store()
        stores[key] = data
    return stores[key]
