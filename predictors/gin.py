"""GIN (Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019)."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GINConv

from predictors.gnn import GNN


class GIN(GNN):
    """Sums of the nodes around: MLP((1 + eps) x + sum) with a learned eps."""

    def convolution(self, width: int) -> nn.Module:
        """The sum convolution with a two-layer perceptron."""
        perceptron = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        convolution: nn.Module = GINConv(perceptron, train_eps=True)
        return convolution
