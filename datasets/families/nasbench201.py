"""NAS-Bench-201 cells in their macro skeleton (Dong and Yang, ICLR 2020, figure 1) at 32x32 pixels."""

from __future__ import annotations

from functools import reduce

from onnx import ModelProto

from datasets.cells201 import CELL_EDGES, EDGE_OPERATIONS
from datasets.families.builder import FeatureMap, NetworkBuilder
from datasets.families.draws import Draw

Cell = dict[tuple[int, int], str]
"""Operation of each edge (source, target)."""


def nasbench201(draw: Draw) -> ModelProto:
    """Three stages of one to five cells of one random kind, each stage of random depth and width."""
    cell: Cell = {}
    while not on_path(cell):
        cell = dict(zip(CELL_EDGES, draw.rng.choice(EDGE_OPERATIONS, len(CELL_EDGES)).tolist(), strict=True))
    net = NetworkBuilder("nasbench201", 32)
    x = net.norm(net.conv(net.input, draw.channels(24)))
    for stage in range(3):
        x = _reduction(net, x, draw.channels(24 * 2**stage)) if stage else x
        for _ in range(draw.pick((1, 2, 3, 4, 5))):
            x = cell_output(net, cell, x)
    return net.classify(net.relu(net.norm(x)))


def on_path(cell: Cell) -> list[int]:
    """Feature maps on a path from the first to the last, in order; none if ``none`` operations cut every path."""
    used = {edge for edge, operation in cell.items() if operation != "none"}
    ahead, back = {0}, {3}
    for node in (1, 2, 3):
        ahead |= {target for source, target in used if target == node and source in ahead}
    for node in (2, 1, 0):
        back |= {source for source, target in used if source == node and target in back}
    return sorted(ahead & back)


def cell_output(net: NetworkBuilder, cell: Cell, x: FeatureMap) -> FeatureMap:
    """Add a cell to the network: what its last feature map depends on and nothing else."""
    maps = {0: x}
    for target in on_path(cell)[1:]:
        terms = [_operation(net, cell[source, target], maps[source]) for source in maps if cell[source, target] != "none"]
        maps[target] = reduce(net.add, terms)
    return maps[3]


def _operation(net: NetworkBuilder, name: str, x: FeatureMap) -> FeatureMap:
    if name == "skip_connect":
        return x
    if name == "avg_pool_3x3":
        return net.average_pool(x)
    return net.norm(net.conv(net.relu(x), x.channels, {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name]))


def _reduction(net: NetworkBuilder, x: FeatureMap, channels: int) -> FeatureMap:
    """Residual block of stride 2."""
    y = net.norm(net.conv(net.relu(x), channels, stride=2))
    y = net.norm(net.conv(net.relu(y), channels))
    return net.add(y, net.conv(net.average_pool(x, 2, 2), channels, 1))
