"""Makes miniature NAS-Bench-101 files: official TFRecords and the import table, from a handful of cells."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from datasets.hashing import graph_hash

SEARCH_SPACE = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


@dataclass(frozen=True)
class Cell:
    """A cell by its edges and interior operations (digits: positions in ``SEARCH_SPACE``)."""

    interior: str
    edges: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return len(self.interior) + 2

    @property
    def operations(self) -> list[str]:
        return ["input", *(SEARCH_SPACE[int(digit)] for digit in self.interior), "output"]

    @property
    def adjacency(self) -> str:
        return "".join(str(int((i, j) in self.edges)) for i in range(self.size) for j in range(self.size))

    @property
    def hash(self) -> str:
        return graph_hash(self.edges, [-1, *map(int, self.interior), -2]).hex()


CELLS = (
    Cell("021", ((0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4), (3, 4))),
    Cell("", ((0, 1),)),
    Cell("0", ((0, 1), (1, 2))),
    Cell("01210", ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5), (4, 6), (5, 6))),
    Cell("1", ((0, 1), (0, 2), (1, 2))),
)


@dataclass(frozen=True)
class Run:
    """One training of a cell: what the last of its three evaluations says."""

    cell: Cell
    validation: float = 0.9
    test: float = 0.8
    seconds: float = 1000.0
    epochs: int = 108


def cost(cell: Cell) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the network, layer by layer."""
    layers = [(3, 128, 3, 32)]
    inputs = 128
    for outputs, side in ((128, 32), (256, 16), (512, 8)):
        for _ in range(3):
            layers += [(*layer, side) for layer in _cell_layers(cell, inputs, outputs)]
            inputs = outputs
    params = sum(k * k * a * b + 2 * b for a, b, k, _ in layers) + 512 * 10 + 10
    return params, sum(k * k * a * b * side * side for a, b, k, side in layers) + 512 * 10


def _cell_layers(cell: Cell, inputs: int, outputs: int) -> list[tuple[int, int, int]]:
    """(input channels, output channels, kernel) of every convolution of a cell."""
    last = cell.size - 1
    final = [v for v in range(1, last) if (v, last) in cell.edges]
    width = {v: outputs // len(final) + (place < outputs % len(final)) for place, v in enumerate(final)}
    for v in reversed(range(1, last)):
        width.setdefault(v, max((width[w] for w in range(v + 1, last) if (v, w) in cell.edges), default=0))
    width[last] = outputs
    layers = [(inputs, width[v], 1) for v in range(1, cell.size) if (0, v) in cell.edges]
    kernels = {"0": 3, "1": 1}
    return layers + [(width[v], width[v], kernels[d]) for v, d in enumerate(cell.interior, 1) if d in kernels]


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head += bytes([value & 127 | 128])
        value >>= 7
    return head + bytes([value])


def metrics(run: Run, evaluations: int = 3) -> bytes:
    """A serialised ModelMetrics with worthless early evaluations."""
    message = b""
    for number in range(evaluations):
        share = number / (evaluations - 1)
        values = (run.epochs * share, run.seconds * share, 1.0 * share, run.validation * share, run.test * share)
        inner = b"".join(bytes([field << 3 | 1]) + struct.pack("<d", v) for field, v in enumerate(values, 1))
        inner += b"\x32" + varint(9) + b"ckpt-%04d" % number
        message += b"\x0a" + varint(len(inner)) + inner
    return message + b"\x10" + varint(cost(run.cell)[0]) + b"\x19" + struct.pack("<d", run.seconds)


def record(run: Run) -> list[str | int]:
    """The content of one record, before it becomes JSON."""
    operations = ",".join(run.cell.operations)
    return [run.cell.hash, run.epochs, run.cell.adjacency, operations, b64encode(metrics(run)).decode()]


def write_tfrecord(path: Path, runs: Iterable[Run]) -> Path:
    path.write_bytes(b"".join(framed(json.dumps(record(run)).encode()) for run in runs))
    return path


def table(cells: Iterable[Cell] = CELLS) -> dict[str, list[object]]:
    """The columns of the import table; the last validation accuracy is absent."""
    cells = list(cells)
    return {
        "hash": [bytes.fromhex(cell.hash) for cell in cells],
        "n_nodes": [cell.size for cell in cells],
        "n_edges": [len(cell.edges) for cell in cells],
        "adj_bits": [sum(1 << x + y * (y - 1) // 2 for x, y in cell.edges) for cell in cells],
        "op_labels": [cell.interior for cell in cells],
        "params": [cost(cell)[0] for cell in cells],
        "test_accuracy": [0.9 + place / 100 for place in range(len(cells))],
        "validation_accuracy_1run": [*(0.8 + place / 100 for place in range(len(cells) - 1)), float("nan")],
    }


def write_table(path: Path, columns: dict[str, list[object]]) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path
