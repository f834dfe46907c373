"""The figures below a table, each left out with a reason where the runs do not have what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from markupsafe import Markup

from harness.records import test_predictions
from harness.report.figures import (
    CENTRE,
    Series,
    bar_swatch,
    drawn,
    family_bars,
    learning_curves,
    line_swatch,
    predicted_against_true,
)
from harness.tables.build import Entry, Table
from harness.tables.definition import Column
from harness.tables.recorded import Recorded


@dataclass(frozen=True)
class Panel:
    """Figures of one kind.

    Attributes:
        title: heading.
        caption: what they show.
        reason: why there are none.
        figures: headings and inline SVG.
        legend: numbers of the series shown.
        swatch: what the legend has for a series.
    """

    title: str
    caption: str
    reason: str
    figures: list[tuple[str, Markup]] = field(default_factory=list)
    legend: list[int] = field(default_factory=list)
    swatch: Callable[[int], Markup] = line_swatch


def curves(table: Table) -> Panel:
    """Learning curves, a figure for all columns that differ in the training size alone."""
    settings = _settings(table, "train")
    found = [(setting, series) for setting, series in settings if any(len(one.points) > 1 for one in series)]
    every = [one for _, series in found for one in series]
    figures = []
    for setting, series in found:
        draw = partial(learning_curves, series=series, every=every, metric=table.metric)
        figures.append((setting, drawn(draw, (5.6, 3.5), f"Learning curves, {setting}")))
    return Panel(
        title="Learning curves",
        caption="Mean and 95 % confidence interval over seeds, cut off at the edge. Crosses: published figures.",
        reason="no predictor has runs at two training sizes",
        figures=figures,
        legend=sorted({one.number for one in every}),
    )


def families(table: Table) -> Panel:
    """Bars of each family that is held out, a figure for all columns that differ in the family alone."""
    settings = [(setting, [one for one in series if one.points]) for setting, series in _settings(table, "family")]
    found = [(setting, series) for setting, series in settings if series]
    figures = []
    for setting, series in found:
        names = list(dict.fromkeys(family for one in series for family in one.points))
        draw = partial(family_bars, families=names, series=series, metric=table.metric)
        width = min(12.0, 1.2 + len(names) * (0.5 + 0.16 * len(series)))
        figures.append((setting, drawn(draw, (max(width, 4.0), 3.4), f"By family, {setting}")))
    return Panel(
        title="By family",
        caption="Mean and 95 % confidence interval over seeds, cut off at the edge, on the family that was held out.",
        reason="no column that holds out a family has runs",
        figures=figures,
        legend=sorted({one.number for _, series in found for one in series}),
        swatch=bar_swatch,
    )


def scatters(table: Table) -> Panel:
    """Predicted against true labels, for each data set in the column that most predictors have predictions of."""
    figures, shown = [], []
    for dataset in dict.fromkeys(column.dataset for column in table.columns):
        numbers = [number for number, column in enumerate(table.columns) if column.dataset == dataset]
        number = max(numbers, key=lambda number: _scatter_preference(table, number))
        found = [(row[number], run) for row in table.entries if (run := _first_predictions(row[number]))]
        if found:
            figures += [_scatter(table, entry, run) for entry, run in found]
            shown.append(_words(table.columns[number]))
    return Panel(
        title="Predicted against true",
        caption=f"Test architectures of {'; '.join(shown)}, the run with the first seed. What lies outside the central "
        f"{100 * CENTRE:.0f} % of the labels is drawn at the edge; colour, where points are many, is density.",
        reason="no run kept its predictions",
        figures=figures,
    )


def panels(table: Table) -> list[Panel]:
    """Every kind of figure."""
    return [curves(table), families(table), scatters(table)]


def _settings(table: Table, key: str) -> list[tuple[str, list[Series]]]:
    """What columns share that differ in ``key`` alone, in words, and their series; costs but for the first are left out."""
    without: dict[str, Any] = {key: None}
    groups: dict[str, list[int]] = {}
    for number in table.shown():
        column = table.columns[number]
        if getattr(column, key) is not None and column.metric == table.definition.metric:
            groups.setdefault(replace(column, **without).setting, []).append(number)
    return [
        (
            _words(replace(table.columns[numbers[0]], **without)),
            _series(([row[number] for number in numbers] for row in table.entries), key),
        )
        for numbers in groups.values()
    ]


def _series(rows: Iterable[Sequence[Entry]], key: str) -> list[Series]:
    series = []
    for number, entries in enumerate(rows):
        points = {getattr(entry.column, key): entry.summary for entry in entries if entry.summary}
        published = {getattr(entry.column, key): entry.published.value for entry in entries if entry.published}
        if points or published:
            series.append(Series(number, points, published))
    return series


def _words(column: Column) -> str:
    size = f"{column.train:,} training architectures" if column.train else None
    held_out = f"without {column.family}" if column.family else None
    settings = [f"{key.rpartition('.')[2]} {value}" for key, value in column.config.items()]
    return ", ".join(filter(None, (column.dataset, column.protocol, size, held_out, column.platform, *settings)))


def _scatter_preference(table: Table, number: int) -> tuple[int, bool, int]:
    column = table.columns[number]
    kept = sum(_first_predictions(row[number]) is not None for row in table.entries)
    return kept, column.protocol != "paper", column.train or 0


def _first_predictions(entry: Entry) -> Recorded | None:
    return next((run for run in entry.cell.runs.values() if run.predictions and entry.summary), None)


def _scatter(table: Table, entry: Entry, run: Recorded) -> tuple[str, Markup]:
    assert run.predictions
    found = test_predictions(run.predictions)
    label, prediction = (found[name].to_numpy().astype(float) for name in ("label", "prediction"))
    draw = partial(
        predicted_against_true, label=label, prediction=prediction, unit=run.content["dataset"].get("unit", "label")
    )
    value = run.test(table.definition.metric)
    heading = f"{entry.row.label}: {'failed' if value is None else table.metric.text(value)}"
    return heading, drawn(draw, (2.65, 2.6), f"{entry.row.label}: predicted against true")
