"""Multi-head attention and feed-forward blocks whose projections start as copies of one another (NAR-Former, CVPR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.layers.activations import ACTIVATIONS
from predictors.layers.dropout import dropout


class Attention(nn.Module):
    """Multi-head attention; query, key, value and output projections are initialised alike.

    Args:
        dim: width d.
        heads: number of heads.
        dropout: on the attention weights.
        raw_query: use queries as they are, without a projection.
    """

    def __init__(self, dim: int, heads: int, dropout: float, *, raw_query: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.raw_query = raw_query
        copies = 2 if raw_query else 3
        self.output = nn.Linear(dim, dim)
        self.input = nn.Linear(dim, copies * dim)
        with torch.no_grad():
            self.input.weight.copy_(self.output.weight.repeat(copies, 1))
            self.input.bias.copy_(self.output.bias.repeat(copies))

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend from ``query`` (B or 1, Q, d) to ``memory`` (B, L, d) under an additive mask (B, 1, 1, L): (B, Q, d)."""
        q, k, v = (self._split(x) for x in self._project(query, memory))
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        mixed = torch.matmul(dropout(weights, self.dropout, self.training), v)
        projected: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return projected

    def _project(self, query: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        if self.raw_query:
            return query, *self.input(memory).chunk(2, -1)
        if query is memory:
            return tuple(self.input(memory).chunk(3, -1))
        dim = query.shape[-1]
        weight, bias = self.input.weight, self.input.bias
        return F.linear(query, weight[:dim], bias[:dim]), *F.linear(memory, weight[dim:], bias[dim:]).chunk(2, -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class SelfAttention(nn.Module):
    """Pre-norm self-attention with a residual: (B, L, d) -> (B, L, d)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Update ``x`` under an additive mask (B, 1, 1, L)."""
        normalised = self.norm(x)
        updated: Tensor = x + self.attention(normalised, normalised, bias)
        return updated


class FeedForward(nn.Module):
    """Pre-norm two-layer network with a residual: (..., d) -> (..., d).

    Args:
        dim: width d.
        hidden: hidden width.
        activation: name of the non-linearity.
        dropout: after the activation.
    """

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Update ``x``."""
        hidden = dropout(self.activation(self.expand(self.norm(x))), self.dropout, self.training)
        updated: Tensor = x + self.contract(hidden)
        return updated
