"""What predictors cost: parameters, seconds of training, milliseconds for an architecture, memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.metric_facts import COSTS
from harness.tables.build import Table
from harness.tables.costs import cost, machine
from harness.tables.recorded import Recorded


@dataclass(frozen=True)
class Cost:
    """What the runs of one row of a table took on one kind of machine; None where the records do not say.

    Attributes:
        label: of the row.
        machine: graphics card, or number of threads.
        runs: number of runs.
        parameters: millions of trained numbers; None for predictors that are fitted without any.
        training: seconds, fewest, median and most.
        scoring: milliseconds for an architecture, median.
        memory: peak of the process in MB, the most of any run.
    """

    label: str
    machine: str
    runs: int
    parameters: float | None
    training: tuple[float, float, float] | None
    scoring: float | None
    memory: float | None


def costs(table: Table) -> list[Cost]:
    """One for each row and kind of machine of the runs that the table shows."""
    found = []
    for entries in table.entries:
        by_machine: dict[str, list[Recorded]] = defaultdict(list)
        for run in (run for entry in entries for run in entry.cell.runs.values()):
            if "timings" in run.content:
                by_machine[machine(run.content)].append(run)
        found += [_cost(entries[0].row.label, where, runs) for where, runs in by_machine.items()]
    return found


def _cost(label: str, where: str, runs: Sequence[Recorded]) -> Cost:
    found = ([cost(run.content, name) for run in runs] for name in COSTS)
    parameters, training, scoring, memory = ([value for value in values if value is not None] for values in found)
    return Cost(
        label=label,
        machine=where,
        runs=len(runs),
        parameters=max(parameters, default=None),
        training=(min(training), float(np.median(training)), max(training)) if training else None,
        scoring=float(np.median(scoring)) if scoring else None,
        memory=max(memory, default=None),
    )
