"""NNLP, the graph neural network of NNLQP (Liu et al., ICPP 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import SAGEConv

from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.dropout import dropout
from predictors.layers.network_features import scaled_static
from predictors.layers.node_features import both_ways, log10_static, node_features
from predictors.layers.positive_head import PositiveHead, StaticLayer, node_sum
from predictors.losses import relative_squared_error

LOG_STATIC = 10.0
"""Divides the decimal logarithms of the per-graph features of cells, which then are of order one."""


@dataclass
class NNLPConfig(PredictorConfig):
    """Configuration of NNLP.

    Attributes:
        hidden: width of the graph layers.
        head: width of the head.
        dropout: after every layer but the last.
        encode_static: put the per-graph features through a layer of their own.
    """

    hidden: int
    head: int
    dropout: float
    encode_static: bool


class Network(nn.Module):
    """Two SAGE layers, node sum, per-graph features and one three-layer head, or one a platform, with positive output.

    Args:
        features: width of the nodes.
        static: number of per-graph features.
        hidden: width of the graph layers.
        head: width of the heads.
        dropout: after every layer but the last.
        encode_static: put the per-graph features through a layer of their own (the official ``norm_sf``).
        platforms: number of heads.
    """

    def __init__(
        self, features: int, static: int, hidden: int, head: int, dropout: float, *, encode_static: bool, platforms: int = 1
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.graph_layers = nn.ModuleList(
            SAGEConv(inputs, hidden, aggr="mean", normalize=True) for inputs in (features, hidden)
        )
        self.static = StaticLayer(static, hidden, dropout) if encode_static else nn.Identity()
        pooled = hidden + (hidden if encode_static else static)
        self.heads = nn.ModuleList(PositiveHead(pooled, head, dropout) for _ in range(platforms))

    def forward(self, x: Tensor, edge_index: Tensor, graph: Tensor, static: Tensor) -> Tensor:
        """Predictions (B, platforms).

        Args:
            x: nodes (N, features).
            edge_index: (2, E), both directions of every edge, numbered over the whole batch.
            graph: graph of each node (N,).
            static: per-graph features (B, static).
        """
        for layer in self.graph_layers:
            x = dropout(F.relu(layer(x, edge_index)), self.dropout, self.training)
        pooled = torch.cat([node_sum(x, graph, len(static)), self.static(static)], 1)
        return torch.stack([head(pooled) for head in self.heads], 1)


class NNLP(Predictor):
    """NNLP: whole networks as published, one head a platform; cells as one-hot operations."""

    Config = NNLPConfig
    config: NNLPConfig
    whole_networks: ClassVar[bool] = True
    several_platforms: ClassVar[bool] = True
    head_modules: ClassVar[tuple[str, ...]] = ("network.heads",)

    def __init__(self, config: NNLPConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        self.nodes = node_features(spec)
        self.network = Network(
            self.nodes.width,
            max(1, len(spec.static)),
            config.hidden,
            config.head,
            config.dropout,
            encode_static=config.encode_static,
            platforms=max(1, len(spec.platforms)),
        )

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,), positive."""
        edges = both_ways(batch.edge_index)
        prediction: Tensor = self.network(self.nodes(batch), edges, batch.batch, self._static(batch))
        if batch.platform is None:
            return prediction[:, 0]
        return prediction.gather(1, batch.platform[:, None])[:, 0]

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Relative squared error."""
        return {"relative_mse": relative_squared_error(self(batch), batch.target)}

    def _static(self, batch: GraphBatch) -> Tensor:
        """Per-graph features (B, S): as published for whole networks, else logarithms; zeros if there are none."""
        if self.spec.whole_networks:
            return scaled_static(batch.static, 1e9)
        if not self.spec.static:
            return batch.op.new_zeros(len(batch), 1).float()
        return log10_static(batch, self.spec.static) / LOG_STATIC
