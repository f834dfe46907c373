"""The report as a page: what each section holds, and the HTML made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.metric_facts import MINUS, Metric
from harness.report.costs import Cost, costs
from harness.report.figures import drawn, mean_rank_axis
from harness.report.leaks import leaks
from harness.report.panels import Panel, panels
from harness.report.ranking import Floats, Ranks, Results, compares_predictors, mean_ranks, results, win_rates
from harness.tables.build import LEVEL, Table
from harness.tables.cells import Summary
from harness.tables.page import NOTHING, Page, lay_out
from harness.tables.recorded import Recorded


@dataclass(frozen=True)
class Standing:
    """One row of a leaderboard.

    Attributes:
        label: of the predictor.
        win_rate: share of wins; None where it has nothing to be compared with.
        mean_rank: None where it is not among those compared.
        leads: columns in which a test found it the best or tied with the best.
        tested: columns in which it was tested.
        columns: columns in which it has a result.
    """

    label: str
    win_rate: float | None
    mean_rank: float | None
    leads: int
    tested: int
    columns: int


@dataclass(frozen=True)
class Leaderboard:
    """Every predictor of the tables that share a metric.

    Attributes:
        results: what is compared.
        standings: the highest win rate first.
        ranks: mean ranks; None with too few columns.
        figure: of the mean ranks.
        win_rates: by place in ``standings``, where there are no mean ranks.
        on_test: results whose checkpoint was chosen on test labels.
    """

    results: Results
    standings: list[Standing]
    ranks: Ranks | None
    figure: Markup | None
    win_rates: list[list[float | None]]
    on_test: int


@dataclass(frozen=True)
class Section:
    """One table with what belongs to it."""

    page: Page
    panels: list[Panel]
    costs: list[Cost]

    @property
    def left_out(self) -> list[str]:
        """What it has not, and why."""
        reasons = [f"{panel.title.lower()} ({panel.reason})" for panel in self.panels if not panel.figures]
        return reasons + ([] if self.costs else ["costs (no record has timings)"])


def render(tables: Sequence[Table], records: Sequence[Recorded]) -> str:
    """The whole report as one HTML file that loads nothing.

    Raises:
        UserError: if predictions that a figure needs are damaged.
    """
    environment = Environment(
        loader=PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"summary": _summary, "measure": _measure, "percent": _percent}
    environment.globals |= {"nothing": NOTHING, "level": LEVEL}
    return environment.get_template("report.html").render(
        sections=[Section(lay_out(table), panels(table), costs(table)) for table in tables],
        leaderboards=[_leaderboard(found) for found in results(tables)],
        unranked=[table.definition.title for table in tables if not compares_predictors(table)],
        leaks=[found for table in tables if (found := leaks(table, records)).rows or found.selected],
        versions=sorted({str(record.content.get("code_version", "unknown")) for record in records}),
        newest=max(record.started for record in records).date(),
        runs=len(records),
    )


def _leaderboard(found: Results) -> Leaderboard:
    rates, ranks = win_rates(found.values), mean_ranks(found.values)
    overall = [_mean(row) for row in rates]
    mean_rank = dict(zip(ranks.predictors, ranks.means, strict=True)) if ranks else {}
    order = sorted(range(len(found.labels)), key=lambda number: -1 if (rate := overall[number]) is None else -rate)
    entries = [entry for row in found.entries for entry in row if entry]
    return Leaderboard(
        results=found,
        standings=[
            Standing(
                label=found.labels[number],
                win_rate=overall[number],
                mean_rank=mean_rank.get(number),
                leads=sum(standing.leads for standing in found.tested(number)),
                tested=len(found.tested(number)),
                columns=int(np.isfinite(found.values[number]).sum()),
            )
            for number in order
        ],
        ranks=ranks,
        figure=_rank_figure(ranks, found.labels) if ranks else None,
        win_rates=[[_finite(rates[a, b]) for b in order] for a in order],
        on_test=sum(entry.cell.selects_on_test for entry in entries),
    )


def _rank_figure(ranks: Ranks, labels: Sequence[str]) -> Markup:
    height = 1.1 + 0.22 * (len(ranks.means) + 1) // 2 + 0.1 * len(ranks.groups())
    return drawn(
        partial(mean_rank_axis, ranks=ranks, labels=labels), (7.5, height), "Mean ranks with the critical difference"
    )


def _mean(rates: Floats) -> float | None:
    return float(np.nanmean(rates)) if np.isfinite(rates).any() else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _summary(summary: Summary | None, metric: Metric, *, signed: bool = False) -> str:
    return NOTHING if summary is None else summary.text(metric, signed=signed)


def _measure(value: float | None) -> str:
    """Three significant digits without an exponent."""
    if value is None:
        return NOTHING
    digits = max(0, 2 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:,.{digits}f}".replace("-", MINUS)
