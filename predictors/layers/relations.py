"""The four relations of NN-Former's heads on ragged graphs (Xu et al., CVPR 2025, section 3), as lists of pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from predictors.layers.pairs import Pairs, lay_out

RELATIONS = 4
"""Children, parents, siblings by a common parent, siblings by a common child: one head each, every node with itself."""


class Relations:
    """Who is related to whom in a ragged batch of which there may be several copies, laid out once for all layers.

    Args:
        edge_index: (2, E) parent and child, each edge once, numbered over the whole batch.
        ptr: (B + 1,) first node of each graph, and N.
        nodes: N.
        copies: times the batch is repeated.

    Attributes:
        pairs: query and key of each head, for all copies.
        graph: graph of each node (copies N,).
        children: number of children of each node (copies N,).
        target: half-row that each sum over edges adds to: 2 i collects from the children of node i, 2 i + 1 from the
            parents.
        source: half-row that is added.
    """

    def __init__(self, edge_index: Tensor, ptr: Tensor, nodes: int, copies: int) -> None:
        graphs = len(ptr) - 1
        head, pairs = related(edge_index, nodes)
        starts = torch.cat([ptr[:1], repeated(ptr[None, 1:], copies, nodes)[0]])
        self.nodes = copies * nodes
        self.pairs: Pairs = lay_out(repeated(pairs, copies, nodes), head.repeat(copies), RELATIONS, starts, self.nodes)
        graph = torch.repeat_interleave(ptr.diff(), output_size=nodes)
        self.graph = repeated(graph[None], copies, graphs)[0]
        parent, child = repeated(edge_index, copies, nodes)
        self.children = torch.bincount(parent, minlength=self.nodes)
        self.target = torch.cat([2 * parent, 2 * child + 1])
        self.source = torch.cat([2 * child, 2 * parent + 1])

    def expand(self, x: Tensor) -> Tensor:
        """``x`` of the nodes of one copy (N, d) or of all (copies N, d), for all."""
        return x if len(x) == self.nodes else x.repeat(self.nodes // len(x), 1)

    def add_sums(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` plus the first half of the channels of ``y`` summed over each node's children, the second over its parents.

        Args:
            x: (copies N, 2 h), all copies.
            y: the same.
        """
        halves = y.view(2 * len(y), -1).index_select(0, self.source)
        return x.view(2 * len(x), -1).index_add(0, self.target, halves).view(x.shape)


def repeated(index: Tensor, copies: int, step: int) -> Tensor:
    """``index`` (R, P) followed by copies of itself that are ``step`` apart: (R, copies P)."""
    offsets = step * torch.arange(copies, device=index.device)
    return (index[:, None] + offsets[:, None]).flatten(1)


def related(edge_index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Head (P,) and pairs (2, P) of query and key of all relations, sorted by query, head and key."""
    parent, child = edge_index
    own = torch.arange(nodes, device=parent.device).expand(2, -1)
    heads = (edge_index, edge_index.flip(0), siblings(parent, child), siblings(child, parent))
    sets = [(query * RELATIONS + head) * nodes + key for head, pairs in enumerate(heads) for query, key in (pairs, own)]
    codes = torch.unique(torch.cat(sets))
    row, key = codes // nodes, codes % nodes
    return row % RELATIONS, torch.stack([row // RELATIONS, key])


def siblings(common: Tensor, member: Tensor) -> Tensor:
    """Pairs (2, S) of nodes that share a relative: the join of links (``common``, ``member``), each (E,), with themselves.

    S is the sum of the squared numbers of members; pairs that share several relatives come as often.
    """
    common, order = common.sort()
    member = member[order]
    size = torch.bincount(common)
    each = size[common]
    pairs = torch.repeat_interleave(each)
    rank = torch.arange(len(pairs), device=common.device) - (each.cumsum(0) - each)[pairs]
    first = (size.cumsum(0) - size)[common]
    return torch.stack([member[pairs], member[first[pairs] + rank]])
