"""A whole network as columns, and many of them as one store or one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.graph import GraphBatch
from datasets.network_hash import network_hash
from datasets.ragged import Ragged
from datasets.store import Columns


@dataclass(frozen=True)
class NetworkGraph:
    """A network of n nodes and e edges, nodes in topological order.

    Attributes:
        ops: (n,) positions in ``networks.OPERATIONS``.
        edges: (e, 2) parent, child; sorted.
        attributes: (n, 8) attribute slots (``networks.ATTRIBUTES``).
        output_shape: (n, 4) leading output dimensions, 0 where there are fewer.
        static: per-graph features by name (``networks.STATIC``).
        unknown: operators outside the vocabulary, by name, and how often each occurs.
        names: tensor that each node stands for.
    """

    ops: NDArray[np.int16]
    edges: NDArray[np.int32]
    attributes: NDArray[np.float32]
    output_shape: NDArray[np.float32]
    static: Mapping[str, float]
    unknown: Counter[str]
    names: tuple[str, ...]

    @property
    def hash(self) -> bytes:
        """The 16-byte canonical hash, the same for every order of the nodes."""
        return network_hash(self.ops, self.edges, np.concatenate([self.attributes, self.output_shape], 1))


def join(graphs: Sequence[NetworkGraph], keys: Sequence[str]) -> Columns:
    """The content of a store of B networks, at least one, under ``keys`` (B,), without labels."""
    return Columns(
        keys=keys,
        hashes=np.frombuffer(b"".join(graph.hash for graph in graphs), np.uint8).reshape(-1, 16),
        ops=_ragged(graphs, "ops"),
        edges=_ragged(graphs, "edges"),
        static=_static(graphs),
        labels={},
        attributes=_ragged(graphs, "attributes"),
        output_shape=_ragged(graphs, "output_shape"),
    )


def batch(graphs: Sequence[NetworkGraph]) -> GraphBatch:
    """One batch of B networks, at least one, without labels; rows are numbered in the order given."""
    ops, edges = _ragged(graphs, "ops"), _ragged(graphs, "edges")
    first_node = np.repeat(ops.offsets[:-1], edges.counts)
    return GraphBatch(
        op=torch.from_numpy(ops.values.astype(np.int64)),
        edge_index=torch.from_numpy(np.ascontiguousarray((edges.values + first_node[:, None]).T)),
        ptr=torch.from_numpy(ops.offsets),
        row=torch.arange(len(graphs)),
        static={name: torch.from_numpy(values).float() for name, values in _static(graphs).items()},
        labels={},
        target_name="",
        attributes=torch.from_numpy(_ragged(graphs, "attributes").values),
        output_shape=torch.from_numpy(_ragged(graphs, "output_shape").values),
    )


def _ragged(graphs: Sequence[NetworkGraph], column: Literal["ops", "edges", "attributes", "output_shape"]) -> Ragged:
    parts: list[NDArray[Any]] = [getattr(graph, column) for graph in graphs]
    return Ragged.from_counts(np.concatenate(parts), np.array([len(part) for part in parts]))


def _static(graphs: Sequence[NetworkGraph]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([graph.static[name] for graph in graphs], np.float64) for name in graphs[0].static}
