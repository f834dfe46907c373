"""NN-Former on cells (Xu et al., "NN-Former", CVPR 2025, arXiv 2507.00880)."""

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
from predictors.layers.prune import prune
from predictors.losses import mean_squared_error, pair_terms

CODES = 32
"""Length of the official one-hot codes of operations and of depths."""

HEADS = 4
"""One head for each relation: child, parent, sibling by parent, sibling by child."""


@dataclass
class NNFormerConfig(PredictorConfig):
    """Configuration of NN-Former.

    Attributes:
        dim: token width.
        depth: number of blocks.
        ratio: hidden width of the feed-forward network over ``dim``.
        activation: of the feed-forward network: ``relu``, ``leaky_relu`` or ``gelu``.
        dropout: everywhere.
        masks: sibling masks ``as_code`` or ``as_paper`` (see ``head_masks``).
        prune: drop ``none`` nodes and what they cut off, as the official code does on NAS-Bench-201.
        readout: ``cls`` token or ``mean`` over nodes.
        class_token: add a learned token, which the ``cls`` readout needs.
        depth_token: add a token that codes the number of nodes.
        loss_mse: weight of the squared error.
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
    loss_mse: float
    loss_ranking: float
    loss_consistency: float


class Block(nn.Module):
    """Pre-norm attention and graph feed-forward with plain residuals."""

    def __init__(self, config: NNFormerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = MaskedAttention(config.dim, HEADS, config.dropout, bias=False)
        self.feedforward_norm = nn.LayerNorm(config.dim)
        self.feedforward = GraphFeedForward(config.dim, config.ratio, config.activation, config.dropout, bias=False)

    def forward(self, x: Tensor, bias: Tensor, adjacency: Tensor, frames: int, queries: int) -> Tensor:
        """Update the first ``queries`` tokens of ``x`` (B, L, d); see ``MaskedAttention`` and ``GraphFeedForward``."""
        x = x[:, :queries] + self.attention(self.attention_norm(x), bias[:, :, :queries], queries)
        updated: Tensor = x + self.feedforward(self.feedforward_norm(x), adjacency, frames)
        return updated


class NNFormer(Predictor):
    """NN-Former: one-hot tokens, four-relation attention and graph feed-forward blocks, linear head + 0.5."""

    Config = NNFormerConfig
    config: NNFormerConfig
    node_order_matters: ClassVar[bool] = False

    def __init__(self, config: NNFormerConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        check(config)
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
        names = self.spec.operations
        if not (self.config.prune and "none" in names):
            return batch.dense
        return prune(batch.dense, names.index("none"), (names.index("input"), names.index("output")))

    def token_counts(self, batch: GraphBatch) -> Tensor:
        """Nodes of each graph after pruning (B,)."""
        return self.graphs(batch).count

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

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,)."""
        graphs = self.graphs(batch)
        return self.encode(self.tokenize(graphs), graphs)

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Squared error and ranking over two dropout passes, and their consistency (spec of the official ``NARLoss``)."""
        graphs = self.graphs(batch)
        prediction = self.encode(self.tokenize(graphs).repeat(2, 1, 1), graphs)
        error = ("mse", self.config.loss_mse, mean_squared_error)
        return pair_terms(prediction, batch.target, error, self.config.loss_ranking, self.config.loss_consistency)


def check(config: NNFormerConfig) -> None:
    """Check what the types cannot.

    Raises:
        UserError: for an unknown choice, or settings that do not fit together.
    """
    require_choice("predictor.masks", config.masks, MASKS)
    require_choice("predictor.activation", config.activation, ACTIVATIONS)
    require_choice("predictor.readout", config.readout, ("cls", "mean"))
    if config.readout == "cls" and not config.class_token:
        raise UserError("predictor.readout=cls reads the class token; set predictor.class_token=true or readout=mean")
    if config.dim % HEADS:
        raise UserError(f"predictor.dim={config.dim}: choose a multiple of its {HEADS} heads")
