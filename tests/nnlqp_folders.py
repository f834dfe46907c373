"""Miniature folders in NNLQP's official format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto
from onnx_models import model, node, tensor, weight


def chain(channels: int, depth: int = 2, operator: str = "Relu") -> ModelProto:
    """``depth`` convolutions of ``channels`` channels, each followed by ``operator``, on a 3x8x8 image."""
    nodes, weights, last, width = [], [], "x", 3
    for level in range(depth):
        weights.append(weight(f"w{level}", channels, width, 3, 3))
        nodes.append(node("Conv", f"{last} w{level}", f"c{level}", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        nodes.append(node(operator, f"c{level}", f"r{level}"))
        last, width = f"r{level}", channels
    return model(nodes, [tensor("x", "batch", 3, 8, 8)], [last], weights)


def write_networks(folder: Path, networks: dict[str, ModelProto]) -> None:
    for path, network in networks.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(network.SerializeToString())


def write_table(path: Path, rows: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows))
    return path


def chains(root: Path, per_family: int = 20, part: str = "unseen_structure") -> Path:
    """Families ``shallow`` and ``deep`` (its odd networks with Sigmoid); latency grows with width and depth."""
    networks, rows = {}, []
    for family, depth in (("shallow", 1), ("deep", 3)):
        for i in range(per_family):
            path, channels = f"onnx/{family}/{i:03d}.onnx", 4 + i
            networks[path] = chain(channels, depth, "Sigmoid" if depth == 3 and i % 2 else "Relu")
            rows.append(f"{len(rows) + 1:05d} {path} 1 {channels * depth / 1000} {family} 1")
    write_networks(root / part, networks)
    return write_table(root / part / "gt.txt", rows)
