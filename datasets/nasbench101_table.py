"""The import table of NAS-Bench-101: one Parquet row per cell (docs/data.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from datasets.cells101 import MAX_VERTICES, OPERATIONS, Cells, manifest
from datasets.errors import UserError
from datasets.hashing import graph_hash
from datasets.ragged import Ragged
from datasets.store import Columns, Manifest

COLUMNS = {
    "hash": pa.binary(16),
    "n_nodes": pa.int64(),
    "n_edges": pa.int64(),
    "adj_bits": pa.uint32(),
    "op_labels": pa.string(),
    "params": pa.int64(),
    "test_accuracy": pa.float64(),
    "validation_accuracy_1run": pa.float64(),
}
"""Columns of the table and the types they are read as."""

LABELS = {"validation_accuracy_1run": "fraction", "test_accuracy": "fraction"}

_DIGITS = np.array([OPERATIONS.index(op) for op in ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")], np.uint8)
"""Operation id of each digit of ``op_labels``: the official order of the search space."""

_HASH_LABELS = np.array([-1, 1, 0, 2, -2])
"""Label of each operation id in the official hash."""

_HASHED = 2000
"""Rows whose hash is checked, in less than a second."""


def read_table(path: Path) -> tuple[Columns, Manifest]:
    """Read the table.

    Raises:
        UserError: naming the file, and the row (from 0) and the column that are wrong.
    """
    columns = _columns(path)
    for name, column in columns.items():
        if column.null_count and name != "validation_accuracy_1run":
            _refuse(path, name, column.is_null().to_numpy(zero_copy_only=False), "is empty")
    numbers = {name: columns[name].to_numpy(zero_copy_only=False) for name in COLUMNS if name not in ("hash", "op_labels")}
    size, bits = numbers["n_nodes"], numbers["adj_bits"]
    _refuse(path, "n_nodes", (size < 2) | (size > MAX_VERTICES), f"is not in 2-{MAX_VERTICES}")
    _refuse(path, "n_edges", numbers["n_edges"] != np.bitwise_count(bits), "is not the number of edges in adj_bits")
    test, validation = numbers["test_accuracy"], numbers["validation_accuracy_1run"]
    _refuse(path, "test_accuracy", ~((test >= 0) & (test <= 1)), "is not in 0-1")
    _refuse(path, "validation_accuracy_1run", (validation < 0) | (validation > 1), "is not in 0-1 (or NaN)")
    cells = Cells(
        source=str(path),
        hashes=np.frombuffer(columns["hash"].buffers()[1], np.uint8)[columns["hash"].offset * 16 :].reshape(-1, 16),
        ops=_operations(path, columns["op_labels"], size),
        bits=bits,
        params=numbers["params"],
    )
    read = cells.columns({name: numbers[name] for name in LABELS})
    _check_hashes(path, read)
    return read, manifest(LABELS, {})


def _columns(path: Path) -> dict[str, pa.Array]:
    """The columns, each in its type of ``COLUMNS``."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path}: column {missing[0]} is missing; the table needs {', '.join(COLUMNS)}")
            table = file.read(columns=list(COLUMNS))
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); make or get it again") from None
    return {name: _cast(path, name, table.column(name)) for name in COLUMNS}


def _cast(path: Path, name: str, column: pa.ChunkedArray) -> pa.Array:
    try:
        return pa.concat_arrays(column.cast(COLUMNS[name]).chunks or [pa.array([], COLUMNS[name])])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: column {name}: {error}; make it {COLUMNS[name]}") from None


def _operations(path: Path, labels: pa.Array, size: NDArray[np.int64]) -> Ragged:
    """Operation ids of every cell: input, those of its digits, output."""
    texts = labels.to_pylist()
    counts = np.fromiter(map(len, texts), np.int64, len(texts))
    _refuse(path, "op_labels", counts != size - 2, "has not one digit for each of the n_nodes - 2 interior nodes")
    digits = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8) - ord("0")
    offsets = np.concatenate([[0], np.cumsum(size)])
    unknown = digits >= len(_DIGITS)
    bad = np.isin(np.arange(len(size)), np.repeat(np.arange(len(size)), counts)[unknown])
    _refuse(path, "op_labels", bad, "has a digit outside 0-2 (0 conv3x3-bn-relu, 1 conv1x1-bn-relu, 2 maxpool3x3)")
    values = np.zeros(offsets[-1], np.uint8)
    interior = np.ones(len(values), bool)
    interior[offsets[:-1]] = interior[offsets[1:] - 1] = False
    values[interior] = _DIGITS[digits]
    values[offsets[1:] - 1] = OPERATIONS.index("output")
    return Ragged(values, offsets)


def _check_hashes(path: Path, columns: Columns) -> None:
    """Compare the hashes of ``_HASHED`` rows, drawn from a larger table, with those of their cells."""
    count = len(columns.keys)
    rows = np.sort(np.random.default_rng(0).permutation(count)[:_HASHED])
    ops, first_op = columns.ops.take(rows)
    edges, first_edge = columns.edges.take(rows)
    labels = _HASH_LABELS[ops]
    for place, row in enumerate(rows.tolist()):
        own_edges = edges[first_edge[place] : first_edge[place + 1]].tolist()
        own_labels = labels[first_op[place] : first_op[place + 1]].tolist()
        given, found = columns.keys[row], graph_hash(own_edges, own_labels).hex()
        if given != found:
            raise UserError(f"{path}: row {row}, column hash: {given} is not this cell's, {found}; make the table again")


def _refuse(path: Path, column: str, bad: NDArray[Any], why: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        raise UserError(f"{path}: row {rows[0]}, column {column}: {why}; {len(rows)} rows are so: correct them")
