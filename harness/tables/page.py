"""A built table as text, before any markup: what every format shows alike."""

from __future__ import annotations

from dataclasses import dataclass

from harness.metric_facts import COSTS, Metric
from harness.tables.build import LEVEL, Entry, Table
from harness.tables.cells import Summary
from harness.tables.comparison import GRAPHS
from harness.tables.costs import machine
from harness.tables.definition import Column
from harness.tables.missing import commands

NOTHING = "\N{EN DASH}"

MEASURED = ("train_seconds", "ms_per_architecture", "peak_memory_mb")
"""Costs that depend on the machine."""


@dataclass(frozen=True)
class Line:
    """One line of a cell and the numbers of its footnotes."""

    text: str
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Field:
    """A cell: the result, and below it the published figure if there is one."""

    lines: tuple[Line, ...]
    bold: bool = False


@dataclass(frozen=True)
class Page:
    """Everything a format has to set.

    Attributes:
        title: heading.
        name: of the table.
        headings: of the columns, two lines each; the first column has the predictors and none.
        labels: of the rows.
        fields: one for each row and heading.
        footnotes: numbered from 1.
        remarks: paragraphs below.
        missing: commands that would run what is missing.
    """

    title: str
    name: str
    headings: list[tuple[str, str]]
    labels: list[str]
    fields: list[list[Field]]
    footnotes: list[str]
    remarks: list[str]
    missing: list[str]


def lay_out(table: Table) -> Page:
    """Put a table into words."""
    shown, footnotes = table.shown(), _Footnotes()
    return Page(
        title=_title(table),
        name=table.definition.name,
        headings=[(table.columns[n].label, _protocol(table.columns[n])) for n in shown],
        labels=[row.label for row in table.definition.rows],
        fields=[[_field(entries[n], footnotes) for n in shown] for entries in table.entries],
        footnotes=footnotes.texts,
        remarks=[*_remarks(table), *table.definition.notes],
        missing=commands(table),
    )


def _title(table: Table) -> str:
    if table.shows_costs:
        return table.definition.title
    return f"{table.definition.title}: {table.metric.title} {table.metric.arrow}"


class _Footnotes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def marks(self, texts: list[str]) -> tuple[int, ...]:
        self.texts += [text for text in dict.fromkeys(texts) if text not in self.texts]
        return tuple(sorted({self.texts.index(text) + 1 for text in texts}))


def _field(entry: Entry, footnotes: _Footnotes) -> Field:
    metric = entry.metric
    lines = [Line(_result(entry.summary, metric), footnotes.marks(_reservations(entry)))]
    if entry.published:
        lines.append(Line(_published(entry, metric), footnotes.marks([f"Published: {entry.published.provenance}."])))
    return Field(tuple(lines), entry.standing.leads)


def _result(summary: Summary | None, metric: Metric) -> str:
    return NOTHING if summary is None else f"{summary.text(metric)} ({summary.count})"


def _published(entry: Entry, metric: Metric) -> str:
    figure = metric.text(entry.published.value) if entry.published else ""
    return figure if entry.delta is None else f"{figure}, {metric.text(entry.delta, signed=True)}"


def _reservations(entry: Entry) -> list[str]:
    count, standing = entry.cell.configurations, entry.standing
    texts = []
    if entry.summary and entry.column.metric in MEASURED:
        texts.append(f"Measured on: {'; '.join(sorted({machine(run.content) for run in entry.cell.runs.values()}))}.")
    if count > 1:
        texts.append(f"Of {count} recorded configurations the best by validation, those with all seeds first.")
    if entry.cell.outdated:
        texts.append(f"Left out: {entry.cell.outdated} runs under an older version of the protocol or on older data.")
    if entry.cell.assumed:
        texts.append(f"Runs older than the settings {', '.join(entry.cell.assumed)} count as having today's defaults.")
    if entry.failed and entry.column.metric not in COSTS:
        texts.append(f"The metric failed in {entry.failed} of {len(entry.cell.runs)} runs, which are left out.")
    if entry.cell.selects_on_test:
        texts.append("The checkpoint was selected on test labels, as published.")
    if entry.cell.starts_from_scored:
        texts.append("The encoder that training started from knows labels of graphs that select or are tested.")
    if standing.place == "untested":
        texts.append(f"Untested against the best: {standing.reason}.")
    elif standing.seeds and not standing.trainings:
        texts.append("Compared with the best on one common seed: a test of these trained models, not of training.")
    elif standing.seeds == 1:
        texts.append("Compared with the best on one common seed; how trainings vary is taken from the rest of the column.")
    return texts


def _remarks(table: Table) -> list[str]:
    remarks = [
        "Mean ± half of the 95 % confidence interval over seeds (number of seeds)."
        + (" Below it the published figure and our difference from it." if _any_published(table) else "")
    ]
    places = {entry.standing.place for row in table.entries for entry in row}
    if places & {"tied", "worse"}:
        remarks.append(
            "Bold: the best of the column and what does not differ from it significantly: paired test, test graphs "
            f"({GRAPHS:,} at most) resampled, variance between seeds moderated over the column, p < {LEVEL} corrected for "
            "all pairs (Holm)."
        )
    elif "best" in places:
        remarks.append("Bold: the best of the column; no difference was tested.")
    return remarks


def _any_published(table: Table) -> bool:
    return any(entry.published for row in table.entries for entry in row)


def _protocol(column: Column) -> str:
    cost = COSTS[column.metric].title if column.metric in COSTS else None
    return ", ".join(filter(None, (column.protocol, column.family, column.platform, cost)))
