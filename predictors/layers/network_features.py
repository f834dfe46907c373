"""Whole networks as the official latency predictors see them: views of the same stored columns, computed on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import UserError
from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS, GraphBatch, TaskSpec
from predictors.layers.codes import sinusoids, transformer_frequencies

ONE_HOT = 32
"""Length of NNLQP's one-hot codes, the last four unused."""

NO_CODE = ("Input", "Unknown")
"""Operations that NNLQP codes as zeros."""

ATTRIBUTE_SCALES = {
    "kernel": (2.53, 56.0),
    "stride": (1.16, 56.0),
    "pad": (0.75, 6.0),
    "dilation": (1.0, 1.0),
    "group": (15.08, 6144.0),
    "bias": (0.77, 1.0),
    "perm": (1.78, 4.0),
    "output_padding": (0.0, 1.0),
}
"""Centre and scale of each attribute in NNLP, but for the scale of output padding, there 1e-5.

NNLQP's networks have no output padding, so it is 0 under either; 1e-5 makes one pixel of it a feature of 100,000.
"""

SHAPE_CENTRES = (12.25, 286.96, 32.62, 31.80)
SHAPE_SCALES = (1024.0, 2496.0, 256.0, 256.0)
"""Centre and scale of each output dimension in NNLP."""

STATIC_CODE = 10
"""Length of the code of a per-graph feature in NAR-Former V2 and NN-Former."""


class NetworkNodes(nn.Module):
    """One-hot operations, and which attribute slots each operation uses.

    Args:
        spec: task of whole networks.

    Attributes:
        width: columns of the result.
    """

    operations: Tensor
    used: Tensor
    width: int

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        codes = torch.zeros(len(spec.operations), ONE_HOT)
        known = [place for place, name in enumerate(spec.operations) if name not in NO_CODE]
        codes[known, known] = 1.0
        self.register_buffer("operations", codes, persistent=False)
        self.register_buffer("used", slot_table(spec, dict.fromkeys(ATTRIBUTE_SCALES, 1.0)), persistent=False)

    def columns(self, batch: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
        """One-hot operations (N, 32), attributes (N, 8) and output shapes (N, 4).

        Raises:
            UserError: for graphs without attributes.
        """
        if batch.attributes is None or batch.output_shape is None:
            raise UserError("these graphs have no attributes and output shapes; whole networks do, cells do not")
        return F.embedding(batch.op, self.operations), batch.attributes, batch.output_shape


class NormalisedNodes(NetworkNodes):
    """NNLP's 44 columns: one-hot operation, normalised attributes, normalised output shape."""

    centres: Tensor
    scales: Tensor
    shape_centres: Tensor
    shape_scales: Tensor
    width = ONE_HOT + ATTRIBUTE_SLOTS + SHAPE_DIMENSIONS

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__(spec)
        tables = {
            "centres": slot_table(spec, {name: centre for name, (centre, _) in ATTRIBUTE_SCALES.items()}),
            "scales": slot_table(spec, {name: scale for name, (_, scale) in ATTRIBUTE_SCALES.items()}, unused=1.0),
            "shape_centres": torch.tensor(SHAPE_CENTRES),
            "shape_scales": torch.tensor(SHAPE_SCALES),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Nodes (N, 44)."""
        operation, attributes, shape = self.columns(batch)
        attributes = (attributes - F.embedding(batch.op, self.centres)) / F.embedding(batch.op, self.scales)
        return torch.cat([operation, attributes, (shape - self.shape_centres) / self.shape_scales], 1)


class CodedNodes(NetworkNodes):
    """NAR-Former V2's 152 or NN-Former's 192 columns: one-hot operation, sinusoids of attributes and of the output shape.

    Args:
        spec: task of whole networks.
        shape_frequencies: frequencies of the code of an output dimension: 5 (V2) or 10 (NN-Former).
    """

    permutation: Tensor
    attribute_frequencies: Tensor
    shape_frequencies: Tensor

    def __init__(self, spec: TaskSpec, shape_frequencies: int) -> None:
        super().__init__(spec)
        self.width = ONE_HOT + ATTRIBUTE_SLOTS * STATIC_CODE + SHAPE_DIMENSIONS * 2 * shape_frequencies
        permutes = torch.tensor([set(spec.attributes.get(name, ())) == {"perm"} for name in spec.operations])
        self.register_buffer("permutation", permutes, persistent=False)
        self.register_buffer("attribute_frequencies", transformer_frequencies(STATIC_CODE // 2), persistent=False)
        self.register_buffer("shape_frequencies", transformer_frequencies(shape_frequencies), persistent=False)

    def forward(self, batch: GraphBatch) -> Tensor:
        """Nodes (N, width)."""
        operation, attributes, shape = self.columns(batch)
        codes = sinusoids(attributes, self.attribute_frequencies) * F.embedding(batch.op, self.used)[..., None, None]
        permutes = F.embedding(batch.op, self.permutation[:, None])[..., None, None]
        by_frequency = codes.permute(0, 2, 3, 1).reshape(codes.shape)
        codes = torch.where(permutes, by_frequency, codes)
        return torch.cat([operation, codes.flatten(1), sinusoids(shape, self.shape_frequencies).flatten(1)], 1)


class CodedStatic(nn.Module):
    """Sinusoids (B, 40) of batch size, FLOPs, parameters and memory.

    Args:
        scale: divides parameters and memory: 1e9 (NAR-Former V2) or 1e7 (NN-Former).
    """

    frequencies: Tensor
    width = 4 * STATIC_CODE

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("frequencies", transformer_frequencies(STATIC_CODE // 2), persistent=False)

    def forward(self, static: Mapping[str, Tensor]) -> Tensor:
        """Codes of the per-graph features by name, each (B,)."""
        return sinusoids(scaled_static(static, self.scale), self.frequencies).flatten(1)


def scaled_static(static: Mapping[str, Tensor], scale: float) -> Tensor:
    """Batch size, FLOPs / 1e9, parameters / ``scale`` and memory / ``scale`` (B, 4)."""
    divided = (static["batch"], static["flops"] / 1e9, static["params"] / scale, static["memory"] / scale)
    return torch.stack(divided, 1)


def slot_table(spec: TaskSpec, values: Mapping[str, float], unused: float = 0.0) -> Tensor:
    """A value for each slot of each operation (V, 8): that of the attribute the slot holds, or ``unused``."""
    rows: list[Sequence[float]] = []
    for name in spec.operations:
        slots = [values[attribute] for attribute in spec.attributes.get(name, ())]
        rows.append([*slots, *[unused] * (ATTRIBUTE_SLOTS - len(slots))])
    return torch.tensor(rows)
