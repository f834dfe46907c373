"""Measuring the latency of network variants on a device: timing, quiet rounds, a journal, and NNLQP's folder format.

Networks are measured in random order, so that a drift of the machine does not look like a family. A small reference network
runs in between. A measurement is restless by the larger of two figures: the interquartile range of its repeats relative to
their median, and how much slower than usual the reference ran just before or after. Restless networks are measured again
after all others, in another order; each keeps the median of its quietest round.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnx import ModelProto

from datasets.errors import UserError
from datasets.families import FAMILIES, build_variant
from datasets.families.resnet import resnet_of
from datasets.families.weights import with_random_weights
from datasets.ortcpu import DEVICE, TABLE
from harness.measure_journal import REFERENCE, Journal, Timing

JOURNAL = "measurements.jsonl"
PLATFORM = 0
"""Platform id in ``gt.txt``: NNLQP's own start at 1."""

Clock = Callable[[], float]


class Device(Protocol):
    """What networks are measured on."""

    @property
    def facts(self) -> dict[str, Any]:
        """What latency depends on besides the network."""

    def load(self, model: ModelProto) -> Callable[[], object]:
        """A function that runs a network with weights once."""


@dataclass(frozen=True)
class Rules:
    """How a network is measured.

    Attributes:
        warmup_runs: fewest runs before those that count.
        warmup_seconds: shortest time of the same.
        repeats: fewest runs that count.
        seconds: shortest time of the same.
        limit_seconds: time of the runs that count after which neither of these is waited for.
        restless: relative figure above which a network is measured again.
        rounds: most times it is measured.
        reference_every: networks between two runs of the reference.
    """

    warmup_runs: int = 3
    warmup_seconds: float = 0.05
    repeats: int = 20
    seconds: float = 0.3
    limit_seconds: float = 3.0
    restless: float = 0.05
    rounds: int = 3
    reference_every: int = 10


@dataclass(frozen=True)
class Sample:
    """Variant ``index`` of a family."""

    family: str
    index: int

    @property
    def name(self) -> str:
        """Name of its file, without the suffix."""
        return f"{self.family}_{self.index:04d}"


def time_runs(run: Callable[[], object], rules: Rules, clock: Clock) -> dict[str, Any]:
    """Median, interquartile range, minimum (ms) and number of repeated runs."""
    warm, started = 0, clock()
    while warm < rules.warmup_runs or clock() - started < rules.warmup_seconds:
        run()
        warm += 1
    seconds: list[float] = []
    spent = 0.0
    while spent < rules.limit_seconds and (len(seconds) < rules.repeats or spent < rules.seconds):
        before = clock()
        run()
        seconds.append(clock() - before)
        spent += seconds[-1]
    quarter, median, three_quarters = 1000 * np.quantile(seconds, [0.25, 0.5, 0.75])
    figures = {"median_ms": median, "iqr_ms": three_quarters - quarter, "minimum_ms": 1000 * min(seconds)}
    return {name: round(float(value), 6) for name, value in figures.items()} | {"repeats": len(seconds)}


def reference_network() -> ModelProto:
    """The fixed network that tells how fast the machine is at the moment: some 6 ms, long enough to be interrupted."""
    return with_random_weights(resnet_of(64, 7, [(width, [(width, 3, 3)] * 2) for width in (64, 128, 256)]))


