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

LEAST = 3
"""Predictors that a common variance of their own takes."""

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


def seed_variances(column: Sequence[Mapping[int, float]], kinds: Sequence[Hashable]) -> list[SeedVariance] | None:
    """Variances between seeds of all predictors of a column; None where no two predictors share two seeds.

    A value is taken to be the sum of an effect of its predictor, one of its seed (an easy split is easy for all) and a
    rest, whose variance may differ between predictors. Three seeds say little about one predictor's variance but many
    predictors say much about what is usual, so each estimate is drawn towards the common one of its kind, the more the
    less the predictors of that kind differ in it: the moderated variances of Smyth (Statistical Applications in Genetics
    and Molecular Biology 3(1), 2004, sections 4 and 6.2). A predictor with one seed has the common variance. The degrees
    of freedom are those of both estimates together, and never more than all predictors of the kind have.

    Args:
        column: each predictor's values by seed.
        kinds: what each predictor is. Kinds are not told apart if one of them has fewer than ``LEAST`` predictors that
            share seeds with others.
    """
    squares, freedom = _residuals(column)
    known = freedom > 1e-9
    if not known.any():
        return None
    members = [np.array([kind == other for other in kinds]) for kind in dict.fromkeys(kinds)]
    if min((of_kind & known).sum() for of_kind in members) < LEAST:
        members = [np.ones_like(known)]
    variances: dict[int, SeedVariance] = {}
    for of_kind in members:
        found = _moderated(squares[of_kind], freedom[of_kind], known[of_kind])
        variances |= dict(zip(np.flatnonzero(of_kind), found, strict=True))
    return [variances[number] for number in range(len(column))]


def _moderated(squares: Floats, freedom: Floats, known: NDArray[np.bool_]) -> list[SeedVariance]:
    total = float(freedom.sum())
    pooled = float(squares.sum()) / total
    variance = np.divide(squares, freedom, out=np.zeros_like(squares), where=known)
    prior, prior_freedom = _prior(variance[known], freedom[known], pooled)
    if not np.isfinite(prior_freedom):
        return [SeedVariance(pooled, total)] * len(squares)
    moderated = (prior_freedom * prior + freedom * variance) / (prior_freedom + freedom)
    together = np.minimum(prior_freedom + freedom, total)
    return [SeedVariance(float(v), float(f)) for v, f in zip(moderated, together, strict=True)]


def _residuals(column: Sequence[Mapping[int, float]]) -> tuple[Floats, Floats]:
    """Squared residuals of the additive model of predictors and seeds, and their degrees of freedom, by predictor."""
    seeds = sorted({seed for values in column for seed in values})
    rows = [(number, seeds.index(seed), value) for number, values in enumerate(column) for seed, value in values.items()]
    of_predictor = np.eye(len(column))[[row[0] for row in rows]]
    of_seed = np.eye(len(seeds))[[row[1] for row in rows]]
    values = np.array([row[2] for row in rows])
    design = np.concatenate([of_predictor, of_seed], axis=1)
    fitted = design @ np.linalg.pinv(design)
    return (values - fitted @ values) ** 2 @ of_predictor, (1 - fitted.diagonal()) @ of_predictor


def _prior(variance: Floats, freedom: Floats, pooled: float) -> tuple[float, float]:
    """Common variance and its degrees of freedom, infinite where the variances differ no more than by chance."""
    if pooled == 0 or len(variance) < 2:
        return pooled, np.inf
    logs = np.log(np.maximum(variance, FLOOR * pooled)) - special.digamma(freedom / 2) + np.log(freedom / 2)
    spread = float(np.var(logs, ddof=1) - special.polygamma(1, freedom / 2).mean())
    least, largest = FREEDOMS
    if spread <= special.polygamma(1, largest / 2):
        return pooled, np.inf
    prior_freedom = float(optimize.brentq(lambda f: special.polygamma(1, f / 2) - spread, least, largest))
    return float(np.exp(logs.mean() + special.digamma(prior_freedom / 2) - np.log(prior_freedom / 2))), prior_freedom
