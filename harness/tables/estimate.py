"""How long a run will take, roughly: enough to start the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from datasets.base import Benchmark
from datasets.protocol_types import parse_size
from harness.assembly import build_predictor
from harness.config import ExperimentConfig
from harness.registry import load
from harness.tables.recorded import Recorded
from predictors.fitted import FittedPredictor

FLOPS_A_PARAMETER = 6
"""Operations of a training step for each parameter and graph: two forward, four backward."""

FLOPS_A_SECOND = 1e10
"""What NN-Former's training reaches on two cores, counted so."""


def seconds(config: ExperimentConfig, data: Benchmark, records: Sequence[Recorded]) -> float:
    """Estimated time of a run, from earlier runs of its predictor on its benchmark where there are any.

    Args:
        config: of the run.
        data: its benchmark, ``store`` open.
        records: of earlier runs; the median time of a graph seen in training counts, and that of the evaluation.
    """
    past = [_past(record) for record in records if _is_like(record, config)]
    known = [timings for timings in past if timings]
    evaluation = median(timings["evaluate_seconds"] for timings in known) if known else 0.0
    if issubclass(load(config.predictor.target), FittedPredictor):
        return evaluation + (median(timings["train_seconds"] for timings in known) if known else 0.0)
    graphs = config.recipe.epochs * parse_size(config.protocol.train, len(data.store), "train")
    if known:
        return evaluation + graphs * median(timings["graph_seconds"] for timings in known)
    parameters = sum(p.numel() for p in build_predictor(config, data.spec).parameters())
    return FLOPS_A_PARAMETER * parameters * graphs / FLOPS_A_SECOND


def _is_like(record: Recorded, config: ExperimentConfig) -> bool:
    content = record.content
    return bool(content["predictor"] == config.predictor.name and content["dataset"]["name"] == config.dataset.name)


def _past(record: Recorded) -> Mapping[str, float]:
    """Timings of a record with the time of a graph seen in training; empty where it has none."""
    timings: dict[str, Any] = record.content.get("timings", {})
    if not {"train_seconds", "evaluate_seconds"} <= timings.keys():
        return {}
    seen = timings.get("train_steps", 1) * record.settings["recipe.batch_size"]
    return {**timings, "graph_seconds": timings["train_seconds"] / max(seen, 1)}
