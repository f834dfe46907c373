"""The official NAS-Bench-101 files, read without TensorFlow.

A TFRecord file is a chain of records: length (uint64), masked CRC-32C of the length, payload, masked CRC-32C of the
payload. A payload is JSON, ``[module_hash, epochs, adjacency, operations, metrics]``: the adjacency as n x n digits 0 or 1
row by row, the operations with commas between, the metrics as base64 of a protocol buffer (``ModelMetrics`` in
``model_metrics.proto`` of the google-research/nasbench repository). One module has several records: three repeats, in
the full file at each of 4, 12, 36 and 108 epochs.

The CRC of lengths is verified. That of payloads is not (half a gigabyte is too much for Python): the SHA-256 of the whole
file is checked elsewhere, payloads are parsed strictly, and parameter counts are compared with the cells'.
"""

from __future__ import annotations

import json
import struct
from array import array
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.cells101 import MAX_VERTICES, OPERATIONS, Cells, manifest, refuse
from datasets.ragged import Ragged
from datasets.store import Columns, Manifest

LABELS = {"validation_accuracy": "fraction", "test_accuracy": "fraction", "training_seconds": "s"}
EPOCHS = 108

_FIELDS = {"training_seconds": 2, "validation_accuracy": 4, "test_accuracy": 5}
"""Numbers of the fields of ``EvaluationData`` that are labels."""

_FINAL = 2
"""Position of the end of training in ``evaluation_data``; before it come the start and the half-way point."""


@dataclass
class _Modules:
    """What is kept of the records: the first cell and parameter count of every module, sums over its repeats."""

    row: dict[str, int] = field(default_factory=dict)
    ops: bytearray = field(default_factory=bytearray)
    sizes: bytearray = field(default_factory=bytearray)
    bits: array[int] = field(default_factory=lambda: array("L"))
    params: array[int] = field(default_factory=lambda: array("q"))
    repeats: array[int] = field(default_factory=lambda: array("q"))
    sums: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in LABELS})

    def add(self, payload: bytes) -> None:
        """Take in one record.

        Raises:
            ValueError: if it is not valid.
        """
        module, epochs, adjacency, operations, metrics = _fields_of(payload)
        known = module in self.row
        if known and epochs != EPOCHS:
            return
        params, labels = parse_metrics(b64decode(metrics, validate=True))
        if not known:
            self._add_module(module, adjacency, operations.split(","), params)
        if epochs == EPOCHS:
            self._add_repeat(self.row[module], labels)

    def _add_module(self, module: str, adjacency: str, operations: list[str], params: int) -> None:
        if len(bytes.fromhex(module)) != 16:
            raise ValueError(f"{module!r} is not a module hash of 32 hexadecimal digits")
        self.ops += operation_ids(operations)
        self.bits.append(adjacency_bits(adjacency, len(operations)))
        self.sizes.append(len(operations))
        self.params.append(params)
        self.repeats.append(0)
        for values in self.sums.values():
            values.append(0)
        self.row[module] = len(self.row)

    def _add_repeat(self, row: int, labels: dict[str, float]) -> None:
        self.repeats[row] += 1
        for name, value in labels.items():
            self.sums[name][row] += value

    def columns(self, source: str) -> Columns:
        """The store's content, in the order in which modules first appeared."""
        repeats = np.array(self.repeats)
        if not len(repeats):
            refuse(f"{source}: no records")
        if not repeats.all():
            refuse(f"{source}: module {list(self.row)[int(repeats.argmin())]} has no record at {EPOCHS} epochs")
        cells = Cells(
            source=source,
            hashes=np.frombuffer(bytes.fromhex("".join(self.row)), np.uint8).reshape(-1, 16),
            ops=Ragged.from_counts(np.frombuffer(self.ops, np.uint8), np.frombuffer(self.sizes, np.uint8)),
            bits=np.array(self.bits, np.uint32),
            params=np.array(self.params),
        )
        return cells.columns({name: np.array(self.sums[name]) / repeats for name in LABELS})


def read_tfrecord(path: Path) -> tuple[Columns, Manifest]:
    """Read ``nasbench_only108.tfrecord`` or ``nasbench_full.tfrecord``: means over the repeats at 108 epochs.

    Modules keep the order in which they first appear, which is the order the official API iterates in.

    Raises:
        UserError: naming the file and the record (from 0) or module that is wrong.
    """
    modules = _Modules()
    with path.open("rb") as file:
        for number, payload in enumerate(records(file)):
            try:
                modules.add(payload)
            except (ValueError, OverflowError, RecursionError, struct.error) as error:
                refuse(f"{path}: record {number}{_name(payload)}: {error}")
    columns = modules.columns(str(path))
    repeats = {str(n): int(count) for n, count in zip(*np.unique(modules.repeats, return_counts=True), strict=True)}
    return columns, manifest(LABELS, {"modules_by_repeats": repeats})


