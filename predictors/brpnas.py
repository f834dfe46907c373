"""The graph convolutional predictor of BRP-NAS (Dudziak et al., NeurIPS 2020, arXiv 2007.08668), in its regression form.

Layers, adjacency (not divided by degrees), initial weights, loss and recipe of accuracies are those of the authors' code
(the repository ``eagle``). Their ranking form classifies which of two cells is the better one and sorts by the answers; it
gives a graph no number of its own, which a predictor here has to, so this is the form they regress latencies and
accuracies with. Graphs are read as stored; the authors first cut ``none`` nodes out of NAS-Bench-201 cells and replace skip
connections by edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import SimpleConv

from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.dropout import dropout
from predictors.layers.node_features import node_features
from predictors.layers.positive_head import node_sum
from predictors.losses import relative_squared_error


@dataclass
class BRPNASConfig(PredictorConfig):
    """Configuration of the BRP-NAS predictor.

    Attributes:
        layers: number of convolutions.
        hidden: width of the convolutions.
        dropout: after every convolution.
    """

    layers: int
    hidden: int
    dropout: float


class BRPNAS(Predictor):
    """Convolutions in which a node reads itself and its children, and a global node reads every node; it is the readout.

    The loss is the absolute error of accuracies. The authors take it of latencies too, which are of one device and of one
    magnitude there; here latencies have the relative squared error and the positive output of NNLP.
    """

    Config = BRPNASConfig
    config: BRPNASConfig
    whole_networks: ClassVar[bool] = True
    head_modules: ClassVar[tuple[str, ...]] = ("output",)

    def __init__(self, config: BRPNASConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        self.nodes = node_features(spec)
        sizes = pairwise((self.nodes.width + 1, *[config.hidden] * config.layers))
        self.gather = SimpleConv(aggr="sum")
        self.layers = nn.ModuleList(initialise(nn.Linear(*size)) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in range(config.layers))
        self.output = nn.Linear(config.hidden, 1)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,), positive if of latencies."""
        x, edges, graph = add_global_nodes(self.nodes(batch), batch)
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True), 1):
            last = number == len(self.layers)
            read = node_sum(x, graph, len(batch)) if last else self.gather(x, edges)
            x = dropout(F.relu(norm(layer(read))), self.config.dropout, self.training)
        prediction: Tensor = self.output(x).squeeze(1)
        return -F.logsigmoid(prediction) if self.spec.task == "latency" else prediction

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Absolute error of accuracies, relative squared error of latencies."""
        if self.spec.task == "latency":
            return {"relative_mse": relative_squared_error(self(batch), batch.target)}
        return {"mae": F.l1_loss(self(batch), batch.target)}


def initialise(layer: nn.Linear) -> nn.Linear:
    """Draw weight and bias from +-1 / sqrt(outputs), and return the layer."""
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(layer.out_features**-0.5), layer.out_features**-0.5)
    return layer


def add_global_nodes(x: Tensor, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Append a global node for each graph, marked by a column of its own.

    Args:
        x: nodes (N, F).
        batch: B graphs.

    Returns:
        Nodes (N + B, F + 1); who is read by whom (2, E + 2N + B): children by parents, nodes by their global node and
        everything by itself; graph of each node (N + B,).
    """
    nodes, graphs = len(x), len(batch)
    everything = torch.arange(nodes + graphs, device=x.device)
    graph = torch.cat([batch.batch, everything[:graphs]])
    to_global = torch.stack([everything[:nodes], nodes + batch.batch])
    edges = torch.cat([batch.edge_index.flip(0), to_global, everything.expand(2, -1)], 1)
    marked = F.pad(x, (0, 1, 0, graphs))
    marked[nodes:, -1] = 1
    return marked, edges, graph
