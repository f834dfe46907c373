"""NAR-Former on cells (Yi et al., "NAR-Former", CVPR 2023, arXiv 2211.08024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import UserError, require_choice
from datasets.graph import DenseGraphs, GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.activations import ACTIVATIONS
from predictors.layers.attention import Attention, FeedForward, SelfAttention
from predictors.layers.codes import KINDS, SPACINGS, code_table
from predictors.layers.relabel import AUGMENTATIONS
from predictors.losses import mean_squared_error, pair_terms

MOST_NODES = 32
"""Rows of the table of position codes."""

END = 1e5
"""What the end token codes in each of its three fields."""

SOURCE_OF_INPUT = -1.0
"""What the first node codes as its source."""

READOUTS = ("last", "mean")


@dataclass
class NARFormerConfig(PredictorConfig):
    """Configuration of NAR-Former.

    Attributes:
        dim: token width.
        feedforward: hidden width of the feed-forward networks.
        heads: attention heads.
        depths: layers of each stage: encoder layers of the first; the others, of which there may be none, have one
            cross-attention layer and self-attention layers for the rest.
        queries: learned tokens of each stage after the first.
        activation: of the feed-forward networks: ``relu``, ``leaky_relu`` or ``gelu``.
        dropout: on attention weights and inside feed-forward networks.
        codes: sinusoidal codes ``nerf`` or ``trans``.
        code_widths: of the operation, position and source codes of a token; they add up to ``dim``.
        frequencies: of ``nerf`` codes: ``as_code`` (linear) or ``as_paper`` (powers of two).
        depth_token: add a token that codes the number of nodes.
        readout: ``last`` token or ``mean`` over tokens.
        augmentation: second graph of each training pair: ``paper`` (the last two inner nodes swapped where that is valid),
            ``first`` (the first topological order that changes the graph, NAR-Former V2's), ``uniform`` (a random
            topological order) or ``none`` (the same graph).
        loss_mse: weight of the squared error.
        loss_ranking: weight of sequence ranking.
        loss_consistency: weight of the consistency of the two graphs of a pair.
    """

    dim: int
    feedforward: int
    heads: int
    depths: list[int]
    queries: list[int]
    activation: str
    dropout: float
    codes: str
    code_widths: list[int]
    frequencies: str
    depth_token: bool
    readout: str
    augmentation: str
    loss_mse: float
    loss_ranking: float
    loss_consistency: float


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each with a residual."""

    def __init__(self, config: NARFormerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.dim, config.heads, config.dropout)
        self.feedforward = FeedForward(config.dim, config.feedforward, config.activation, config.dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Update ``x`` (B, L, d) under an additive mask (B, 1, 1, L)."""
        updated: Tensor = self.feedforward(self.attention(x, bias))
        return updated


class Fusion(nn.Module):
    """What a later stage reads: the previous stage's tokens, filled anew from the memory (no residual to them)."""

    def __init__(self, config: NARFormerConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(config.dim)
        self.memory_norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads, config.dropout)
        self.feedforward = FeedForward(config.dim, config.feedforward, config.activation, config.dropout)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, Q, d) from ``x`` (B, Q, d) and ``memory`` (B, L, d) masked by ``bias`` (B, 1, 1, L)."""
        fused: Tensor = self.feedforward(self.attention(self.query_norm(x), self.memory_norm(memory), bias))
        return fused


class Stage(nn.Module):
    """Learned queries gather the tokens they are given into fewer: cross-attention without projection or residual."""

    def __init__(self, config: NARFormerConfig, queries: int, depth: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, config.dim))
        self.norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads, config.dropout, raw_query=True)
        self.feedforward = FeedForward(config.dim, config.feedforward, config.activation, config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(depth - 1))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (B, Q, d) from ``x`` (B, L, d) masked by ``bias`` (B, 1, 1, L)."""
        x = self.feedforward(self.attention(self.queries, self.norm(x), bias))
        for layer in self.layers:
            x = layer(x)
        return x


