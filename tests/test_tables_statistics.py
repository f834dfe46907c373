"""The statistics of tables, against scipy, brute force and hand computation."""

import numpy as np
import pytest
from scipy import stats
from table_records import predicted_run, write_run

from harness.tables import bootstrap, comparison
from harness.tables.bootstrap import replicate, resample, weighted_tau
from harness.tables.cells import summarise
from harness.tables.comparison import Difference, difference, holm, p_value
from harness.tables.recorded import read_records
from harness.tables.seed_variance import SeedVariance, seed_variances


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


def alike(column):
    """Variances of predictors that are all of one kind."""
    return seed_variances(column, [0] * len(column))


def columns(rng, count, seeds, gap=0.0, unlike=0.0):
    """Columns of 13 predictors, the first better by ``gap``: whether it is the best, and corrected p-values of the others.

    Variances of test graphs are 1, of trainings 1 in the median, ``unlike`` is the standard deviation of their logarithm's
    half.
    """
    for _ in range(count):
        values = rng.standard_normal(13) + rng.standard_normal((seeds, 1))
        values[:, 0] += gap
        if seeds > 1:
            values = values + np.exp(unlike * rng.standard_normal(13)) * rng.standard_normal((seeds, 13))
        variances = alike([dict(enumerate(column)) for column in values.T]) or [None] * 13
        means = values.mean(0)
        best = means.argmax()
        others = [number for number in range(13) if number != best]
        p = [
            p_value(Difference(means[best] - means[other], 2.0, seeds), variances[best], variances[other])
            for other in others
        ]
        yield best == 0, np.array(holm(p, 13 * 12 // 2))


@pytest.mark.parametrize(("seeds", "unlike", "most"), [(1, 0, 0.08), (3, 0, 0.08), (3, 0.8, 0.12)])
def test_of_many_equal_predictors_none_is_said_to_be_worse_than_the_best(seeds, unlike, most):
    """400 columns: 5 % is 20, with a standard error of 1.1 %; variances that differ five-fold cost a little."""
    rng = np.random.default_rng(seeds)
    told = [p.min() < 0.05 for _, p in columns(rng, 400, seeds, unlike=unlike)]
    assert np.mean(told) < most


def test_three_seeds_tell_predictors_apart_that_differ_by_much():
    """By six standard errors of a difference; two degrees of freedom, corrected for 78 pairs, would not do."""
    rng = np.random.default_rng(0)
    told = [np.mean(p < 0.05) if best else 0 for best, p in columns(rng, 100, 3, gap=10.0)]
    assert np.mean(told) > 0.9


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
    alone, together = difference({0: a[0]}, {0: b[0]}, "kendall_tau"), difference(a, b, "kendall_tau")
    assert alone.graphs > 0
    assert (alone.seeds, together.seeds) == (1, 3)
    assert (together.mean, together.graphs) == pytest.approx((alone.mean, alone.graphs), rel=1e-6)


def test_of_many_graphs_a_part_is_compared(tmp_path, monkeypatch):
    rng = np.random.default_rng(6)
    label = rng.standard_normal(2500)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        predicted_run(tmp_path / name, "nnformer", 0, np.arange(2500), label, label + rng.standard_normal(2500))
    seen = []
    monkeypatch.setattr(comparison, "replicate", lambda metric, weights, *_: seen.append(weights.shape) or weights[:, 0])
    difference(runs_of(tmp_path / "a"), runs_of(tmp_path / "b"), "kendall_tau")
    assert {shape[1] for shape in seen} == {2000}


def test_p_value_limits():
    """With no variance of the graphs it is the paired t test over seeds; with one seed the normal test over graphs."""
    first, second = np.array([0.5, 0.9, 0.7, 0.4]), np.array([0.4, 0.6, 0.5, 0.35])
    variances = alike([dict(enumerate(first)), dict(enumerate(second))])
    expected = stats.ttest_rel(first, second).pvalue
    assert p_value(Difference(np.mean(first - second), 0.0, 4), *variances) == pytest.approx(expected, rel=1e-3)
    assert p_value(Difference(1.5, 1.0, 1), None, None) == pytest.approx(2 * stats.norm.sf(1.5))
    nothing = SeedVariance(0.0, 2.0)
    assert p_value(Difference(0.0, 0.0, 2), nothing, nothing) == 1
    assert p_value(Difference(1.0, 0.0, 2), nothing, nothing) == 0


def blocks(seed, predictors, seeds, scale=1.0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((predictors, 1)) + rng.standard_normal(seeds) + scale * rng.standard_normal((predictors, seeds))
    )


def test_variances_that_differ_by_chance_are_one_with_the_freedom_of_all():
    """The residual mean square of randomised blocks, by the textbook formula."""
    values = blocks(0, 6, 4)
    residuals = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    variances = alike([dict(enumerate(row)) for row in values])
    assert {round(known.freedom, 9) for known in variances} == {15.0}
    np.testing.assert_allclose([known.variance for known in variances], (residuals**2).sum() / 15)


def test_a_predictor_with_one_seed_has_the_usual_variance_and_changes_no_other():
    column = [dict(enumerate(row)) for row in blocks(0, 6, 4)]
    with_it = alike([*column, {2: 9.0}, {7: 1.0}])
    assert [(known.variance, known.freedom) for known in with_it[:6]] == [
        (pytest.approx(known.variance), pytest.approx(known.freedom)) for known in alike(column)
    ]
    assert with_it[6].variance == with_it[7].variance == with_it[0].variance


def test_without_two_predictors_that_share_two_seeds_nothing_is_known():
    for column in ([{0: 1.0}, {0: 2.0}], [{0: 1.0, 1: 1.1, 2: 1.3}, {0: 2.0}], [{0: 1.0, 1: 1.1}, {2: 2.0, 3: 2.2}]):
        assert alike(column) == [None, None]
    assert alike([{}, {}]) == [None, None]


def test_kinds_that_vary_differently_have_variances_of_their_own():
    """Ten that vary by 1 and ten that hardly do, whose residuals have a part of the seeds' estimated effects, 1 / 20."""
    scale = np.repeat([1.0, 1e-3], 10)[:, None]
    column = [dict(enumerate(row)) for row in blocks(0, 20, 6, scale)]
    kinds = [True] * 10 + [False] * 10
    *found, trained, fitted = seed_variances([*column, {0: 5.0}, {0: 6.0}], [*kinds, True, False])
    assert trained.variance == pytest.approx(1, rel=0.3)
    assert fitted.variance < 0.1
    assert trained.freedom <= 50
    assert {known.variance for known in found} == {trained.variance, fitted.variance}


def test_one_of_each_kind_gives_the_paired_t_test():
    first, second = np.array([0.5, 0.9, 0.7, 0.4]), np.array([0.4, 0.6, 0.5, 0.35])
    variances = seed_variances([dict(enumerate(first)), dict(enumerate(second))], ["trained", "fitted"])
    expected = stats.ttest_rel(first, second).pvalue
    assert p_value(Difference(np.mean(first - second), 0.0, 4), *variances) == pytest.approx(expected, rel=1e-3)


def test_nothing_is_known_of_a_kind_of_which_none_shares_seeds():
    column = [dict(enumerate(row)) for row in blocks(0, 5, 4)]
    found = seed_variances([*column, {0: 1.0}, {1: 2.0}], [0] * 5 + [1] * 2)
    assert found[5:] == [None, None]
    assert [known.variance for known in found[:5]] == pytest.approx([known.variance for known in alike(column)])


def test_a_single_training_has_the_variance_of_the_one_known_of_its_kind():
    column = [dict(enumerate(row)) for row in blocks(0, 5, 4)]
    found = seed_variances([*column, {0: 1.0}], [0, 0, 0, 0, 1, 1])
    assert found[4] == found[5]
    values = np.array([list(values.values()) for values in column])
    residuals = (values - values.mean(1, keepdims=True) - values.mean(0) + values.mean())[4]
    assert found[4].variance == pytest.approx((residuals**2).sum() / (3 * 4 / 5))
    assert found[4].freedom == pytest.approx(3)


def test_no_variance_has_more_freedom_than_the_column():
    found = [alike([*(dict(enumerate(row)) for row in blocks(seed, 6, 4)), {0: 1.0}]) for seed in range(20)]
    for number in (0, 6):
        freedoms = {round(known[number].freedom, 9) for known in found}
        assert max(freedoms) == 15
        assert len(freedoms) > 5


def test_variances_near_zero_are_one_to_the_prior():
    def of(first):
        return alike([{0: first, 1: -first}, {0: 1.0, 1: -1.0}, {0: -1.0, 1: 1.0}])[1]

    assert of(0.0).freedom == pytest.approx(of(1e-6).freedom, rel=1e-5)
    assert of(0.0).freedom != pytest.approx(of(0.1).freedom, rel=0.05)


def test_predictors_without_a_variance():
    assert alike([{0: 0.0, 1: 0.0}] * 3) == [SeedVariance(0.0, pytest.approx(2))] * 3
    for known in alike([{0: 1.0, 1: 2.0}, {0: 3.0, 1: 4.0}]):
        assert (known.variance, known.freedom) == (pytest.approx(0, abs=1e-20), pytest.approx(1))


def test_the_prior_is_recovered():
    """Variances drawn as 4 x 6 / chi^2 with 6 degrees of freedom: a predictor with one seed has 4, with 6 degrees."""
    rng = np.random.default_rng(0)
    scale = np.sqrt(4 * 6 / rng.chisquare(6, (600, 1)))
    column = [dict(enumerate(row)) for row in blocks(1, 600, 4, scale)]
    *trained, single = alike([*column, {0: 0.0}])
    assert single.variance == pytest.approx(4, rel=0.1)
    assert single.freedom == pytest.approx(6, rel=0.25)
    raw = np.array([np.var(list(values.values()), ddof=1) for values in column])
    moderated = np.array([known.variance for known in trained])
    assert np.var(np.log(moderated / scale[:, 0] ** 2)) < 0.5 * np.var(np.log(raw / scale[:, 0] ** 2))


@pytest.mark.parametrize("share", [0.1, 1.0, 10.0])
def test_the_level_is_kept_whatever_the_share_of_the_seeds(share):
    """1,500 trials of two predictors with three seeds: the share of rejections has a standard error of 0.6 %."""
    rng = np.random.default_rng(int(10 * share))
    rejected = 0
    for _ in range(1500):
        values = rng.standard_normal((2, 3)) * np.sqrt(share * 3 / 2)
        found = Difference(values[0].mean() - values[1].mean() + rng.standard_normal(), 1.0, 3)
        rejected += p_value(found, *alike([dict(enumerate(row)) for row in values])) < 0.05
    assert 0.01 < rejected / 1500 < 0.065


def rejection_rate(folder, seeds, graphs, gap, trials):
    """How often two predictors, whose ``seeds`` trainings vary in noise, are told apart at the 5 % level."""
    rng, rejected = np.random.default_rng(seeds), 0
    for trial in range(trials):
        label, runs, column = rng.standard_normal(graphs), [], []
        for name, scale in (("nnformer", 0.7), ("knn", 0.7 + gap)):
            place = folder / f"{trial}-{name}"
            place.mkdir()
            for seed in range(seeds):
                noise = np.abs(scale + 0.1 * rng.standard_normal()) * rng.standard_normal(graphs)
                predicted_run(place, name, seed, np.arange(graphs), label, label + noise)
            runs.append(runs_of(place))
            column.append({seed: run.test("kendall_tau") for seed, run in runs[-1].items()})
        rejected += p_value(difference(*runs, "kendall_tau"), *alike(column)) < 0.05
    return rejected / trials


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_predictors_are_rarely_told_apart(tmp_path, monkeypatch, seeds):
    """150 trials: 5 % is 7.5 of them; 9.4 % is two and a half standard errors above."""
    monkeypatch.setattr(bootstrap, "REPLICATES", 100)
    assert rejection_rate(tmp_path, seeds, 80, gap=0.0, trials=150) <= 0.094


def test_unequal_predictors_are_mostly_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 100)
    assert rejection_rate(tmp_path, 5, 80, gap=1.0, trials=60) >= 0.9


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    label = rng.permutation(300) / 300
    good = [label + 0.05 * rng.standard_normal(300) for _ in range(3)]
    bad = [label + 0.6 * rng.standard_normal(300) for _ in range(3)]
    return np.arange(300), label, good, bad


def runs_of(folder):
    return {run.seed: run for run in read_records([folder])}


def test_difference_reads_predictions_and_pairs_them_by_key(tmp_path, samples):
    keys, label, good, bad = samples
    shuffled = np.random.default_rng(0).permutation(300)
    for name in ("good", "same", "bad"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        predicted_run(tmp_path / "good", "nnformer", seed, keys, label, good[seed])
        predicted_run(tmp_path / "same", "nnlp", seed, keys[shuffled], label[shuffled], good[seed][shuffled])
        predicted_run(tmp_path / "bad", "knn", seed, keys[20:], label[20:], bad[seed][20:])
    runs = {name: runs_of(tmp_path / name) for name in ("good", "same", "bad")}
    assert difference(runs["good"], runs["same"], "kendall_tau") == Difference(0, 0, 3)
    worse = difference(runs["good"], runs["bad"], "kendall_tau")
    assert worse.seeds == 3
    taus = [{seed: run.test("kendall_tau") for seed, run in runs[name].items()} for name in ("good", "bad")]
    assert p_value(worse, *alike(taus)) < 1e-3
    expected = [
        stats.kendalltau(good[seed][20:], label[20:]).statistic - stats.kendalltau(bad[seed][20:], label[20:]).statistic
        for seed in range(3)
    ]
    assert worse.mean == pytest.approx(np.mean(expected))
    one = {0: runs["bad"][0]}
    assert difference(runs["good"], one, "kendall_tau").seeds == 1


def test_mape_is_compared_by_its_logarithm(tmp_path):
    for name, factor in (("a", 1.1), ("b", 1.2)):
        (tmp_path / name).mkdir()
        predicted_run(tmp_path / name, "knn", 0, np.arange(50), np.arange(1.0, 51), factor * np.arange(1.0, 51))
    found = difference(runs_of(tmp_path / "a"), runs_of(tmp_path / "b"), "mape_percent")
    assert (found.mean, found.graphs) == (pytest.approx(np.log(10 / 20)), pytest.approx(0, abs=1e-9))


def test_difference_says_why_it_cannot(tmp_path, samples):
    keys, label, good, _ = samples
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    predicted_run(tmp_path / "a", "nnformer", 0, keys, label, good[0])
    write_run(tmp_path / "b", "nnlp", 0)
    predicted_run(tmp_path / "c", "nnlp", 1, keys, label, good[0])
    predicted_run(tmp_path / "d", "nnlp", 0, keys, label + 0.01, good[0])
    runs = {name: runs_of(tmp_path / name) for name in ("a", "b", "c", "d")}
    assert {name: difference(runs["a"], runs[name], "kendall_tau") for name in ("b", "c", "d")} == {
        "b": "predictions were not kept",
        "c": "no common seed",
        "d": "other test graphs or labels",
    }
    assert difference(runs["a"], runs["a"], "spearman") == "no paired test of spearman"
