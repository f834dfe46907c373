"""Latencies that a user measured on one device: a table in NNLQP's format beside its networks, or a prepared store."""

from __future__ import annotations

import glob
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.base import Benchmark, DatasetConfig
from datasets.errors import UserError, require_choice
from datasets.nnlqp_corpus import LABEL, Corpus
from datasets.ortcpu import TABLE
from datasets.protocol_types import Split, graph_numbers, parse_size
from datasets.sources import Source, prepare_store
from datasets.store import MANIFEST, GraphStore

NAME = "measured"
PROTOCOL, VERSION = "few_shot", 1


@dataclass
class MeasuredConfig(DatasetConfig):
    """Configuration of the data; ``root`` is the table, or the folder of ``narbench measure`` or of a store.

    Attributes:
        features: ``as_code`` or ``fixed``, as of ``read_network``.
        platform: device whose latencies are used, where the data have several.
    """

    features: str
    platform: str | None


class Measured(Benchmark):
    """Networks and their latencies on one device under ``few_shot``: ``train`` random networks train, the others test."""

    Config = MeasuredConfig
    task = "latency"
    unit = "ms"
    config: MeasuredConfig

    @property
    def sources(self) -> tuple[Source, ...]:
        """The table, named as the user names it."""
        corpus = Corpus(NAME, self.config.features, lenient=True)
        pattern = glob.escape(self._table.name)
        what, page = "labels, beside the networks", "docs/your-own-device.md"
        return (Source(pattern, what, page, corpus.read, shows_progress=True, files=corpus.files),)

    def open_store(self) -> GraphStore:
        """The store of the one device, the table converted on first use.

        Raises:
            UserError: if there are no such data, they are not valid or read with other features, or the device is unclear.
        """
        root = Path(self.config.root).expanduser()
        if (root / MANIFEST).is_file():
            store = _prepared(root, self.config.features)
        else:
            cache, name = Path(self.config.cache).expanduser(), f"{NAME}-{self.config.features}"
            store = prepare_store(NAME, self._table.parent, cache, self.sources, filed_as=name)
        return _on_one_device(store, self.config.platform)

    def setup(self, stage: str | None = None) -> None:
        """Open the store and draw the networks that train."""
        self.store, self.labels = self.open_store(), self.config.labels
        self.parts = few_shot(self.store, parse_size(self.protocol.train, len(self.store), "k"), self.protocol.seed)

    @property
    def _table(self) -> Path:
        root = Path(self.config.root).expanduser()
        table = root / TABLE if root.is_dir() else root
        if not table.is_file():
            raise UserError(
                f"{root}: no latencies here; give a table in NNLQP's format (gt.txt), a folder of `narbench measure` "
                "or a prepared store"
            )
        return table


def few_shot(store: GraphStore, size: int, seed: int) -> Split:
    """``size`` random rows train, in random order, and every other row whose graph is none of theirs tests."""
    order = np.random.default_rng(seed).permutation(len(store))
    train, others = order[:size], order[size:]
    numbers = graph_numbers(store.hashes)
    test = np.sort(others[~np.isin(numbers[others], numbers[train])])
    excluded = {"same graph as one that trains": len(others) - len(test)}
    return Split(train, np.empty(0, np.int64), test, None, excluded, "")


def _prepared(folder: Path, features: str) -> GraphStore:
    store = GraphStore.open(folder)
    found = store.manifest.notes.get("features", "as_code")
    if not store.manifest.attributes:
        raise UserError(f"{folder}: holds no whole networks, which the run is on; give another store, or a table")
    if found != features:
        raise UserError(
            f"{folder}: holds networks read with features={found}, and the run reads networks with features={features}; "
            "prepare them so, or give their table"
        )
    return store


def _on_one_device(store: GraphStore, platform: str | None) -> GraphStore:
    """The labelled rows of a device as a store that knows no other and has that label alone.

    A store has several devices in rows of their own, or in labels ``latency_ms.<device>``.
    """
    names, number = store.platforms
    labels = {label.removeprefix(f"{LABEL}."): label for label in store.manifest.labels if label.startswith(f"{LABEL}.")}
    devices = names or tuple(labels)
    if platform is None and len(devices) > 1:
        raise UserError(
            f"{store.folder.name}: latencies of {len(devices)} devices; choose a platform: {', '.join(devices)}"
        )
    if platform is not None and not devices:
        raise UserError(f"platform={platform}: these latencies are of one device; leave it out")
    if platform is not None:
        require_choice("platform", platform, devices)
    device = platform or "".join(devices)
    label = labels.get(device, LABEL)
    kept = ~np.isnan(store.label(label))
    if names:
        kept &= number == names.index(device)
    others = [name for name in store.table.column_names if name.startswith("label.") and name != f"label.{label}"]
    table = store.table.drop_columns([*others, *(["group.platform"] if names else [])]).filter(kept)
    table = table.rename_columns({f"label.{label}": f"label.{LABEL}"})
    unit = {LABEL: store.manifest.labels[label]}
    return GraphStore(table, replace(store.manifest, rows=table.num_rows, labels=unit), store.folder)
