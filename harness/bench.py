"""Speed, measured: medians of repeated runs, and the fraction of this machine's matrix-product peak they reach."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from datasets.protocol_types import ProtocolConfig
from datasets.protocols import split
from datasets.store import GraphStore
from harness.config import compose, typed
from harness.experiment import build_predictor
from harness.metrics import kendall_tau
from predictors.base import Predictor
from predictors.recipe import build_optimizer

CELLS = TaskSpec(
    "accuracy", ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output"), ("params", "flops"), "fraction"
)
"""The task of NAS-Bench-101."""

TRAINED = ("nnformer", "narformer", "narformer2", "nnlp")
"""Predictors whose steps are timed."""

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


def random_cells(count: int, nodes: int = 7, seed: int = 0) -> GraphBatch:
    """Cells of ``nodes`` nodes: a chain with random skip edges, as many as NAS-Bench-101 cells have."""
    generator = torch.Generator().manual_seed(seed)
    adjacency = torch.rand(count, nodes, nodes, generator=generator).triu(2) > 0.8
    adjacency |= torch.ones(nodes, nodes).triu(1).tril(1).bool()
    graph, parent, child = adjacency.nonzero(as_tuple=True)
    op = torch.randint(1, 4, (count, nodes), generator=generator)
    op[:, 0], op[:, -1] = 0, 4
    label = torch.rand(count, generator=generator)
    return GraphBatch(
        op=op.flatten(),
        edge_index=torch.stack([graph * nodes + parent, graph * nodes + child]),
        ptr=torch.arange(count + 1) * nodes,
        row=torch.arange(count),
        static=dict.fromkeys(CELLS.static, 1000000.0 * (1 + label)),
        labels={"accuracy": label},
        target_name="accuracy",
    )


def gemm_gflops(repeats: int = 9) -> float:
    """Single-precision matrix-product rate in GFLOP/s: the peak other figures are compared with."""
    a, b = torch.rand(2304, 1024), torch.rand(1024, 1024)
    return 2 * a.shape[0] * a.shape[1] * b.shape[1] / median_seconds(lambda: a @ b, repeats) / 1e9


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
    train = store.first_label("validation_accuracy|validation_accuracy_1run")
    yield f"{name}.strict_split_seconds", median_seconds(lambda: split(store, protocol, train, "test_accuracy"), 3)
    truth = store.label("test_accuracy")
    guess = truth + np.random.default_rng(0).normal(0, 0.01, len(truth))
    yield f"metrics.kendall_{len(truth)}_seconds", median_seconds(lambda: kendall_tau(guess, truth), 3)


def cell_predictor(name: str) -> Predictor:
    """A registered predictor with its default configuration on NAS-Bench-101."""
    return build_predictor(typed(compose([f"predictor={name}", "dataset=nasbench101", "logger=none"])), CELLS)


def bench_train(name: str, gemm: float) -> Iterator[tuple[str, float]]:
    """One optimiser step of the default recipe's batch."""
    predictor = cell_predictor(name).train()
    batch = random_cells(predictor.recipe.batch_size)
    optimizer, _ = build_optimizer(predictor.recipe, predictor.parameters(), 100)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(predictor.loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    seconds = median_seconds(step, 7)
    yield f"{name}.cells.train_step_ms", 1000 * seconds
    yield f"{name}.cells.train_gemm_fraction", _flops(step) / seconds / 1e9 / gemm


def bench_predict(name: str, gemm: float) -> Iterator[tuple[str, float]]:
    """Scoring 4,096 cells in batches."""
    predictor = cell_predictor(name).eval().requires_grad_(False)
    batches = [random_cells(PREDICT_BATCH, seed=seed) for seed in range(4096 // PREDICT_BATCH)]

    def score() -> None:
        with torch.inference_mode():
            for batch in batches:
                predictor(batch)

    seconds = median_seconds(score, 3)
    yield f"{name}.cells.per_second", 4096 / seconds
    yield f"{name}.cells.predict_gemm_fraction", _flops(score) / seconds / 1e9 / gemm


def bench_overhead(steps: int = 500) -> Iterator[tuple[str, float]]:
    """What the training loop itself costs a step: a model of one weight, with every callback of a real run."""
    import tempfile

    from harness.experiment import build_data
    from harness.training import train

    with tempfile.TemporaryDirectory() as folder:
        overrides = ["predictor=nnformer", "predictor.dim=4", "predictor.depth=1", "logger=none", "recipe.batch_size=1"]
        config = typed(compose([*overrides, f"train={steps}", "val=10", "recipe.epochs=1", "recipe.batching=shuffled"]))
        data = build_data(config)
        data.setup()
        predictor = build_predictor(config, data.spec)
        clock = time.perf_counter()
        train(predictor, data, config, Path(folder), None, resume=False)
        whole = (time.perf_counter() - clock) / steps
        bare = _bare_step_seconds(predictor, data.store.batch(data.parts.train[:1], data.labels.train))
    yield "lightning.step_overhead_ms", 1000 * (whole - bare)


def run(what: str, store: GraphStore | None) -> dict[str, float]:
    """Run the ``data``, ``train``, ``predict`` or ``all`` group; ``data`` needs NAS-Bench-101's store.

    Raises:
        UserError: for ``data`` without a store.
    """
    results: dict[str, float] = {}
    if what in ("data", "all") and store is not None:
        results |= dict(bench_data(store))
    elif what == "data":
        raise UserError("bench data needs NAS-Bench-101; name the folder that has it with --root")
    if what != "data":
        results["gemm_gflops"] = gemm = gemm_gflops()
        for name in TRAINED:
            results |= dict(bench_train(name, gemm)) if what != "predict" else {}
            results |= dict(bench_predict(name, gemm)) if what != "train" else {}
    if what in ("train", "all"):
        results |= dict(bench_overhead())
    return rounded(results)


def rounded(results: Mapping[str, float]) -> dict[str, float]:
    """Figures to four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in results.items()}


def _bare_step_seconds(predictor: Predictor, batch: GraphBatch) -> float:
    optimizer, _ = build_optimizer(predictor.recipe, predictor.parameters(), 100)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(predictor.train().loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return median_seconds(step, 50)


def _flops(run: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
