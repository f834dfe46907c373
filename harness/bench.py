"""Speed, measured: medians of repeated runs, and the fraction of this machine's matrix-product peak they reach."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.graph import GraphBatch
from datasets.protocol_types import LabelConfig, ProtocolConfig
from datasets.protocols import split
from datasets.store import GraphStore
from harness import registry
from harness.assembly import build_data, build_predictor
from harness.bench_inputs import CELLS, NETWORKS, random_cells, random_networks
from harness.config import compose, typed
from harness.metrics import kendall_tau
from harness.training import train
from predictors.base import Predictor
from predictors.fitted import FittedPredictor
from predictors.recipe import build_optimizer

PREDICT_CELLS = 4096
"""Cells that are scored, in batches of ``PREDICT_BATCH``."""

PREDICT_NETWORKS = 32
"""Batches of twice the sixteen networks of a training batch, some 4,096 nodes: 1,024 networks that are scored."""

PREDICT_BATCH = 256

LOAD = """
import sys, time, psutil
from pathlib import Path
from datasets.store import GraphStore
before, clock = psutil.Process().memory_info().rss, time.perf_counter()
store = GraphStore.open(Path(sys.argv[1]))
touched = store.ops.values.sum() + store.edges.values.sum() + sum(store.label(n)[-1] for n in store.manifest.labels)
print(time.perf_counter() - clock, (psutil.Process().memory_info().rss - before) / 1e6)
"""


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median wall time of ``run`` after one call that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        clock = time.perf_counter()
        run()
        times.append(time.perf_counter() - clock)
    return statistics.median(times)


def gemm_gflops() -> float:
    """Single-precision matrix-product rate in GFLOP/s: the peak other figures are compared with."""
    a, b = torch.rand(2304, 1024), torch.rand(1024, 1024)
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / median_seconds(lambda: a @ b, 9) / 1e9


def bench_data(store: GraphStore) -> Iterator[tuple[str, float]]:
    """Loading, batching, splitting and scoring at the size of NAS-Bench-101."""
    name = store.manifest.name
    command = [sys.executable, "-c", LOAD, str(store.folder)]
    loads = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
    yield f"{name}.load_seconds", statistics.median(float(seconds) for seconds, _ in loads)
    yield f"{name}.load_rss_mb", statistics.median(float(megabytes) for _, megabytes in loads)
    rows = np.random.default_rng(0).permutation(len(store))[: 64 * 2048].reshape(-1, 2048)
    label = next(iter(store.manifest.labels))
    seconds = median_seconds(lambda: [store.batch(batch, label) for batch in rows], 5)
    yield "batch.cells_per_second", rows.size / seconds
    protocol = ProtocolConfig("strict", 424, 1024, "all", 0)
    validation = "validation_accuracy|validation_accuracy_1run"
    labels = LabelConfig(validation, validation, "test_accuracy")
    yield f"{name}.strict_split_seconds", median_seconds(lambda: split(store, protocol, labels), 3)
    truth = store.label("test_accuracy")
    guess = truth + np.random.default_rng(0).normal(0, 0.01, len(truth))
    yield f"metrics.kendall_{len(truth)}_seconds", median_seconds(lambda: kendall_tau(guess, truth), 3)


def trained_predictors(kind: str) -> list[str]:
    """Names of the registered predictors that take gradient steps and read ``cells`` or ``networks``."""
    classes: dict[str, type[Predictor]] = {
        name: registry.load(registry.target("predictor", name)) for name in registry.names("predictor")
    }
    trained = {name: cls for name, cls in classes.items() if not issubclass(cls, FittedPredictor)}
    return [name for name, cls in trained.items() if kind == "cells" or cls.whole_networks]


def default_predictor(name: str, kind: str) -> Predictor:
    """A predictor with its default configuration for ``cells`` (of NAS-Bench-101) or ``networks`` (of NNLQP)."""
    overrides = [f"predictor={name}", "dataset=nasbench101", "logger=none"]
    if kind == "networks" and name in registry.names("networks"):
        overrides.append(f"networks={name}")
    return build_predictor(typed(compose(overrides)), NETWORKS if kind == "networks" else CELLS)


def bench_train(name: str, kind: str, gemm: float) -> Iterator[tuple[str, float]]:
    """One optimiser step of the default recipe's batch of cells, or of sixteen networks."""
    predictor = default_predictor(name, kind).train()
    batch = random_networks() if kind == "networks" else random_cells(predictor.recipe.batch_size)
    step = optimizer_step(predictor, batch)
    seconds = median_seconds(step, 7)
    yield f"{name}.{kind}.train_step_ms", 1000 * seconds
    yield f"{name}.{kind}.train_gemm_fraction", _flops(step) / seconds / 1e9 / gemm


