"""What ``narbench data describe`` prints; fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from datasets.base import Benchmark
from datasets.errors import UserError
from datasets.protocols import VERSIONS, split
from datasets.store import GraphStore

_EIGHTHS = " ▏▎▍▌▋▊▉"
_BINS = 14
_BAR = 48
_LISTED = 8


def print_description(benchmark: Benchmark, console: Console) -> None:
    """Print everything the store and the protocols say about a benchmark.

    Raises:
        UserError: if its store cannot be opened.
    """
    store = benchmark.open_store()
    target = store.first_label(benchmark.config.labels.test)
    console.print(Text.assemble((store.manifest.name, "bold"), f"  {benchmark.task}, in {benchmark.unit}\n"))
    console.print(_facts(benchmark, store))
    console.print(_section("Labels", _labels(benchmark, store)))
    if store.manifest.static:
        console.print(_section("Per-graph features", _features(store)))
    if store.manifest.notes:
        console.print(_section("Notes", _pairs(_flat(store.manifest.notes))))
    console.print(_section("Protocols", _protocols(benchmark, store)))
    console.print(_section(f"{target}, {store.manifest.labels[target]}", histogram(store.label(target))))


def histogram(values: NDArray[np.float64]) -> Text:
    """Horizontal bars of the finite values, outliers (beyond three interquartile ranges) counted in the outer bars."""
    values = values[np.isfinite(values)]
    edges = _edges(values)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    decimals = max(0, 1 - int(np.floor(np.log10(edges[1] - edges[0]))))
    text = Text()
    for i, count in enumerate(counts):
        low, high = (f"{edge:,.{decimals}f}" for edge in edges[i : i + 2])
        label = f"< {high}" if i == 0 else f"≥ {low}" if i == _BINS - 1 else f"{low} - {high}"
        text.append(f"{label:>19} ", "dim").append(_bar(count / max(counts.max(), 1)), "cyan").append(f" {count:,}\n")
    return text


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(values):
        return np.linspace(0, 1, _BINS + 1)
    quarter, three_quarters = np.quantile(values, [0.25, 0.75])
    reach = 3 * (three_quarters - quarter)
    low, high = max(values.min(), quarter - reach), min(values.max(), three_quarters + reach)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _facts(benchmark: Benchmark, store: GraphStore) -> Table:
    manifest = store.manifest
    unique = len(np.unique(store.hashes, axis=0))
    facts = {
        "rows": f"{len(store):,}",
        "unique graphs": f"{unique:,} ({unique / len(store):.1%}) by canonical hash",
        "nodes": _range(store.ops.counts),
        "edges": _range(store.edges.counts),
        "operations": ", ".join(manifest.operations),
        "labels": "\n".join(f"{role} {name}" for role, name in _roles(benchmark, store).items()),
        "source": str(manifest.source["file"]),
        "sha256": manifest.source["sha256"] or "none: it is a folder",
        "store": str(store.folder),
        "fingerprint": manifest.fingerprint,
    }
    return _pairs(facts.items())


def _labels(benchmark: Benchmark, store: GraphStore) -> Table:
    used = _roles(benchmark, store).values()
    table = _table("label", "unit", number=("count", "min", "median", "max"))
    for name, unit in store.manifest.labels.items():
        table.add_row(name, unit, *_statistics(store.label(name)), style="bold" if name in used else "")
    return table


def _roles(benchmark: Benchmark, store: GraphStore) -> dict[str, str]:
    return {role: store.first_label(names) for role, names in vars(benchmark.config.labels).items()}


def _features(store: GraphStore) -> Table:
    table = _table("feature", "unit", number=("count", "min", "median", "max"))
    for name, unit in store.manifest.static.items():
        table.add_row(name, unit, *_statistics(store.static(name)))
    return table


def _protocols(benchmark: Benchmark, store: GraphStore) -> Table:
    table = _table("protocol", number=("train", "val", "test"), last="remarks")
    for name in VERSIONS:
        try:
            parts = split(store, replace(benchmark.protocol, name=name), benchmark.config.labels)
        except UserError as error:
            table.add_row(name, "", "", "", str(error))
            continue
        sizes = [f"{len(rows):,}" for rows in (parts.train, parts.val, parts.test)]
        left_out = [f"{count:,} left out: {reason}" for reason, count in parts.excluded.items() if count]
        table.add_row(name, *sizes, "; ".join([parts.leaks, *left_out]).strip("; "))
    return table


def _statistics(values: NDArray[Any]) -> list[str]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ["0", "", "", ""]
    return [f"{len(finite):,}", *(_number(value) for value in np.quantile(finite, [0, 0.5, 1]))]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _range(counts: NDArray[np.int64]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low} per graph" if low == high else f"{low} to {high} per graph"


def _flat(notes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in notes.items():
        lines = "\n".join if name.startswith("noise") else ", ".join
        text = (
            lines(f"{key} {_brief(item)}" for key, item in value.items()) if isinstance(value, Mapping) else _brief(value)
        )
        yield name.replace("_", " "), text


def _brief(value: Any) -> str:
    """A value in words, a long list as its number of entries."""
    return f"{len(value)} in all" if isinstance(value, list) and len(value) > _LISTED else str(value)


def _section(title: str, body: RenderableType) -> Group:
    return Group(Text(f"\n{title}", "bold"), body)


def _pairs(items: Any) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in items:
        grid.add_row(name, Text(value))
    return grid


def _table(*columns: str, number: tuple[str, ...], last: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name)
    for name in number:
        table.add_column(name, justify="right", no_wrap=True)
    if last:
        table.add_column(last)
    return table
