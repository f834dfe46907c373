"""A table's content: every cell with its runs, its published figure and its standing in the column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.metric_facts import COSTS, METRICS, Metric
from harness.progress import track
from harness.registry import load, reads, target
from harness.tables.cells import Cell, Summary, find_cell
from harness.tables.comparison import Difference, compared, difference, holm, p_value
from harness.tables.definition import Column, Definition, Row
from harness.tables.published import Published, find_published
from harness.tables.recorded import Recorded
from harness.tables.seed_variance import SeedVariance, seed_variances
from predictors.fitted import FittedPredictor

LEVEL = 0.05
"""Corrected p-value below which a predictor differs from the best one."""


@dataclass(frozen=True)
class Standing:
    """Where a cell stands in its column.

    Attributes:
        place: ``best``, ``tied`` with it, ``worse``, ``untested``, or empty where there is nothing to compare.
        tested: whether it was tested against the best, or, as the best, against any other.
        p: Holm-corrected p-value of the comparison with the best.
        seeds: seeds compared.
        trainings: whether the test allows for how trainings vary between seeds.
        reason: why it is untested.
    """

    place: str = ""
    tested: bool = False
    p: float | None = None
    seeds: int = 0
    trainings: bool = False
    reason: str = ""

    @property
    def leads(self) -> bool:
        """Best, or not significantly different from it."""
        return self.place in ("best", "tied")


@dataclass(frozen=True)
class Entry:
    """One cell of a built table.

    Attributes:
        row: its predictor.
        column: its setting.
        cell: its runs.
        summary: mean over seeds; None without a result.
        published: the published figure.
        missing: seeds of the definition without a run.
        standing: compared with the rest of the column.
    """

    row: Row
    column: Column
    cell: Cell
    summary: Summary | None
    published: Published | None
    missing: tuple[int, ...]
    standing: Standing = Standing()

    @property
    def delta(self) -> float | None:
        """Our mean less the published figure."""
        return self.summary.mean - self.published.value if self.summary and self.published else None

    @property
    def metric(self) -> Metric:
        """What the summary is of."""
        return (METRICS | COSTS)[self.column.metric]

    @property
    def failed(self) -> int:
        """Runs whose metric could not be computed."""
        return len(self.cell.runs) - (self.summary.count if self.summary else 0)


@dataclass(frozen=True)
class Table:
    """A built table.

    Attributes:
        definition: what it shows.
        columns: every column of the definition.
        entries: one for each row and column.
    """

    definition: Definition
    columns: list[Column]
    entries: list[list[Entry]]

    @property
    def metric(self) -> Metric:
        """The metric shown, or the first of the costs."""
        return (METRICS | COSTS)[self.definition.metric]

    @property
    def shows_costs(self) -> bool:
        """What the runs cost, instead of how good they are."""
        return self.definition.metric in COSTS

    def shown(self) -> list[int]:
        """Numbers of the columns with a run, be it outdated, or a published figure."""
        return [number for number in range(len(self.columns)) if any(_has_content(row[number]) for row in self.entries)]


def build(definition: Definition, records: Sequence[Recorded], published: Sequence[Published]) -> Table:
    """Fill a definition.

    Raises:
        UserError: if predictions that a comparison needs are damaged.
    """
    columns = definition.single_columns()
    progress: Iterable[Column] = track(columns, f"{definition.name}: comparing")
    filled = [
        _ranked([_entry(row, column, definition, records, published) for row in definition.rows], column.metric)
        for column in progress
    ]
    return Table(definition, columns, [list(row) for row in zip(*filled, strict=True)])


def _entry(
    row: Row, column: Column, definition: Definition, records: Iterable[Recorded], published: Iterable[Published]
) -> Entry:
    cell = find_cell(records, row, column, definition.seeds)
    return Entry(
        row=row,
        column=column,
        cell=cell,
        summary=cell.summary(column.metric),
        published=find_published(published, row, column, column.metric),
        missing=missing_seeds(row, column, definition.seeds, cell),
    )


def missing_seeds(row: Row, column: Column, seeds: Sequence[int], cell: Cell) -> tuple[int, ...]:
    """Seeds that a cell lacks; none where the predictor cannot read the benchmark."""
    return tuple(seed for seed in seeds if seed not in cell.runs) if reads(row.predictor, column.dataset) else ()


def _ranked(column: Sequence[Entry], metric: str) -> list[Entry]:
    """The entries of a column with their standing, if more than one has a result; costs are not ranked."""
    if metric in COSTS:
        return list(column)
    sign = 1 if METRICS[metric].higher_is_better else -1
    means = {number: sign * entry.summary.mean for number, entry in enumerate(column) if entry.summary}
    if len(means) < 2:
        return list(column)
    best = max(means, key=lambda number: means[number])
    standings = _standings({number: column[number] for number in means}, best, metric)
    return [replace(entry, standing=standings.get(number, Standing())) for number, entry in enumerate(column)]


def _standings(column: Mapping[int, Entry], best: int, metric: str) -> dict[int, Standing]:
    """How the entries with a result stand against the best of them."""
    variances = _seed_variances(column, metric)
    others = {number: entry for number, entry in column.items() if number != best}
    found = {n: difference(column[best].cell.runs, entry.cell.runs, metric) for n, entry in others.items()}
    tested = {
        number: p_value(outcome, variances[best], variances[number])
        for number, outcome in found.items()
        if isinstance(outcome, Difference)
    }
    pairs = len(column) * (len(column) - 1) // 2
    corrected = dict(zip(tested, holm(list(tested.values()), pairs), strict=True))
    standings = {best: Standing("best", tested=bool(tested))}
    for number, outcome in found.items():
        if isinstance(outcome, str):
            standings[number] = Standing("untested", reason=outcome)
        else:
            place = "tied" if corrected[number] >= LEVEL else "worse"
            trainings = variances[best] is not None and variances[number] is not None
            standings[number] = Standing(place, True, corrected[number], outcome.seeds, trainings)
    return standings


def _seed_variances(column: Mapping[int, Entry], metric: str) -> dict[int, SeedVariance | None]:
    """Of fitted predictors, which hardly vary, apart from those of trained ones."""
    values = [
        {
            seed: scaled
            for seed, value in entry.cell.values(metric).items()
            if np.isfinite(scaled := compared(metric, value))
        }
        for entry in column.values()
    ]
    fitted = [issubclass(load(target("predictor", entry.row.predictor)), FittedPredictor) for entry in column.values()]
    return dict(zip(column, seed_variances(values, fitted), strict=True))


def _has_content(entry: Entry) -> bool:
    return bool(entry.cell.runs or entry.cell.outdated) or entry.published is not None
