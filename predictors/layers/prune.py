"""Dropping nodes that compute nothing from dense graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.graph import DenseGraphs


def prune(graphs: DenseGraphs, none: int, keep: tuple[int, int]) -> DenseGraphs:
    """Drop ``none`` nodes, then nodes not within three edges of both ends; remaining nodes move up, order kept.

    This is what NN-Former does to NAS-Bench-201 cells: a node stays if the input reaches it and it reaches the output
    within three edges. The ends always stay.

    Args:
        graphs: padded graphs.
        none: id of the operation that outputs zero.
        keep: ids of the input and of the output operation.
    """
    first = (graphs.op == keep[0]) & graphs.mask
    last = (graphs.op == keep[1]) & graphs.mask
    alive = graphs.mask & (graphs.op != none)
    links = (graphs.adjacency & alive[:, :, None] & alive[:, None, :]).float()
    reached, reaching = first.float(), last.float()
    for _ in range(3):
        reached = (reached + torch.einsum("bi,bij->bj", reached, links)).clamp(max=1)
        reaching = (reaching + torch.einsum("bij,bj->bi", links, reaching)).clamp(max=1)
    stay = first | last | (alive & (reached > 0) & (reaching > 0))
    return compact(graphs, stay)


def compact(graphs: DenseGraphs, stay: Tensor) -> DenseGraphs:
    """Keep the nodes where ``stay`` (B, L) is True and pad to the largest graph that remains."""
    size = int(stay.sum(1).max())
    order = torch.argsort(~stay, dim=1, stable=True)[:, :size]
    mask = stay.gather(1, order)
    rows = graphs.adjacency.gather(1, order[:, :, None].expand(-1, -1, graphs.adjacency.shape[2]))
    adjacency = rows.gather(2, order[:, None, :].expand(-1, size, -1))
    op = graphs.op.gather(1, order).masked_fill(~mask, 0)
    return DenseGraphs(op, mask, adjacency & mask[:, :, None] & mask[:, None, :])
