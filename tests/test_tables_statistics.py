"""The statistics of tables, against scipy, brute force and hand computation."""

import numpy as np
import pytest
from scipy import stats
from table_records import predicted_run, write_run

from harness.tables import bootstrap, comparison
from harness.tables.bootstrap import replicate, resample, weighted_tau
from harness.tables.cells import summarise
from harness.tables.comparison import compare, holm, p_value
from harness.tables.recorded import read_records


@pytest.mark.parametrize("levels", [1000, 6, 2])
def test_weighted_tau_is_tau_b_of_the_repeated_samples(levels):
    rng = np.random.default_rng(levels)
    prediction, label = rng.integers(0, levels, 40) / 7, rng.integers(0, levels, 40) / 3
    weights = rng.integers(0, 4, (25, 40))
    got = weighted_tau(weights.astype(np.float32), prediction, label)
    expected = [stats.kendalltau(np.repeat(prediction, w), np.repeat(label, w)).statistic for w in weights]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_weighted_tau_of_a_constant_is_not_finite():
    assert not np.isfinite(weighted_tau(np.ones((1, 3), np.float32), np.ones(3), np.arange(3.0))).any()


def test_weighted_mape_and_accuracy_are_those_of_the_repeated_samples():
    rng = np.random.default_rng(0)
    label = rng.uniform(1, 5, 30)
    prediction = label * rng.uniform(0.8, 1.2, 30)
    weights = rng.integers(0, 4, (10, 30))
    errors = [np.repeat(np.abs(prediction / label - 1), w) for w in weights]
    got = [replicate(name, weights.astype(np.float32), prediction, label) for name in ("mape_percent", "acc_10_percent")]
    np.testing.assert_allclose(got[0], [100 * e.mean() for e in errors], rtol=1e-6)
    np.testing.assert_allclose(got[1], [100 * (e <= 0.1).mean() for e in errors], rtol=1e-6)


def test_resamples_have_the_moments_of_drawing_with_replacement():
    weights = resample(50)
    assert (weights.sum(1) == 50).all()
    assert weights.mean() == 1
    assert abs(weights.var() - (1 - 1 / 50)) < 0.03
    np.testing.assert_array_equal(weights, resample(50))


def test_interval_by_hand():
    """Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3)."""
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.count) == (2.0, 3)
    assert summary.half_width == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert summarise([0.7]).half_width is None


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, then 0.03 x 2 is raised to no less than 0.06, 0.9 x 1."""
    assert holm([0.9, 0.01, 0.03, 0.02], 4) == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.012], 2) == pytest.approx([0.02, 0.02])
    assert holm([0.01, 0.012], 3) == pytest.approx([0.03, 0.03])
    assert holm([0.6, 0.7], 2) == [1, 1]
    assert holm([], 0) == []


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_many_equal_predictors_none_is_said_to_be_worse_than_the_best(seeds):
    """13 equal ones, 400 columns, variances of seeds and of graphs as 1 to 1: 5 % is 20 columns."""
    rng, told = np.random.default_rng(seeds), 0
    for _ in range(400):
        graphs = rng.standard_normal((101, 13))  # the first is what the test graphs add, the others are resamples
        values = graphs[:1] + (rng.standard_normal((seeds, 13)) if seeds > 1 else 0)
        best = values.mean(0).argmax()
        p = []
        for other in set(range(13)) - {best}:
            observed = values[:, best] - values[:, other]
            p.append(p_value(observed, (graphs[1:, best] - graphs[1:, other])[:, None] + observed))
        told += min(holm(p, 13 * 12 // 2)) < 0.05
    assert told / 400 < 0.08


def test_seeds_share_the_draws_of_the_graphs_they_share(tmp_path):
    """Three times the same training proves no more than one, in whatever order the graphs are stored."""
    rng = np.random.default_rng(5)
    keys, label = np.arange(400), rng.standard_normal(400)
    for name, noise in (("a", 0.5), ("b", 0.55)):
        (tmp_path / name).mkdir()
        prediction = label + noise * rng.standard_normal(400)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(400)
            predicted_run(tmp_path / name, "nnformer", seed, keys[order], label[order], prediction[order])
    a, b = runs_of(tmp_path / "a"), runs_of(tmp_path / "b")
    alone = compare({0: a[0]}, {0: b[0]}, "kendall_tau").p
    assert 0.01 < alone < 0.99
    assert compare(a, b, "kendall_tau").p == pytest.approx(alone, rel=1e-6)


def test_of_many_graphs_a_part_is_compared(tmp_path, monkeypatch):
    rng = np.random.default_rng(6)
    label = rng.standard_normal(2500)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        predicted_run(tmp_path / name, "nnformer", 0, np.arange(2500), label, label + rng.standard_normal(2500))
    seen = []
    monkeypatch.setattr(comparison, "replicate", lambda metric, weights, *_: seen.append(weights.shape) or weights[:, 0])
    compare(runs_of(tmp_path / "a"), runs_of(tmp_path / "b"), "kendall_tau")
    assert {shape[1] for shape in seen} == {2000}


def test_p_value_limits():
    """With no variance of the graphs it is the paired t test over seeds; with one seed the normal test over graphs."""
    differences = np.array([0.1, 0.3, 0.2, 0.05])
    expected = stats.ttest_1samp(differences, 0).pvalue
    assert p_value(differences, np.tile(differences, (9, 1))) == pytest.approx(expected, rel=1e-3)
    resampled = np.array([[0.0], [2.0], [1.0]])
    assert p_value(np.array([1.5]), resampled) == pytest.approx(2 * stats.norm.sf(1.5))
    assert p_value(np.zeros(2), np.zeros((5, 2))) == 1
    assert p_value(np.ones(2), np.ones((5, 2))) == 0


@pytest.mark.parametrize("share", [0.1, 1.0, 10.0])
def test_the_level_is_kept_whatever_the_share_of_the_seeds(share):
    """1,500 trials of three seeds: the share of rejections has a standard error of 0.6 %."""
    rng = np.random.default_rng(int(10 * share))
    graphs = np.array([[-1.0], [1.0]]) / np.sqrt(2)  # variance 1
    rejected = 0
    for _ in range(1500):
        observed = rng.standard_normal() + rng.standard_normal(3) * np.sqrt(3 * share)
        rejected += p_value(observed, graphs + observed) < 0.05
    assert 0.01 < rejected / 1500 < 0.065


def rejection_rate(monkeypatch, seeds, graphs, gap, trials=150):
    """How often two predictors, whose ``seeds`` trainings vary in noise, are told apart at the 5 % level."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 100)
    rng = np.random.default_rng(seeds)
    rejected = 0
    for _ in range(trials):
        label = rng.standard_normal(graphs)
        weights = resample(graphs)
        observed, resampled = [], []
        for _ in range(seeds):
            noise = [0.7 + 0.1 * rng.standard_normal(), 0.7 + gap + 0.1 * rng.standard_normal()]
            a, b = (label + np.abs(scale) * rng.standard_normal(graphs) for scale in noise)
            each = np.vstack([np.ones((1, graphs), np.float32), weights])
            difference = weighted_tau(each, a, label) - weighted_tau(each, b, label)
            observed.append(difference[0])
            resampled.append(difference[1:])
        rejected += p_value(np.array(observed), np.stack(resampled, 1)) < 0.05
    return rejected / trials


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_predictors_are_rarely_told_apart(monkeypatch, seeds):
    """150 trials: 5 % is 7.5 of them; 9.4 % is two and a half standard errors above."""
    assert rejection_rate(monkeypatch, seeds, 80, gap=0.0) <= 0.094


