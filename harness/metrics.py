"""Metrics of one set of predictions, computed once over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

TOP = (1, 10)
"""Numbers of best-predicted graphs whose regret is reported."""


@dataclass(frozen=True)
class Scores:
    """Metric values by name; a metric that could not be computed is in ``failed`` with the reason, never 0.

    ``kendall_tau`` is tau-b; ``mape_percent`` and ``acc_<x>_percent`` (share of predictions within x % of the label) are
    relative to the label; ``regret_top<k>`` is the best label minus the best label among the k best-predicted graphs, in
    label units, its mean over all orders of graphs that are predicted alike.
    """

    values: dict[str, float]
    failed: dict[str, str]


def score(prediction: Floats, label: Floats, *, higher_is_better: bool) -> Scores:
    """Every metric of ``prediction`` against ``label``, both (B,).

    Raises:
        ValueError: for different lengths, no graphs, or a label that is not finite.
    """
    if prediction.shape != label.shape or not len(label):
        raise ValueError(f"{prediction.shape} predictions cannot be scored against {label.shape} labels")
    if not np.isfinite(label).all():
        raise ValueError("labels must be finite")
    metrics = _metrics(higher_is_better)
    if not np.isfinite(prediction).all():
        bad = int((~np.isfinite(prediction)).sum())
        return Scores({}, dict.fromkeys(metrics, f"{bad} of {len(label)} predictions are not finite"))
    values, failed = {}, {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(prediction.astype(np.float64), label.astype(np.float64))
        except UndefinedMetricError as error:
            failed[name] = str(error)
    return Scores(values, failed)


class UndefinedMetricError(Exception):
    """A metric has no value for these predictions."""


def kendall_tau(prediction: Floats, label: Floats) -> float:
    """Kendall's tau-b, O(n log n) by scipy.

    Raises:
        UndefinedMetricError: if either side is constant.
    """
    _require_spread(prediction, label)
    return float(stats.kendalltau(prediction, label).statistic)


def _spearman(prediction: Floats, label: Floats) -> float:
    _require_spread(prediction, label)
    return float(stats.spearmanr(prediction, label).statistic)


def _mape(prediction: Floats, label: Floats) -> float:
    return float(100 * _relative_error(prediction, label).mean())


def _within(percent: float) -> Callable[[Floats, Floats], float]:
    def metric(prediction: Floats, label: Floats) -> float:
        return float(100 * (_relative_error(prediction, label) <= percent / 100).mean())

    return metric


def _rmse(prediction: Floats, label: Floats) -> float:
    return float(np.sqrt(np.square(prediction - label).mean()))


def _r2(prediction: Floats, label: Floats) -> float:
    spread = np.square(label - label.mean()).sum()
    if spread == 0:
        raise UndefinedMetricError("all labels are equal")
    return float(1 - np.square(prediction - label).sum() / spread)


def _regret(top: int, sign: float) -> Callable[[Floats, Floats], float]:
    def metric(prediction: Floats, label: Floats) -> float:
        predicted, gain = sign * prediction, sign * label
        chosen = min(top, len(gain))
        least = np.partition(predicted, -chosen)[-chosen]
        sure, tied = gain[predicted > least], np.sort(gain[predicted == least])[::-1]
        draws = chosen - len(sure)
        best = np.maximum(tied, sure.max(initial=-np.inf))
        return float((gain.max() - best) @ _is_best_of(draws, len(tied)))

    return metric


def _is_best_of(draws: int, count: int) -> Floats:
    """(``count``,) probability that the i-th best of ``count`` is the best of ``draws`` drawn without replacement."""
    missed = np.append(1.0, np.cumprod(1 - draws / np.arange(count, 0, -1.0)))
    chance: Floats = missed[:-1] - missed[1:]
    return chance


def _metrics(higher_is_better: bool) -> dict[str, Callable[[Floats, Floats], float]]:
    sign = 1.0 if higher_is_better else -1.0
    return {
        "kendall_tau": kendall_tau,
        "spearman": _spearman,
        "mape_percent": _mape,
        **{f"acc_{percent}_percent": _within(percent) for percent in (10, 5, 1)},
        "rmse": _rmse,
        "r2": _r2,
        **{f"regret_top{top}": _regret(top, sign) for top in TOP},
    }


def _relative_error(prediction: Floats, label: Floats) -> Floats:
    if (label == 0).any():
        raise UndefinedMetricError("a label is 0")
    error: Floats = np.abs(prediction - label) / np.abs(label)
    return error


def _require_spread(prediction: Floats, label: Floats) -> None:
    if len(label) < 2:
        raise UndefinedMetricError("a single graph has no ranking")
    for name, values in (("predictions", prediction), ("labels", label)):
        if (values == values[0]).all():
            raise UndefinedMetricError(f"all {name} are equal")
