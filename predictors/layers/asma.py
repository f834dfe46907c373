"""NN-Former's attention masks, attention and graph feed-forward on padded graphs (Xu et al., CVPR 2025, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.layers.activations import ACTIVATIONS
from predictors.layers.dropout import dropout

MASKS = ("as_code", "as_paper")
"""How siblings are found; see ``head_masks``."""


def frame(matrix: Tensor, width: int, value: bool) -> Tensor:
    """Put ``width`` rows and columns of ``value`` before a (B, n, n) boolean matrix."""
    return F.pad(matrix, (width, 0, width, 0), value=value)


def head_masks(adjacency: Tensor, mask: Tensor, frames: int, mode: str) -> Tensor:
    """Which key each query of the four heads may attend to: children, parents, siblings by parent, siblings by child.

    ``as_code`` multiplies the adjacency with the virtual tokens already around it (row and column of ones), as the official
    code does, so that every two tokens are siblings; ``as_paper`` finds siblings among the nodes and adds the virtual
    tokens, connected with everything, afterwards.

    Args:
        adjacency: (B, n, n) bool, parent to child.
        mask: (B, n) bool, False where padded.
        frames: number of virtual tokens, placed before the nodes.
        mode: ``as_code`` or ``as_paper``.

    Returns:
        (B, 4, frames + n, frames + n) bool; padded keys are open only to themselves.
    """
    links = adjacency if mode == "as_paper" else frame(adjacency, frames, True)
    numbers = links.float()
    same_parent = numbers.mT @ numbers > 0
    same_child = numbers @ numbers.mT > 0
    masks = torch.stack([links, links.mT, same_parent, same_child], 1)
    if mode == "as_paper" and frames:
        masks = F.pad(masks, (frames, 0, frames, 0), value=True)
    keys = F.pad(mask, (frames, 0), value=True)
    allowed = masks & keys[:, None, None, :] & keys[:, None, :, None]
    return allowed | torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device)


class MaskedAttention(nn.Module):
    """Multi-head attention (B, L, d) -> (B, queries, d) in which each head sees its own pairs.

    Args:
        dim: width d.
        heads: number of heads.
        dropout: on the attention weights and on the output.
        bias: of both projections.
    """

    def __init__(self, dim: int, heads: int, dropout: float, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor, bias: Tensor, queries: int) -> Tensor:
        """Attend from the first ``queries`` tokens of ``x`` (B, L, d) under an additive mask (B, heads, queries, L)."""
        size, length, dim = x.shape
        if queries == length:
            q, k, v = self.qkv(x).view(size, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            weight, offset = self.qkv.weight, self.qkv.bias
            q = F.linear(x[:, :queries], weight[:dim], None if offset is None else offset[:dim])
            q = q.view(size, queries, self.heads, -1).transpose(1, 2)
            kv = F.linear(x, weight[dim:], None if offset is None else offset[dim:])
            k, v = kv.view(size, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        scale = (dim // self.heads) ** -0.5
        weights = (torch.matmul(q * scale, k.mT) + bias).softmax(-1)
        weights = dropout(weights, self.dropout, self.training)
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(size, queries, dim)
        return dropout(self.proj(mixed), self.dropout, self.training)


class FeedForward(nn.Module):
    """Bidirectional graph-isomorphism feed-forward network (BGIFFN), whatever the layout of the graphs.

    ``fc2(f(fc1(x) + [A g1, A^T g2]))`` with ``[g1, g2] = gcn(x)``; tokens without neighbours get ``fc2(f(fc1(x)))``.

    Args:
        dim: width d.
        ratio: hidden width over d.
        activation: name of the non-linearity.
        dropout: after the activation and on the output.
        bias: of the three projections.
    """

    def __init__(self, dim: int, ratio: int, activation: str, dropout: float, *, bias: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(dim, ratio * dim, bias=bias)
        self.gcn = nn.Linear(dim, ratio * dim, bias=bias)
        self.fc2 = nn.Linear(ratio * dim, dim, bias=bias)

    def finish(self, hidden: Tensor) -> Tensor:
        """The result from ``fc1(x) + [A g1, A^T g2]`` (..., ratio d)."""
        hidden = dropout(self.activation(hidden), self.dropout, self.training)
        return dropout(self.fc2(hidden), self.dropout, self.training)


class GraphFeedForward(FeedForward):
    """``FeedForward`` on padded graphs: (B, L, d) -> (B, L, d)."""

    def forward(self, x: Tensor, adjacency: Tensor, frames: int) -> Tensor:
        """Apply to ``x`` (B, frames + n, d), of whose tokens the last n are the nodes of ``adjacency`` (B, n, n) float.

        An ``x`` of virtual tokens alone (B, frames, d) passes without the graph.
        """
        hidden = self.fc1(x)
        if x.shape[1] > frames:
            down, up = self.gcn(x[:, frames:]).chunk(2, -1)
            graph = torch.cat([adjacency @ down, adjacency.mT @ up], -1)
            hidden = hidden + F.pad(graph, (0, 0, frames, 0)) if frames else hidden + graph
        return self.finish(hidden)