@dataclass
class Campaign:
    """Measures samples on a device.

    Attributes:
        samples: in the order of ``gt.txt``.
        device: what they run on.
        journal: what is measured already.
        rules: how.
        seed: of the variants and of the order.
        clock: seconds.
    """

    samples: Sequence[Sample]
    device: Device
    journal: Journal
    rules: Rules
    seed: int
    clock: Clock = time.perf_counter

    def waiting(self, round_: int) -> list[Sample]:
        """What is left to measure in a round, in its order."""
        rounds = self.journal.restlessness()
        order = np.random.default_rng([self.seed, round_]).permutation(len(self.samples))
        return [sample for sample in (self.samples[i] for i in order) if self._due(rounds.get(sample.name, []), round_)]

    def run(self, progress: Callable[[int, int, int], None]) -> None:
        """Measure what the journal lacks.

        Args:
            progress: told round, samples done and samples of the round after every sample.
        """
        reference = self.device.load(reference_network())
        for round_ in range(self.rules.rounds):
            waiting = self.waiting(round_)
            for done, sample in enumerate(waiting):
                if done % self.rules.reference_every == 0:
                    self._time(REFERENCE, round_, reference)
                model = with_random_weights(build_variant(sample.family, sample.index, self.seed))
                self._time(sample.name, round_, self.device.load(model))
                progress(round_, done + 1, len(waiting))
            if waiting:
                self._time(REFERENCE, round_, reference)

    def noise(self) -> dict[str, Any]:
        """How far the figures can be trusted.

        Interquartile ranges are relative to medians; ``reference_slowdown`` is how much slower the reference's median is
        than its quickest run: a lot where other programs took the cores all the time.
        """
        taken = [timing for timing in self.journal.timings if timing.name == REFERENCE]
        quarter, median, three_quarters = np.quantile([timing.median_ms for timing in taken], [0.25, 0.5, 0.75])
        final, rounds = self.journal.quietest(), self.journal.restlessness()
        kept = [final[sample.name] for sample in self.samples]
        spreads = [timing.iqr_ms / timing.median_ms for _, timing in kept]
        figures = {
            "reference_median_ms": median,
            "reference_iqr": (three_quarters - quarter) / median,
            "reference_slowdown": median / min(timing.minimum_ms for timing in taken) - 1,
            "sample_iqr_median": np.median(spreads),
            "sample_iqr_90_percent": np.quantile(spreads, 0.9),
        }
        return {name: round(float(value), 5) for name, value in figures.items()} | {
            "references": len(taken),
            "measured_again": sum(len(rounds[sample.name]) > 1 for sample in self.samples),
            "still_restless": [timing.name for restless, timing in kept if restless > self.rules.restless],
        }

    def _due(self, rounds: list[tuple[float, Timing]], round_: int) -> bool:
        quiet = min((restless for restless, _ in rounds), default=np.inf) <= self.rules.restless
        return len(rounds) == round_ and not quiet

    def _time(self, name: str, round_: int, run: Callable[[], object]) -> None:
        self.journal.append(Timing(name, round_, **time_runs(run, self.rules, self.clock)))


def settings(facts: Mapping[str, Any], rules: Rules, seed: int) -> dict[str, Any]:
    """What every measurement of a journal has in common."""
    return {**facts, "seed": seed, **asdict(rules)}


def choose_samples(families: str, per_family: int) -> list[Sample]:
    """The first variants of ``all`` families or of those listed with commas.

    Raises:
        UserError: for an unknown family.
    """
    names = list(FAMILIES) if families == "all" else [name.strip() for name in families.split(",")]
    unknown = next((name for name in names if name not in FAMILIES), None)
    if unknown is not None:
        raise UserError(f"--families {unknown}: unknown; choose all or some of {','.join(FAMILIES)}")
    return [Sample(name, index) for name in dict.fromkeys(names) for index in range(per_family)]


def with_measured(samples: Sequence[Sample], journal: Journal) -> list[Sample]:
    """``samples`` and those that the journal has already, by family and number."""
    measured = [timing.name.rpartition("_") for timing in journal.timings if timing.name != REFERENCE]
    families = list(FAMILIES)
    every = {*samples, *(Sample(family, int(index)) for family, _, index in measured)}
    return sorted(every, key=lambda sample: (families.index(sample.family), sample.index))


def write_corpus(folder: Path, campaign: Campaign, facts: Mapping[str, Any]) -> None:
    """Write the networks, ``gt.txt`` and ``device.json``, each file whole or not at all and ``gt.txt`` last.

    Args:
        folder: where to.
        campaign: finished.
        facts: of the device.
    """
    final = campaign.journal.quietest()
    rows = []
    for number, sample in enumerate(campaign.samples, 1):
        path = f"onnx/{sample.family}/{sample.name}.onnx"
        model = build_variant(sample.family, sample.index, campaign.seed)
        _replace(folder / TABLE.parent / path, model.SerializeToString(deterministic=True))
        latency = final[sample.name][1].median_ms
        rows.append(f"{number:05d} {path} 1 {latency:.5f} {sample.family} {PLATFORM}\n")
    description = {**facts, "seed": campaign.seed, "rules": asdict(campaign.rules), "noise": campaign.noise()}
    _replace(folder / DEVICE, (json.dumps(description, indent=1) + "\n").encode())
    _replace(folder / TABLE, "".join(rows).encode())


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
