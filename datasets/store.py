"""One immutable columnar table of graphs: how every benchmark is kept on disk and read back.

A store is a folder with ``graphs.arrow`` (memory-mapped) or ``graphs.parquet`` (small enough to commit) and a
``manifest.json``. Columns: ``key`` (official id), ``hash`` (canonical graph hash, 16 bytes), ``ops`` (list of operation
ids in topological order), ``edges`` (list of parent, child pairs), ``static.<name>`` and ``label.<name>``; of whole
networks also ``attributes`` and ``output_shape`` (one row a node), and ``group.<name>`` (``family``, ``platform``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS, GraphBatch
from datasets.ragged import Ragged

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TABLES = {"arrow": "graphs.arrow", "parquet": "graphs.parquet"}
"""File of the graphs, by container."""

_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("name", "task", "hash_rule", "fingerprint"), str),
    **dict.fromkeys(("labels", "static", "source", "notes", "attributes"), dict),
    **dict.fromkeys(("rows", "schema_version"), int),
    "operations": list,
}
"""What each key of a manifest is."""


@dataclass(frozen=True)
class Manifest:
    """What a store holds and where it came from.

    Attributes:
        name: benchmark name.
        task: ``accuracy`` or ``latency``.
        operations: vocabulary; an operation id is a position in it.
        labels: unit of each label.
        static: unit of each per-graph feature.
        hash_rule: which canonical hash the ``hash`` column holds.
        source: file the store was made from, with its sha256 (None of a folder) and size.
        notes: what else is known of the data, by heading.
        attributes: meaning of the attribute slots of each operation, of whole networks.
        rows: number of graphs.
        fingerprint: sha256 of every column's content, independent of the container.
        schema_version: of the store's files.
    """

    name: str
    task: str
    operations: tuple[str, ...]
    labels: Mapping[str, str]
    static: Mapping[str, str]
    hash_rule: str
    source: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: int = 0
    fingerprint: str = ""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Columns:
    """The content of a store before it is written.

    Attributes:
        keys: official ids.
        hashes: (B, 16) uint8.
        ops: operation ids per graph.
        edges: (parent, child) pairs per graph, values (E, 2).
        static: per-graph features (B,).
        labels: per-graph labels (B,).
        attributes: attributes of every node, values (N, ATTRIBUTE_SLOTS), of whole networks.
        output_shape: output dimensions of every node, values (N, SHAPE_DIMENSIONS), of whole networks.
        groups: names (B,) that graphs are grouped by.
    """

    keys: Sequence[str]
    hashes: NDArray[np.uint8]
    ops: Ragged
    edges: Ragged
    static: Mapping[str, NDArray[Any]]
    labels: Mapping[str, NDArray[Any]]
    attributes: Ragged | None = None
    output_shape: Ragged | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """The Arrow table, in the column order of the schema."""
        pairs = pa.FixedSizeListArray.from_arrays(pa.array(self.edges.values.reshape(-1)), 2)
        arrays: dict[str, pa.Array] = {
            "key": pa.array(self.keys, pa.string()),
            "hash": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), len(self.hashes), [None, pa.py_buffer(np.ascontiguousarray(self.hashes))]
            ),
            "ops": pa.ListArray.from_arrays(pa.array(self.ops.offsets, pa.int32()), pa.array(self.ops.values)),
            "edges": pa.ListArray.from_arrays(pa.array(self.edges.offsets, pa.int32()), pairs),
        }
        arrays |= {f"static.{name}": pa.array(column) for name, column in self.static.items()}
        arrays |= {f"label.{name}": pa.array(column) for name, column in self.labels.items()}
        for name, rows in self.node_features().items():
            fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.reshape(-1), pa.float32()), rows.values.shape[1])
            arrays[name] = pa.ListArray.from_arrays(pa.array(rows.offsets, pa.int32()), fixed)
        arrays |= {f"group.{name}": pa.array(column, pa.string()) for name, column in self.groups.items()}
        return pa.table(arrays)

    def node_features(self) -> dict[str, Ragged]:
        """The columns with one row a node, by name."""
        columns = {"attributes": self.attributes, "output_shape": self.output_shape}
        return {name: column for name, column in columns.items() if column is not None}

    def check(self, operations: Sequence[str], source: str) -> None:
        """Refuse keys that occur twice, unknown operations and edges that do not run forward.

        Raises:
            UserError: naming the source and the first offending key.
            ValueError: if a column with one row a node is not of the nodes' number or its own width.
        """
        widths = {"attributes": ATTRIBUTE_SLOTS, "output_shape": SHAPE_DIMENSIONS}
        for name, column in self.node_features().items():
            if not np.array_equal(column.offsets, self.ops.offsets) or column.values.shape[1] != widths[name]:
                raise ValueError(f"{name} {column.values.shape} does not fit {len(self.ops.values)} nodes")
        distinct, first = np.unique(np.asarray(self.keys), return_index=True)
        if len(distinct) < len(self.keys):
            row = np.setdiff1d(np.arange(len(self.keys)), first)[0]
            raise UserError(f"{source}: row {row}: key {self.keys[row]} occurs before; give every graph once")
        graph = np.repeat(np.arange(len(self.ops)), self.ops.counts)
        unknown = np.flatnonzero((self.ops.values < 0) | (self.ops.values >= len(operations)))
        if len(unknown):
            raise UserError(
                f"{source}: row {self.keys[graph[unknown[0]]]}: operation id {self.ops.values[unknown[0]]} is unknown; "
                f"ids 0-{len(operations) - 1} mean {', '.join(operations)}"
            )
        graph = np.repeat(np.arange(len(self.edges)), self.edges.counts)
        parent, child = self.edges.values[:, 0], self.edges.values[:, 1]
        bad = np.flatnonzero((parent < 0) | (parent >= child) | (child >= self.ops.counts[graph]))
        if len(bad):
            raise UserError(
                f"{source}: row {self.keys[graph[bad[0]]]}: edge {parent[bad[0]]}->{child[bad[0]]} makes a cycle or leaves "
                "the graph; nodes must be in topological order"
            )


class GraphStore:
    """A read-only store; open one with ``GraphStore.open``."""

    def __init__(self, table: pa.Table, manifest: Manifest, folder: Path) -> None:
        self.table = table.combine_chunks()
        self.manifest = manifest
        self.folder = folder

    @classmethod
    def open(cls, folder: Path) -> GraphStore:
        """Map the store in ``folder``.

        Raises:
            UserError: if the folder holds no complete store of this schema version.
        """
        manifest = _read_manifest(folder)
        arrow, parquet = (folder / TABLES[container] for container in ("arrow", "parquet"))
        try:
            if arrow.exists():
                table = pa.ipc.open_file(pa.memory_map(str(arrow))).read_all()
            else:
                table = pa.parquet.read_table(parquet)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{folder}: the graph table is unreadable ({error}); delete the folder and prepare again"
            ) from None
        if table.num_rows != manifest.rows:
            raise UserError(
                f"{folder}: {table.num_rows} rows where the manifest says {manifest.rows}; delete it and prepare again"
            )
        named = {"key", "hash", "ops", "edges", *(f"static.{name}" for name in manifest.static)}
        missing = sorted({*named, *(f"label.{name}" for name in manifest.labels)} - set(table.column_names))
        if missing:
            raise UserError(
                f"{folder}: the graph table has no column {', '.join(missing)}; delete the folder and prepare again"
            )
        return cls(table, manifest, folder)

    def __len__(self) -> int:
        return self.manifest.rows

    @cached_property
    def ops(self) -> Ragged:
        """Operation ids of every graph."""
        return Ragged.from_arrow(self._array("ops"))

    @cached_property
    def edges(self) -> Ragged:
        """Parent, child pairs of every graph."""
        return Ragged.from_arrow(self._array("edges"))

    @cached_property
    def attributes(self) -> Ragged | None:
        """Attributes of every node, values (N, ATTRIBUTE_SLOTS); None for cells."""
        return self._node_features("attributes")

    @cached_property
    def output_shape(self) -> Ragged | None:
        """Output dimensions of every node, values (N, SHAPE_DIMENSIONS); None for cells."""
        return self._node_features("output_shape")

    @cached_property
    def hashes(self) -> NDArray[np.uint8]:
        """Canonical graph hashes (B, 16)."""
        buffer = self._array("hash").buffers()[1]
        return np.frombuffer(buffer, np.uint8, len(self) * 16).reshape(-1, 16)

    def keys(self, rows: NDArray[np.int64]) -> pa.Array:
        """Official ids of ``rows``."""
        return self._array("key").take(pa.array(rows))

    def label(self, name: str) -> NDArray[np.float64]:
        """A label of every graph, NaN where absent.

        Raises:
            UserError: if the store has no such label, listing those it has.
        """
        return self._floats(f"label.{self.first_label(name)}")

    def first_label(self, names: str) -> str:
        """The first label the store has of ``names``: one name, or several in order of preference (``a|b``).

        Raises:
            UserError: if the store has none of them, listing those it has.
        """
        known = self.manifest.labels
        found = next((name for name in names.split("|") if name in known), None)
        if found is None:
            raise UserError(f"{self.manifest.name} has no label {names!r}; it has {', '.join(known)}")
        return found

    def static(self, name: str) -> NDArray[np.float64]:
        """A per-graph feature of every graph."""
        return self._floats(f"static.{name}")

    def groups(self, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The distinct values of ``group.<name>`` in order of appearance, and the position in them of each graph (B,).

        No values and zeros if the store is not grouped by ``name``; -1 for a graph without a value.
        """
        if f"group.{name}" not in self.table.column_names:
            return (), np.zeros(len(self), np.int64)
        encoded = self._array(f"group.{name}").dictionary_encode()
        return tuple(encoded.dictionary.to_pylist()), encoded.indices.fill_null(-1).to_numpy().astype(np.int64)

    @cached_property
    def platforms(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Devices of the labels, and the position in them of each graph (B,)."""
        return self.groups("platform")

    def with_platforms_of(self, rows: NDArray[np.int64]) -> GraphStore:
        """This store with the devices of ``rows`` alone: graphs of others stay, without a device."""
        names, place = self.platforms
        kept = [names[i] for i in np.unique(place[rows])] if names else []
        if len(kept) == len(names):
            return self
        column = self._array("group.platform")
        shown = pc.if_else(pc.is_in(column, pa.array(kept)), column, None)
        number = self.table.column_names.index("group.platform")
        return GraphStore(self.table.set_column(number, "group.platform", shown), self.manifest, self.folder)

    def batch(self, rows: NDArray[np.int64], target: str) -> GraphBatch:
        """Gather ``rows`` into one batch whose label to predict is ``target``."""
        ops, ptr = self.ops.take(rows)
        edges, edge_ptr = self.edges.take(rows)
        first_node = np.repeat(ptr[:-1], np.diff(edge_ptr))
        edge_index = np.empty((2, len(edges)), np.int64)
        np.add(edges[:, 0], first_node, out=edge_index[0])
        np.add(edges[:, 1], first_node, out=edge_index[1])
        return GraphBatch(
            op=torch.from_numpy(ops.astype(np.int64)),
            edge_index=torch.from_numpy(edge_index),
            ptr=torch.from_numpy(ptr),
            row=torch.from_numpy(rows),
            static={name: _float32(self.static(name)[rows]) for name in self.manifest.static},
            labels={target: _float32(self.label(target)[rows])},
            target_name=target,
            attributes=_rows_of(self.attributes, rows),
            output_shape=_rows_of(self.output_shape, rows),
            platform=torch.from_numpy(self.platforms[1][rows]) if len(self.platforms[0]) > 1 else None,
        )

    def _node_features(self, name: str) -> Ragged | None:
        return Ragged.from_arrow(self._array(name)) if name in self.table.column_names else None

    def _array(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def _floats(self, column: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = self._array(column).to_numpy(zero_copy_only=False)
        return values


def write_store(folder: Path, columns: Columns, manifest: Manifest, container: str = "arrow") -> GraphStore:
    """Check ``columns`` and write them to ``folder`` in one step: it appears whole or not at all.

    Args:
        folder: a store there is replaced.
        columns: the graphs.
        manifest: as far as the reader knows it; row count and fingerprint are filled in here.
        container: ``arrow`` (memory-mapped) or ``parquet`` (small).

    Raises:
        UserError: for graphs that are not valid, a folder that holds anything but a store, or when it cannot be written
            (a full disk, no permission); what was there before is then untouched.
    """
    require_place(folder)
    columns.check(manifest.operations, str(manifest.source["file"]))
    table = columns.table()
    whole = {**asdict(manifest), "rows": table.num_rows, "fingerprint": fingerprint(columns)}
    temporary = folder.with_name(f".{folder.name}-{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        if container == "arrow":
            with pa.ipc.new_file(str(temporary / TABLES[container]), table.schema) as writer:
                writer.write_table(table)
        else:
            pa.parquet.write_table(table, temporary / TABLES[container], compression="zstd")
        (temporary / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")
        _put_in_place(temporary, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: could not be written ({error.strerror or error}); free some space or choose another folder "
            "(--cache, dataset.cache), then prepare again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return GraphStore.open(folder)


def require_place(folder: Path) -> None:
    """Check that a store can be put at ``folder`` without anything but a store being deleted.

    Raises:
        UserError: if something else is there, or what is there cannot be told.
    """
    if not folder.name:
        raise UserError(f"{folder}: a store needs a folder of its own; give its name")
    try:
        found = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{folder}: could not be written ({error.strerror}); choose another folder") from None
    if others := sorted(found - {MANIFEST, *TABLES.values()}):
        raise UserError(f"{folder}: holds {others[0]}, which is no part of a store; choose another folder")


def fingerprint(columns: Columns) -> str:
    """Sha256 over the name, type and content of every column, the same in any container."""
    digest = hashlib.sha256("\n".join(columns.keys).encode())
    arrays = {"hash": columns.hashes}
    for name, lists in {"ops": columns.ops, "edges": columns.edges, **columns.node_features()}.items():
        arrays |= {name: lists.values, f"{name}.offsets": lists.offsets.astype(np.int64)}
    arrays |= {f"static.{name}": column for name, column in columns.static.items()}
    arrays |= {f"label.{name}": column for name, column in columns.labels.items()}
    for name, column in columns.groups.items():
        arrays[f"group.{name}"] = np.frombuffer("\n".join(column).encode(), np.uint8)
    for name, array in arrays.items():
        digest.update(f"\n{name} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _put_in_place(temporary: Path, folder: Path) -> None:
    retired = temporary.with_name(f"{temporary.name}.old")
    if folder.exists():
        folder.rename(retired)
    temporary.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no store here ({MANIFEST} is missing); run `narbench data prepare`") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete the folder and prepare again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the manifest of a store; delete the folder and prepare again")
    if (found := content.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {found}, this narbench reads {SCHEMA_VERSION}; delete the folder and prepare again"
        )
    content = {"notes": {}, "attributes": {}, **content}
    unfit = sorted(key for key in {*_KINDS, *content} if not isinstance(content.get(key), _KINDS.get(key, ())))
    if unfit:
        raise UserError(
            f"{path}: {', '.join(unfit)}: missing, of the wrong type or unknown; delete the folder and prepare again"
        )
    return Manifest(**{**content, "operations": tuple(content["operations"])})


def _rows_of(column: Ragged | None, rows: NDArray[np.int64]) -> torch.Tensor | None:
    return None if column is None else torch.from_numpy(column.take(rows)[0])


def _float32(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
