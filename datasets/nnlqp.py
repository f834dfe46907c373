"""NNLQP (Liu et al., ICPP 2022): measured latencies of whole networks, read from the official folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.base import Benchmark, DatasetConfig, LoadingConfig
from datasets.errors import require_choice
from datasets.nnlqp_corpus import Corpus
from datasets.onnx_graph import FEATURES
from datasets.protocol_types import ProtocolConfig
from datasets.sources import Source
from datasets.store import GraphStore

PAGE, STAGES = "https://github.com/ModelTC/NNLQP", "https://github.com/yuny220/NAR-Former-V2"
TABLES = {"unseen_structure": ("gt_stage.txt", "gt.txt"), "multi_platform": ("gt.txt",)}
"""Tables of labels of each part, best first; ``gt_stage.txt`` is that of NAR-Former V2, which adds stages."""


@dataclass
class NNLQPConfig(DatasetConfig):
    """Configuration of the benchmark.

    Attributes:
        part: ``unseen_structure`` (20,000 networks on one GPU) or ``multi_platform`` (2,000 networks on nine devices).
        features: ``as_code`` or ``fixed``, as of ``read_network``.
        allow_missing: leave out the rows of networks that cannot be read.
    """

    part: str
    features: str
    allow_missing: bool


class NNLQP(Benchmark):
    """Rows are those of the table, keys its ids, label ``latency_ms``; groups family, stage (where given), platform."""

    Config = NNLQPConfig
    task = "latency"
    unit = "ms"
    config: NNLQPConfig

    def __init__(self, config: NNLQPConfig, protocol: ProtocolConfig, loading: LoadingConfig, seed: int) -> None:
        require_choice("dataset.part", config.part, TABLES)
        require_choice("dataset.features", config.features, FEATURES)
        super().__init__(config, protocol, loading, seed)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The tables of labels of the part, beside which the networks are."""
        corpus = Corpus(
            name=self.config.name,
            features=self.config.features,
            allow_missing=self.config.allow_missing,
            always_platform=self.config.part == "multi_platform",
            scratch=self._scratch,
            remedy="leave their rows out with dataset.allow_missing=true (data prepare --allow-missing)",
        )
        unpack = f"unpack dataset.tar.gz (release v1.0-data) in {self.config.root}"
        known = {
            "gt.txt": Source(f"{self.config.part}/gt.txt", f"labels, beside the networks: {unpack}", PAGE, corpus.read),
            "gt_stage.txt": Source(
                f"{self.config.part}/gt_stage.txt", f"labels with stages; for the networks {unpack}", STAGES, corpus.read
            ),
        }
        return tuple(replace(known[table], shows_progress=True, files=corpus.files) for table in TABLES[self.config.part])

    @property
    def store_name(self) -> str:
        """Name, part and features, and whether some rows may be left out."""
        name = f"{self.config.name}-{self.config.part}-{self.config.features}"
        return f"{name}-partial" if self.config.allow_missing else name

    def open_store(self) -> GraphStore:
        """The benchmark's store, converted on first use."""
        store = super().open_store()
        shutil.rmtree(self._scratch, ignore_errors=True)
        return store

    @property
    def _scratch(self) -> Path:
        name = f".{self.config.name}-{self.config.part}-{self.config.features}.unfinished"
        return Path(self.config.cache).expanduser() / name
