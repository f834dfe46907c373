"""Schedules, samplers, dropout and gathering: the parts of training that carry no model."""

import math

import golden
import numpy as np
import pytest
import torch

from datasets.base import EpochSampler, NodeBudgetSampler
from datasets.errors import UserError
from harness.assembly import build_predictor
from harness.config import compose, typed
from harness.evaluation import Predictions
from harness.metrics import score
from harness.registry import names
from predictors.layers.dropout import dropout, keep_mask
from predictors.layers.graph_attention import GroupedLinear
from predictors.recipe import Recipe, build_optimizer, check, multiplier
from tests.graphs import cell_spec

RECIPE = {
    "optimizer": "adamw",
    "lr": 0.1,
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup": 0.1,
    "final": 0.0,
    "epochs": 1,
    "batch_size": 4,
    "batching": "shuffled",
    "ema": 0.0,
    "clip": 0.0,
    "eval_every": 1,
}


def recipe(**changes):
    return Recipe(**{**RECIPE, **changes})


@pytest.mark.parametrize(
    ("stored", "changes"),
    [
        ("linear_warmup_decay_v1_v2_lat", {"schedule": "linear", "final": 0.0}),
        ("nnformer_acc_cosine_min_ratio_0p1", {"schedule": "cosine", "final": 0.1}),
    ],
)
def test_schedules_are_the_official_ones(golden_folder, stored, changes):
    facts = golden.facts(golden_folder, "protocol", "protocol.json")["schedules"]
    steps = facts["total_steps"]
    ours = [multiplier(recipe(warmup=facts["warmup_steps"] / steps, **changes), step, steps) for step in range(steps)]
    assert ours == pytest.approx(facts[stored], abs=1e-9)


def test_metrics_are_the_official_ones(golden_folder):
    facts = golden.facts(golden_folder, "protocol", "protocol.json")["metrics"]
    official = facts["per_repo"]["v2"]
    ours = score(np.array(facts["pred"]), np.array(facts["target"]), higher_is_better=False).values
    assert ours["kendall_tau"] == pytest.approx(official["tau"])
    assert ours["mape_percent"] == pytest.approx(100 * official["mape"])
    shares = [ours[f"acc_{percent}_percent"] / 100 for percent in (10, 5, 1)]
    assert shares == pytest.approx(official["errbnd"])


def test_schedule_by_hand():
    constant = recipe(schedule="constant", warmup=0.5)
    assert [multiplier(constant, step, 4) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "step"}, r"recipe\.schedule=step: unknown; choose one of constant, linear, cosine"),
        ({"optimizer": "sgd"}, r"recipe\.optimizer=sgd"),
        ({"batching": "sorted"}, r"recipe\.batching=sorted"),
        ({"epochs": 0}, r"recipe\.epochs=0: give 1 or more"),
        ({"batch_size": 0}, r"recipe\.batch_size=0: give 1 or more"),
        ({"eval_every": 0}, r"recipe\.eval_every=0: give 1 or more"),
        ({"lr": 0.0}, r"recipe\.lr=0\.0: give a number above 0"),
        ({"lr": -1e-3}, r"recipe\.lr=-0\.001: give a number above 0"),
        ({"lr": math.nan}, r"recipe\.lr=nan: give a number above 0"),
        ({"lr": math.inf}, r"recipe\.lr=inf: give a number above 0"),
        ({"weight_decay": -0.01}, r"recipe\.weight_decay=-0\.01: give 0 or more"),
        ({"weight_decay": math.nan}, r"recipe\.weight_decay=nan: give 0 or more"),
        ({"warmup": -0.1}, r"recipe\.warmup=-0\.1: give a fraction from 0 to 1"),
        ({"warmup": 1.1}, r"recipe\.warmup=1\.1: give a fraction from 0 to 1"),
        ({"final": -0.1}, r"recipe\.final=-0\.1: give a fraction from 0 to 1"),
        ({"final": 1.1}, r"recipe\.final=1\.1: give a fraction from 0 to 1"),
        ({"ema": -0.1}, r"recipe\.ema=-0\.1: give 0 or a decay below 1"),
        ({"ema": 1.0}, r"recipe\.ema=1\.0: give 0 or a decay below 1"),
        ({"clip": -5.0}, r"recipe\.clip=-5\.0: give 0 or more"),
    ],
)
def test_recipes_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        check(recipe(**changes))


def test_recipes_at_the_ends_of_the_ranges():
    check(recipe(weight_decay=0.0, warmup=0.0, final=1.0, ema=0.0, clip=0.0))
    check(recipe(warmup=1.0, final=0.0, ema=0.999, clip=5.0))


def test_only_a_fitted_predictor_does_without_a_learning_rate():
    assert typed(compose(["predictor=knn"])).recipe.lr == 0
    for predictor, lr in (("knn", "-1"), ("knn", "nan"), ("gin", "0")):
        with pytest.raises(UserError, match=r"recipe\.lr=.*: give a number above 0"):
            typed(compose([f"predictor={predictor}", f"recipe.lr={lr}"]))


