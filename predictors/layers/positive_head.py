"""The readout that NNLP and NAR-Former V2 share: node sums, per-graph features and a head with positive output."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from predictors.layers.dropout import dropout


def node_sum(x: Tensor, graph: Tensor, graphs: int) -> Tensor:
    """Sum of the nodes ``x`` (N, d) of each of ``graphs`` graphs (B, d); ``graph`` (N,) says whose they are."""
    return x.new_zeros(graphs, x.shape[1]).index_add(0, graph, x)


def initialise_bias(layer: nn.Linear) -> nn.Linear:
    """Draw the bias from +-1 / sqrt(its own length), as the official networks do, and return the layer."""
    bound = layer.out_features**-0.5
    nn.init.uniform_(layer.bias, -bound, bound)
    return layer


class StaticLayer(nn.Module):
    """Per-graph features (B, inputs) -> (B, outputs): linear, dropout, ReLU."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.linear = initialise_bias(nn.Linear(inputs, outputs))

    def forward(self, static: Tensor) -> Tensor:
        """Encode ``static``."""
        return F.relu(dropout(self.linear(static), self.dropout, self.training))


class PositiveHead(nn.Module):
    """Three linear layers (B, inputs) -> (B,), the output -log(sigmoid(.)) > 0; dropout after both hidden layers."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        sizes = pairwise((inputs, width, width, 1))
        self.layers = nn.ModuleList(initialise_bias(nn.Linear(*size)) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions from pooled graphs ``x``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = dropout(F.relu(layer(x)), self.dropout, self.training)
        return -F.logsigmoid(last(x)).squeeze(1)
