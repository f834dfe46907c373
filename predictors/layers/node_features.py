"""What graph networks read of a graph: one row a node, both directions of edges, logarithms of the per-graph features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.graph import GraphBatch, TaskSpec
from predictors.layers.network_features import NormalisedNodes


class OneHotNodes(nn.Module):
    """One-hot operations.

    Args:
        operations: size of the vocabulary.

    Attributes:
        width: columns of the result.
    """

    codes: Tensor

    def __init__(self, operations: int) -> None:
        super().__init__()
        self.width = operations
        self.register_buffer("codes", torch.eye(operations), persistent=False)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Nodes (N, width)."""
        return F.embedding(batch.op, self.codes)


def node_features(spec: TaskSpec) -> OneHotNodes | NormalisedNodes:
    """One-hot operations of cells; NNLP's 44 columns of whole networks."""
    return NormalisedNodes(spec) if spec.whole_networks else OneHotNodes(len(spec.operations))


def both_ways(edge_index: Tensor) -> Tensor:
    """Every edge and its reverse (2, 2E)."""
    return torch.cat([edge_index, edge_index.flip(0)], 1)


def log10_static(batch: GraphBatch, names: Sequence[str]) -> Tensor:
    """Base-10 logarithms of the per-graph features ``names`` (B, S); values below 1 are read as 1."""
    return torch.stack([batch.static[name].clamp(min=1).log10() for name in names], 1)
