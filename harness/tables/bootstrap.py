"""Metrics of many resamples of the same test graphs at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

REPLICATES = 500
"""Resamples; they give a standard error, which 500 make exact to 3 %."""


def resample(count: int) -> NDArray[np.float32]:
    """How often each of ``count`` graphs is drawn in each resample: (REPLICATES, count), rows adding up to ``count``.

    The draws are the same on every call, so that predictors are compared on the same resamples.
    """
    rng = np.random.default_rng(0)
    return rng.multinomial(count, np.full(count, 1 / count), REPLICATES).astype(np.float32)


def testable(metric: str) -> bool:
    """Whether ``replicate`` knows the metric."""
    return metric == "kendall_tau" or metric == "mape_percent" or metric.startswith("acc_")


def replicate(metric: str, weights: NDArray[np.float32], prediction: Floats, label: Floats) -> Floats:
    """The metric on every resample (REPLICATES,); not finite where it is undefined.

    Args:
        metric: ``kendall_tau``, ``mape_percent`` or ``acc_<x>_percent``.
        weights: how often each graph is in each resample (REPLICATES, B).
        prediction: predictions (B,).
        label: labels (B,).
    """
    if metric == "kendall_tau":
        return weighted_tau(weights, prediction, label)
    error = np.abs(prediction - label) / np.abs(label)
    values = error if metric == "mape_percent" else error <= int(metric.split("_")[1]) / 100
    totals: Floats = weights.astype(np.float64) @ values
    share: Floats = 100 * totals / weights.sum(1, dtype=np.float64)
    return share


def weighted_tau(weights: NDArray[np.float32], prediction: Floats, label: Floats) -> Floats:
    """Kendall's tau-b of the graphs repeated as often as each row of ``weights`` says (REPLICATES,).

    With S the matrix of concordant (1), discordant (-1) and tied (0) pairs, the numerator is the quadratic form w S w; the
    pairs not tied on one side number (sum w)^2 less the squared weight of each group of equal values.
    """
    ranks = [np.unique(values, return_inverse=True)[1].astype(np.float32) for values in (prediction, label)]
    concordance = np.sign(np.subtract.outer(ranks[0], ranks[0]))
    concordance *= np.sign(np.subtract.outer(ranks[1], ranks[1]))
    numerator = np.einsum("bi,bi->b", weights @ concordance, weights, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: Floats = numerator / np.sqrt(_untied(weights, ranks[0]) * _untied(weights, ranks[1]))
    return tau


def _untied(weights: NDArray[np.float32], ranks: NDArray[np.float32]) -> Floats:
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranks[order]) != 0]))
    groups = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    untied: Floats = groups.sum(1) ** 2 - (groups**2).sum(1)
    return untied
