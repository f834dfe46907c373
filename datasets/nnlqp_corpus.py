"""A folder in NNLQP's format, a table of labels beside ONNX files, as columns of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console

from datasets.errors import UserError
from datasets.network_hash import HASH_RULE
from datasets.networks import ATTRIBUTES, OPERATIONS, STATIC
from datasets.nnlqp_chunks import Network, Networks, name, read_all
from datasets.nnlqp_table import Measurement, keys, read_table
from datasets.ragged import Ragged
from datasets.store import Columns, GraphStore, Manifest

LABEL = "latency_ms"
SHOWN, NOTED = 10, 100
"""Names of networks that cannot be read: in a message, and in the notes of a store."""


@dataclass(frozen=True)
class Corpus:
    """How a folder is read.

    Attributes:
        name: benchmark name.
        features: as of ``read_network``.
        allow_missing: leave out the rows of networks that cannot be read.
        always_platform: write the platform of each row even if there is just one.
        scratch: folder of what an interrupted preparation had finished; None keeps none.
        workers: processes; all cores by default.
        lenient: as of ``read_network``.
        remedy: what else to do about networks that cannot be read.
    """

    name: str
    features: str
    allow_missing: bool = False
    always_platform: bool = False
    scratch: Path | None = None
    workers: int | None = None
    lenient: bool = False
    remedy: str = "remove their rows"

    def read(self, table: Path) -> tuple[Columns, Manifest]:
        """Read ``table`` (``gt.txt``) and the networks it names, each once however often it was measured.

        Raises:
            UserError: for a table that is not valid, and for networks that cannot be read, each named with the reason;
                with ``allow_missing`` only if none can.
        """
        rows = read_table(table)
        networks = list(dict.fromkeys(map(_network, rows)))
        title = f"{self.name}: reading networks"
        read = read_all(table.parent, networks, self.features, self.lenient, self.scratch, self.workers, title)
        if read.failures and not (self.allow_missing and read.tables):
            raise UserError(_complaint(self.name, table, rows, read, self.remedy))
        notes: dict[str, Any] = {"features": self.features}
        if read.unknown:
            notes["unknown operators"] = read.unknown
        if read.failures:
            notes |= _left_out(self.name, rows, read)
        manifest = Manifest(
            name=self.name,
            task="latency",
            operations=OPERATIONS,
            labels={LABEL: "ms"},
            static=STATIC,
            hash_rule=HASH_RULE,
            source={"file": str(table)},
            notes=notes,
            attributes=ATTRIBUTES,
        )
        return _columns(rows, read, manifest, self.always_platform), manifest

    @staticmethod
    def files(table: Path) -> list[Path]:
        """The networks that ``table`` names, each once.

        Raises:
            UserError: for a table that is not valid.
        """
        return [table.parent / path for path in dict.fromkeys(row.path for row in read_table(table))]


def _columns(rows: Sequence[Measurement], read: Networks, manifest: Manifest, always_platform: bool) -> Columns:
    """The graph, label and groups of every row whose network was read."""
    table = pa.concat_tables(read.tables)
    graphs = GraphStore(table, replace(manifest, rows=table.num_rows), Path())
    place = {key: number for number, key in enumerate(table["key"].to_pylist())}
    index = np.array([place.get(name(_network(row)), -1) for row in rows])
    kept = [row for row, number in zip(rows, index, strict=True) if number >= 0]
    found = index[index >= 0]
    return Columns(
        keys=[key for key, number in zip(keys(rows), index, strict=True) if number >= 0],
        hashes=graphs.hashes[found],
        ops=_take(graphs.ops, found),
        edges=_take(graphs.edges, found),
        static={feature: graphs.static(feature)[found] for feature in STATIC},
        labels={LABEL: np.array([row.latency for row in kept])},
        attributes=_take(graphs.attributes, found),
        output_shape=_take(graphs.output_shape, found),
        groups=_groups(kept, always_platform),
    )


def _groups(rows: Sequence[Measurement], always_platform: bool) -> dict[str, list[str]]:
    """Family, stage where published, and platform."""
    groups = {"family": [row.family for row in rows]}
    stages = [row.stage for row in rows if row.stage is not None]
    if stages:
        groups["stage"] = stages
    platforms = [row.platform for row in rows]
    if always_platform or len(set(platforms)) > 1:
        groups["platform"] = platforms
    return groups


def _take(lists: Ragged | None, index: NDArray[np.int64]) -> Ragged:
    if lists is None:
        raise ValueError("networks have attributes and output shapes")
    return Ragged(*lists.take(index))


def _network(row: Measurement) -> Network:
    return row.path, row.batch


def _complaint(name: str, table: Path, rows: Sequence[Measurement], read: Networks, remedy: str) -> str:
    count, total = len(read.failures), len(set(map(_network, rows)))
    lines = "".join(f"\n  {path}: {why}" for (path, _), why in list(read.failures.items())[:SHOWN])
    more = f"\n  ... and {count - SHOWN:,} more" if count > SHOWN else ""
    if not read.tables:
        advice = f"put the folder onnx of the same download beside {table.name}"
    else:
        advice = f"mend or download them again, or {remedy}"
    return f"{name}: {count:,} of the {total:,} networks in {table} cannot be read; {advice}:{lines}{more}"


def _left_out(name: str, rows: Sequence[Measurement], read: Networks) -> Mapping[str, Any]:
    failures = read.failures
    count = sum(_network(row) in failures for row in rows)
    reasons = {path: why for (path, _), why in list(failures.items())[:NOTED]}
    shown = "".join(f"\n  {path}: {why}" for path, why in list(reasons.items())[:SHOWN])
    more = f"\n  ... and {len(failures) - SHOWN:,} more networks" if len(failures) > SHOWN else ""
    text = f"{name}: {count:,} of {len(rows):,} rows left out, whose networks cannot be read:{shown}{more}"
    Console(stderr=True).print(text, style="yellow", soft_wrap=True, highlight=False, markup=False)
    return {"rows left out": count, "networks left out": len(failures), "why (the first ones)": reasons}
