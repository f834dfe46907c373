"""NAS-Bench-201 cells as whole networks of ONNX operations, in the vocabulary of NNLQP.

Source: "NAS-Bench-201" (Dong and Yang, ICLR 2020, section 2.1) and its published network: a 3x3 convolution stem with batch
normalisation, three stages of five cells, a residual block of stride 2 before the second and the third stage (its shortcut
a 2x2 average pool and a 1x1 convolution without normalisation), normalisation, ReLU, global pool and classifier. Nodes are
in the order the network executes them, batch normalisations unfused.

Inside a cell ``skip_connect`` is an edge and no node. ``none`` is a ``Mul`` by a constant zero, as the network computes it,
the constant an ``Input`` without a shape as in any ONNX export; branches that cannot matter are thus there too. k summed
tensors take k - 1 ``Add`` (Python's ``sum`` adds the first one to 0 as well: the same for all cells, and left out). A
tensor added to itself is one edge. Layers that compute the same are not merged, as some exporters do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from datasets.cells201 import CELL_EDGES, parse_cell
from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS
from datasets.networks import OPERATIONS
from datasets.ragged import Ragged

Block = tuple[list[str], list[tuple[int, int]]]
"""Layers of a part of a network and its (parent, child) edges; -1 is the last node of the part before."""

_CELLS = 5
_WIDTHS = (16, 32, 64)
_EDGE_LAYERS = {
    "none": ("zero",),
    "skip_connect": (),
    "nor_conv_1x1": ("relu", "conv_1x1", "norm"),
    "nor_conv_3x3": ("relu", "conv_3x3", "norm"),
    "avg_pool_3x3": ("pool",),
}

_STEM: Block = (["image", "stem", "norm"], [(0, 1), (1, 2)])
_REDUCTION: Block = (
    ["relu_before", "conv_down", "norm", "relu", "conv_3x3", "norm", "pool_down", "shortcut", "sum"],
    [(-1, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (-1, 6), (6, 7), (5, 8), (7, 8)],
)
_HEAD: Block = (["norm", "relu", "global_pool", "flatten", "classifier"], [(i - 1, i) for i in range(5)])


@dataclass(frozen=True)
class Setting:
    """What a network was measured on.

    Attributes:
        batch: images at once.
        side: of the square images.
        classes: outputs of the classifier.
    """

    batch: int = 1
    side: int = 32
    classes: int = 10

    def __str__(self) -> str:
        return f"batch{self.batch}-side{self.side}-classes{self.classes}"


@dataclass(frozen=True)
class Networks:
    """Columns of B networks.

    Attributes:
        ops: positions in ``networks.OPERATIONS``.
        edges: (parent, child) pairs.
        attributes: (nodes, ATTRIBUTE_SLOTS) float32.
        output_shape: (nodes, SHAPE_DIMENSIONS) float32, the batch first.
        static: batch, FLOPs, parameters and memory (B,) by name, counted as NNLQP does: convolutions, pools and the
            classifier for one image, element-wise operations for the batch; four parameters a normalised channel;
            memory in elements, of parameters and of every node's output.
    """

    ops: Ragged
    edges: Ragged
    attributes: Ragged
    output_shape: Ragged
    static: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class _Layer:
    operation: str
    shape: tuple[int, ...] = ()
    flops: int = 0
    params: int = 0
    attributes: tuple[int, ...] = ()


def expand(cells: Sequence[str], setting: Setting) -> Networks:
    """Whole networks of B architecture strings.

    Raises:
        ValueError: naming the first string that is not a cell.
    """
    layers, edges, plan, stages = _assemble([_cell(parse_cell(cell)) for cell in cells])
    node, node_ptr = layers.take(plan.reshape(-1))
    pairs, pair_ptr = edges.take(plan.reshape(-1))
    counts = np.diff(node_ptr).reshape(plan.shape)
    first = (np.cumsum(counts, 1) - counts).reshape(-1)
    pairs = pairs + np.repeat(first, np.diff(pair_ptr))[:, None]
    table = _table(setting)
    kind = node.astype(np.int64) * len(_WIDTHS) + np.repeat(np.tile(stages, len(plan)), counts.reshape(-1))
    sizes = counts.sum(1)
    starts = np.cumsum(sizes) - sizes
    totals = {name: np.add.reduceat(values[kind], starts) for name, values in _costs(table, setting.batch).items()}
    return Networks(
        ops=Ragged.from_counts(np.array([OPERATIONS.index(layer.operation) for layer in table], np.uint8)[kind], sizes),
        edges=Ragged.from_counts(pairs.astype(np.uint16), np.diff(pair_ptr).reshape(plan.shape).sum(1)),
        attributes=Ragged.from_counts(_padded([x.attributes for x in table], ATTRIBUTE_SLOTS)[kind], sizes),
        output_shape=Ragged.from_counts(
            _padded([(setting.batch, *x.shape) if x.shape else () for x in table], SHAPE_DIMENSIONS)[kind], sizes
        ),
        static={"batch": np.full(len(plan), setting.batch), **totals},
    )


def _cell(operations: Sequence[str]) -> Block:
    layers: list[str] = []
    edges: list[tuple[int, int]] = []
    sums = {0: -1}
    for (source, target), operation in zip(CELL_EDGES, operations, strict=True):
        end = sums[source]
        if operation == "none":
            edges.append((len(layers), len(layers) + 1))
            layers.append("constant")
        for layer in _EDGE_LAYERS[operation]:
            edges.append((end, len(layers)))
            layers.append(layer)
            end = len(layers) - 1
        if target in sums:
            edges += [(value, len(layers)) for value in sorted({sums[target], end})]
            layers.append("sum")
            end = len(layers) - 1
        sums[target] = end
    return layers, edges


def _assemble(cells: list[Block]) -> tuple[Ragged, Ragged, NDArray[np.int64], NDArray[np.int64]]:
    """Layers and edges of all blocks, the blocks (B, 19) that each network is made of, and their stages (19,)."""
    blocks = [*cells, _STEM, _REDUCTION, _HEAD]
    stem, reduction, head = range(len(cells), len(blocks))
    plan = np.tile(np.arange(len(cells))[:, None], 3 * _CELLS + 4)
    plan[:, 0], plan[:, -1] = stem, head
    plan[:, _CELLS + 1] = plan[:, 2 * _CELLS + 2] = reduction
    stages = np.repeat(np.arange(3), [_CELLS + 1, _CELLS + 1, _CELLS + 2])
    names = {name: place for place, name in enumerate(_layers(Setting(), 0))}
    layers = np.array([names[name] for layers, _ in blocks for name in layers], np.uint8)
    edges = np.array([edge for _, edges in blocks for edge in edges], np.int64)
    return (
        Ragged.from_counts(layers, np.array([len(layers) for layers, _ in blocks])),
        Ragged.from_counts(edges, np.array([len(edges) for _, edges in blocks])),
        plan,
        stages,
    )


def _layers(setting: Setting, stage: int) -> dict[str, _Layer]:
    """Every layer there is, at the width and the feature map of a stage."""
    batch, width, side = setting.batch, _WIDTHS[stage], setting.side >> stage
    half, stem = width // 2, _WIDTHS[0]
    size = width * side**2
    return {
        "image": _Layer("Input", (3, setting.side, setting.side)),
        "stem": _convolution(3, stem, 3, setting.side),
        "relu": _Layer("Relu", (width, side, side)),
        "conv_1x1": _convolution(width, width, 1, side),
        "conv_3x3": _convolution(width, width, 3, side),
        "norm": _Layer("BatchNormalization", (width, side, side), 4 * batch * size, 4 * width),
        "pool": _Layer("AveragePool", (width, side, side), 9 * size, 0, (3, 1, 1)),
        "constant": _Layer("Input"),
        "zero": _Layer("Mul", (width, side, side), batch * size),
        "sum": _Layer("Add", (width, side, side), batch * size),
        "relu_before": _Layer("Relu", (half, 2 * side, 2 * side)),
        "conv_down": _convolution(half, width, 3, side, stride=2),
        "pool_down": _Layer("AveragePool", (half, side, side), 4 * half * side**2, 0, (2, 2, 0)),
        "shortcut": _convolution(half, width, 1, side),
        "global_pool": _Layer("GlobalAveragePool", (width, 1, 1), width * side),
        "flatten": _Layer("Flatten", (width,)),
        "classifier": _Layer("Gemm", (setting.classes,), 2 * width * setting.classes, (width + 1) * setting.classes, (1,)),
    }


def _convolution(inputs: int, outputs: int, kernel: int, side: int, stride: int = 1) -> _Layer:
    """Without bias; ``side`` is that of its output."""
    weights = inputs * kernel**2
    attributes = (kernel, stride, kernel // 2, 1, 1, 0)
    return _Layer("Conv", (outputs, side, side), outputs * side**2 * (2 * weights - 1), outputs * weights, attributes)


def _table(setting: Setting) -> list[_Layer]:
    """Every layer at every stage, the stage running faster."""
    stages = [_layers(setting, stage).values() for stage in range(len(_WIDTHS))]
    return [layer for layers in zip(*stages, strict=True) for layer in layers]


def _costs(table: list[_Layer], batch: int) -> dict[str, NDArray[np.int64]]:
    params = np.array([layer.params for layer in table])
    outputs = np.array([batch * prod(layer.shape) * (layer.operation != "Input") for layer in table])
    return {"flops": np.array([layer.flops for layer in table]), "params": params, "memory": outputs + params}


def _padded(rows: Sequence[Sequence[int]], width: int) -> NDArray[np.float32]:
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.float32)
