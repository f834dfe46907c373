"""``digits201``: the benchmark that comes with narbench, 2,000 NAS-Bench-201 cells trained on handwritten digits.

Its labels are small but real (``digits201_training.py`` makes them), so every part of a predictor study can be tried
without a download. They rank cells by what an 8x8-pixel task rewards and do not replace the CIFAR-10 benchmarks.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from datasets.base import Benchmark
from datasets.cells201 import NODE_OPERATIONS
from datasets.cells201_graphs import HASH_RULE, graph_columns
from datasets.digits201_training import SEEDS, Recipe, load_images, train_all
from datasets.embedded import open_embedded
from datasets.sources import Source
from datasets.store import Columns, GraphStore, Manifest, require_place, write_store

FOLDER = Path(__file__).parent / "data" / "digits201"
"""The committed store."""


class Digits201(Benchmark):
    """NAS-Bench-201 cells on scikit-learn's digits: accuracy as a fraction, mean of three seeds and each seed."""

    task = "accuracy"
    unit = "fraction"

    @property
    def sources(self) -> tuple[Source, ...]:
        """None: the store is part of the package."""
        return ()

    def open_store(self) -> GraphStore:
        """The committed store.

        Raises:
            UserError: if it was altered.
        """
        return open_embedded(FOLDER)


def make(journal: Path, folder: Path, workers: int, recipe: Recipe | None = None) -> GraphStore:
    """Train the cells that ``journal`` lacks and write the store to ``folder``.

    Args:
        journal: finished cells; an interrupted run continues from it.
        folder: where the store appears, whole or not at all.
        workers: training processes.
        recipe: how networks are trained; that of the committed store by default.

    Raises:
        UserError: if the journal is of another recipe or damaged, or ``folder`` holds anything but a store or cannot be
            written.
    """
    require_place(folder)
    recipe = recipe or Recipe()
    rows = train_all(journal, recipe, workers)
    validation, test, seconds = (np.array([row[name] for row in rows]) for name in ("validation", "test", "seconds"))
    cells = [row["arch"] for row in rows]
    ops, edges, hashes = graph_columns(cells)
    labels = {"validation_accuracy": validation.mean(1), "test_accuracy": test.mean(1)}
    labels |= {f"validation_accuracy_seed{seed}": validation[:, i] for i, seed in enumerate(SEEDS)}
    labels |= {f"test_accuracy_seed{seed}": test[:, i] for i, seed in enumerate(SEEDS)}
    labels["training_seconds"] = seconds.min(1)
    static = {name: np.array([row[name] for row in rows]) for name in ("params", "flops")}
    manifest = Manifest(
        name="digits201",
        task=Digits201.task,
        operations=NODE_OPERATIONS,
        labels={name: "s" if name == "training_seconds" else Digits201.unit for name in labels},
        static={"params": "trainable parameters", "flops": "multiply-accumulates of one image"},
        hash_rule=HASH_RULE,
        source=_source(),
        notes=_notes(recipe, validation, test),
    )
    return write_store(folder, Columns(cells, hashes, ops, edges, static, labels), manifest, container="parquet")


def noise_ceilings(validation: NDArray[np.float64], test: NDArray[np.float64]) -> dict[str, float]:
    """Kendall's tau-b that the noise of training leaves reachable; the last two are estimates.

    Tau is turned into a correlation by r = sin(pi tau / 2), exact for a bivariate normal (Greiner 1909); Spearman-Brown
    gives that of two means of n seeds, R = n r / (1 + (n - 1) r), and sqrt(R) is that of one such mean with the accuracy
    expected over seeds, the most that a predictor which sees only the architecture can reach; the way back gives tau.

    Args:
        validation: accuracies (B, seeds).
        test: accuracies (B, seeds).
    """
    seeds = test.shape[1]
    single = np.mean([kendalltau(test[:, a], test[:, b]).statistic for a, b in combinations(range(seeds), 2)])
    r = max(0.0, np.sin(np.pi / 2 * single))
    means = seeds * r / (1 + (seeds - 1) * r)
    ceilings = {
        "test_single_seed_vs_single_seed": single,
        "validation_mean_vs_test_mean": kendalltau(validation.mean(1), test.mean(1)).statistic,
        "test_mean_vs_independent_mean_estimated": 2 / np.pi * np.arcsin(means),
        "test_mean_vs_expectation_estimated": 2 / np.pi * np.arcsin(np.sqrt(means)),
    }
    return {name: round(float(tau), 4) for name, tau in ceilings.items()}


def _source() -> dict[str, Any]:
    images, classes = load_images()
    digest = hashlib.sha256(images.numpy().tobytes() + classes.numpy().tobytes()).hexdigest()
    return {
        "file": "scikit-learn load_digits (1,797 images of 8x8 pixels), trained by `narbench data make digits201`",
        "sha256": digest,
        "bytes": images.nbytes + classes.nbytes,
        "page": "https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
    }


def _notes(recipe: Recipe, validation: NDArray[np.float64], test: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "recipe": {**asdict(recipe), "seeds": list(SEEDS)},
        "software": {package: version(package) for package in ("torch", "scikit-learn")},
        "noise_ceiling_tau_b": noise_ceilings(validation, test),
        "noise_ceiling_meaning": (
            "Measured: one seed against another, and the validation against the test mean (the same trained networks on "
            "other images). Estimated from the former by Spearman-Brown on r = sin(pi tau / 2), as if accuracies were "
            "bivariate normal and on the same test images: the mean of three seeds against that of three others, and "
            "against the accuracy expected over seeds, the most a predictor that sees only the architecture can reach."
        ),
        "training_seconds": "wall time on one thread, the least of three seeds; the CPU was shared with other jobs",
    }
