"""NNLP, the graph neural network of NNLQP (Liu et al., ICPP 2022), with one-hot operations as node features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import SAGEConv

from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.dropout import dropout
from predictors.layers.positive_head import PositiveHead, StaticLayer, node_sum
from predictors.losses import relative_squared_error


@dataclass
class NNLPConfig(PredictorConfig):
    """Configuration of NNLP.

    Attributes:
        hidden: width of the graph layers and of the head.
        dropout: after every layer but the last.
    """

    hidden: int
    dropout: float


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
    """NNLP on graphs of operations, with the logarithms of the per-graph features."""

    Config = NNLPConfig
    config: NNLPConfig

    def __init__(self, config: NNLPConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        features, static = len(spec.operations), max(1, len(spec.static))
        self.network = Network(features, static, config.hidden, config.hidden, config.dropout, encode_static=True)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,), positive."""
        x = F.one_hot(batch.op, len(self.spec.operations)).to(self.dtype)
        edges = torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)
        prediction: Tensor = self.network(x, edges, batch.batch, self._static(batch)).squeeze(1)
        return prediction

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Relative squared error."""
        return {"relative_mse": relative_squared_error(self(batch), batch.target)}

    def _static(self, batch: GraphBatch) -> Tensor:
        """Per-graph features (B, S) in log10, one column of zeros where the benchmark has none."""
        columns = [torch.log10(batch.static[name].clamp(min=1)) for name in self.spec.static]
        return torch.stack(columns, 1) if columns else batch.op.new_zeros(len(batch), 1).to(self.dtype)
