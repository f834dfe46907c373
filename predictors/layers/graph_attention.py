"""Graph-aided attention and grouped feed-forward blocks on ragged graphs (Yi et al., NAR-Former V2, NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.layers.dropout import dropout
from predictors.layers.pairs import lay_out

GROUPS = 8
"""Groups of the feed-forward network's linear layers."""

LAYER_SCALE = 1e-4
"""Initial weight of every channel of the feed-forward branch."""


class Neighbours:
    """Who is linked with whom in a ragged batch, laid out once for all layers.

    Args:
        edge_index: (2, E), both directions of every edge once, numbered over the whole batch.
        ptr: (B + 1,) first node of each graph, and N.
        like: a tensor of the nodes' floating-point type.

    Attributes:
        degree: neighbours of each node (N,).
    """

    def __init__(self, edge_index: Tensor, ptr: Tensor, like: Tensor) -> None:
        source, target = edge_index
        self.degree = torch.bincount(target, minlength=len(like)).to(like.dtype)
        self.pairs = lay_out(torch.stack([target, source]), torch.zeros_like(source), 1, ptr, len(like))

    def attend(self, h: Tensor, x: Tensor) -> Tensor:
        """Average ``x`` (N, d) over the neighbours, weighted by the scaled products of ``h`` (N, d): (N, d).

        Nodes without neighbours get 0.
        """
        h = h[:, None] * h.shape[1] ** -0.25
        return self.pairs.mix(self.pairs.share(self.pairs.dot(h, h)), x[:, None])[:, 0]


class GraphAttention(nn.Module):
    """Attention to the neighbours without softmax, one projection serving queries and keys: (N, inputs) -> (N, outputs).

    Args:
        inputs: width of the nodes.
        outputs: width of the result, whose rows have length 1.
        degree_gate: first scale the channels by a function of the node's degree.
    """

    def __init__(self, inputs: int, outputs: int, *, degree_gate: bool) -> None:
        super().__init__()
        self.degree = nn.Linear(1, inputs) if degree_gate else None
        self.query_key = nn.Linear(inputs, inputs)
        self.neighbour = nn.Linear(inputs, outputs)
        self.own = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        """Update ``x`` from itself and its ``neighbours``."""
        if self.degree is not None:
            x = x * self.degree(neighbours.degree[:, None]).sigmoid()
        mixed = neighbours.attend(self.query_key(x).sigmoid(), x)
        return F.normalize(self.neighbour(mixed) + self.own(x), dim=1)


class GroupedLinear(nn.Module):
    """A linear layer on each group of channels, then normalisation within the groups: (N, inputs) -> (N, outputs).

    Args:
        inputs: width, a multiple of ``GROUPS``.
        outputs: width, a multiple of ``GROUPS``.
        normalise: normalise each group, with weights that the groups share.
        shuffle: deal the outputs of a group to all groups, before the normalisation.
    """

    def __init__(self, inputs: int, outputs: int, *, normalise: bool, shuffle: bool) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.weight = nn.Parameter(torch.empty(GROUPS, inputs // GROUPS, outputs // GROUPS))
        self.bias = nn.Parameter(torch.zeros(GROUPS, 1, outputs // GROUPS))
        self.norm = nn.LayerNorm(outputs // GROUPS) if normalise else None
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every row of ``x``."""
        y = torch.baddbmm(self.bias, x.view(len(x), GROUPS, -1).transpose(0, 1), self.weight)
        y = y.permute(1, 2, 0).reshape(len(x), GROUPS, -1) if self.shuffle else y.transpose(0, 1)
        return (y if self.norm is None else self.norm(y)).flatten(1)


class GroupedFeedForward(nn.Module):
    """Pre-norm feed-forward network of grouped linear layers with a scaled residual: (N, d) -> (N, d).

    Args:
        dim: width d, a multiple of ``GROUPS``.
        ratio: hidden width over d.
        dropout: after the activation and on the output.
        normalise: see ``GroupedLinear``.
        shuffle: see ``GroupedLinear``.
    """

    def __init__(self, dim: int, ratio: int, dropout: float, *, normalise: bool, shuffle: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.expand = GroupedLinear(dim, ratio * dim, normalise=normalise, shuffle=shuffle)
        self.contract = GroupedLinear(ratio * dim, dim, normalise=normalise, shuffle=shuffle)
        self.scale = nn.Parameter(torch.full((dim,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Update every row of ``x``."""
        hidden = dropout(F.relu(self.expand(self.norm(x))), self.dropout, self.training)
        return x + self.scale * dropout(self.contract(hidden), self.dropout, self.training)
