"""What a run was trained on, kept in its record so that a network unlike it can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.base import Benchmark
from datasets.network_graph import NetworkGraph


@dataclass(frozen=True)
class Ranges:
    """Extent of the training graphs.

    Attributes:
        operations: names of the operations that occur.
        features: least and greatest number of nodes, and value of each per-graph feature.
        platforms: devices of the labels, where the benchmark has several; older records lack them.
    """

    operations: Sequence[str]
    features: Mapping[str, tuple[float, float]]
    platforms: Sequence[str] = ()

    @classmethod
    def of(cls, data: Benchmark) -> Ranges:
        """The training rows of a benchmark that is set up."""
        rows, names = data.parts.train, data.store.manifest.operations
        found = np.unique(data.store.ops.take(rows)[0])
        columns: dict[str, NDArray[Any]] = {"nodes": data.store.ops.counts[rows]}
        columns |= {name: data.store.static(name)[rows] for name in data.store.manifest.static}
        extents = {name: _extent(values) for name, values in columns.items()}
        known, platform = data.store.platforms
        platforms = [known[i] for i in np.unique(platform[rows])] if known else []
        return cls([names[i] for i in found], {name: extent for name, extent in extents.items() if extent}, platforms)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def remarks(self, graph: NetworkGraph, operations: Sequence[str]) -> list[str]:
        """In what a network goes beyond the training graphs, a sentence each.

        Args:
            graph: the network.
            operations: the vocabulary of its ``ops``.
        """
        remarks = []
        if graph.unknown:
            remarks.append(f"operators outside the vocabulary: {_counts(graph.unknown)}")
        known = Counter(operations[op] for op in graph.ops)
        new = {name: count for name, count in known.items() if name not in (*self.operations, "Unknown")}
        if new:
            remarks.append(f"operators that no training network has: {_counts(new)}")
        values = {"nodes": float(len(graph.ops)), **graph.static}
        for name, (low, high) in self.features.items():
            if not low <= values[name] <= high:
                side = "below" if values[name] < low else "above"
                extent = f"{low:,.0f} to {high:,.0f}" if low < high else f"which is {low:,.0f}"
                remarks.append(f"{name} {values[name]:,.0f} is {side} the training range, {extent}")
        return remarks


def _extent(values: NDArray[Any]) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
