"""The journal of a measuring campaign, and what it tells of how quiet the machine was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import UserError

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
    """Every measurement so far, one JSON line each after a line of settings, on disk before the next one starts.

    Attributes:
        path: its file.
        timings: in the order in which they were taken.
    """

    path: Path
    timings: list[Timing] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> Journal:
        """Continue the journal at ``path``, or start it; a last line that a kill cut short is removed.

        Raises:
            UserError: if it was kept with other settings or is damaged.
        """
        journal = cls(path)
        content = path.read_bytes() if path.exists() else b""
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        if not lines:
            path.write_bytes(b"")
            journal._write(settings)
            return journal
        parsed = [_parsed(path, number, line) for number, line in enumerate(lines, 1)]
        _compare(path, parsed[0], settings)
        try:
            journal.timings = [Timing(**line) for line in parsed[1:]]
        except TypeError as error:
            raise UserError(f"{path}: not a journal of this version ({error}); measure into another --out") from None
        os.truncate(path, content.rfind(b"\n") + 1)
        return journal

    def append(self, timing: Timing) -> None:
        """Add a measurement."""
        self._write(asdict(timing))
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

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); delete that line to have it measured again") from None
    return content


def _compare(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    changed = next((key for key in {**settings, **found} if found.get(key) != settings.get(key)), None)
    if changed is not None:
        raise UserError(
            f"{path}: measured with {changed} {found.get(changed)}, now {settings.get(changed)}; "
            "latencies would not compare: measure into another --out"
        )


def _last_reference(timings: Sequence[Timing], usual: float) -> list[float]:
    last, found = usual, []
    for timing in timings:
        last = timing.median_ms if timing.name == REFERENCE else last
        found.append(last)
    return found
