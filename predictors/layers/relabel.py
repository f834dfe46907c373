"""Other topological orders of the same graphs, found for a whole batch at once; the first and the last node stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from datasets.errors import UserError
from datasets.graph import DenseGraphs

MOST_NODES = 8
"""Largest graph whose orders are enumerated: 6! = 720 of them."""


def relabel(graphs: DenseGraphs, order: Tensor) -> DenseGraphs:
    """Put node ``order[b, i]`` (B, L) in place i of graph b; padding must stay where it is."""
    rows = graphs.adjacency.gather(1, order[:, :, None].expand_as(graphs.adjacency))
    return DenseGraphs(graphs.op.gather(1, order), graphs.mask, rows.gather(2, order[:, None].expand_as(rows)))


def swap_last(graphs: DenseGraphs) -> DenseGraphs:
    """Swap the last two inner nodes of every graph in which no edge joins them: NAR-Former's code tries nothing else."""
    size = graphs.op.shape[1]
    order = torch.arange(size, device=graphs.op.device).repeat(len(graphs.op), 1)
    first = (graphs.count - 3).clamp(min=0)[:, None]
    second = (first + 1).clamp(max=size - 1)
    joined = graphs.adjacency.flatten(1).gather(1, first * size + second)
    stay = joined | (graphs.count < 4)[:, None]
    order = order.scatter(1, first, torch.where(stay, first, second))
    order = order.scatter(1, second, torch.where(stay, second, first))
    return relabel(graphs, order)


def uniform(graphs: DenseGraphs) -> DenseGraphs:
    """Draw one of all topological orders of each graph, equally likely.

    Raises:
        UserError: for graphs of more than ``MOST_NODES`` nodes.
    """
    orders, valid = _valid_orders(graphs, "uniform")
    drawn = torch.multinomial(valid.float(), 1).squeeze(1)
    return relabel(graphs, orders[drawn])


def first(graphs: DenseGraphs) -> DenseGraphs:
    """Give each graph its lexicographically first topological order that changes it: NAR-Former V2's code stops there.

    An order changes a graph if its adjacency or its operations are then others. A graph that none changes stays.

    Raises:
        UserError: for graphs of more than ``MOST_NODES`` nodes.
    """
    orders, valid = _valid_orders(graphs, "first")
    row, number = valid.nonzero(as_tuple=True)
    given = DenseGraphs(graphs.op[row], graphs.mask[row], graphs.adjacency[row])
    other = relabel(given, orders[number])
    changed = (other.op != given.op).any(1) | (other.adjacency != given.adjacency).flatten(1).any(1)
    chosen = torch.zeros_like(graphs.count).scatter_reduce(0, row[changed], number[changed], "amin", include_self=False)
    return relabel(graphs, orders[chosen])


def same(graphs: DenseGraphs) -> DenseGraphs:
    """The graphs themselves."""
    return graphs


AUGMENTATIONS: dict[str, Callable[[DenseGraphs], DenseGraphs]] = {
    "paper": swap_last,
    "first": first,
    "uniform": uniform,
    "none": same,
}


def _valid_orders(graphs: DenseGraphs, augmentation: str) -> tuple[Tensor, Tensor]:
    """Lexicographic orders (P, L), and (B, P) which of them are topological orders of each graph that keep its last node.

    Raises:
        UserError: for graphs of more than ``MOST_NODES`` nodes.
    """
    size = graphs.op.shape[1]
    if size > MOST_NODES:
        raise UserError(
            f"augmentation={augmentation} enumerates the orders of at most {MOST_NODES} nodes, a graph has {size}: "
            "choose none"
        )
    orders, reversing, last_moved = _orders(size, graphs.op.device)
    broken = graphs.adjacency.flatten(1).float() @ reversing
    return orders, (broken == 0) & (last_moved < (graphs.count[:, None] - 1).clamp(min=1))


@lru_cache
def _orders(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """All P orders of ``size`` nodes that keep both ends, the pairs each reverses and the last node it moves.

    The orders are (P, size), lexicographic; the pairs are (size^2, P) float, 1 at (a * size + b, p) where order p puts a
    after b; the last node moved is (P,), 0 for the order that moves none.
    """
    nodes = torch.arange(size)
    inner = list(permutations(range(1, size - 1)))
    orders = nodes.repeat(len(inner), 1)
    orders[:, 1 : size - 1] = torch.tensor(inner)
    place = orders.argsort(1)
    reversing = (place[:, :, None] > place[:, None, :]).flatten(1).float().T
    last_moved = torch.where(orders != nodes, nodes, 0).amax(1)
    return orders.to(device), reversing.to(device), last_moved.to(device)