def test_unequal_predictors_are_mostly_told_apart(monkeypatch):
    assert rejection_rate(monkeypatch, 5, 80, gap=1.0, trials=60) >= 0.9


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    label = rng.permutation(300) / 300
    good = [label + 0.05 * rng.standard_normal(300) for _ in range(3)]
    bad = [label + 0.6 * rng.standard_normal(300) for _ in range(3)]
    return np.arange(300), label, good, bad


def runs_of(folder):
    return {run.seed: run for run in read_records([folder])}


def test_compare_reads_predictions_and_pairs_them_by_key(tmp_path, samples):
    keys, label, good, bad = samples
    shuffled = np.random.default_rng(0).permutation(300)
    for name in ("good", "same", "bad"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        predicted_run(tmp_path / "good", "nnformer", seed, keys, label, good[seed])
        predicted_run(tmp_path / "same", "nnlp", seed, keys[shuffled], label[shuffled], good[seed][shuffled])
        predicted_run(tmp_path / "bad", "knn", seed, keys[20:], label[20:], bad[seed][20:])
    runs = {name: runs_of(tmp_path / name) for name in ("good", "same", "bad")}
    assert compare(runs["good"], runs["same"], "kendall_tau").p == 1
    worse = compare(runs["good"], runs["bad"], "kendall_tau")
    assert worse.seeds == 3
    assert worse.p < 1e-3
    one = {0: runs["bad"][0]}
    assert compare(runs["good"], one, "kendall_tau").seeds == 1


def test_compare_says_why_it_cannot(tmp_path, samples):
    keys, label, good, _ = samples
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    predicted_run(tmp_path / "a", "nnformer", 0, keys, label, good[0])
    write_run(tmp_path / "b", "nnlp", 0)
    predicted_run(tmp_path / "c", "nnlp", 1, keys, label, good[0])
    predicted_run(tmp_path / "d", "nnlp", 0, keys, label + 0.01, good[0])
    runs = {name: runs_of(tmp_path / name) for name in ("a", "b", "c", "d")}
    reasons = {name: compare(runs["a"], runs[name], "kendall_tau") for name in ("b", "c", "d")}
    assert {name: outcome.reason for name, outcome in reasons.items()} == {
        "b": "predictions were not kept",
        "c": "no common seed",
        "d": "other test graphs or labels",
    }
    assert all(outcome.p is None for outcome in reasons.values())
    assert "no paired test" in compare(runs["a"], runs["a"], "spearman").reason
