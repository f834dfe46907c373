"""What predictors cost: parameters, seconds of training, milliseconds for an architecture, memory."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.tables.build import Table
from harness.tables.recorded import Recorded


@dataclass(frozen=True)
class Cost:
    """What the runs of one row of a table took on one kind of machine; None where the records do not say.

    Attributes:
        label: of the row.
        machine: graphics card, or number of threads.
        runs: number of runs.
        parameters: trained numbers; None for predictors that are fitted without any.
        training: seconds, fewest, median and most.
        scoring: milliseconds for an architecture, median.
        memory: peak of the process in MB, the most of any run.
    """

    label: str
    machine: str
    runs: int
    parameters: int | None
    training: tuple[float, float, float] | None
    scoring: float | None
    memory: float | None


def costs(table: Table) -> list[Cost]:
    """One for each row and kind of machine of the runs that the table shows."""
    found = []
    for entries in table.entries:
        machines: dict[str, list[Recorded]] = defaultdict(list)
        for run in (run for entry in entries for run in entry.cell.runs.values()):
            if "timings" in run.content:
                machines[_machine(run.content.get("environment", {}))].append(run)
        found += [_cost(entries[0].row.label, machine, runs) for machine, runs in machines.items()]
    return found


def _cost(label: str, machine: str, runs: Sequence[Recorded]) -> Cost:
    contents = [run.content for run in runs]
    training = [content["timings"]["train_seconds"] for content in contents if "train_seconds" in content["timings"]]
    scoring = [value for value in map(milliseconds, contents) if value is not None]
    memory = [content["peak_memory_mb"] for content in contents if "peak_memory_mb" in content]
    return Cost(
        label=label,
        machine=machine,
        runs=len(runs),
        parameters=max(content.get("parameters", 0) for content in contents) or None,
        training=(min(training), float(np.median(training)), max(training)) if training else None,
        scoring=float(np.median(scoring)) if scoring else None,
        memory=max(memory) if memory else None,
    )


def milliseconds(content: Mapping[str, Any]) -> float | None:
    """Milliseconds for scoring one architecture with one set of weights, batching and tokenising included.

    A run scores every distinct set of weights; equal ones (the best are the last) are scored once and have equal metrics.
    """
    timings = content["timings"]
    if not timings.get("evaluated_graphs") or "evaluate_seconds" not in timings:
        return None
    weights = {json.dumps(scores, sort_keys=True) for scores in content.get("weights", {}).values()}
    return float(1000 * timings["evaluate_seconds"] / timings["evaluated_graphs"] / max(len(weights), 1))


def _machine(environment: Mapping[str, Any]) -> str:
    if environment.get("gpu"):
        return str(environment["gpu"])
    threads = environment.get("threads")
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else "not recorded"
