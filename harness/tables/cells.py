"""The runs behind one cell of a table and their mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from harness.tables.defaults import composed
from harness.tables.definition import Column, Row
from harness.tables.recorded import Recorded

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean over seeds.

    Attributes:
        mean: mean of the values.
        half_width: half of the 95 % confidence interval of the mean (Student's t); None for a single value.
        count: number of values.
    """

    mean: float
    half_width: float | None
    count: int


@dataclass(frozen=True)
class Cell:
    """The runs of one row and column that share a configuration.

    Attributes:
        runs: by seed.
        configurations: how many configurations there were to choose from.
        assumed: settings that some record is older than, for which it counts as having today's default.
    """

    runs: Mapping[int, Recorded] = field(default_factory=dict)
    configurations: int = 0
    assumed: tuple[str, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """A metric of the test set or a cost by seed, without failed ones."""
        found = {seed: run.value(metric) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def summary(self, metric: str) -> Summary | None:
        """Mean over the seeds whose metric did not fail; None without any."""
        values = list(self.values(metric).values())
        return summarise(values) if values else None

    @property
    def selects_on_test(self) -> bool:
        """Some run chose its checkpoint on test labels."""
        return any(run.selects_on_test for run in self.runs.values())


def summarise(values: Sequence[float]) -> Summary:
    """Mean and half width of its 95 % confidence interval under Student's t distribution."""
    count = len(values)
    if count == 1:
        return Summary(float(values[0]), None, 1)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return Summary(float(np.mean(values)), float(quantile * np.std(values, ddof=1) / np.sqrt(count)), count)


def find_cell(records: Iterable[Recorded], row: Row, column: Column, seeds: Sequence[int]) -> Cell:
    """The runs of a cell: of several configurations the one with the best mean validation metric.

    Runs that chose their checkpoint on test labels are taken only where there are no others. Of runs with the same
    configuration and seed the newest counts, one with predictions before one without.
    """
    groups: dict[str, dict[int, Recorded]] = defaultdict(dict)
    matching = [record for record in records if _matches(record, row, column) and record.seed in seeds]
    assumed = _assumed(matching, row, column)
    for record in sorted(matching, key=lambda record: (record.predictions is not None, str(record.content["started"]))):
        groups[record.configuration(assumed)][record.seed] = record
    if not groups:
        return Cell()
    chosen = max(groups.values(), key=_preference)
    lacking = {key for record in chosen.values() for key in assumed if key not in record.settings}
    return Cell(dict(sorted(chosen.items())), len(groups), tuple(sorted(lacking)))


def _assumed(records: Sequence[Recorded], row: Row, column: Column) -> dict[str, Any]:
    """Today's default of each setting that only some of the records have."""
    counts = Counter(key for record in records for key in record.settings)
    partial = [key for key, count in counts.items() if count < len(records)]
    if not partial:
        return {}
    default = composed(f"predictor={row.predictor}", f"dataset={column.dataset}", f"protocol={column.protocol}")
    return {key: default[key] for key in partial if key in default}


def _preference(runs: Mapping[int, Recorded]) -> tuple[bool, float]:
    honest = not any(run.selects_on_test for run in runs.values())
    return honest, float(np.mean([run.validation() for run in runs.values()]))


def _matches(record: Recorded, row: Row, column: Column) -> bool:
    content, settings = record.content, record.settings
    protocol = content["protocol"]
    return (
        content["predictor"] == row.predictor
        and content["dataset"]["name"] == column.dataset
        and protocol["name"] == column.protocol
        and column.train in (None, protocol["sizes"]["train"])
        and settings.get("protocol.family") == column.family
        and settings.get("protocol.platform") == column.platform
        and all(key in settings and settings[key] == value for key, value in (row.config | column.config).items())
    )
