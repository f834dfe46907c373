"""The body that GCN, GIN, GAT and GraphSAGE share: they differ in their convolution and in nothing else."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import global_max_pool

from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.dropout import dropout
from predictors.layers.node_features import both_ways, log10_static, node_features
from predictors.layers.positive_head import PositiveHead, StaticLayer, node_sum
from predictors.losses import mean_squared_error, relative_squared_error


@dataclass
class GNNConfig(PredictorConfig):
    """Configuration of a graph network.

    Attributes:
        layers: number of convolutions.
        hidden: width of nodes, of the encoded per-graph features and of the head.
        dropout: after every layer but the last.
    """

    layers: int
    hidden: int
    dropout: float


class AccuracyHead(nn.Module):
    """Three linear layers (B, inputs) -> (B,), dropout after both hidden ones; the output starts near 0.5."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        hidden = [(nn.Linear(size, width), nn.ReLU(), nn.Dropout(dropout)) for size in (inputs, width)]
        self.layers = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Predictions from pooled graphs ``x``."""
        prediction: Tensor = self.layers(x).squeeze(1) + 0.5
        return prediction


class GNN(Predictor):
    """Convolutions over both directions of every edge, each normalised and added to what it read.

    Readout: mean, maximum and sum of the nodes. Accuracies have a linear output and the squared error; latencies add an
    encoding of the per-graph features, NNLP's head with positive output and the relative squared error. A subclass names
    the convolution.
    """

    Config = GNNConfig
    config: GNNConfig
    whole_networks: ClassVar[bool] = True

    def __init__(self, config: GNNConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        width = config.hidden
        self.nodes = node_features(spec)
        self.input = nn.Linear(self.nodes.width, width)
        self.convolutions = nn.ModuleList(self.convolution(width) for _ in range(config.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.layers))
        self.static: StaticLayer | None = None
        self.head: nn.Module = AccuracyHead(3 * width, width, config.dropout)
        if spec.task == "latency":
            self.static = StaticLayer(len(spec.static), width, config.dropout)
            self.head = PositiveHead(4 * width, width, config.dropout)

    @abstractmethod
    def convolution(self, width: int) -> nn.Module:
        """A layer from nodes (N, width) and edges (2, E) to nodes (N, width)."""

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,), positive if of latencies."""
        x = self.input(self.nodes(batch))
        edges = both_ways(batch.edge_index)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + dropout(F.relu(norm(convolution(x, edges))), self.config.dropout, self.training)
        prediction: Tensor = self.head(self.readout(x, batch))
        return prediction

    def readout(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """Graphs (B, 3 * hidden), of latencies (B, 4 * hidden), from nodes ``x`` (N, hidden).

        The sum is scaled so that a node whose numbers are of order one adds a vector of length one, as in NNLP.
        """
        total = node_sum(x, batch.batch, len(batch))
        mean = total / batch.count[:, None]
        parts = [mean, global_max_pool(x, batch.batch, len(batch)), total * self.config.hidden**-0.5]
        if self.static is not None:
            parts.append(self.static(log10_static(batch, self.spec.static)))
        return torch.cat(parts, 1)

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Squared error of accuracies, relative squared error of latencies."""
        if self.spec.task == "latency":
            return {"relative_mse": relative_squared_error(self(batch), batch.target)}
        return {"mse": mean_squared_error(self(batch), batch.target)}
