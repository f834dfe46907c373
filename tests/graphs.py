"""Synthetic batches of cells, built directly, and the same graphs picked or relabelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.graph import GraphBatch, TaskSpec
from datasets.networks import ATTRIBUTES, OPERATIONS
from harness.bench_attention import LAYOUTS
from predictors.layers import pairs

LABEL = "accuracy"
STATIC = ("batch", "flops", "params", "memory")
NAMES = ("input", "conv1x1", "conv3x3", "pool", "skip", "none", "output")

Graph = tuple[list[int], list[tuple[int, int]]]


def cell_spec(operations: int = len(NAMES)) -> TaskSpec:
    """The task the synthetic cells belong to; of a longer vocabulary the middle is filled up."""
    middle = (*NAMES[1:-1], *(f"op{i}" for i in range(operations)))[: operations - 2]
    return TaskSpec("accuracy", (NAMES[0], *middle, NAMES[-1]), STATIC, "fraction")


def network_spec(platforms: Sequence[str] = ()) -> TaskSpec:
    """The task of latencies of whole networks."""
    return TaskSpec("latency", OPERATIONS, STATIC, "ms", ATTRIBUTES, tuple(platforms))


def cells(graphs: Sequence[Graph], params: Sequence[float]) -> GraphBatch:
    """A batch of (operation ids, edges) graphs whose label rises with ``params``; attributes follow from the operation."""
    ptr = np.concatenate([[0], np.cumsum([len(op) for op, _ in graphs])])
    edges = [(a + first, b + first) for (_, pairs), first in zip(graphs, ptr, strict=False) for a, b in pairs]
    op = torch.tensor([i for ops, _ in graphs for i in ops])
    size = torch.tensor(params, dtype=torch.float32)
    return GraphBatch(
        op=op,
        edge_index=torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T.contiguous(),
        ptr=torch.from_numpy(ptr),
        row=torch.arange(len(graphs)),
        static={"batch": torch.ones_like(size), "flops": 1000 * size, "params": size, "memory": 4 * size},
        labels={LABEL: 0.5 * torch.log10(size / 1e5)},
        target_name=LABEL,
        attributes=(op + 1.0)[:, None].repeat(1, 8),
        output_shape=(8 * (op + 1.0))[:, None].repeat(1, 4),
    )


def random_graph(rng: np.random.Generator, size: int, operations: int) -> Graph:
    """A cell: input first, output last, every node on a path between them."""
    op = [0, *rng.integers(1, operations - 1, size - 2).tolist(), operations - 1]
    upper = np.triu(rng.random((size, size)) < 0.3, 1)
    upper[np.arange(size - 1), rng.integers(np.arange(1, size), size)] = True
    upper[rng.integers(0, np.arange(1, size)), np.arange(1, size)] = True
    return op, [(int(a), int(b)) for a, b in np.argwhere(upper)]


def random_cells(count: int, seed: int, sizes: tuple[int, int] = (2, 8), operations: int = len(NAMES)) -> GraphBatch:
    """``count`` random cells of ``sizes`` nodes (both ends included); params rise with edges and convolutions."""
    rng = np.random.default_rng(seed)
    graphs = [random_graph(rng, int(size), operations) for size in rng.integers(sizes[0], sizes[1] + 1, count)]
    params = [1e5 * (1 + len(edges) + 9 * op.count(2) + op.count(1)) * rng.uniform(1, 1.5) for op, edges in graphs]
    return cells(graphs, params)


def pick(batch: GraphBatch, rows: Sequence[int]) -> GraphBatch:
    """Some graphs of a batch, in the given order."""
    nodes = torch.cat([torch.arange(int(batch.ptr[row]), int(batch.ptr[row + 1])) for row in rows])
    place = torch.full_like(batch.op, -1)
    place[nodes] = torch.arange(len(nodes))
    edges = place[batch.edge_index]
    index = torch.tensor(rows)
    return replace(
        _nodes(batch, nodes),
        edge_index=edges[:, edges[0] >= 0],
        ptr=torch.cat([torch.zeros(1, dtype=torch.long), batch.count[index].cumsum(0)]),
        row=batch.row[index],
        static={name: values[index] for name, values in batch.static.items()},
        labels={name: values[index] for name, values in batch.labels.items()},
    )


def relabelled(batch: GraphBatch, seed: int) -> GraphBatch:
    """The same graphs with nodes in another random topological order, input first and output last; edges are shuffled."""
    rng = np.random.default_rng(seed)
    edges = batch.edge_index.T.tolist()
    order = [v for first, last in batch.ptr.unfold(0, 2, 1).tolist() for v in _topological(first, last, edges, rng)]
    nodes = torch.tensor(order)
    shuffle = torch.from_numpy(rng.permutation(len(edges)))
    return replace(_nodes(batch, nodes), edge_index=nodes.argsort()[batch.edge_index][:, shuffle])


def force_layout(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Lay out the pairs of all graphs ``padded`` or ``listed``, whatever their size and number, until the test ends."""
    for name, value in zip(("DENSE_NODES", "DENSE_SHARE"), LAYOUTS[layout], strict=True):
        monkeypatch.setattr(pairs, name, value)


def _nodes(batch: GraphBatch, nodes: Tensor) -> GraphBatch:
    assert batch.attributes is not None
    assert batch.output_shape is not None
    return replace(batch, op=batch.op[nodes], attributes=batch.attributes[nodes], output_shape=batch.output_shape[nodes])


def _topological(first: int, last: int, edges: list[list[int]], rng: np.random.Generator) -> list[int]:
    parents = {v: {a for a, b in edges if b == v} for v in range(first, last)}
    order = [first]
    while len(order) < last - first - 1:
        order.append(int(rng.choice([v for v in range(first, last - 1) if v not in order and parents[v] <= set(order)])))
    return [*order, last - 1]
