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

Floats = NDArray[np.float64]

GRAPHS = 2000
"""Test graphs that a comparison uses at most."""

_read = lru_cache(maxsize=8)(test_predictions)

QUANTILES = 2000
"""Points at which the distribution of the variance of seeds is averaged over."""


@dataclass(frozen=True)
class Comparison:
    """Outcome of comparing two predictors.

    Attributes:
        p: two-sided p-value; None if there was no test.
        seeds: seeds that both have.
        reason: why there was no test.
    """

    p: float | None
    seeds: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Paired:
    """Two predictors on the same test graphs under one seed: keys (B,), labels (B,) and both predictions (B,)."""

    keys: Any
    label: Floats
    first: Floats
    second: Floats


def compare(first: Mapping[int, Recorded], second: Mapping[int, Recorded], metric: str) -> Comparison:
    """Test whether two predictors' mean metric is equal, by their predictions.

    Graphs are resampled (bootstrap, the same draws for both predictors and all seeds), which gives the variance due to the
    choice of test graphs. The variance due to seeds is that of the paired differences between seeds, over their number:
    what resampling seeds estimates, without its bias for few seeds. ``p_value`` puts them together. With one common seed
    the trained models are taken as given: only the choice of graphs is tested.

    Of more than ``GRAPHS`` test graphs a fixed random ``GRAPHS`` are used, which is conservative: small differences that
    all graphs would prove remain ties.

    Args:
        first: runs by seed.
        second: runs by seed.
        metric: ``kendall_tau``, ``mape_percent`` or ``acc_<x>_percent``.
    """
    if not testable(metric):
        return Comparison(None, reason=f"no paired test of {metric}")
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return Comparison(None, reason="no common seed")
    files = [(first[seed].predictions, second[seed].predictions) for seed in seeds]
    if any(None in pair for pair in files):
        return Comparison(None, reason="predictions were not kept")
    paired = [_paired(Path(str(a)), Path(str(b))) for a, b in files]
    if any(not len(part.label) for part in paired):
        return Comparison(None, reason="other test graphs or labels")
    observed, resampled = _differences(paired, metric)
    if not (np.isfinite(observed).all() and np.isfinite(resampled).all()):
        return Comparison(None, reason=f"{metric} is undefined on some resamples")
    return Comparison(p_value(observed, resampled), len(seeds))


def p_value(observed: Floats, resampled: Floats) -> float:
    """Two-sided p-value of a mean difference of zero.

    The generalised p-value of Tsui and Weerahandi (JASA 1989): the normal p-value under the variance of the graphs plus
    that of S seeds, averaged over what the latter may truly be, s^2 (S - 1) / chi^2 with S - 1 degrees of freedom. It is
    the paired t test where only seeds vary and the normal test where only graphs do. In simulations it kept the 5 % level
    for 3 and 5 seeds (2.4 to 4.8 %) whatever the share of the seeds, where Satterthwaite's t test reached 8 % and
    resampling three seeds 20 %.

    Args:
        observed: differences by seed (S,).
        resampled: the same on every resample of the graphs (R, S).
    """
    count = len(observed)
    graphs = float(np.var(resampled.mean(1), ddof=1))
    seeds = float(np.var(observed, ddof=1)) / count if count > 1 else 0.0
    difference, variance = abs(float(observed.mean())), graphs + seeds
    if variance == 0:
        return float(difference == 0)
    true = seeds * _scales(count - 1) if seeds else 0.0
    return float(np.mean(2 * stats.norm.sf(difference / np.sqrt(graphs + true))))


@cache
def _scales(freedom: int) -> Floats:
    """Quantiles of the true variance over the estimated one (QUANTILES,)."""
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    scales: Floats = freedom / stats.chi2.ppf(middles, freedom)
    return scales


def holm(p_values: Sequence[float], tests: int) -> list[float]:
    """P-values corrected by Holm's step-down method as the smallest of ``tests``.

    The best of k predictors is chosen by the same results that it is then tested on, so each of its k - 1 comparisons is
    one of all k (k - 1) / 2 pairs: counting k - 1 alone told equal predictors apart in up to 13 % of simulated columns of
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
        difference = replicate(metric, each, first, label) - replicate(metric, each, second, label)
        observed.append(difference[0])
        resampled.append(difference[1:])
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
