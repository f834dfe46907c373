"""The share of one process in batches that several processes work on together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Part(NamedTuple):
    """What one process takes of a batch.

    Attributes:
        rows: never none, so that every process takes every step.
        weight: of the mean loss over ``rows``; the mean of all processes' weighted losses is the mean over the batch.
    """

    rows: Rows
    weight: float


@dataclass(frozen=True)
class Share:
    """Which of how many processes.

    Attributes:
        rank: number of this process.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    def part(self, rows: Rows, costs: Rows) -> Part:
        """This process's part of the batch ``rows``, in their order, by the costs of its graphs.

        In a batch of fewer graphs than processes, those that are left without take the first graph with weight 0.
        """
        own = rows[deal(costs, self.world) == self.rank]
        return Part(own, len(own) * self.world / len(rows)) if len(own) else Part(rows[:1], 0.0)

    def of_sorted(self, rows: Rows) -> Rows:
        """Every ``world``-th of ``rows``, which are in order of cost; where that is none, the first row once more."""
        own = rows[self.rank :: self.world]
        return own if len(own) else rows[:1]


ALONE = Share()
"""The share of a process that works alone: everything."""


def deal(costs: Rows, world: int) -> Rows:
    """Owner (0 to ``world`` - 1) of each of ``costs``, each owning equally many to within one.

    Falling by cost, ``world`` at a time, the costliest to whoever has least so far. The totals of two owners of equally
    many then differ by at most the largest difference of two costs.
    """
    owner, totals = np.zeros(len(costs), np.int64), np.zeros(world, np.int64)
    order = np.argsort(-costs, kind="stable")
    for start in range(0, len(costs), world):
        group = order[start : start + world]
        poorest = np.argsort(totals, kind="stable")[: len(group)]
        owner[group] = poorest
        totals[poorest] += costs[group]
    return owner
