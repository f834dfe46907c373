"""NN-Former's attention and graph feed-forward on ragged nodes, whose cost follows the related pairs and the edges."""

from __future__ import annotations

from torch import Tensor, nn

from predictors.layers.asma import FeedForward
from predictors.layers.dropout import dropout
from predictors.layers.relations import RELATIONS, Relations


class RelationAttention(nn.Module):
    """Attention with one head for each relation: (N, d) or (copies N, d) -> (copies N, d).

    Args:
        dim: width d, a multiple of the four heads.
        dropout: on the attention weights and on the output.
        degree_gate: first scale the channels by a function of the node's number of children.
    """

    def __init__(self, dim: int, dropout: float, *, degree_gate: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.degree = nn.Linear(1, dim) if degree_gate else None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, relations: Relations) -> Tensor:
        """Attend from every node of ``x`` to those it is related to; what one copy suffices for is done once."""
        if self.degree is not None:
            x = x * self.degree(relations.children[: len(x), None].to(x.dtype)).sigmoid()
        width = x.shape[1] // RELATIONS
        q, k, v = relations.expand(self.qkv(x)).view(-1, 3, RELATIONS, width).unbind(1)
        weights = relations.pairs.softmax(relations.pairs.dot(q * width**-0.5, k))
        mixed = relations.pairs.mix(dropout(weights, self.dropout, self.training), v)
        return dropout(self.proj(mixed.flatten(1)), self.dropout, self.training)


class RaggedFeedForward(FeedForward):
    """``FeedForward`` on ragged nodes: (copies N, d) -> (copies N, d)."""

    def forward(self, x: Tensor, relations: Relations) -> Tensor:
        """Apply to every node of ``x``, adding up over the edges."""
        return self.finish(relations.add_sums(self.fc1(x), self.gcn(x)))
