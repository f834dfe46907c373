"""NN-Former's network for whole networks (Xu et al., "NN-Former", CVPR 2025, arXiv 2507.00880, its latency experiments)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.layers.dropout import dropout
from predictors.layers.positive_head import StaticLayer, node_sum
from predictors.layers.relation_attention import RaggedFeedForward, RelationAttention
from predictors.layers.relations import Relations

LAYER_SCALE = 1e-4
"""Initial weight of every channel of a block's two branches."""

REDUCTION_SCALE = 0.01
"""Weight of a node in the sum over all nodes."""


class Block(nn.Module):
    """Pre-norm attention and graph feed-forward with scaled residuals: (N, d) or (copies N, d) -> (copies N, d)."""

    def __init__(self, dim: int, ratio: int, activation: str, dropout: float, *, degree_gate: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = RelationAttention(dim, dropout, degree_gate=degree_gate)
        self.attention_scale = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = RaggedFeedForward(dim, ratio, activation, dropout, bias=True)
        self.feedforward_scale = nn.Parameter(torch.full((dim,), LAYER_SCALE))

    def forward(self, x: Tensor, relations: Relations) -> Tensor:
        """Update the nodes ``x``."""
        mixed = self.attention(self.attention_norm(x), relations)
        x = relations.expand(x) + self.attention_scale * mixed
        updated: Tensor = x + self.feedforward_scale * self.feedforward(self.feedforward_norm(x), relations)
        return updated


class Reduction(nn.Module):
    """Sum over the nodes of a graph of 0.01 (z + MLP(z)) with z = norm(x): (N, d) -> (B, d).

    The MLP's last layer is linear, so it is applied to the sums of the hidden units.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """Reduce ``x``, whose nodes belong to ``graph`` (N,) of ``graphs`` B."""
        z = self.norm(x)
        hidden = node_sum(dropout(F.relu(self.hidden(z)), self.dropout, self.training), graph, graphs)
        count = torch.bincount(graph, minlength=graphs)[:, None]
        mapped = F.linear(hidden, self.output.weight) + count * self.output.bias
        return REDUCTION_SCALE * (node_sum(z, graph, graphs) + mapped)


class Network(nn.Module):
    """Attention blocks on nodes, their reduction, per-graph features and a positive prediction of each graph.

    Args:
        features: width of the nodes.
        static: number of per-graph features.
        dim: width of the blocks, a multiple of 4.
        head: width of the head.
        depth: number of blocks.
        ratio: hidden width of the feed-forward network over ``dim``.
        activation: of the feed-forward network.
        dropout: everywhere.
        degree_gate: scale the channels by a function of the number of children before attention.
    """

    def __init__(
        self,
        features: int,
        static: int,
        *,
        dim: int,
        head: int,
        depth: int,
        ratio: int,
        activation: str,
        dropout: float,
        degree_gate: bool,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Linear(features, dim)
        self.blocks = nn.ModuleList(Block(dim, ratio, activation, dropout, degree_gate=degree_gate) for _ in range(depth))
        self.reduction = Reduction(dim, dropout)
        self.static = StaticLayer(static, dim, dropout)
        self.hidden = nn.Linear(2 * dim, head)
        self.output = nn.Linear(head, 1)
        self.apply(initialise)

    def forward(self, x: Tensor, edge_index: Tensor, ptr: Tensor, static: Tensor, passes: int = 1) -> Tensor:
        """Predictions (passes B,) of so many passes, each with dropout of its own.

        Args:
            x: nodes (N, features).
            edge_index: (2, E) parent and child, each edge once, numbered over the whole batch.
            ptr: (B + 1,) first node of each graph, and N.
            static: per-graph features (B, static).
            passes: times the batch is predicted.
        """
        relations = Relations(edge_index, ptr, len(x), passes)
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x, relations)
        reduced = self.reduction(x, relations.graph, passes * len(static))
        pooled = torch.cat([reduced, self.static(static.repeat(passes, 1))], 1)
        hidden = dropout(F.relu(self.hidden(pooled)), self.dropout, self.training)
        return F.softplus(self.output(hidden)).squeeze(1)


def initialise(module: nn.Module) -> None:
    """Normal weights of variance 1 / inputs and zero biases for every linear layer (Kaiming's, with linear gain)."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