class NARFormer(Predictor):
    """NAR-Former: sinusoidal tokens of operation, position and source, a multi-stage transformer, sigmoid head.

    The official recipe decays the weights of layer normalisations too; ours decays no 1-D parameter.

    Raises:
        UserError: for a configuration that does not fit together.
    """

    Config = NARFormerConfig
    config: NARFormerConfig
    node_order_matters: bool = True
    operation_codes: Tensor
    position_codes: Tensor
    source_codes: Tensor
    depth_codes: Tensor

    def __init__(self, config: NARFormerConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        check(config)
        self._tabulate()
        if config.depth_token:
            self.depth_map = nn.Linear(config.dim, config.dim)
        first, *later = config.depths
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(first))
        self.stages = nn.ModuleList(Stage(config, *sizes) for sizes in zip(config.queries, later, strict=True))
        self.fusions = nn.ModuleList(Fusion(config) for _ in later[1:])
        self.final_norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 1)

    def _tabulate(self) -> None:
        """Tables of codes: operations then the end; positions then the end; positions, the input's source and the end."""
        nodes = [float(i) for i in range(MOST_NODES)]
        operations = [float(i) for i in range(len(self.spec.operations))]
        widths = (*self.config.code_widths, self.config.dim)
        rows = ([*operations, END], [*nodes, END], [*nodes, SOURCE_OF_INPUT, END], [*nodes, float(MOST_NODES)])
        for name, values, width in zip(("operation", "position", "source", "depth"), rows, widths, strict=True):
            table = code_table(torch.tensor(values), width, self.config.codes, self.config.frequencies)
            self.register_buffer(f"{name}_codes", table, persistent=False)

    def tokenize(self, graphs: DenseGraphs) -> Tensor:
        """Tokens of the nodes, then the end token (B, L + 1, d); after the end token of smaller graphs they are arbitrary.

        Raises:
            UserError: for graphs of more than ``MOST_NODES`` nodes.
        """
        size = graphs.op.shape[1]
        if size > MOST_NODES:
            raise UserError(f"narformer on cells reads graphs of at most {MOST_NODES} nodes, got {size}")
        places = torch.arange(size + 1, device=graphs.op.device)
        end = places == graphs.count[:, None]
        op = F.pad(graphs.op, (0, 1)).masked_fill_(end, len(self.spec.operations))
        position = places.expand_as(op).masked_fill(end, MOST_NODES)
        source = self.operation_codes.new_zeros(*op.shape, size + 2)
        source[:, :size, :size] = graphs.adjacency.mT
        source[:, 0, size] = 1
        source[:, :, size + 1] = end
        table = torch.cat([self.source_codes[:size], self.source_codes[MOST_NODES:]])
        parts = F.embedding(op, self.operation_codes), F.embedding(position, self.position_codes), source @ table
        return torch.cat(parts, 2)

    def encode(self, tokens: Tensor, count: Tensor) -> Tensor:
        """Predictions (B,) from the tokens (B, L + 1, d) of graphs with ``count`` nodes (B,)."""
        real = torch.arange(tokens.shape[1], device=tokens.device) <= count[:, None]
        if self.config.depth_token:
            tokens = torch.cat([F.relu(self.depth_map(self.depth_codes[count]))[:, None], tokens], 1)
            real = F.pad(real, (1, 0), value=True)
        bias = torch.zeros(real.shape, dtype=tokens.dtype, device=tokens.device).masked_fill_(~real, -torch.inf)
        x = self._transform(tokens, bias[:, None, None])
        prediction: Tensor = self.head(self._read(self.final_norm(x), real)).squeeze(1).sigmoid()
        return prediction

    def _transform(self, x: Tensor, bias: Tensor) -> Tensor:
        """Tokens of the last stage (B, Q, d), of the encoder (B, L, d) where it is the only one."""
        for layer in self.encoder:
            x = layer(x, bias)
        memory = x
        for number, stage in enumerate(self.stages):
            x = stage(memory, bias) if number == 0 else stage(self.fusions[number - 1](x, memory, bias))
        return x

    def _read(self, x: Tensor, real: Tensor) -> Tensor:
        """Pool tokens to (B, d); ``real`` (B, L) marks the encoder's tokens that are not padding."""
        if self.stages:
            return x[:, -1] if self.config.readout == "last" else x.mean(1)
        if self.config.readout == "last":
            last = real.sum(1) - 1
            return x[torch.arange(len(x), device=x.device), last]
        return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,)."""
        return self.encode(self.tokenize(batch.dense), batch.count)

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Squared error and ranking over graphs and their augmentations, and the consistency of each pair."""
        graphs = batch.dense
        other = AUGMENTATIONS[self.config.augmentation](graphs)
        tokens = torch.cat([self.tokenize(graphs), self.tokenize(other)])
        prediction = self.encode(tokens, batch.count.repeat(2))
        error = ("mse", self.config.loss_mse, mean_squared_error)
        return pair_terms(prediction, batch.target, error, self.config.loss_ranking, self.config.loss_consistency)


def check(config: NARFormerConfig) -> None:
    """Check what the types cannot.

    Raises:
        UserError: for an unknown choice, or sizes that do not fit together.
    """
    choices = {
        "activation": ACTIVATIONS,
        "codes": KINDS,
        "frequencies": SPACINGS,
        "readout": READOUTS,
        "augmentation": AUGMENTATIONS,
    }
    for name, known in choices.items():
        require_choice(f"predictor.{name}", getattr(config, name), known)
    if sum(config.code_widths) != config.dim or len(config.code_widths) != 3 or any(w % 2 for w in config.code_widths):
        raise UserError(
            f"predictor.code_widths={config.code_widths}: give three even numbers that add up to dim={config.dim}"
        )
    if config.dim % config.heads:
        raise UserError(f"predictor.heads={config.heads}: choose a divisor of dim={config.dim}")
    if len(config.queries) != len(config.depths) - 1:
        raise UserError(
            f"predictor.queries={config.queries}: give one number for each of depths={config.depths} but the first"
        )
