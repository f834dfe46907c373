"""Fixed-length descriptions of graphs of any size and vocabulary, the same in every batch and for every node order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datasets.graph import GraphBatch

SMALLEST_STATIC = 1e-6
"""Per-graph features are positive counts; a zero is read as this, to keep its logarithm finite."""


def log_static(batch: GraphBatch, names: Sequence[str]) -> Tensor:
    """Natural logarithm of the per-graph features ``names`` (B, len(names)), float64."""
    columns = [batch.static[name].double().clamp(min=SMALLEST_STATIC).log() for name in names]
    return torch.stack(columns, 1) if columns else torch.empty(len(batch), 0, dtype=torch.float64)


def graph_features(batch: GraphBatch, operations: int, walk: int) -> Tensor:
    """Order-free counts (B, 3 + V + walk * V**2) for V ``operations``, float64.

    Columns: nodes, edges, edges of the longest path; nodes of each operation; then, for each length 1..``walk``, the
    directed walks of that many edges from a node of operation ``a`` to one of operation ``b``, at ``b * V + a``.
    """
    graphs, device = len(batch), batch.op.device
    edges = torch.bincount(batch.batch[batch.edge_index[0]], minlength=graphs)
    longest = torch.zeros(graphs, dtype=torch.long, device=device).scatter_reduce(0, batch.batch, depth(batch), "amax")
    slot = batch.batch * operations + batch.op
    counts = torch.bincount(slot, minlength=graphs * operations).view(graphs, operations)
    columns = [torch.stack([batch.count, edges, longest], 1).double(), counts.double()]
    arriving = torch.nn.functional.one_hot(batch.op, operations).double()
    for _ in range(walk):
        arriving = torch.zeros_like(arriving).index_add_(0, batch.edge_index[1], arriving[batch.edge_index[0]])
        pairs = arriving.new_zeros(graphs * operations, operations).index_add_(0, slot, arriving)
        columns.append(pairs.view(graphs, -1))
    return torch.cat(columns, 1)


def depth(batch: GraphBatch) -> Tensor:
    """Edges of the longest path that ends at each node (N,)."""
    parent, child = batch.edge_index
    level = torch.zeros_like(batch.op)
    for _ in range(int(batch.count.max()) - 1):
        deeper = level.scatter_reduce(0, child, level[parent] + 1, "amax")
        if torch.equal(deeper, level):
            break
        level = deeper
    return level