def records(file: BinaryIO) -> Iterator[bytes]:
    """Payloads of a TFRecord file.

    Raises:
        UserError: if a length does not match its CRC or the file ends within a record.
    """
    number, size = 0, Path(file.name).stat().st_size
    while header := file.read(12):
        if len(header) < 12:
            refuse(f"{file.name}: record {number}: the file ends within it")
        if not _length_is_sound(header):
            refuse(f"{file.name}: record {number}: its length does not match its checksum")
        length = int.from_bytes(header[:8], "little")
        record = file.read(min(length, size) + 4)
        if len(record) < length + 4:
            refuse(f"{file.name}: record {number}: the file ends within it")
        yield record[:length]
        number += 1


def adjacency_bits(adjacency: str, size: int) -> int:
    """Edges of a cell as the integer ``Cells.bits`` describes.

    Args:
        adjacency: size x size digits 0 or 1, row by row.
        size: vertices.

    Raises:
        ValueError: if it is no such matrix or an edge does not lead to a later vertex.
    """
    if len(adjacency) != size**2 or adjacency.strip("01"):
        raise ValueError(f"adjacency {adjacency!r} is not {size} x {size} digits 0 or 1")
    bits = 0
    for place, digit in enumerate(adjacency):
        if digit == "1":
            parent, child = divmod(place, size)
            if parent >= child:
                raise ValueError(f"edge {parent}->{child} makes a cycle (the adjacency is not upper triangular)")
            bits |= 1 << (parent + child * (child - 1) // 2)
    return bits


def operation_ids(operations: list[str]) -> bytes:
    """Ids of a cell's operations.

    Raises:
        ValueError: if there are not 2 to 7, the first is not the input, the last not the output, or one is unknown.
    """
    interior = operations[1:-1]
    if not 2 <= len(operations) <= MAX_VERTICES or (operations[0], operations[-1]) != ("input", "output"):
        raise ValueError(f"operations {','.join(operations)!r} are not input, up to {MAX_VERTICES - 2} others, output")
    for operation in interior:
        if operation not in OPERATIONS[1:-1]:
            raise ValueError(f"operation {operation!r} is unknown; known are {', '.join(OPERATIONS[1:-1])}")
    return bytes(map(OPERATIONS.index, operations))


def parse_metrics(metrics: bytes) -> tuple[int, dict[str, float]]:
    """Trainable parameters and the labels at the end of training, from a serialised ``ModelMetrics``.

    Raises:
        ValueError: if a field is missing or an accuracy is not a fraction.
        struct.error: if the bytes end early.
    """
    fields = list(_wire(metrics))
    evaluations = [value for number, value in fields if number == 1 and isinstance(value, bytes)]
    params = dict(fields).get(2)
    if len(evaluations) <= _FINAL or not isinstance(params, int):
        raise ValueError("the metrics lack evaluation_data or trainable_parameters")
    final = dict(_wire(evaluations[_FINAL]))
    values = {name: final.get(number) for name, number in _FIELDS.items()}
    labels = {name: value for name, value in values.items() if isinstance(value, float)}
    accuracies = (labels.get("validation_accuracy", -1), labels.get("test_accuracy", -1))
    if len(labels) < len(_FIELDS) or not all(0 <= accuracy <= 1 for accuracy in accuracies):
        raise ValueError(f"the final metrics {values} are incomplete or not fractions")
    return params, labels


def _wire(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Fields of a protocol buffer message: number and value (varint, double or bytes)."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
        elif kind == 1:
            yield tag >> 3, struct.unpack_from("<d", data, place)[0]
            place += 8
        elif kind == 2:
            length, place = _varint(data, place)
            yield tag >> 3, struct.unpack_from(f"{length}s", data, place)[0]
            place += length
        else:
            raise ValueError(f"the metrics hold wire type {kind}, which ModelMetrics does not use")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("the metrics end within a number")


def _fields_of(payload: bytes) -> tuple[str, int, str, str, str]:
    content = json.loads(payload)
    types = [str, int, str, str, str]
    if not isinstance(content, list) or [type(item) for item in content] != types:
        raise ValueError("it is not [module_hash, epochs, adjacency, operations, metrics]")
    return tuple(content)


def _name(payload: bytes) -> str:
    """The module a payload names, for messages."""
    found = payload[:34].partition(b'["')[2]
    return f" (module {found.decode()})" if len(found) == 32 and found.isalnum() else ""


@lru_cache(maxsize=1024)
def _length_is_sound(header: bytes) -> bool:
    """Whether the masked CRC-32C of a record's length is that of the length (Castagnoli polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in header[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked == int.from_bytes(header[8:], "little")