def bench_predict(name: str, kind: str, gemm: float) -> Iterator[tuple[str, float]]:
    """Scoring 4,096 cells or 1,024 networks, in batches."""
    predictor = default_predictor(name, kind).eval().requires_grad_(False)
    if kind == "networks":
        batches = [random_networks(2)] * PREDICT_NETWORKS
    else:
        batches = [random_cells(PREDICT_BATCH, seed=seed) for seed in range(PREDICT_CELLS // PREDICT_BATCH)]

    def score() -> None:
        with torch.inference_mode():
            for batch in batches:
                predictor(batch)

    seconds = median_seconds(score, 3)
    yield f"{name}.{kind}.per_second", sum(map(len, batches)) / seconds
    yield f"{name}.{kind}.predict_gemm_fraction", _flops(score) / seconds / 1e9 / gemm


def bench_tokenize() -> Iterator[tuple[str, float]]:
    """Turning cells into NAR-Former's tokens, as the official code does one cell at a time, in batches of 2,048."""
    predictor = default_predictor("narformer", "cells").eval()
    graphs = random_cells(2048).dense
    with torch.inference_mode():
        seconds = median_seconds(lambda: predictor.tokenize(graphs), 9)  # type: ignore[operator]
    yield "tokenize.cells_per_second", len(graphs.op) / seconds


def bench_overhead() -> Iterator[tuple[str, float]]:
    """What the training loop itself costs a step: a model of one weight, with every callback of a real run."""
    steps = 500
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["predictor=nnformer", "predictor.dim=4", "predictor.depth=1", "logger=none", "recipe.batch_size=1"]
        config = typed(compose([*overrides, f"train={steps}", "val=10", "recipe.epochs=1", "recipe.batching=shuffled"]))
        data = build_data(config)
        data.setup()
        predictor = build_predictor(config, data.spec)
        clock = time.perf_counter()
        train(predictor, data, config, Path(folder), None, resume=False)
        whole = (time.perf_counter() - clock) / steps
        batch = data.store.batch(data.parts.train[:1], data.labels.train)
        bare = median_seconds(optimizer_step(predictor.train(), batch), 50)
    yield "lightning.step_overhead_ms", 1000 * (whole - bare)


def run(what: str, store: GraphStore | None) -> Iterator[tuple[str, float]]:
    """Figures of the group ``data``, ``train``, ``predict`` or ``all``; those of data need a ``store`` of NAS-Bench-101."""
    if store is not None:
        yield from bench_data(store)
    if what != "data":
        gemm = gemm_gflops()
        yield "gemm_gflops", gemm
        for kind in ("cells", "networks"):
            for name in trained_predictors(kind):
                yield from bench_train(name, kind, gemm) if what != "predict" else ()
                yield from bench_predict(name, kind, gemm) if what != "train" else ()
    if what in ("predict", "all"):
        yield from bench_tokenize()
    if what in ("train", "all"):
        yield from bench_overhead()


def optimizer_step(predictor: Predictor, batch: GraphBatch) -> Callable[[], None]:
    """One optimiser step on ``batch``."""
    optimizer, _ = build_optimizer(predictor.recipe, predictor.named_parameters(), 100)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(predictor.loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _flops(run: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
