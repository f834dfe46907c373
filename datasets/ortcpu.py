"""``ortcpu``: the latency benchmark that comes with narbench, networks timed by ``narbench measure`` on one CPU core."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.base import Benchmark
from datasets.embedded import open_embedded
from datasets.errors import UserError
from datasets.nnlqp_corpus import Corpus
from datasets.sources import Source
from datasets.store import MANIFEST, GraphStore, require_place, write_store

FOLDER = Path(__file__).parent / "data" / "ortcpu"
"""The committed store."""

TABLE, DEVICE = Path("unseen_structure", "gt.txt"), "device.json"
FEATURES = "as_code"
_NOTED = ("device", "cpu", "threads", "onnxruntime", "system", "seed", "noise")


class OrtCpu(Benchmark):
    """Variants of common network families: milliseconds with ONNX Runtime, one label a network; grouped by family."""

    task = "latency"
    unit = "ms"

    @property
    def sources(self) -> tuple[Source, ...]:
        """None: the store is part of the package."""
        return ()

    def open_store(self) -> GraphStore:
        """The committed store.

        Raises:
            UserError: if this installation comes without it, or it was altered.
        """
        if not (FOLDER / MANIFEST).exists():
            raise UserError(
                f"ortcpu: no store in {FOLDER}; install narbench again, or make one: `narbench measure --out FOLDER`, then "
                f"`narbench data make ortcpu --from FOLDER --out {FOLDER}`"
            )
        return open_embedded(FOLDER)


def make(measured: Path, folder: Path, workers: int | None = None) -> GraphStore:
    """Write what ``narbench measure`` left in ``measured`` as a store.

    Args:
        measured: folder with ``unseen_structure/gt.txt``, its networks and ``device.json``.
        folder: where the store appears, whole or not at all.
        workers: processes; all cores by default.

    Raises:
        UserError: if a file is missing or not valid, or ``folder`` holds anything but a store or cannot be written.
    """
    require_place(folder)
    table = measured / TABLE
    if not table.is_file():
        raise UserError(f"{table}: no such file; `narbench measure --out {measured}` makes it when it is finished")
    device = _device(measured / DEVICE)
    columns, manifest = Corpus("ortcpu", FEATURES, workers=workers).read(table)
    content = table.read_bytes()
    source = {
        "file": f"{TABLE.name} of `narbench measure`",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "page": "docs/your-own-device.md",
    }
    notes = {**manifest.notes, **{name: device[name] for name in _NOTED if name in device}}
    return write_store(folder, columns, replace(manifest, source=source, notes=notes), container="parquet")


def _device(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `narbench measure` writes it beside the measurements") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); measure again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no facts on a device; measure again")
    return content
