"""What a recorded run cost: parameters, seconds of training, milliseconds for an architecture, memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Content = Mapping[str, Any]


def cost(content: Content, name: str) -> float | None:
    """A cost of a record by its name in ``harness.metric_facts.COSTS``; None where the record does not say."""
    return _COSTS[name](content)


def machine(content: Content) -> str:
    """Graphics card, or number of threads."""
    environment = content.get("environment", {})
    if environment.get("gpu"):
        return str(environment["gpu"])
    threads = environment.get("threads")
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else "not recorded"


def _parameters(content: Content) -> float | None:
    """Millions of trained numbers; None for predictors that are fitted without any."""
    count = content.get("parameters", 0)
    return count / 1e6 if count else None


def _training(content: Content) -> float | None:
    seconds: float | None = content.get("timings", {}).get("train_seconds")
    return seconds


def _scoring(content: Content) -> float | None:
    """Milliseconds for scoring one architecture with one set of weights, batching and tokenising included.

    A run scores every distinct set of weights once (the best may be the last). In records older than their number they are
    told apart by their metrics; None where a training diverged, whose sets have none.
    """
    timings = content.get("timings", {})
    if not timings.get("evaluated_graphs") or "evaluate_seconds" not in timings:
        return None
    evaluations = timings.get("evaluations") or _evaluations(content.get("weights", {}))
    return float(1000 * timings["evaluate_seconds"] / timings["evaluated_graphs"] / evaluations) if evaluations else None


def _evaluations(weights: Mapping[str, Any]) -> int:
    """Sets of weights with different metrics; 0 where several have none at all."""
    different = {json.dumps(scores, sort_keys=True) for scores in weights.values()}
    if len(different) < len(weights) and not all(any(scores.values()) for scores in weights.values()):
        return 0
    return max(len(different), 1)


def _memory(content: Content) -> float | None:
    megabytes: float | None = content.get("peak_memory_mb")
    return megabytes


_COSTS: dict[str, Callable[[Content], float | None]] = {
    "params_million": _parameters,
    "train_seconds": _training,
    "ms_per_architecture": _scoring,
    "peak_memory_mb": _memory,
}
