"""GraphSAGE (Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017)."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import SAGEConv

from predictors.gnn import GNN


class GraphSAGE(GNN):
    """Plain means of the nodes around, and the node itself through a matrix of its own."""

    def convolution(self, width: int) -> nn.Module:
        """The mean convolution."""
        convolution: nn.Module = SAGEConv(width, width, aggr="mean")
        return convolution
