"""NAR-Former V2 (Yi et al., "NAR-Former V2", NeurIPS 2023, arXiv 2306.10792)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import UserError, require_choice
from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.codes import SPACINGS, code_table
from predictors.layers.dropout import dropout
from predictors.layers.graph_attention import GROUPS, GraphAttention, GroupedFeedForward, Neighbours
from predictors.layers.network_features import CodedNodes, CodedStatic
from predictors.layers.node_features import both_ways
from predictors.layers.positive_head import PositiveHead, StaticLayer, initialise_bias, node_sum
from predictors.layers.relabel import AUGMENTATIONS
from predictors.losses import pair_terms, relative_squared_error

CODE = 64
"""Length of the code of an operation and of a position."""

MOST_NODES = 32
"""Rows of the table of position codes."""

SHAPE_FREQUENCIES = 5
"""Frequencies of the code of an output dimension."""


@dataclass
class NARFormer2Config(PredictorConfig):
    """Configuration of NAR-Former V2.

    Attributes:
        layers: number of graph attention layers, each followed by a feed-forward network.
        hidden: node width, a multiple of 8.
        head: width of the head.
        ratio: hidden width of the feed-forward network over ``hidden``.
        dropout: everywhere.
        frequencies: of the codes of cells: ``as_code`` (linear) or ``as_paper`` (powers of two).
        degree_gate: scale the channels by a function of the node's degree before attention.
        group_norm: normalise the groups of the feed-forward network's linear layers.
        shuffle: shuffle channels between those groups.
        augmentation: second graph of each training pair of cells: ``first`` (the first topological order that changes the
            graph, as published), ``uniform`` (a random topological order), ``paper`` (NAR-Former V1's, the last two inner
            nodes swapped where that is valid) or ``none`` (the same graph).
        loss_relative: weight of the relative squared error.
        loss_ranking: weight of sequence ranking.
        loss_consistency: weight of the consistency of the two graphs of a pair.
    """

    layers: int
    hidden: int
    head: int
    ratio: int
    dropout: float
    frequencies: str
    degree_gate: bool
    group_norm: bool
    shuffle: bool
    augmentation: str
    loss_relative: float
    loss_ranking: float
    loss_consistency: float


class LayerGate(nn.Module):
    """Weigh the graph vectors of all layers by what they contain and add them up: (B, layers, d) -> (B, d)."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        self.hidden = initialise_bias(nn.Linear(layers * dim, layers * dim // 4))
        self.output = initialise_bias(nn.Linear(layers * dim // 4, layers))

    def forward(self, means: Tensor) -> Tensor:
        """Combine ``means``."""
        gates = self.output(F.relu(self.hidden(means.flatten(1)))).sigmoid()
        combined: Tensor = (means * gates[..., None]).sum(1)
        return combined


class Network(nn.Module):
    """Graph attention layers on nodes, and a positive prediction of each graph.

    With per-graph features (whole networks) the last layer's nodes are summed; without (cells) the nodes are averaged after
    every layer and the averages added up, each weighted by a gate that sees them all.

    Args:
        config: sizes and options.
        features: width of the nodes.
        static: number of per-graph features, 0 for none.
    """

    def __init__(self, config: NARFormer2Config, features: int, static: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        width = config.hidden
        options = {"normalise": config.group_norm, "shuffle": config.shuffle}
        self.attentions = nn.ModuleList(
            GraphAttention(inputs, width, degree_gate=config.degree_gate)
            for inputs in (features, *[width] * (config.layers - 1))
        )
        self.feedforwards = nn.ModuleList(
            GroupedFeedForward(width, config.ratio, config.dropout, **options) for _ in range(config.layers)
        )
        if static:
            self.static: StaticLayer | None = StaticLayer(static, width, config.dropout)
        else:
            self.static = None
            self.gate = LayerGate(config.layers, width)
        self.head = PositiveHead(2 * width if static else width, config.head, config.dropout)

    def forward(self, x: Tensor, edge_index: Tensor, ptr: Tensor, static: Tensor | None = None) -> Tensor:
        """Predictions (B,).

        Args:
            x: nodes (N, features).
            edge_index: (2, E), both directions of every edge once, numbered over the whole batch.
            ptr: (B + 1,) first node of each graph, and N.
            static: per-graph features (B, static), where the network takes them.
        """
        count = ptr.diff()
        graph = torch.repeat_interleave(count, output_size=len(x))
        layers = self._layers(x, Neighbours(edge_index, ptr, x))
        if self.static is not None:
            pooled = torch.cat([node_sum(layers[-1], graph, len(count)), self.static(static)], 1)
        else:
            sums = torch.stack([node_sum(layer, graph, len(count)) for layer in layers], 1)
            pooled = self.gate(sums / count[:, None, None])
        prediction: Tensor = self.head(pooled)
        return prediction

    def _layers(self, x: Tensor, neighbours: Neighbours) -> list[Tensor]:
        """The nodes (N, hidden) after every layer."""
        results = []
        for attention, feedforward in zip(self.attentions, self.feedforwards, strict=True):
            x = feedforward(dropout(F.relu(attention(x, neighbours)), self.dropout, self.training))
            results.append(x)
        return results


class CellTokens(nn.Module):
    """Nodes (N, 128) of cells: the code of the operation, then that of the position in the graph."""

    operations: Tensor
    positions: Tensor
    width = 2 * CODE

    def __init__(self, operations: int, frequencies: str) -> None:
        super().__init__()
        values = torch.arange(max(operations, MOST_NODES)).float()
        codes = code_table(values, CODE, "nerf", frequencies, torch.float64)
        self.register_buffer("operations", codes[:operations], persistent=False)
        self.register_buffer("positions", codes[:MOST_NODES], persistent=False)

    def forward(self, op: Tensor, position: Tensor) -> Tensor:
        """Code operations ``op`` (N,) at ``position`` (N,).

        Raises:
            UserError: for graphs of more than ``MOST_NODES`` nodes.
        """
        size = int(position.max()) + 1
        if size > MOST_NODES:
            raise UserError(f"narformer2 on cells reads graphs of at most {MOST_NODES} nodes, got {size}")
        return torch.cat([F.embedding(op, self.operations), F.embedding(position, self.positions)], 1)


class NARFormer2(Predictor):
    """NAR-Former V2: graph attention on the undirected graph of a cell or of a whole network."""

    Config = NARFormer2Config
    config: NARFormer2Config
    whole_networks: ClassVar[bool] = True
    head_modules: ClassVar[tuple[str, ...]] = ("network.head",)

    def __init__(self, config: NARFormer2Config, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        check(config, spec)
        self.node_order_matters = not spec.whole_networks
        if spec.whole_networks:
            self.nodes, self.static = CodedNodes(spec, SHAPE_FREQUENCIES), CodedStatic(1e9)
            self.network = Network(config, self.nodes.width, self.static.width)
        else:
            self.tokens = CellTokens(len(spec.operations), config.frequencies)
            self.network = Network(config, self.tokens.width, 0)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,)."""
        if not self.spec.whole_networks:
            return self._cells(batch.op, batch.position, batch.edge_index, batch.ptr)
        static = self.static(batch.static)
        prediction: Tensor = self.network(self.nodes(batch), both_ways(batch.edge_index), batch.ptr, static)
        return prediction

    def _cells(self, op: Tensor, position: Tensor, edge_index: Tensor, ptr: Tensor) -> Tensor:
        prediction: Tensor = self.network(self.tokens(op, position), both_ways(edge_index), ptr)
        return prediction

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Relative squared error; of cells, with their augmentations, also ranking and the consistency of each pair."""
        weight = self.config.loss_relative
        if self.spec.whole_networks:
            return {"relative_mse": weight * relative_squared_error(self(batch), batch.target)}
        prediction = self._cells(*self._pairs(batch))
        error = ("relative_mse", weight, relative_squared_error)
        return pair_terms(prediction, batch.target, error, self.config.loss_ranking, self.config.loss_consistency)

    def _pairs(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Operations, positions, edges and graph borders of the graphs followed by their augmentations."""
        other = AUGMENTATIONS[self.config.augmentation](batch.dense)
        graph, parent, child = other.adjacency.nonzero(as_tuple=True)
        first = batch.ptr[:-1][graph] + len(batch.op)
        edges = torch.cat([batch.edge_index, torch.stack([first + parent, first + child])], 1)
        ptr = torch.cat([batch.ptr, batch.ptr[1:] + len(batch.op)])
        return torch.cat([batch.op, other.op[other.mask]]), batch.position.repeat(2), edges, ptr


def check(config: NARFormer2Config, spec: TaskSpec) -> None:
    """Check what the types cannot.

    Raises:
        UserError: for an unknown choice, a width that the groups do not divide, or loss terms whole networks lack.
    """
    if spec.whole_networks and (config.loss_ranking or config.loss_consistency):
        raise UserError(
            "narformer2 on whole networks has no ranking or consistency loss; set predictor.loss_ranking=0 "
            "and predictor.loss_consistency=0"
        )
    require_choice("predictor.augmentation", config.augmentation, AUGMENTATIONS)
    require_choice("predictor.frequencies", config.frequencies, SPACINGS)
    if config.hidden % GROUPS:
        raise UserError(f"predictor.hidden={config.hidden}: choose a multiple of {GROUPS}")
