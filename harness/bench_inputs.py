"""Synthetic graphs to time predictors on, of the sizes the papers' batches have."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS, GraphBatch, TaskSpec
from datasets.networks import ATTRIBUTES, KNOWN, OPERATIONS, STATIC

CELLS = TaskSpec(
    "accuracy", ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output"), ("params", "flops"), "fraction"
)
"""The task of NAS-Bench-101."""

NETWORKS = TaskSpec("latency", OPERATIONS, tuple(STATIC), "ms", ATTRIBUTES)
"""The task of NNLQP."""

NETWORK_SIZES = (21, 32, 45, 58, 70, 82, 92, 100, 108, 116, 126, 140, 160, 182, 200, 250)
"""Nodes of the sixteen networks of a batch, 1,782 in all."""


def random_cells(count: int, nodes: int = 7, seed: int = 0) -> GraphBatch:
    """Cells of ``nodes`` nodes: a chain with random skip edges, as many as NAS-Bench-101 cells have."""
    generator = torch.Generator().manual_seed(seed)
    adjacency = torch.rand(count, nodes, nodes, generator=generator).triu(2) > 0.8
    adjacency |= torch.ones(nodes, nodes).triu(1).tril(1).bool()
    graph, parent, child = adjacency.nonzero(as_tuple=True)
    op = torch.randint(1, 4, (count, nodes), generator=generator)
    op[:, 0], op[:, -1] = 0, 4
    label = torch.rand(count, generator=generator)
    return GraphBatch(
        op=op.flatten(),
        edge_index=torch.stack([graph * nodes + parent, graph * nodes + child]),
        ptr=torch.arange(count + 1) * nodes,
        row=torch.arange(count),
        static=dict.fromkeys(CELLS.static, 1000000.0 * (1 + label)),
        labels={"accuracy": label},
        target_name="accuracy",
    )


def branched_chain(first: int, nodes: int) -> Tensor:
    """Edges (2, E) of residual blocks one after the other: a chain of ``nodes`` nodes, every seventh also six ahead."""
    chain = torch.arange(first, first + nodes - 1)
    skips = torch.arange(first, first + nodes - 6, 7)
    return torch.cat([torch.stack([chain, chain + 1]), torch.stack([skips, skips + 6])], 1)


def random_networks(copies: int = 1) -> GraphBatch:
    """``copies`` times the sixteen networks of ``NETWORK_SIZES``, with random operations, attributes and latencies."""
    generator = torch.Generator().manual_seed(0)
    ptr = torch.tensor([0, *NETWORK_SIZES * copies]).cumsum(0)
    graphs, nodes = len(ptr) - 1, int(ptr[-1])
    edges = [branched_chain(first, last - first) for first, last in pairwise(ptr.tolist())]
    size = 1e9 * torch.rand(graphs, generator=generator)
    return GraphBatch(
        op=torch.randint(0, len(KNOWN), (nodes,), generator=generator),
        edge_index=torch.cat(edges, 1),
        ptr=ptr,
        row=torch.arange(graphs),
        static={"batch": torch.ones(graphs), "flops": size, "params": size / 100, "memory": size / 10},
        labels={"latency_ms": 1 + size / 1e8},
        target_name="latency_ms",
        attributes=torch.randint(0, 8, (nodes, ATTRIBUTE_SLOTS), generator=generator).float(),
        output_shape=torch.randint(1, 512, (nodes, SHAPE_DIMENSIONS), generator=generator).float(),
    )
