"""NAS-Bench-101: 423,624 cells trained on CIFAR-10 (Ying et al., ICML 2019)."""

from __future__ import annotations

from datasets.base import Benchmark
from datasets.nasbench101_table import read_table
from datasets.nasbench101_tfrecord import read_tfrecord
from datasets.sources import Source

PAGE = "https://github.com/google-research/nasbench"


class NASBench101(Benchmark):
    """Accuracy of CIFAR-10 networks after 108 epochs.

    The official files give means over three repeats (``validation_accuracy``, ``test_accuracy``) in the order the official
    API iterates; the import table (docs/data.md) gives ``validation_accuracy_1run``, one of them, instead.
    """

    task = "accuracy"
    unit = "fraction"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The two official files, checksums as in the project's README, and the import table."""
        return (
            Source(
                pattern="nasbench_only108.tfrecord",
                what="official file with the results at 108 epochs, 499 MB",
                page=PAGE,
                read=read_tfrecord,
                sha256="4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
            ),
            Source(
                pattern="nasbench_full.tfrecord",
                what="official file with the results at 4, 12, 36 and 108 epochs, 1.95 GB",
                page=PAGE,
                read=read_tfrecord,
                sha256="3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
            ),
            Source(
                pattern="nasbench101.parquet",
                what="a table of cells and accuracies, format in docs/data.md",
                page=PAGE,
                read=read_table,
            ),
        )