def test_biases_and_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    optimizer, _ = build_optimizer(recipe(), model.named_parameters(), 10)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(model[0].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_biases_of_groups_of_channels_are_not_decayed():
    model = GroupedLinear(16, 32, normalise=True, shuffle=False)
    optimizer, _ = build_optimizer(recipe(), model.named_parameters(), 10)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert model.bias.ndim > 1
    assert decayed == {id(model.weight)}


def test_sampler_covers_every_row_once_in_an_order_of_seed_and_epoch():
    rows = np.arange(100, 137)
    sampler = EpochSampler(rows, 5, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 8
        epochs.append(np.concatenate(batches).tolist())
        assert sorted(epochs[-1]) == rows.tolist()
    assert epochs[0] == epochs[2] != epochs[1]


def test_sampler_by_size_never_mixes_sizes():
    sizes = np.random.default_rng(0).integers(3, 7, 50)
    sampler = EpochSampler(np.arange(50), 4, seed=0, sizes=sizes)
    batches = list(sampler)
    assert all(len(set(sizes[batch])) == 1 for batch in batches)
    order = [sizes[batch[0]] for batch in batches]
    assert order not in (sorted(order), sorted(order, reverse=True))
    assert sorted(np.concatenate(batches)) == list(range(50))
    assert len(batches) == len(sampler)


def test_evaluation_keeps_the_order_and_bounds_the_nodes_of_a_batch():
    rng = np.random.default_rng(0)
    rows, counts = rng.permutation(300), rng.integers(2, 60, 300)
    sampler = NodeBudgetSampler(rows, counts, 200)
    batches = list(sampler)
    assert np.concatenate(batches).tolist() == rows.tolist()
    assert len(batches) == len(sampler) == counts.sum() // 200 + 1
    ends = np.cumsum([len(batch) for batch in batches])[:-1]
    assert max(part.sum() for part in np.split(counts, ends)) < 200 + counts.max()
    assert [batch.tolist() for batch in NodeBudgetSampler(np.array([5, 2, 9]), np.array([3, 4, 2]), 5)] == [[5], [2, 9]]
    assert not list(NodeBudgetSampler(rows[:0], counts[:0], 200))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_dropout_rate_scale_and_seed(rate):
    x = torch.ones(500, 401)
    torch.manual_seed(1)
    first = dropout(x, rate, training=True)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(x, rate, training=True))
    assert not torch.equal(first, dropout(x, rate, training=True))
    zeros = (first == 0).double().mean().item()
    assert zeros == pytest.approx(rate, abs=5 * (rate * (1 - rate) / x.numel()) ** 0.5)
    assert first[first > 0].unique().tolist() == pytest.approx([1 / (1 - rate)], rel=1e-4)
    assert torch.equal(dropout(x, rate, training=False), x)


@pytest.mark.parametrize(("rate", "rounded"), [(1e-9, 2**-16), (1 - 1e-9, 1 - 2**-16)])
def test_dropout_at_rates_next_to_0_and_1(rate, rounded):
    mask = keep_mask(torch.ones(1_000_000), rate)
    zeros = (mask == 0).double().mean().item()
    assert 0 < zeros < 1
    assert zeros == pytest.approx(rounded, abs=5 * (rounded * (1 - rounded) / len(mask)) ** 0.5)
    assert mask.max().item() == pytest.approx(1 / (1 - rounded))


def test_no_predictor_takes_a_dropout_that_is_no_probability_below_1():
    tried = 0
    for predictor in names("predictor"):
        config = typed(compose([f"predictor={predictor}"]))
        if hasattr(config.predictor, "dropout"):
            tried += 1
            for rate in (-0.1, 1.0, 1.5, math.nan):
                config.predictor.dropout = rate
                with pytest.raises(UserError, match=r"predictor\.dropout=.*: give 0 or a probability below 1"):
                    build_predictor(config, cell_spec())
    assert tried == 9


def test_dropout_masks_of_neighbours_are_independent():
    kept = (keep_mask(torch.ones(1_000_000), 0.5) > 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 * 0.25 / 1000


def test_gathering_counts_a_padded_copy_once():
    parts = [
        (torch.tensor([7, 3]), torch.tensor([0.7, 0.3]), torch.tensor([0.5, 0.1])),
        (torch.tensor([5, 7]), torch.tensor([0.5, 0.7]), torch.tensor([0.2, 0.5])),
    ]
    found = Predictions.gather(parts)
    assert found.rows.tolist() == [3, 5, 7]
    assert found.prediction == pytest.approx([0.3, 0.5, 0.7])
    assert found.at(np.array([7, 3])).label == pytest.approx([0.5, 0.1])
