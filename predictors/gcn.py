"""GCN (Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR 2017)."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GCNConv

from predictors.gnn import GNN


class GCN(GNN):
    """Means of the nodes around, weighted by both degrees: D^-1/2 (A + I) D^-1/2 X W + b."""

    def convolution(self, width: int) -> nn.Module:
        """The symmetrically normalised convolution with self-loops."""
        convolution: nn.Module = GCNConv(width, width)
        return convolution
