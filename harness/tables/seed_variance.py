"""How much a predictor's metric varies between seeds, estimated from its column of a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]

FLOOR = 1e-5
"""Least variance that enters the prior, as a share of the mean one; a variance of zero has no logarithm."""

FREEDOMS = (1e-3, 1e6)
"""Least and largest degrees of freedom of the prior."""


@dataclass(frozen=True)
class SeedVariance:
    """Variance of one run's metric about the mean of its predictor and that of its seed.

    Attributes:
        variance: the estimate.
        freedom: its degrees of freedom.
    """

    variance: float
    freedom: float


def seed_variances(column: Sequence[Mapping[int, float]], kinds: Sequence[Hashable]) -> list[SeedVariance | None]:
    """Variances between seeds of all predictors of a column; None for a kind of which none shares two seeds with others.

    A value is taken to be the sum of an effect of its predictor, one of its seed (an easy split is easy for all) and a
    rest, whose variance may differ between predictors. Three seeds say little about one predictor's variance but many
    predictors say much about what is usual, so each estimate is drawn towards the common one of its kind, the more the
    less the predictors of that kind differ in it: the moderated variances of Smyth (Statistical Applications in Genetics
    and Molecular Biology 3(1), 2004, sections 4 and 6.2). A predictor with one seed has the common variance. The degrees
    of freedom are those of both estimates together, and never more than all predictors of the kind have.

    Args:
        column: each predictor's values by seed.
        kinds: what each predictor is; only those of one kind can be expected to vary alike.
    """
    owner, squares, remaining = _residuals(column)
    variances: dict[int, SeedVariance] = {}
    for kind in dict.fromkeys(kinds):
        members = [number for number, other in enumerate(kinds) if other == kind]
        variances |= _moderated({number: owner == number for number in members}, squares, remaining)
    return [variances.get(number) for number in range(len(column))]


def _moderated(rows: Mapping[int, NDArray[np.bool_]], squares: Floats, remaining: Floats) -> dict[int, SeedVariance]:
    """Of predictors of one kind, whose ``rows`` of the squared residuals are given."""
    own = {number: found for number, of in rows.items() if (found := _variance(of, squares, remaining))}
    pooled = _variance(np.any(list(rows.values()), axis=0), squares, remaining)
    if pooled is None:
        return {}
    prior = _prior(list(own.values()), pooled)
    if not np.isfinite(prior.freedom):
        return dict.fromkeys(rows, pooled)
    return {number: _together(own.get(number), prior, pooled.freedom) for number in rows}


def _together(own: SeedVariance | None, prior: SeedVariance, most: float) -> SeedVariance:
    if own is None:
        return SeedVariance(prior.variance, min(prior.freedom, most))
    freedom = own.freedom + prior.freedom
    variance = (own.freedom * own.variance + prior.freedom * prior.variance) / freedom
    return SeedVariance(variance, min(freedom, most))


def _residuals(column: Sequence[Mapping[int, float]]) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Of the additive model of predictors and seeds: whose each value is, squared residuals, and the residual operator."""
    seeds = sorted({seed for values in column for seed in values})
    rows = [(number, seeds.index(seed), value) for number, values in enumerate(column) for seed, value in values.items()]
    owner, values = np.array([row[0] for row in rows], int), np.array([row[2] for row in rows])
    design = np.concatenate([np.eye(len(column))[owner], np.eye(len(seeds))[[row[1] for row in rows]]], axis=1)
    remaining: Floats = np.eye(len(rows)) - design @ np.linalg.pinv(design)
    return owner, (remaining @ values) ** 2, remaining


def _variance(rows: NDArray[np.bool_], squares: Floats, remaining: Floats) -> SeedVariance | None:
    """From some rows, with Satterthwaite's degrees of freedom; None if they have no residuals."""
    operator = remaining[np.ix_(rows, rows)]
    trace = float(operator.trace())
    if trace < 1e-9:
        return None
    return SeedVariance(float(squares[rows].sum()) / trace, trace**2 / float((operator**2).sum()))


def _prior(found: Sequence[SeedVariance], pooled: SeedVariance) -> SeedVariance:
    """Common variance; its degrees of freedom are infinite where the variances differ no more than by chance."""
    if pooled.variance == 0 or len(found) < 2:
        return SeedVariance(pooled.variance, np.inf)
    halves = np.array([one.freedom / 2 for one in found])
    variances = np.maximum([one.variance for one in found], FLOOR * pooled.variance)
    logs = np.log(variances) - special.digamma(halves) + np.log(halves)
    spread = float(np.var(logs, ddof=1) - special.polygamma(1, halves).mean())
    least, largest = FREEDOMS
    if spread <= special.polygamma(1, largest / 2):
        return SeedVariance(pooled.variance, np.inf)
    half = float(optimize.brentq(lambda f: special.polygamma(1, f / 2) - spread, least, largest)) / 2
    return SeedVariance(float(np.exp(logs.mean() + special.digamma(half) - np.log(half))), 2 * half)
