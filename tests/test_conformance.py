"""What every registered predictor must do, whatever it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import kendalltau

from datasets.errors import UserError
from datasets.graph import GraphBatch
from harness import registry
from harness.config import compose, typed
from harness.transfer import encoder
from predictors.base import Predictor
from predictors.fitted import FittedPredictor
from tests.graphs import cell_spec, cells, network_spec, pick, random_cells, relabelled
from tests.other_device import OtherDevice, brought_back, move_module, moved_batch

SMALL = {
    "narformer": {"dim": 48, "feedforward": 96, "heads": 4, "depths": [2, 1, 1, 1], "code_widths": [16, 16, 16]},
    "narformer2": {"layers": 2, "hidden": 32, "head": 32},
    "nnformer": {"dim": 32, "depth": 2},
    "nnlp": {"hidden": 32},
    "gcn": {"hidden": 32},
    "gin": {"hidden": 32},
    "gat": {"hidden": 32},
    "graphsage": {"hidden": 32},
    "brpnas": {"hidden": 64},
    "boosting": {"trees": 100, "learning_rate": 0.1},
}
"""Overrides that make a predictor quick to train here."""

NO_GRADIENT = {
    "nnformer": {
        "network.blocks.1.feedforward.gcn.weight": "the class token has no graph neighbours and only it is read out"
    },
}
"""Parameters that get no gradient (none at all, or zero) on cells by construction, with the reason."""

NAMES = registry.names("predictor")
SPECS = {"cells": cell_spec(), "networks": network_spec()}
OUTPUT_PADDING = 6
"""Attribute slot that is 0 in every network: NNLP scales it by 100,000."""

TOLERANCE = 1e-5


def tolerance(prediction: torch.Tensor) -> float:
    """Largest difference that rounding may make: of predictions up to 1, or relative to larger ones."""
    return TOLERANCE * max(1.0, float(prediction.abs().max()))


def loaded(name: str) -> type[Predictor]:
    return registry.load(registry.target("predictor", name))


def is_fitted(name: str) -> bool:
    return issubclass(loaded(name), FittedPredictor)


CASES = [(name, kind) for name in NAMES for kind in SPECS if kind == "cells" or loaded(name).whole_networks]
every = pytest.mark.parametrize(("name", "kind"), CASES)
trained = pytest.mark.parametrize(("name", "kind"), [case for case in CASES if not is_fitted(case[0])])


@cache
def graphs(kind: str, count: int, seed: int, sizes: tuple[int, int] | None = None) -> GraphBatch:
    """Random cells, or whole networks small and large enough for both layouts of attention."""
    if kind == "cells":
        return random_cells(count, seed, sizes or (2, 8))
    batch = random_cells(count, seed, sizes or (2, 36), len(SPECS[kind].operations))
    attributes = 1 + batch.attributes % 3
    attributes[:, OUTPUT_PADDING] = 0
    return replace(batch, attributes=attributes)


@cache
def configured(name: str, kind: str) -> object:
    """The predictor's configuration from its YAML files."""
    chosen = [f"networks={name}"] if kind == "networks" and name in registry.names("networks") else []
    return typed(compose([f"predictor={name}", "dataset=nasbench101", "logger=none", *chosen])).predictor


def build(name: str, kind: str, seed: int = 0, **overrides: object) -> Predictor:
    """A small predictor in evaluation mode."""
    structured = OmegaConf.structured(configured(name, kind))
    config = OmegaConf.to_object(OmegaConf.merge(structured, SMALL.get(name, {}), overrides))
    torch.manual_seed(seed)
    return loaded(name)(config, SPECS[kind]).eval()


def ready(name: str, kind: str) -> Predictor:
    """A predictor whose predictions differ clearly between graphs: fitted, or with enlarged random weights."""
    model = build(name, kind)
    if isinstance(model, FittedPredictor):
        model.fit(graphs(kind, 64, 100))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def predict(model: Predictor, batch) -> torch.Tensor:
    return model(batch)


@every
def test_one_finite_prediction_per_graph(name, kind):
    model, batch = ready(name, kind), graphs(kind, 40, 1)
    prediction = predict(model, batch)
    assert prediction.shape == (40,)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
    assert prediction.std() > 100 * TOLERANCE
    assert torch.equal(predict(model, batch), prediction)


@trained
def test_the_head_is_named(name, kind):
    """Transfer leaves the head behind: with zeros for it all graphs look the same, and the encoder is something."""
    model, batch = ready(name, kind), graphs(kind, 40, 1)
    kept = encoder(model)
    assert sum(tensor.numel() for tensor in kept.values()) > 0
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name not in kept:
                parameter.zero_()
    assert predict(model, batch).std() < TOLERANCE


