"""Is one predictor better than another? A paired test over the same test graphs and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import stats

from harness.records import test_predictions
from harness.tables.bootstrap import replicate, resample, testable
from harness.tables.recorded import Recorded
from harness.tables.seed_variance import SeedVariance

Floats = NDArray[np.float64]

GRAPHS = 2000
"""Test graphs that a comparison uses at most."""

_read = lru_cache(maxsize=8)(test_predictions)

QUANTILES = 2000
"""Points at which the distribution of the variance of seeds is averaged over."""


@dataclass(frozen=True)
class Difference:
    """Mean difference of two predictors' metric over the seeds that both have; of MAPE, that of its logarithm.

    Attributes:
        mean: first less second.
        graphs: its variance due to the choice of test graphs.
        seeds: seeds that both have.
    """

    mean: float
    graphs: float
    seeds: int


@dataclass(frozen=True)
class Paired:
    """Two predictors on the same test graphs under one seed: keys (B,), labels (B,) and both predictions (B,)."""

    keys: Any
    label: Floats
    first: Floats
    second: Floats


def difference(first: Mapping[int, Recorded], second: Mapping[int, Recorded], metric: str) -> Difference | str:
    """How two predictors differ by their predictions of the same test graphs, or why that cannot be told.

    Graphs are resampled (bootstrap, the same draws for both predictors and all seeds), which gives the variance due to the
    choice of test graphs. Of more than ``GRAPHS`` test graphs a fixed random ``GRAPHS`` are used, which is conservative:
    small differences that all graphs would prove remain ties.

    Args:
        first: runs by seed.
        second: runs by seed.
        metric: ``kendall_tau``, ``mape_percent`` or ``acc_<x>_percent``.
    """
    if not testable(metric):
        return f"no paired test of {metric}"
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return "no common seed"
    files = [(first[seed].predictions, second[seed].predictions) for seed in seeds]
    if any(None in pair for pair in files):
        return "predictions were not kept"
    paired = [_paired(Path(str(a)), Path(str(b))) for a, b in files]
    if any(not len(part.label) for part in paired):
        return "other test graphs or labels"
    observed, resampled = _differences(paired, metric)
    if not (np.isfinite(observed).all() and np.isfinite(resampled).all()):
        return f"{metric} is undefined on some resamples"
    return Difference(float(observed.mean()), float(np.var(resampled.mean(1), ddof=1)), len(seeds))


def compared(metric: str, values: Any) -> Any:
    """Values on the scale on which predictors are compared: of MAPE, which varies in proportion, the logarithm."""
    with np.errstate(divide="ignore"):
        return np.log(values) if metric == "mape_percent" else values


def p_value(found: Difference, first: SeedVariance | None, second: SeedVariance | None) -> float:
    """Two-sided p-value of a mean difference of zero.

    The generalised p-value of Tsui and Weerahandi (JASA 1989): the normal p-value under the variance of the graphs plus
    that of the seeds, averaged over what the latter may truly be, the estimate times f / chi^2 with its f degrees of
    freedom. It is Student's t test where only seeds vary and the normal test where only graphs do. Without a variance of
    the seeds the trained models are taken as given: only the choice of graphs is tested.

    Args:
        found: the difference.
        first: variance between seeds of the first predictor.
        second: that of the second.
    """
    estimates = [known for known in (first, second) if known is not None]
    seeds = sum(known.variance * _scales(known.freedom) for known in estimates) / found.seeds if estimates else 0.0
    variance = found.graphs + np.asarray(seeds)
    if not variance.any():
        return float(found.mean == 0)
    return float(np.mean(2 * stats.norm.sf(abs(found.mean) / np.sqrt(variance))))


@cache
def _scales(freedom: float) -> Floats:
    """Quantiles of the true variance over the estimated one (QUANTILES,)."""
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    with np.errstate(divide="ignore"):
        scales: Floats = freedom / stats.chi2.ppf(middles, freedom)
    return scales


def holm(p_values: Sequence[float], tests: int) -> list[float]:
    """P-values corrected by Holm's step-down method as the smallest of ``tests``.

    The best of k predictors is chosen by the same results that it is then tested on, so each of its k - 1 comparisons is
    one of all k (k - 1) / 2 pairs: counting k - 1 alone told equal predictors apart in up to 15 % of simulated columns of
    13 predictors and three seeds. Those of the other pairs are taken to be larger, which is conservative.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * (tests - np.arange(len(values))))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return list(map(float, adjusted))


def _differences(paired: Sequence[Paired], metric: str) -> tuple[Floats, Floats]:
    keys = pc.unique(pa.concat_arrays([part.keys for part in paired]))
    if len(keys) > GRAPHS:
        keys = keys.take(pa.array(np.sort(np.random.default_rng(0).choice(len(keys), GRAPHS, replace=False))))
    weights = resample(len(keys))
    observed, resampled = [], []
    for part in paired:
        place = pc.index_in(part.keys, value_set=keys)
        kept = place.is_valid().to_numpy(zero_copy_only=False)
        columns = place.drop_null().to_numpy()
        label, first, second = part.label[kept], part.first[kept], part.second[kept]
        each = np.concatenate([np.ones((1, len(label)), np.float32), weights[:, columns]])
        values = [compared(metric, replicate(metric, each, prediction, label)) for prediction in (first, second)]
        observed.append(values[0][0] - values[1][0])
        resampled.append(values[0][1:] - values[1][1:])
    return np.array(observed), np.stack(resampled, axis=1)


def _paired(first: Path, second: Path) -> Paired:
    """Both predictions of the graphs that both have with the same label."""
    a, b = _read(first), _read(second)
    place = pc.index_in(a["key"], value_set=b["key"])
    b = b.take(place.drop_null())
    a = a.filter(place.is_valid())
    columns = [table[name].to_numpy().astype(np.float64) for table in (a, b) for name in ("label", "prediction")]
    same = columns[0] == columns[2]
    keys = a["key"].combine_chunks()
    if not same.all():
        return Paired(keys.slice(0, 0), *(column[:0] for column in columns[:3]))
    return Paired(keys, columns[0], columns[1], columns[3])
