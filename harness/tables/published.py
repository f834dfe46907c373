"""Published figures, with their sources."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import UserError
from harness.tables.definition import RESULTS, Column, Row

FIELDS = (
    *("paper", "table", "predictor", "variant", "dataset", "protocol", "train", "test", "family"),
    *("metric", "statistic", "value", "source", "confidence", "note"),
)
"""Columns of ``results/paper/*.csv``; predictor, dataset, protocol and metric are narbench's names."""


@dataclass(frozen=True)
class Published:
    """One published figure; a field that the source does not give is empty.

    Attributes:
        paper: where it was published, as far as known.
        table: the paper's name for the result.
        predictor: registered name.
        variant: what was changed in the predictor; empty for the predictor itself.
        dataset: name of the benchmark.
        protocol: narbench's protocol nearest to the published one.
        train: training graphs.
        test: test graphs, a count or ``all``.
        family: the family that was held out.
        metric: as in a record.
        statistic: ``mean`` or ``best`` of several runs.
        value: in the metric's unit.
        source: what the figure was read from.
        confidence: in the source: high, medium or low.
        note: what else is to be known.
    """

    paper: str
    table: str
    predictor: str
    variant: str
    dataset: str
    protocol: str
    train: str
    test: str
    family: str
    metric: str
    statistic: str
    value: float
    source: str
    confidence: str
    note: str

    @property
    def provenance(self) -> str:
        """Source, confidence and note in one line."""
        extent = "" if self.test in ("", "all") else f"{self.test} test graphs"
        return "; ".join(filter(None, (f"{self.source} (confidence {self.confidence})", extent, self.note)))


def read_published(folder: Path = RESULTS / "paper") -> list[Published]:
    """Every figure of the folder's CSV files.

    Raises:
        UserError: naming file and line for other columns or a value that is no number.
    """
    return [figure for path in sorted(folder.glob("*.csv")) for figure in _read(path)]


def find_published(figures: Iterable[Published], row: Row, column: Column, metric: str) -> Published | None:
    """The figure of a cell: a mean or an unspecified one, never the best of several runs.

    Raises:
        UserError: if there are several.
    """
    wanted = {
        "predictor": row.predictor,
        "variant": row.variant,
        "dataset": column.dataset,
        "protocol": column.protocol,
        "train": "" if column.train is None else str(column.train),
        "family": column.family or "",
        "metric": metric,
    }
    found = [
        figure
        for figure in figures
        if figure.statistic != "best" and all(getattr(figure, key) == value for key, value in wanted.items())
    ]
    if len(found) > 1:
        raise UserError(f"results/paper: {len(found)} figures for {wanted}; keep one, or give the others a variant")
    return found[0] if found else None


def _read(path: Path) -> list[Published]:
    with path.open(newline="") as lines:
        reader = csv.DictReader(lines, restval="")
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise UserError(f"{path}: its columns must be {','.join(FIELDS)}")
        return [_figure(row, f"{path}, line {reader.line_num}") for row in reader]


def _figure(row: dict[str, str], where: str) -> Published:
    try:
        value = float(row["value"])
    except ValueError:
        raise UserError(f"{where}: value {row['value']!r} is no number; write one") from None
    return Published(**{key: row[key] for key in FIELDS if key != "value"}, value=value)
