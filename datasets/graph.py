"""The graph types a predictor sees: ragged batches and their dense view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

ATTRIBUTE_SLOTS = 8
"""Numbers kept for the attributes of a node (NNLQP)."""

SHAPE_DIMENSIONS = 4
"""Leading output dimensions kept of a node (NNLQP)."""


@dataclass(frozen=True)
class TaskSpec:
    """What a predictor is asked to predict, and in which vocabulary its graphs are written.

    Attributes:
        task: ``accuracy`` or ``latency``.
        operations: operation names; an ``op`` id is a position in this tuple.
        static: names of the per-graph features in ``GraphBatch.static``.
        unit: unit of the label (``fraction``, ``ms``).
        attributes: meaning of the leading ``ATTRIBUTE_SLOTS`` of each operation that has any; empty for cells.
        platforms: devices that labels were measured on; a graph's ``platform`` is a position in this tuple.
    """

    task: str
    operations: tuple[str, ...]
    static: tuple[str, ...]
    unit: str
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()

    @property
    def whole_networks(self) -> bool:
        """Whether the graphs are whole networks, whose nodes have attributes and output shapes; cells have neither."""
        return bool(self.attributes)


@dataclass(frozen=True)
class DenseGraphs:
    """Graphs padded to the largest of the batch (L nodes); padding is False in ``mask`` and ``adjacency``.

    Attributes:
        op: operation ids (B, L), 0 where padded.
        mask: True where a node exists (B, L).
        adjacency: ``adjacency[b, i, j]`` is True where data flows from node i to node j (B, L, L).
    """

    op: Tensor
    mask: Tensor
    adjacency: Tensor

    @property
    def count(self) -> Tensor:
        """Nodes of each graph (B,)."""
        return self.mask.sum(1)


@dataclass(frozen=True)
class GraphBatch:
    """B graphs with N nodes and E edges in all, ragged and PyG-compatible; nodes are in topological order.

    Attributes:
        op: operation ids (N,).
        edge_index: (2, E) parent row 0, child row 1, numbered over the whole batch.
        ptr: (B + 1,) first node of each graph, and N.
        row: (B,) row of each graph in its store: the sample id that predictions are gathered by.
        static: per-graph features (B,) by name.
        labels: per-graph labels (B,) by name; NaN where the benchmark has none.
        target_name: the label to predict.
        attributes: (N, ATTRIBUTE_SLOTS) operation attributes, of whole networks.
        output_shape: (N, SHAPE_DIMENSIONS) output dimensions, of whole networks; 0 where there are fewer.
        platform: (B,) device of each label, where the benchmark has several.
        weight: factor of the loss in training: not 1 where several processes share a batch unevenly.
    """

    op: Tensor
    edge_index: Tensor
    ptr: Tensor
    row: Tensor
    static: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    target_name: str
    attributes: Tensor | None = None
    output_shape: Tensor | None = None
    platform: Tensor | None = None
    weight: float = 1.0

    def __len__(self) -> int:
        return self.row.shape[0]

    @property
    def target(self) -> Tensor:
        """The label to predict (B,)."""
        return self.labels[self.target_name]

    @property
    def count(self) -> Tensor:
        """Nodes of each graph (B,)."""
        return self.ptr.diff()

    @cached_property
    def batch(self) -> Tensor:
        """Graph of each node (N,)."""
        return torch.repeat_interleave(self.count, output_size=self.op.shape[0])

    @cached_property
    def position(self) -> Tensor:
        """Index of each node within its graph (N,)."""
        return torch.arange(self.op.shape[0], device=self.op.device) - self.ptr[:-1][self.batch]

    @cached_property
    def dense(self) -> DenseGraphs:
        """The padded view, built once."""
        size = int(self.count.max()) if len(self) else 0
        shape = (len(self), size)
        op = self.op.new_zeros(shape)
        mask = torch.zeros(shape, dtype=torch.bool, device=op.device)
        adjacency = torch.zeros((*shape, size), dtype=torch.bool, device=op.device)
        op[self.batch, self.position] = self.op
        mask[self.batch, self.position] = True
        parent, child = self.edge_index
        adjacency[self.batch[parent], self.position[parent], self.position[child]] = True
        return DenseGraphs(op, mask, adjacency)

    def to(self, *args: Any, **kwargs: Any) -> GraphBatch:
        """Move every tensor, as ``Tensor.to`` (Lightning's transfer hook)."""
        moved: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Tensor):
                moved[part.name] = value.to(*args, **kwargs)
            elif isinstance(value, Mapping):
                moved[part.name] = {name: tensor.to(*args, **kwargs) for name, tensor in value.items()}
        return replace(self, **moved)
