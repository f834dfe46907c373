"""The journal of a measuring campaign, and what it tells of how quiet the machine was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import UserError
from harness.journal import JsonLines

REFERENCE = "reference"
"""Name of the network that is measured between all others."""


@dataclass(frozen=True)
class Timing:
    """Latency of one network in one round, in ms.

    Attributes:
        name: of the sample, or ``reference``.
        round: 0 when first measured.
        median_ms: of the repeats.
        iqr_ms: interquartile range of the repeats.
        minimum_ms: of the repeats.
        repeats: runs that count.
    """

    name: str
    round: int
    median_ms: float
    iqr_ms: float
    minimum_ms: float
    repeats: int


@dataclass
class Journal:
    """Every measurement so far.

    Attributes:
        timings: in the order in which they were taken.
    """

    timings: list[Timing]
    _lines: JsonLines

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Journal:
        """Continue the journal at ``path``, or start it; see ``JsonLines``.

        Raises:
            UserError: if it was kept with other settings or is damaged.
        """
        lines = JsonLines.open(path, settings, "latencies would not compare: measure into another --out")
        try:
            return cls([Timing(**line) for line in lines.lines], lines)
        except TypeError as error:
            raise UserError(f"{path}: not a journal of this version ({error}); measure into another --out") from None

    @property
    def path(self) -> Path:
        """Its file."""
        return self._lines.path

    def append(self, timing: Timing) -> None:
        """Add a measurement."""
        self._lines.append(asdict(timing))
        self.timings.append(timing)

    def restlessness(self) -> dict[str, list[tuple[float, Timing]]]:
        """All rounds of every sample, each with how restless it was (0 is quiet; see the module)."""
        references = [timing.median_ms for timing in self.timings if timing.name == REFERENCE]
        usual = float(np.quantile(references, 0.25)) if references else 1.0
        before = _last_reference(self.timings, usual)
        after = _last_reference(self.timings[::-1], usual)[::-1]
        found: dict[str, list[tuple[float, Timing]]] = {}
        for timing, *neighbours in zip(self.timings, before, after, strict=True):
            if timing.name != REFERENCE:
                restless = max(timing.iqr_ms / timing.median_ms, max(neighbours) / usual - 1)
                found.setdefault(timing.name, []).append((restless, timing))
        return found

    def quietest(self) -> dict[str, tuple[float, Timing]]:
        """The quietest round of every sample and how restless it was."""
        return {name: min(rounds, key=lambda found: found[0]) for name, rounds in self.restlessness().items()}


def _last_reference(timings: Sequence[Timing], usual: float) -> list[float]:
    last, found = usual, []
    for timing in timings:
        last = timing.median_ms if timing.name == REFERENCE else last
        found.append(last)
    return found
