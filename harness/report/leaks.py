"""What a rule that lets the test set leak gains over one that does not, measured on recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from harness.metric_facts import Metric
from harness.tables.build import Table
from harness.tables.cells import CONFIDENCE, Cell, Summary, find_cell, find_pair, summarise
from harness.tables.definition import Column, Row
from harness.tables.recorded import Recorded

SELECT = "protocol.select"
"""Setting that says which rows choose the checkpoint under the protocols by family, stage or platform."""

Rules = tuple[Column, Column]
"""The column under the rule that leaks and under the one that does not."""


@dataclass(frozen=True)
class Leak:
    """One predictor in one setting under a rule that leaks; gains are positive where the result looks better for it.

    Attributes:
        label: of the predictor.
        setting: data, training size and the like, in words.
        strict: under the rule that does not leak, in runs of the same settings otherwise; None without any.
        leaking: under the rule that leaks.
        gain: of the leaking rule over the other, with Welch's interval where both have several seeds; None without both.
        rest: on the test graphs that neither train nor select; None where the rule has no such graphs.
        contained: gain of testing on all graphs over testing on those.
        chosen: gain of the weights that are best on test over those that validation chose; None with one set of weights.
    """

    label: str
    setting: str
    strict: Summary | None
    leaking: Summary
    gain: Summary | None
    rest: Summary | None
    contained: Summary | None
    chosen: Summary | None


@dataclass(frozen=True)
class Leaks:
    """The measured leaks of one table.

    Attributes:
        title: of the table.
        metric: of the table.
        rows: those of the ``paper`` rule.
        selected: those of selection on test.
    """

    title: str
    metric: Metric
    rows: list[Leak]
    selected: list[Leak]


def leaks(table: Table, records: Sequence[Recorded]) -> Leaks:
    """Every leak that the runs of a pair of rules, or those under ``paper`` alone, measure, in the order of the table."""
    columns = table.columns
    containing = [(column, replace(column, protocol="strict")) for column in columns if column.protocol == "paper"]
    selecting = _selections(column for column in columns if column.protocol not in ("paper", "strict"))
    return Leaks(
        title=table.definition.title,
        metric=table.metric,
        rows=[leak for leak in _measured(table, records, containing) if leak.gain or leak.contained or leak.chosen],
        selected=[leak for leak in _measured(table, records, selecting) if leak.gain],
    )


def _selections(columns: Iterable[Column]) -> list[Rules]:
    """Selection on test and on validation, whichever of them a column asks for; once where columns differ in that alone."""
    found: dict[str, Rules] = {}
    for column in columns:
        leaking, strict = (replace(column, config={**column.config, SELECT: rows}) for rows in ("test", "validation"))
        found.setdefault(leaking.setting, (leaking, strict))
    return list(found.values())


def _measured(table: Table, records: Sequence[Recorded], rules: Sequence[Rules]) -> Iterator[Leak]:
    seeds = table.definition.seeds
    for leaking_column, strict_column in rules:
        for row in table.definition.rows:
            pair = find_pair(records, row, leaking_column, strict_column, seeds)
            leaking, strict = pair or (find_cell(records, row, leaking_column, seeds), Cell())
            found = _leak(table, row, leaking_column, leaking, strict)
            if found:
                yield found


def _leak(table: Table, row: Row, column: Column, leaking: Cell, strict: Cell) -> Leak | None:
    metric, sign = table.definition.metric, 1 if table.metric.higher_is_better else -1
    summary = leaking.summary(metric)
    if summary is None:
        return None
    rest = _present([_score(run, "rest", metric) for run in leaking.runs.values()])
    return Leak(
        label=row.label,
        setting=", ".join(filter(None, (column.dataset, column.label, column.family, column.platform))),
        strict=strict.summary(metric),
        leaking=summary,
        gain=_gain(leaking, strict, metric, sign),
        rest=summarise(rest) if rest else None,
        contained=_paired(leaking, lambda run: _difference(run.test(metric), _score(run, "rest", metric), sign)),
        chosen=_paired(leaking, lambda run: _chosen(run, metric, sign)),
    )


def _gain(leaking: Cell, strict: Cell, metric: str, sign: int) -> Summary | None:
    first, second = ([sign * value for value in cell.values(metric).values()] for cell in (leaking, strict))
    if not (first and second):
        return None
    return Summary(float(np.mean(first) - np.mean(second)), _welch(first, second), min(len(first), len(second)))


def _welch(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Half of Welch's confidence interval of a difference of means; None where one side is a single value."""
    freedoms = np.array([len(first) - 1, len(second) - 1])
    if not freedoms.all():
        return None
    variances = np.array([np.var(values, ddof=1) / len(values) for values in (first, second)])
    if not variances.any():
        return 0.0
    freedom = variances.sum() ** 2 / (variances**2 / freedoms).sum()
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variances.sum()))


def _chosen(run: Recorded, metric: str, sign: int) -> float | None:
    scores = [weights["test"].get(metric) for weights in run.content.get("weights", {}).values()]
    found = [sign * value for value in scores if value is not None]
    chosen = run.test(metric)
    return max(found) - sign * chosen if len(found) > 1 and chosen is not None else None


def _score(run: Recorded, split: str, metric: str) -> float | None:
    value: float | None = run.content["metrics"].get(split, {}).get(metric)
    return value


def _difference(first: float | None, second: float | None, sign: int) -> float | None:
    return None if first is None or second is None else sign * (first - second)


def _paired(cell: Cell, difference: Callable[[Recorded], float | None]) -> Summary | None:
    """Mean over the runs that have the difference."""
    found = _present([difference(run) for run in cell.runs.values()])
    return summarise(found) if found else None


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
