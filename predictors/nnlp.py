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


class NNLP(Predictor):
    """Two SAGE layers on the undirected graph, node sum, static features, three-layer head, positive output."""

    Config = NNLPConfig
    config: NNLPConfig

    def __init__(self, config: NNLPConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        width = config.hidden
        self.graph_layers = nn.ModuleList(
            SAGEConv(inputs, width, aggr="mean", normalize=True) for inputs in (len(spec.operations), width)
        )
        self.static_layer = nn.Linear(max(1, len(spec.static)), width)
        self.head = nn.ModuleList([nn.Linear(2 * width, width), nn.Linear(width, width), nn.Linear(width, 1)])

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,), positive."""
        x = F.one_hot(batch.op, len(self.spec.operations)).to(self.static_layer.weight.dtype)
        edges = torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)
        for layer in self.graph_layers:
            x = self._drop(F.relu(layer(x, edges)))
        pooled = x.new_zeros(len(batch), x.shape[1]).index_add_(0, batch.batch, x)
        y = torch.cat([pooled, F.relu(self._drop(self.static_layer(self._static(batch))))], 1)
        for layer in self.head[:-1]:
            y = self._drop(F.relu(layer(y)))
        return -F.logsigmoid(self.head[-1](y)).squeeze(1)

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Relative squared error."""
        return {"relative_mse": relative_squared_error(self(batch), batch.target)}

    def _static(self, batch: GraphBatch) -> Tensor:
        """Per-graph features (B, S) in log10, one column of zeros where the benchmark has none."""
        columns = [torch.log10(batch.static[name].clamp(min=1)) for name in self.spec.static]
        return torch.stack(columns, 1) if columns else batch.op.new_zeros(len(batch), 1).to(self.static_layer.weight.dtype)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)
