"""Latencies of NAS-Bench-201 networks from one Parquet table, one row per network; the columns are in docs/data.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from datasets.cells201 import NODE_OPERATIONS, node_operations
from datasets.cells201_graphs import used_nodes
from datasets.errors import UserError
from datasets.nb201_devices import DEVICES, Device
from datasets.networks import ATTRIBUTES, OPERATIONS, STATIC
from datasets.networks201 import expand
from datasets.networks201_hash import HASH_RULE, network_hashes
from datasets.store import Columns, Manifest

LABEL = "latency_ms"
_FAILED = -1
_COSTLIEST_FIRST = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")


def read_latencies(path: Path, like: Device) -> tuple[Columns, Manifest]:
    """Whole networks with the latencies of every device that shares the table and the setting of ``like``.

    Missing latencies are NaN and counted in the notes: failed measurements (-1 or empty in the table), and networks that
    a compiler folded to a constant (see ``folded``).

    Raises:
        UserError: naming the file and the row and column that are missing or not valid.
    """
    devices = {name: d for name, d in DEVICES.items() if (d.table, d.setting) == (like.table, like.setting)}
    cells, labels = _read(path, devices)
    nodes = _nodes(path, cells)
    failed = {name: int(np.isnan(values).sum()) for name, values in labels.items()}
    constant = {name: folded(labels[name], nodes) for name in labels if devices[name].folds}
    labels |= {name: np.where(constant[name], np.nan, labels[name]) for name in constant}
    networks = expand(cells, like.setting)
    notes = {
        "networks not measured": failed,
        "networks left out as folded to a constant": {name: int(bad.sum()) for name, bad in constant.items()},
    }
    manifest = Manifest(
        name="nb201_latency",
        task="latency",
        operations=OPERATIONS,
        labels={f"{LABEL}.{name}": "ms" for name in labels},
        static=STATIC,
        hash_rule=HASH_RULE,
        source={"file": str(path)},
        notes={what: positive for what, counts in notes.items() if (positive := {k: n for k, n in counts.items() if n})},
        attributes=ATTRIBUTES,
    )
    columns = Columns(
        keys=cells,
        hashes=network_hashes(cells),
        ops=networks.ops,
        edges=networks.edges,
        static=networks.static,
        labels={f"{LABEL}.{name}": values for name, values in labels.items()},
        attributes=networks.attributes,
        output_shape=networks.output_shape,
        groups={"family": families(nodes)},
    )
    return columns, manifest


def families(nodes: NDArray[np.uint8]) -> list[str]:
    """The operation on at least three of a cell's six edges, the costlier of two such; ``mixed`` if there is none.

    A family held out is thus an extrapolation: no graph left has its operation more than twice a cell, but for those with
    a costlier one three times. Cells of one ``network_hashes`` hash have equal operations, so are of one family.

    Args:
        nodes: node-operation ids (B, 8).
    """
    family = np.full(len(nodes), "mixed", object)
    for name in reversed(_COSTLIEST_FIRST):
        family[(nodes == NODE_OPERATIONS.index(name)).sum(1) >= 3] = name
    return [str(name) for name in family]


def folded(latency: NDArray[np.float64], nodes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Networks (B,) whose output does not depend on the image and which ran faster than every one whose output does.

    Such a network is not what its graph says: the compiler computed it, or most of it, beforehand. On HW-NAS-Bench's
    Raspberry Pi 4 they take down to 0.01 ms where the fastest other network takes 2.5 ms.

    Args:
        latency: milliseconds (B,), NaN where missing.
        nodes: node-operation ids (B, 8).
    """
    connected = used_nodes(nodes)[:, 1:-1].any(1)
    others = latency[connected & ~np.isnan(latency)]
    constant: NDArray[np.bool_] = latency < others.min(initial=np.inf)
    return constant


def _read(path: Path, devices: dict[str, Device]) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    try:
        names = pa.parquet.read_schema(path).names
        present = {name: next((c for c in d.columns if c in names), None) for name, d in devices.items()}
        columns = {name: column for name, column in present.items() if column is not None}
        if "arch_str" not in names:
            raise UserError(f"{path}: no column arch_str; it has {', '.join(names)}")
        if not columns:
            wanted = ", ".join(device.columns[0] for device in devices.values())
            raise UserError(f"{path}: no column of latencies; add one of {wanted}")
        table = pa.parquet.read_table(path, columns=["arch_str", *columns.values()])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); copy it again") from None
    cells = ["" if text is None else str(text) for text in table["arch_str"].to_pylist()]
    return cells, {name: _latencies(path, table, column) for name, column in columns.items()}


def _latencies(path: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    column = table[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}: column {name} holds {column.type}, not numbers; make the table again")
    values: NDArray[Any] = np.array(column.to_numpy(), np.float64)
    values[values == _FAILED] = np.nan
    bad = np.flatnonzero((values <= 0) | np.isinf(values))
    if len(bad):
        raise UserError(
            f"{path}: row {bad[0]}, column {name}: {values[bad[0]]:g} is no latency in ms; mend it, or write -1 or nothing "
            "where a device failed"
        )
    return values


def _nodes(path: Path, cells: Sequence[str]) -> NDArray[np.uint8]:
    for row, cell in enumerate(cells):
        try:
            node_operations([cell])
        except ValueError as error:
            raise UserError(f"{path}: row {row}, arch_str: {error}; download the file or make the table again") from None
    return node_operations(list(cells))
