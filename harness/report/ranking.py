"""Which predictor is ahead over several columns: win rates, mean ranks and the critical difference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.metric_facts import Metric
from harness.tables.build import LEVEL, Entry, Standing, Table
from harness.tables.definition import Row

Floats = NDArray[np.float64]

FEWEST = 3
"""Predictors and columns that mean ranks are compared over at least."""


@dataclass(frozen=True)
class Results:
    """What is ranked: the results of P predictors in C columns.

    Attributes:
        metric: of every column.
        tables: titles of the tables they come from.
        labels: of the predictors.
        entries: by predictor and column; None where there is no result.
        values: means (P, C), turned so that higher is better; NaN where there is no result.
    """

    metric: Metric
    tables: tuple[str, ...]
    labels: list[str]
    entries: list[list[Entry | None]]
    values: Floats

    def tested(self, predictor: int) -> list[Standing]:
        """A predictor's standing in the columns in which it was tested."""
        return [entry.standing for entry in self.entries[predictor] if entry and entry.standing.tested]


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of k predictors over N columns in which all have a result.

    Attributes:
        predictors: their numbers, the lowest mean rank first (k,).
        means: mean ranks, 1 is best, ties shared (k,).
        columns: N.
        p: of Friedman's test that all are alike.
        critical_difference: of two mean ranks, by Nemenyi's test.
    """

    predictors: list[int]
    means: list[float]
    columns: int
    p: float
    critical_difference: float

    def groups(self) -> list[tuple[int, int]]:
        """First and last place of the longest runs of predictors that differ by less than the critical difference."""
        found: list[tuple[int, int]] = []
        for first, mean in enumerate(self.means):
            last = max(place for place, other in enumerate(self.means) if other - mean < self.critical_difference)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def results(tables: Sequence[Table]) -> list[Results]:
    """The columns of all tables that compare predictors, by metric; a column that several tables have counts once."""
    by_metric: dict[str, list[Table]] = {}
    for table in tables:
        if compares_predictors(table) and _cells(table):
            by_metric.setdefault(table.definition.metric, []).append(table)
    return [_joined(group) for group in by_metric.values()]


def compares_predictors(table: Table) -> bool:
    """Whether no two rows are variants of one predictor."""
    predictors = [row.predictor for row in table.definition.rows]
    return len(set(predictors)) == len(predictors)


def win_rates(values: Floats) -> Floats:
    """Share of common columns in which the first predictor is better than the second, ties as half (P, P).

    NaN for a predictor against itself and where there is no common column.
    """
    difference = values[:, None] - values[None, :]
    common = np.isfinite(difference).sum(2)
    wins = (difference > 0).sum(2) + 0.5 * (difference == 0).sum(2)
    rates = np.full(common.shape, np.nan)
    np.divide(wins, common, out=rates, where=common > 0)
    np.fill_diagonal(rates, np.nan)
    return rates


def mean_ranks(values: Floats) -> Ranks | None:
    """Mean ranks over the largest block without gaps; None if it has fewer than three predictors or columns.

    The block is sought among the predictors with the most results: of the k best covered ones and the columns that all k
    have, the k with the most results in all is taken.

    Args:
        values: results, higher is better, NaN where there is none (P, C).
    """
    present = np.isfinite(values)
    order = np.argsort(-present.sum(1), kind="stable")
    blocks = [(order[:k], present[order[:k]].all(0)) for k in range(FEWEST, len(order) + 1)]
    blocks = [(rows, columns) for rows, columns in blocks if columns.sum() >= FEWEST]
    if not blocks:
        return None
    rows, columns = max(blocks, key=lambda block: len(block[0]) * block[1].sum())
    block = values[np.ix_(rows, columns)]
    means = stats.rankdata(-block, axis=0).mean(1)
    best = np.argsort(means, kind="stable")
    return Ranks(
        predictors=[int(rows[place]) for place in best],
        means=[float(means[place]) for place in best],
        columns=block.shape[1],
        p=float(stats.friedmanchisquare(*block).pvalue),
        critical_difference=critical_difference(*block.shape),
    )


def critical_difference(predictors: int, columns: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of two mean ranks, q / sqrt(2) * sqrt(k (k + 1) / (6 N)).

    With q the quantile of the studentised range of k means with infinite degrees of freedom: Demsar, Statistical
    Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), section 3.2.2.
    """
    quantile = stats.studentized_range.ppf(1 - level, predictors, np.inf)
    return float(quantile / np.sqrt(2) * np.sqrt(predictors * (predictors + 1) / (6 * columns)))


def _joined(tables: Sequence[Table]) -> Results:
    cells = {key: entry for table in tables for key, entry in _cells(table).items()}
    predictors, columns = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    labels = {_key(row): row.label for table in reversed(tables) for row in table.definition.rows}
    entries = [[cells.get((predictor, column)) for column in columns] for predictor in predictors]
    sign = 1 if tables[0].metric.higher_is_better else -1
    values = np.array([[sign * _mean(entry) for entry in row] for row in entries])
    names = tuple(table.definition.title for table in tables)
    return Results(tables[0].metric, names, [labels[key] for key in predictors], entries, values)


def _cells(table: Table) -> dict[tuple[str, str], Entry]:
    """Entries with a result, by row and column."""
    entries = (entry for row in table.entries for entry in row if entry.summary)
    return {(_key(entry.row), entry.column.setting): entry for entry in entries}


def _key(row: Row) -> str:
    return json.dumps([row.predictor, row.config], sort_keys=True)


def _mean(entry: Entry | None) -> float:
    return entry.summary.mean if entry and entry.summary else np.nan