@every
def test_equal_seeds_give_equal_predictors(name, kind):
    train, batch = graphs(kind, 64, 100), graphs(kind, 40, 1)
    models = [build(name, kind, seed=seed) for seed in (3, 3, 4)]
    for model in models:
        if isinstance(model, FittedPredictor):
            model.fit(train)
    first, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert torch.equal(predict(models[0], batch), predict(models[1], batch))
    if not is_fitted(name):
        assert any(not torch.equal(first[key], other[key]) for key in first)


@every
def test_prediction_does_not_depend_on_the_rest_of_the_batch(name, kind):
    model, batch = ready(name, kind), graphs(kind, 30, 2)
    together = predict(model, batch)
    alone = torch.cat([predict(model, pick(batch, [row])) for row in range(30)])
    torch.testing.assert_close(alone, together, atol=tolerance(together), rtol=0)
    backwards = predict(model, pick(batch, list(range(29, -1, -1))))
    torch.testing.assert_close(backwards.flip(0), together, atol=tolerance(together), rtol=0)


@every
def test_node_order_matters_only_if_claimed(name, kind):
    model, batch = ready(name, kind), graphs(kind, 40, 3)
    given = predict(model, batch)
    difference = max((predict(model, relabelled(batch, k)) - given).abs().max().item() for k in range(3))
    if model.node_order_matters:
        assert difference > 100 * tolerance(given)
    else:
        assert difference <= tolerance(given)


@every
def test_checkpoint_of_plain_tensors_restores_predictions(name, kind, tmp_path: Path):
    model, batch = ready(name, kind), graphs(kind, 40, 4)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    restored = build(name, kind)
    restored.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(predict(restored, batch), predict(model, batch))


@every
def test_smallest_graphs(name, kind):
    model = ready(name, kind)
    chain = ([0, *[2] * 6, 6], [(i, i + 1) for i in range(7)])
    batch = cells([([0, 6], [(0, 1)]), ([0, 6], []), chain], [1e5, 1e5, 6e6])
    prediction = predict(model, batch)
    assert prediction.isfinite().all()
    torch.testing.assert_close(predict(model, pick(batch, [1]))[0], prediction[1], atol=tolerance(prediction), rtol=0)


@every
def test_fits_sixteen_graphs(name, kind):
    batch = graphs(kind, 16, 5, sizes=(5, 7))
    overrides = {"dropout": 0.0} if hasattr(build(name, kind).config, "dropout") else {}
    model = build(name, kind, **overrides)
    before = copy.deepcopy(model.state_dict())
    if isinstance(model, FittedPredictor):
        model.fit(batch)
    else:
        descend(model, batch, steps=250)
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert kendalltau(predict(model, batch), batch.target).statistic > 0.9


def descend(model: Predictor, batch, steps: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch).values())).sum().backward()
        optimizer.step()
        decay.step()
    model.eval()


@trained
def test_gradients_reach_every_parameter(name, kind):
    model = ready(name, kind).train()
    torch.stack(list(model.loss(graphs(kind, 64, 6)).values())).sum().backward()
    dead = {key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert dead == set(NO_GRADIENT.get(name, {}) if kind == "cells" else ())


@every
def test_every_tensor_is_made_on_the_device_of_the_batch(name, kind):
    model, batch = ready(name, kind), graphs(kind, 40, 7)
    there = copy.deepcopy(model)
    move_module(there)
    with OtherDevice():
        prediction = predict(there, moved_batch(batch))
    assert torch.equal(brought_back(prediction), predict(model, batch))


@trained
def test_losses_and_gradients_are_computed_on_the_device_of_the_batch(name, kind):
    model, batch = ready(name, kind), graphs(kind, 40, 7)
    there = copy.deepcopy(model)
    move_module(there)
    torch.manual_seed(1)
    losses = model.loss(batch)
    torch.stack(list(losses.values())).sum().backward()
    torch.manual_seed(1)
    with OtherDevice():
        moved = there.loss(moved_batch(batch))
        torch.stack(list(moved.values())).sum().backward()
        there.train().loss(moved_batch(batch))
    assert {key: brought_back(value.detach()) for key, value in moved.items()} == {k: v.detach() for k, v in losses.items()}
    for (key, here), (_, other) in zip(model.named_parameters(), there.named_parameters(), strict=True):
        if here.grad is not None:
            assert torch.equal(brought_back(other.grad), here.grad), key


@every
def test_configuration_and_yaml_agree(name, kind):
    config = build(name, kind).config
    assert config.name == name
    assert config.target == registry.target("predictor", name)
    assert not {"name", "target"} - set(vars(config))


@pytest.mark.parametrize("name", [name for name in NAMES if not loaded(name).whole_networks])
def test_whole_networks_are_refused_if_not_claimed(name):
    with pytest.raises(UserError, match=f"predictor={name} reads cells, and this benchmark has whole networks"):
        build(name, "networks")
