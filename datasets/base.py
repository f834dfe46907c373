"""What every benchmark is to the rest of narbench: a Lightning data module over one graph store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.graph import GraphBatch, TaskSpec
from datasets.protocol_types import LabelConfig, ProtocolConfig, Split
from datasets.protocols import prove_disjoint, split
from datasets.shares import ALONE, Part, Share
from datasets.sources import Source, prepare_store
from datasets.store import GraphStore

Rows = NDArray[np.int64]


@dataclass
class DatasetConfig:
    """A benchmark and where its files are.

    Attributes:
        target: ``module:Class`` of the data module.
        name: benchmark name.
        root: folder with the official files.
        cache: folder for the converted stores.
        checksum: refuse a file whose published checksum differs.
        labels: label column of each role.
    """

    target: str
    name: str
    root: str
    cache: str
    checksum: bool
    labels: LabelConfig


@dataclass
class LoadingConfig:
    """How batches are drawn.

    Attributes:
        batch_size: graphs of a training batch.
        eval_nodes: nodes of an evaluation batch, about.
    """

    batch_size: int
    eval_nodes: int


class GraphRows(Dataset[GraphBatch]):
    """Indexable by an array of rows: one vectorised gather per batch."""

    def __init__(self, store: GraphStore, target: str) -> None:
        self.store = store
        self.target = target

    def __getitem__(self, rows: Rows) -> GraphBatch:
        return self.store.batch(rows, self.target)


class GraphParts(GraphRows):
    """Indexable by one process's part of a batch."""

    def __getitem__(self, part: Part) -> GraphBatch:  # type: ignore[override]
        return replace(super().__getitem__(part.rows), weight=part.weight)


class EpochSampler(Sampler[Rows]):
    """Batches of rows in an order that is a pure function of the seed and the epoch.

    Args:
        rows: rows to draw.
        batch_size: rows of a batch; the last batch may be smaller.
        seed: of the shuffling.
        sizes: tokens of each row (same length as ``rows``); given, every batch holds graphs of one size.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int, sizes: Rows | None = None) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.sizes = np.zeros(len(rows), np.int64) if sizes is None else sizes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-int(n) // self.batch_size) for n in np.unique(self.sizes, return_counts=True)[1])

    def __iter__(self) -> Iterator[Rows]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.rows))
        buckets = [order[self.sizes[order] == size] for size in np.unique(self.sizes)]
        batches = [batch for bucket in buckets for batch in self._cut(self.rows[bucket])]
        for index in rng.permutation(len(batches)):
            yield batches[index]

    def _cut(self, rows: Rows) -> list[Rows]:
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]


class PartSampler(Sampler[Part]):
    """One process's part of every batch of ``batches``.

    Args:
        batches: the same in every process.
        costs: of every row of the store.
        share: of this process.
    """

    def __init__(self, batches: EpochSampler, costs: Rows, share: Share) -> None:
        self.batches = batches
        self.costs = costs
        self.share = share

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Part]:
        for rows in self.batches:
            yield self.share.part(rows, self.costs[rows])


class NodeBudgetSampler(Sampler[Rows]):
    """Batches of rows in order, cut at every multiple of ``nodes`` nodes: memory is bounded whatever the size of graphs.

    Args:
        rows: rows to draw.
        counts: nodes of each row (same length as ``rows``).
        nodes: of a batch; it may have one graph more.
    """

    def __init__(self, rows: Rows, counts: Rows, nodes: int) -> None:
        cut = np.flatnonzero(np.diff(np.cumsum(counts) // nodes)) + 1
        self.batches: list[Rows] = np.split(rows, cut) if len(rows) else []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.batches)


class Benchmark(LightningDataModule, ABC):
    """A benchmark under a protocol.

    Subclasses name their ``task``, ``unit`` and ``sources``, and their ``Config`` where they have keys of their own;
    everything else is shared.
    """

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig
    task: ClassVar[str]
    unit: ClassVar[str]

    def __init__(self, config: DatasetConfig, protocol: ProtocolConfig, loading: LoadingConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.protocol = protocol
        self.loading = loading
        self.seed = seed
        self.store: GraphStore
        self.parts: Split
        self.labels: LabelConfig

    @property
    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """The forms this benchmark is published in, best first."""

    def open_store(self) -> GraphStore:
        """The benchmark's store, converted from the official file on first use."""
        root, cache = Path(self.config.root).expanduser(), Path(self.config.cache).expanduser()
        return prepare_store(
            self.config.name, root, cache, self.sources, filed_as=self.store_name, checksum=self.config.checksum
        )

    @property
    def store_name(self) -> str:
        """What the store is filed under; of a benchmark with several stores a name for each."""
        return self.config.name

    def prepare_data(self) -> None:
        """Convert the official file once (Lightning calls this on one process only)."""
        self.open_store()

    def setup(self, stage: str | None = None) -> None:
        """Map the store and apply the protocol."""
        if hasattr(self, "parts"):
            return
        self.store = self.open_store()
        names = self.config.labels
        self.labels = LabelConfig(*map(self.store.first_label, (names.train, names.val, names.test)))
        self.parts = split(self.store, self.protocol, self.labels)
        if not self.parts.leaks:
            prove_disjoint(self.store, self.parts)
        rows = np.concatenate([self.parts.train, self.parts.val, self.parts.test])
        self.store = self.store.with_platforms_of(rows)

    @property
    def spec(self) -> TaskSpec:
        """What a predictor is told about the benchmark."""
        manifest = self.store.manifest
        attributes = {name: tuple(slots) for name, slots in manifest.attributes.items()}
        platforms = self.store.platforms[0]
        return TaskSpec(self.task, manifest.operations, tuple(manifest.static), self.unit, attributes, platforms)

    def train_dataloader(self, sizes: Rows | None = None, share: Share = ALONE) -> DataLoader[GraphBatch]:
        """Our share of shuffled training batches; ``sizes`` (tokens of each training row) makes them ``by_size``."""
        batches = EpochSampler(self.parts.train, self.loading.batch_size, self.seed, sizes)
        if share == ALONE:
            return self._loader(batches, self.labels.train)
        parts = PartSampler(batches, self.store.ops.counts, share)
        return DataLoader(GraphParts(self.store, self.labels.train), sampler=parts, batch_size=None)

    def eval_dataloader(self, rows: Rows, label: str) -> DataLoader[GraphBatch]:
        """``rows`` in order, in batches of about ``eval_nodes`` nodes."""
        return self._loader(NodeBudgetSampler(rows, self.store.ops.counts[rows], self.loading.eval_nodes), label)

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        """Validation batches."""
        return self.eval_dataloader(self.parts.val, self.labels.val)

    def test_dataloader(self) -> DataLoader[GraphBatch]:
        """Test batches."""
        return self.eval_dataloader(self.parts.test, self.labels.test)

    def _loader(self, sampler: Sampler[Rows], label: str) -> DataLoader[GraphBatch]:
        return DataLoader(GraphRows(self.store, label), sampler=sampler, batch_size=None)
