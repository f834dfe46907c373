"""Time and memory of the predictors of whole networks on one graph of growing size, in both layouts of its pairs.

``python -m harness.bench_attention PREDICTOR NODES LAYOUT`` measures one case in a process of its own, whose peak memory is
then that case's.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import torch

from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS, GraphBatch
from harness.assembly import build_predictor
from harness.bench import median_seconds
from harness.bench_inputs import NETWORKS, branched_chain
from harness.config import compose, typed
from harness.memory import peak_memory_mb
from predictors.layers import pairs

PREDICTORS = ("nnformer", "narformer2")
SIZES = (100, 1_000, 10_000)
LAYOUTS = {"listed": (0, math.inf), "padded": (sys.maxsize, math.inf)}
"""Largest graph that is padded, and share of pairs above which larger ones are, which force the layout."""


def chain(nodes: int) -> GraphBatch:
    """One network of ``nodes`` convolutions in a chain, with residual branches."""
    one = torch.ones(1)
    return GraphBatch(
        op=torch.zeros(nodes, dtype=torch.long),
        edge_index=branched_chain(0, nodes),
        ptr=torch.tensor([0, nodes]),
        row=torch.zeros(1, dtype=torch.long),
        static={"batch": one, "flops": 1e9 * one, "params": 1e7 * one, "memory": 1e7 * one},
        labels={"latency_ms": one},
        target_name="latency_ms",
        attributes=torch.ones(nodes, ATTRIBUTE_SLOTS),
        output_shape=torch.ones(nodes, SHAPE_DIMENSIONS),
    )


def measure(name: str, nodes: int, layout: str) -> tuple[float, float, float]:
    """Milliseconds of a prediction, milliseconds and peak megabytes of one with its gradients."""
    pairs.DENSE_NODES, pairs.DENSE_SHARE = LAYOUTS[layout]
    config = typed(compose([f"predictor={name}", f"networks={name}", "logger=none"]))
    predictor, graph = build_predictor(config, NETWORKS).train(), chain(nodes)
    before = peak_memory_mb()

    def learn() -> None:
        predictor.zero_grad()
        predictor(graph).sum().backward()

    training = median_seconds(learn, 3)
    peak = peak_memory_mb() - before
    with torch.inference_mode():
        prediction = median_seconds(lambda: predictor.eval()(graph), 3)
    return 1000 * prediction, 1000 * training, peak


def bench_attention(sizes: Sequence[int] = SIZES) -> Iterator[tuple[str, float]]:
    """Every predictor, size and layout.

    Padded pairs that take more than half of this machine's memory are not run: the megabytes they need are given,
    foretold from those of the last size, for what they take beyond the list grows with the square of the nodes.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2e6
    for name in PREDICTORS:
        extra, previous = 0.0, 1
        for nodes in sizes:
            key = f"{name}.{nodes}_nodes"
            listed = _alone(name, nodes, "listed")
            yield from _named(f"{key}.listed", listed)
            needed = listed[2] + extra * (nodes / previous) ** 2
            if needed > most:
                yield f"{key}.padded.needs_mb", needed
                continue
            padded = _alone(name, nodes, "padded")
            yield from _named(f"{key}.padded", padded)
            extra, previous = max(0.0, padded[2] - listed[2]), nodes


def _named(key: str, figures: tuple[float, float, float]) -> Iterator[tuple[str, float]]:
    return zip((f"{key}.predict_ms", f"{key}.gradients_ms", f"{key}.peak_mb"), figures, strict=True)


def _alone(name: str, nodes: int, layout: str) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "harness.bench_attention", name, str(nodes), layout]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    predicted, trained, peak = map(float, output.split()[-3:])
    return predicted, trained, peak


if __name__ == "__main__":
    print(*measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
