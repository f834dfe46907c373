"""Pairs of nodes that attend to each other in a ragged batch: padded matrices of small graphs or many pairs, else lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

DENSE_NODES = 32
"""Largest graph that is always padded; beyond it (measured: 16 to 64 nodes) sums over few pairs are faster than matrix
products."""

DENSE_SHARE = 0.02
"""Share of the padded matrices' pairs above which graphs of any size are padded.

Measured in training on one core: both layouts take the same time at a share of 0.015 (1,000 nodes) to 0.03 (300 nodes) and
the same memory at 0.007 to 0.015; of graphs of 48 to 100 nodes they differ by a few percent at any share up to 0.05.
"""


class Pairs(ABC):
    """Pairs (query, key) of the N nodes of a ragged batch, one set a head, laid out once for all layers.

    Scores and weights hold one number for each pair; their shape is the layout's own.
    """

    @abstractmethod
    def dot(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores: the product of ``q`` of the query and ``k`` of the key, both (N, heads, w)."""

    @abstractmethod
    def softmax(self, scores: Tensor) -> Tensor:
        """Weights: softmax of the ``scores`` over the keys of each query; every query must have a key in every head."""

    @abstractmethod
    def share(self, scores: Tensor) -> Tensor:
        """Weights: ``scores`` (not negative) over their sum over the keys of each query, plus 1e-6."""

    @abstractmethod
    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """Sum of ``v`` (N, heads, w) over the keys of each query, weighted: (N, heads, w)."""


def lay_out(pairs: Tensor, head: Tensor, heads: int, ptr: Tensor, nodes: int) -> Pairs:
    """The faster layout of pairs.

    Args:
        pairs: (2, P) query and key, numbered over the whole batch, both of one graph.
        head: (P,) whose pairs they are; none occurs twice.
        heads: number of heads.
        ptr: (B + 1,) first node of each graph, and N.
        nodes: N.
    """
    size = int(ptr.diff().max()) if len(ptr) > 1 else 0
    if size <= DENSE_NODES or pairs.shape[1] > DENSE_SHARE * heads * (len(ptr) - 1) * size**2:
        return PaddedPairs(pairs, head, heads, ptr, nodes, size)
    return ListedPairs(pairs, head, heads, nodes)


class PaddedPairs(Pairs):
    """All pairs of graphs padded to ``size`` nodes L, those not meant masked; scores are (B heads, L, L)."""

    def __init__(self, pairs: Tensor, head: Tensor, heads: int, ptr: Tensor, nodes: int, size: int) -> None:
        graph = torch.repeat_interleave(ptr.diff(), output_size=nodes)
        place = torch.arange(nodes, device=ptr.device) - ptr[graph]
        first = graph * heads * size + place
        query, key = pairs
        self.size = size
        self.slot = (first[:, None] + torch.arange(heads, device=ptr.device) * size).flatten()
        self.allowed = torch.zeros((len(ptr) - 1) * heads * size, size, dtype=torch.bool, device=ptr.device)
        self.allowed[first[query] + head * size, place[key]] = True
        self.allowed = self.allowed.view(-1, size, size)

    @cached_property
    def _closed(self) -> Tensor:
        """Where softmax sees nothing; padded queries see everything, for they must see something."""
        return ~self.allowed & self.allowed.any(2, keepdim=True)

    def _pad(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[2])
        return x.new_zeros(self.allowed.shape[0] * self.size, x.shape[2]).index_copy(0, self.slot, rows)

    def _matrices(self, x: Tensor) -> Tensor:
        return self._pad(x).view(-1, self.size, x.shape[2])

    def dot(self, q: Tensor, k: Tensor) -> Tensor:
        """See ``Pairs``."""
        queries = self._matrices(q)
        keys = queries if k is q else self._matrices(k)
        return torch.bmm(queries, keys.mT)

    def softmax(self, scores: Tensor) -> Tensor:
        """See ``Pairs``."""
        return scores.masked_fill(self._closed, -torch.inf).softmax(2)

    def share(self, scores: Tensor) -> Tensor:
        """See ``Pairs``."""
        scores = scores * self.allowed
        return scores / (scores.sum(2, keepdim=True) + 1e-6)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """See ``Pairs``."""
        return torch.bmm(weights, self._matrices(v)).flatten(0, 1).index_select(0, self.slot).view(v.shape)


class ListedPairs(Pairs):
    """The pairs one by one, at a cost in time and memory proportional to their number; scores are (P,)."""

    def __init__(self, pairs: Tensor, head: Tensor, heads: int, nodes: int) -> None:
        self.query, self.key = pairs * heads + head
        self.rows = nodes * heads

    def _total(self, scores: Tensor) -> Tensor:
        """Sum over the keys of each query, given back to every pair (P,)."""
        return scores.new_zeros(self.rows).index_add(0, self.query, scores).index_select(0, self.query)

    def dot(self, q: Tensor, k: Tensor) -> Tensor:
        """See ``Pairs``."""
        queries = q.reshape(self.rows, -1).index_select(0, self.query)
        return (queries * k.reshape(self.rows, -1).index_select(0, self.key)).sum(1)

    def softmax(self, scores: Tensor) -> Tensor:
        """See ``Pairs``."""
        largest = scores.new_full((self.rows,), -torch.inf).scatter_reduce(0, self.query, scores.detach(), "amax")
        powers = (scores - largest.index_select(0, self.query)).exp()
        return powers / self._total(powers)

    def share(self, scores: Tensor) -> Tensor:
        """See ``Pairs``."""
        return scores / (self._total(scores) + 1e-6)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """See ``Pairs``."""
        values = v.reshape(self.rows, -1).index_select(0, self.key) * weights[:, None]
        return values.new_zeros(self.rows, values.shape[1]).index_add(0, self.query, values).view(v.shape)
