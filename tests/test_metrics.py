"""Metrics against brute force, scipy-free formulae and hand-computed cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import score

values = st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.7, 0.9]), min_size=3, max_size=12)


def brute_tau_b(x, y):
    concordant = discordant = ties_x = ties_y = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
        concordant += a * b > 0
        discordant += a * b < 0
        ties_x += a == 0
        ties_y += b == 0
    pairs = len(x) * (len(x) - 1) / 2
    return (concordant - discordant) / np.sqrt((pairs - ties_x) * (pairs - ties_y))


@settings(max_examples=60, deadline=None)
@given(values, st.randoms(use_true_random=False))
def test_kendall_is_tau_b_with_ties(label, random):
    prediction = [random.choice([0.3, 0.5, 0.6]) for _ in label]
    scores = score(np.array(prediction), np.array(label), higher_is_better=True)
    if len(set(label)) == 1 or len(set(prediction)) == 1:
        assert "kendall_tau" in scores.failed
        assert "kendall_tau" not in scores.values
    else:
        assert scores.values["kendall_tau"] == pytest.approx(brute_tau_b(prediction, label), abs=1e-12)


def test_hand_computed():
    label = np.array([1.0, 2.0, 4.0, 5.0])
    prediction = np.array([1.04, 2.0, 4.3, 4.0])
    found = score(prediction, label, higher_is_better=True).values
    assert found["mape_percent"] == pytest.approx(100 * (0.04 + 0 + 0.075 + 0.2) / 4)
    assert (found["acc_10_percent"], found["acc_5_percent"], found["acc_1_percent"]) == (75.0, 50.0, 25.0)
    assert found["rmse"] == pytest.approx(np.sqrt((0.04**2 + 0.3**2 + 1) / 4))
    assert found["r2"] == pytest.approx(1 - (0.04**2 + 0.3**2 + 1) / 10)
    assert found["spearman"] == pytest.approx(0.8)
    assert found["regret_top1"] == pytest.approx(1.0)
    assert found["regret_top10"] == 0.0


def test_regret_of_a_latency_counts_the_fastest():
    found = score(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, 9.0]), higher_is_better=False).values
    assert found["regret_top1"] == pytest.approx(1.0)


def test_regret_is_exactly_0_where_the_best_is_chosen_for_sure():
    for tied in range(10, 60):
        prediction = np.array([2.0, *np.ones(tied)])
        found = score(prediction, np.linspace(0.91, 0.1, tied + 1), higher_is_better=True).values
        assert str(found["regret_top10"]) == "0.0", "not -1e-16, which is shown as -0.0000"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.7, 0.9]), min_size=1, max_size=13), st.integers(), st.booleans())
def test_regret_is_the_mean_over_all_orders_of_ties(label, seed, higher_is_better):
    label, sign = np.array(label), 1 if higher_is_better else -1
    prediction = np.random.default_rng(abs(seed)).integers(0, 3, len(label)).astype(float)
    found = score(prediction, label, higher_is_better=higher_is_better).values
    for top in (1, 10):
        regrets = [
            (sign * label).max() - (sign * label[list(chosen)]).max()
            for chosen in itertools.combinations(range(len(label)), min(top, len(label)))
            if (sign * prediction[list(chosen)]).min() >= (sign * np.delete(prediction, chosen)).max(initial=-9)
        ]
        assert found[f"regret_top{top}"] == pytest.approx(np.mean(regrets), abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_fails_every_metric(bad):
    scores = score(np.array([0.1, bad, 0.3]), np.array([0.1, 0.2, 0.3]), higher_is_better=True)
    assert not scores.values
    assert scores.failed["kendall_tau"] == "1 of 3 predictions are not finite"


def test_constant_predictions_have_no_tau_but_an_error():
    scores = score(np.full(4, 0.5), np.array([0.1, 0.2, 0.3, 0.4]), higher_is_better=True)
    assert scores.failed["kendall_tau"] == "all predictions are equal"
    assert scores.values["rmse"] > 0


def test_labels_must_be_finite_and_of_equal_length():
    with pytest.raises(ValueError, match="finite"):
        score(np.array([0.1, 0.2]), np.array([0.1, np.nan]), higher_is_better=True)
    with pytest.raises(ValueError, match="cannot be scored"):
        score(np.array([0.1]), np.array([0.1, 0.2]), higher_is_better=True)
