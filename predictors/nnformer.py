"""NN-Former (Xu et al., "NN-Former", CVPR 2025, arXiv 2507.00880)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from datasets.errors import UserError, require_choice
from datasets.graph import DenseGraphs, GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.activations import ACTIVATIONS
from predictors.layers.asma import MASKS, GraphFeedForward, MaskedAttention, head_masks
from predictors.layers.network_features import CodedNodes, CodedStatic
from predictors.layers.prune import prune
from predictors.layers.relations import RELATIONS
from predictors.losses import mean_squared_error, pair_terms, relative_squared_error
from predictors.nnformer_networks import Network

CODES = 32
"""Length of the official one-hot codes of operations and of depths."""

SHAPE_FREQUENCIES = 10
"""Frequencies of the code of an output dimension, of whole networks."""

STATIC_SCALE = 1e7
"""Divides parameters and memory, of whole networks."""


@dataclass
class NNFormerConfig(PredictorConfig):
    """Configuration of NN-Former.

    Attributes:
        dim: token width.
        depth: number of blocks.
        ratio: hidden width of the feed-forward network over ``dim``.
        activation: of the feed-forward network: ``relu``, ``leaky_relu`` or ``gelu``.
        dropout: everywhere.
        masks: sibling masks ``as_code`` or ``as_paper`` (see ``head_masks``), the same without virtual tokens.
        prune: drop ``none`` nodes and what they cut off, as the official code does on NAS-Bench-201.
        readout: ``cls`` token or ``mean`` over nodes; of whole networks ``sum`` over nodes.
        class_token: add a learned token, which the ``cls`` readout needs; of cells only.
        depth_token: add a token that codes the number of nodes; of cells only.
        degree_gate: scale the channels by a function of the number of children before attention; of whole networks only.
        loss_mse: weight of the squared error.
        loss_relative: weight of the relative squared error, instead.
        loss_ranking: weight of sequence ranking.
        loss_consistency: weight of the consistency of two dropout passes.
    """

    dim: int
    depth: int
    ratio: int
    activation: str
    dropout: float
    masks: str
    prune: bool
    readout: str
    class_token: bool
    depth_token: bool
    degree_gate: bool
    loss_mse: float
    loss_relative: float
    loss_ranking: float
    loss_consistency: float


class Block(nn.Module):
    """Pre-norm attention and graph feed-forward with plain residuals."""

    def __init__(self, config: NNFormerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = MaskedAttention(config.dim, RELATIONS, config.dropout, bias=False)
        self.feedforward_norm = nn.LayerNorm(config.dim)
        self.feedforward = GraphFeedForward(config.dim, config.ratio, config.activation, config.dropout, bias=False)

    def forward(self, x: Tensor, bias: Tensor, adjacency: Tensor, frames: int, queries: int) -> Tensor:
        """Update the first ``queries`` tokens of ``x`` (B, L, d); see ``MaskedAttention`` and ``GraphFeedForward``."""
        x = x[:, :queries] + self.attention(self.attention_norm(x), bias[:, :, :queries], queries)
        updated: Tensor = x + self.feedforward(self.feedforward_norm(x), adjacency, frames)
        return updated


class CellNetwork(nn.Module):
    """One-hot tokens, four-relation attention and graph feed-forward blocks on padded cells, linear head + 0.5."""

    def __init__(self, config: NNFormerConfig, operations: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.operations = operations
        self.frames = config.class_token + config.depth_token
        self.operation = nn.Embedding(CODES, config.dim)
        if config.class_token:
            self.cls = nn.Parameter(torch.empty(1, config.dim))
        if config.depth_token:
            self.size = nn.Embedding(CODES, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal of deviation 0.02 for every matrix and the class token, zero bias."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.zeros_(self.head.bias)

    def graphs(self, batch: GraphBatch) -> DenseGraphs:
        """The padded graphs the network sees, pruned if the recipe says so."""
        names = self.operations
        if not (self.config.prune and "none" in names):
            return batch.dense
        return prune(batch.dense, names.index("none"), (names.index("input"), names.index("output")))

    def tokenize(self, graphs: DenseGraphs) -> Tensor:
        """The class and depth tokens (those configured) and the node tokens (B, frames + n, d), normalised.

        Raises:
            UserError: for graphs of 32 nodes or more, which the one-hot depth code cannot hold.
        """
        if graphs.mask.shape[1] >= CODES:
            raise UserError(f"nnformer on cells reads graphs of at most {CODES - 1} nodes, got {graphs.mask.shape[1]}")
        parts = [self.operation(graphs.op)]
        if self.config.depth_token:
            parts.insert(0, self.size(graphs.count)[:, None])
        if self.config.class_token:
            parts.insert(0, self.cls.expand(len(graphs.op), 1, -1))
        normalised: Tensor = self.norm(torch.cat(parts, 1))
        return normalised

    def encode(self, tokens: Tensor, graphs: DenseGraphs) -> Tensor:
        """Predictions (B,) from tokens; ``tokens`` may hold the batch several times over."""
        copies = len(tokens) // len(graphs.op)
        allowed = head_masks(graphs.adjacency, graphs.mask, self.frames, self.config.masks)
        bias = torch.zeros(allowed.shape, dtype=tokens.dtype, device=tokens.device).masked_fill_(~allowed, -torch.inf)
        bias, adjacency = bias.repeat(copies, 1, 1, 1), graphs.adjacency.to(tokens.dtype).repeat(copies, 1, 1)
        x, read_cls = tokens, self.config.readout == "cls"
        for number, block in enumerate(self.blocks, 1):
            queries = 1 if read_cls and number == len(self.blocks) else x.shape[1]
            x = block(x, bias, adjacency, self.frames, queries)
        if read_cls:
            pooled = self.final_norm(x[:, 0])
        else:
            nodes = graphs.mask.repeat(copies, 1)[..., None]
            pooled = (self.final_norm(x)[:, self.frames :] * nodes).sum(1) / nodes.sum(1)
        prediction: Tensor = self.head(pooled).squeeze(1) + 0.5
        return prediction

    def forward(self, batch: GraphBatch, passes: int) -> Tensor:
        """Predictions (passes B,) of so many passes, each with dropout of its own."""
        graphs = self.graphs(batch)
        return self.encode(self.tokenize(graphs).repeat(passes, 1, 1), graphs)


class NNFormer(Predictor):
    """NN-Former on cells or on whole networks: attention to children, parents and both kinds of siblings.

    On whole networks the official recipe decays biases and the weights of layer normalisations too, on NNLQP by a quarter
    over its 50 epochs; ours decays no 1-D parameter, as the official recipe on cells.
    """

    Config = NNFormerConfig
    config: NNFormerConfig
    whole_networks: ClassVar[bool] = True
    head_modules: ClassVar[tuple[str, ...]] = ("network.head", "network.hidden", "network.output")

    def __init__(self, config: NNFormerConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        check(config, spec)
        if spec.whole_networks:
            self.nodes, self.static = CodedNodes(spec, SHAPE_FREQUENCIES), CodedStatic(STATIC_SCALE)
            self.network: Network | CellNetwork = Network(
                self.nodes.width,
                self.static.width,
                dim=config.dim,
                head=config.dim,
                depth=config.depth,
                ratio=config.ratio,
                activation=config.activation,
                dropout=config.dropout,
                degree_gate=config.degree_gate,
            )
        else:
            self.network = CellNetwork(config, spec.operations)

    def token_counts(self, batch: GraphBatch) -> Tensor:
        """Nodes of each graph (B,), of cells after pruning."""
        return self.network.graphs(batch).count if isinstance(self.network, CellNetwork) else batch.count

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,)."""
        return self._predict(batch, 1)

    def _predict(self, batch: GraphBatch, passes: int) -> Tensor:
        if isinstance(self.network, CellNetwork):
            prediction: Tensor = self.network(batch, passes)
        else:
            prediction = self.network(
                self.nodes(batch), batch.edge_index, batch.ptr, self.static(batch.static), passes=passes
            )
        return prediction

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Error and ranking over two dropout passes, and their consistency (spec of the official ``NARLoss``)."""
        error = ("mse", self.config.loss_mse, mean_squared_error)
        if self.config.loss_relative:
            error = ("relative_mse", self.config.loss_relative, relative_squared_error)
        ranking, consistency = self.config.loss_ranking, self.config.loss_consistency
        return pair_terms(self._predict(batch, 2), batch.target, error, ranking, consistency)


def check(config: NNFormerConfig, spec: TaskSpec) -> None:
    """Check what the types cannot.

    Raises:
        UserError: for an unknown choice, or settings that do not fit together or the graphs.
    """
    require_choice("predictor.masks", config.masks, MASKS)
    require_choice("predictor.activation", config.activation, ACTIVATIONS)
    if config.dim % RELATIONS:
        raise UserError(f"predictor.dim={config.dim}: choose a multiple of its {RELATIONS} heads")
    if bool(config.loss_mse) == bool(config.loss_relative):
        raise UserError(
            f"predictor.loss_mse={config.loss_mse} and predictor.loss_relative={config.loss_relative}: "
            "give one of them a weight and set the other to 0"
        )
    if spec.whole_networks:
        _check_networks(config)
    else:
        _check_cells(config)


def _check_networks(config: NNFormerConfig) -> None:
    if config.readout != "sum" or config.class_token or config.depth_token:
        raise UserError(
            "nnformer on whole networks adds up the nodes and has no virtual tokens; set predictor.readout=sum, "
            "predictor.class_token=false and predictor.depth_token=false, or take networks=nnformer"
        )


def _check_cells(config: NNFormerConfig) -> None:
    require_choice("predictor.readout", config.readout, ("cls", "mean"))
    if config.readout == "cls" and not config.class_token:
        raise UserError("predictor.readout=cls reads the class token; set predictor.class_token=true or readout=mean")
    if config.degree_gate:
        raise UserError("predictor.degree_gate=true: of whole networks only; set predictor.degree_gate=false")
