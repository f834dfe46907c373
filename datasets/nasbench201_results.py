"""One architecture's record in the official NAS-Bench-201 and NATS-Bench files, and the labels in it.

Layout (``nas_201_api`` and ``nats_bench``, ``api_utils.py``): the state of an ``ArchResults`` holds ``arch_str``,
``dataset_seed`` (the seeds of each dataset) and ``all_results``, a ``ResultsCount`` state for each (dataset, seed) with
``params`` and ``flop`` in millions, ``epochs`` and ``eval_acc1es``: accuracy in percent by ``split@epoch``, epochs from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.errors import UserError
from datasets.nasbench201_columns import build
from datasets.store import Columns, Manifest

SPLITS = {
    "cifar10valid_validation": ("cifar10-valid", "x-valid"),
    "cifar10valid_test": ("cifar10-valid", "ori-test"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_validation": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_validation": ("ImageNet16-120", "x-valid"),
    "imagenet16_test": ("ImageNet16-120", "x-test"),
}
"""Official dataset and split of each label, as ``get_more_info`` maps them."""

EPOCHS = (200, 12)


@dataclass(frozen=True)
class Result:
    """What one architecture's record says.

    Attributes:
        cell: architecture string.
        params: trainable parameters, CIFAR-10.
        flops: multiply-accumulates for one CIFAR-10 image.
        labels: accuracies as fractions, NaN where the record has none.
    """

    cell: str
    params: int
    flops: int
    labels: Mapping[str, float]


def read_result(states: Mapping[int, Any], cell: str, where: str) -> Result:
    """Labels of one architecture: after the last epoch, the mean over its seeds (``is_random=False`` officially).

    Args:
        states: ``ArchResults`` state of the trainings of 12 and of 200 epochs.
        cell: the architecture string the record must be of.
        where: file and architecture, for messages.

    Raises:
        UserError: if the record is of another cell or not of the official layout.
    """
    try:
        if any(state["arch_str"] != cell for state in states.values()):
            raise UserError(f"{where}: the record is not of {cell}; files of two downloads are mixed: download it again")
        costs = _trials(states[200], "cifar10-valid", 200) or _trials(states[200], "cifar10", 200)
        return Result(
            cell=cell,
            params=_millions([trial["params"] for trial in costs], "params"),
            flops=_millions([trial["flop"] for trial in costs], "flop"),
            labels={
                f"{name}_{epochs}ep": _accuracy(_trials(states[epochs], dataset, epochs), f"{split}@{epochs - 1}")
                for epochs in EPOCHS
                for name, (dataset, split) in SPLITS.items()
            },
        )
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not of the official layout ({error!r}); download it again") from None


def collect(results: Iterable[Result], source: str) -> tuple[Columns, Manifest]:
    """Columns and manifest of the architectures of ``source``, in order; labels that no architecture has are left out.

    Raises:
        UserError: if there are no architectures, or one is not a cell.
    """
    rows = list(results)
    if not rows:
        raise UserError(f"{source}: no architectures inside; download it again")
    labels = {name: np.array([row.labels[name] for row in rows]) for name in rows[0].labels}
    return build(
        source,
        [row.cell for row in rows],
        {name: values for name, values in labels.items() if not np.isnan(values).all()},
        params=np.array([row.params for row in rows], np.int64),
        flops=np.array([row.flops for row in rows], np.int64),
    )


def _trials(state: Mapping[str, Any], dataset: str, epochs: int) -> list[Mapping[str, Any]]:
    seeds = state["dataset_seed"].get(dataset, [])
    trials = [state["all_results"][dataset, seed] for seed in seeds]
    if any(trial["epochs"] != epochs for trial in trials):
        raise ValueError(f"{dataset} was not trained for {epochs} epochs")
    return trials


def _accuracy(trials: list[Mapping[str, Any]], key: str) -> float:
    values = [trial["eval_acc1es"].get(key) for trial in trials]
    if not values or None in values:
        return math.nan
    percent = _mean(values)
    if not 0 <= percent <= 100:
        raise ValueError(f"{key} is {percent:g}, no accuracy in percent")
    return percent / 100


def _millions(values: list[float], key: str) -> int:
    """The mean of a cost in millions, as a number."""
    cost = _mean(values) * 1e6
    if not 0 <= cost < 2**63:
        raise ValueError(f"{key} is {cost / 1e6:g} million, no cost of a cell")
    return round(cost)


def _mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no CIFAR-10 training of 200 epochs")
    return float(np.mean(np.array(values, np.float64)))
