"""Stores that are part of the package: their content is checked whenever they are opened."""

from __future__ import annotations

from pathlib import Path

from datasets.errors import UserError
from datasets.store import Columns, GraphStore, fingerprint


def open_embedded(folder: Path) -> GraphStore:
    """Map the store in ``folder``.

    Raises:
        UserError: if the folder holds no complete store, or another content than its fingerprint is of.
    """
    store = GraphStore.open(folder)
    if fingerprint(read_columns(store)) != store.manifest.fingerprint:
        raise UserError(f"{folder}: was altered: its graphs do not have its manifest's fingerprint; install narbench again")
    return store


def read_columns(store: GraphStore) -> Columns:
    """The content of a store as it was before it was written."""
    table = store.table

    def named(kind: str) -> list[str]:
        return [name.removeprefix(f"{kind}.") for name in table.column_names if name.startswith(f"{kind}.")]

    return Columns(
        keys=table["key"].to_pylist(),
        hashes=store.hashes,
        ops=store.ops,
        edges=store.edges,
        static={name: table[f"static.{name}"].to_numpy() for name in named("static")},
        labels={name: table[f"label.{name}"].to_numpy() for name in named("label")},
        attributes=store.attributes,
        output_shape=store.output_shape,
        groups={name: table[f"group.{name}"].to_pylist() for name in named("group")},
    )
