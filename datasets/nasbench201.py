"""NAS-Bench-201: 15,625 cells with accuracies on CIFAR-10, CIFAR-100 and ImageNet16-120."""

from __future__ import annotations

from datasets.base import Benchmark
from datasets.nasbench201_official import read_nats, read_pth
from datasets.nasbench201_table import read_table
from datasets.sources import Source

_NATS = "https://github.com/D-X-Y/NATS-Bench"
_NB201 = "https://github.com/D-X-Y/NAS-Bench-201"


class NASBench201(Benchmark):
    """Rows are official indices, keys architecture strings; every graph is the fixed 8-node DAG, ``none`` nodes kept."""

    task = "accuracy"
    unit = "fraction"

    @property
    def sources(self) -> tuple[Source, ...]:
        """NATS-Bench, NAS-Bench-201 v1.1 and v1.0, or a table of the labels."""
        return (
            Source("NATS-tss-v1_0-3ffb9-simple", "NATS-Bench topology, the unpacked `simple` folder", _NATS, read_nats),
            Source(
                "NAS-Bench-201-v1_1-096897.pth", "NAS-Bench-201 v1.1, the whole benchmark in one file", _NB201, read_pth
            ),
            Source(
                "NAS-Bench-201-v1_0-e61699.pth", "NAS-Bench-201 v1.0, the whole benchmark in one file", _NB201, read_pth
            ),
            Source("nasbench201.parquet", "a table of the labels: docs/data.md", _NATS, read_table),
        )
