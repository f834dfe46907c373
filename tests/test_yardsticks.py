"""The fitted predictors and their features, against hand counts, networkx, numpy and scikit-learn."""

from __future__ import annotations

import time
from dataclasses import fields, replace

import networkx as nx
import numpy as np
import pyarrow.parquet
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression

import narbench
from datasets.cells201 import NODE_EDGES, NODE_OPERATIONS, node_operations
from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from harness import registry
from predictors.boosting import Boosting, BoostingConfig
from predictors.flops import FLOPs
from predictors.knn import KNN, KNNConfig
from predictors.layers.graph_features import graph_features, log_static
from predictors.params import Params
from predictors.recipe import Recipe
from tests.graphs import LABEL, cell_spec, cells, network_spec, random_cells


def static_predictor(cls, fit, static=("params", "flops")):
    return cls(cls.Config("", "yardstick", fit), replace(cell_spec(), static=static))


def knn(k, walk=1):
    return KNN(KNNConfig("", "knn", walk, k), cell_spec())


def boosting(seed, trees=30):
    config = BoostingConfig("", "boosting", 2, "huber", trees, 0.1, 3, 0.7, 0.3, seed)
    return Boosting(config, cell_spec())


def test_features_counted_by_hand():
    diamond = ([0, 1, 1, 2], [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)])
    row = graph_features(cells([diamond], [1.0]), operations=3, walk=2)[0].tolist()
    assert row[:3] == [4, 5, 2]
    assert row[3:6] == [1, 2, 1]
    one_edge = {1 * 3 + 0: 2, 2 * 3 + 0: 1, 2 * 3 + 1: 2}
    assert row[6:15] == [one_edge.get(i, 0) for i in range(9)]
    two_edges = {2 * 3 + 0: 2}
    assert row[15:24] == [two_edges.get(i, 0) for i in range(9)]


def test_features_of_random_cells_match_networkx():
    batch, operations, walk = random_cells(25, 0), 7, 3
    features = graph_features(batch, operations, walk).numpy()
    assert features.dtype == np.float64
    for graph, row in enumerate(features):
        dense = batch.dense.adjacency[graph].numpy().astype(int)
        net = nx.from_numpy_array(dense, create_using=nx.DiGraph)
        one_hot = np.eye(operations)[batch.dense.op[graph].numpy()] * batch.dense.mask[graph].numpy()[:, None]
        powers = [one_hot.T @ np.linalg.matrix_power(dense, length).T @ one_hot for length in range(1, walk + 1)]
        sizes = [batch.count[graph], net.number_of_edges(), nx.dag_longest_path_length(net)]
        np.testing.assert_array_equal(row, np.concatenate([sizes, one_hot.sum(0), *(p.ravel() for p in powers)]))


def test_static_features_in_log():
    batch = cells([([0, 6], [(0, 1)])] * 3, [1.0, 100.0, 0.0])
    logs = log_static(batch, ("flops", "params"))
    assert logs.shape == (3, 2)
    assert logs.isfinite().all()
    np.testing.assert_allclose(logs[:2], np.log([[1e3, 1.0], [1e5, 100.0]]))
    assert log_static(batch, ()).shape == (3, 0)


@pytest.mark.parametrize(("cls", "column"), [(Params, "params"), (FLOPs, "flops")])
@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("fit", ["isotonic", "linear"])
def test_one_feature_fit_is_scikit_learns(cls, column, rising, fit):
    rng = np.random.default_rng(0)
    train, test = random_cells(50, 1), random_cells(50, 2)
    train = replace(train, static={**train.static, column: train.static[column] * torch.rand(50)})
    noise = torch.from_numpy(rng.normal(size=50))
    train.labels[LABEL] = (train.static[column].double().log() * (1 if rising else -1) + noise).float()
    x, y = (np.log(batch.static[column].double().numpy()) for batch in (train, test))
    reference = {
        "isotonic": IsotonicRegression(increasing=rising, out_of_bounds="clip"),
        "linear": LinearRegression(),
    }[fit]
    expected = reference.fit(x[:, None], train.target.double().numpy()).predict(y[:, None])
    model = static_predictor(cls, fit)
    model.fit(train)
    np.testing.assert_allclose(model(test), expected, rtol=1e-6)


def test_missing_feature_is_named():
    with pytest.raises(UserError, match=r"^predictor=yardstick needs the feature 'flops'; this benchmark has params$"):
        static_predictor(FLOPs, "isotonic", static=("params",))
    with pytest.raises(UserError, match="this benchmark has no per-graph features"):
        static_predictor(Params, "isotonic", static=())


def test_unknown_fit_is_named():
    with pytest.raises(UserError, match=r"predictor\.fit=cubic: unknown; choose one of isotonic, linear"):
        static_predictor(Params, "cubic")


def test_neighbours_vote_by_inverse_manhattan_distance():
    train, test = random_cells(40, 3), random_cells(40, 4)
    model = knn(k=5)
    model.fit(train)
    x, y = (model.features(batch) for batch in (train, test))
    keep = x.std(0) > 0
    mean, deviation = x[:, keep].mean(0), x[:, keep].std(0)
    x, y = (x[:, keep] - mean) / deviation, (y[:, keep] - mean) / deviation
    distance = np.abs(y[:, None] - x[None]).sum(2)
    near = distance.argsort(1)[:, :5]
    weight = 1 / np.take_along_axis(distance, near, 1)
    expected = (weight * train.target.double().numpy()[near]).sum(1) / weight.sum(1)
    np.testing.assert_allclose(model(test), expected, rtol=1e-6)


def test_fewer_training_graphs_than_neighbours():
    train = random_cells(3, 5)
    model = knn(k=8)
    model.fit(train)
    np.testing.assert_allclose(model(train), train.target, rtol=1e-6)


def test_boosting_follows_its_seed():
    train, test = random_cells(60, 6), random_cells(60, 7)
    predictions = []
    for seed in (0, 0, 1):
        model = boosting(seed)
        model.fit(train)
        predictions.append(model(test))
    assert torch.equal(predictions[0], predictions[1])
    assert not torch.equal(predictions[0], predictions[2])


@pytest.mark.parametrize("graphs", [1, 2, 3])
def test_boosting_takes_the_fewest_graphs(graphs):
    train = random_cells(graphs, 6)
    model = boosting(0, trees=300)
    model.fit(train)
    predictions = model(random_cells(60, 7))
    assert train.target.min() - 1e-6 <= predictions.min() <= predictions.max() <= train.target.max() + 1e-6


def test_features_that_never_vary_are_not_kept():
    train = random_cells(60, 8)
    model = boosting(0)
    model.fit(train)
    every = model.features(train)
    assert model.inputs.shape[1] < every.shape[1]
    np.testing.assert_array_equal(model.inputs, every[:, np.ptp(every, axis=0) > 0])


def test_equal_training_graphs_give_their_label():
    train = cells([([0, 2, 6], [(0, 1), (1, 2)])] * 4, [1e6] * 4)
    for model in (knn(k=2), boosting(0), static_predictor(Params, "isotonic")):
        model.fit(train)
        np.testing.assert_allclose(model(train), train.target, rtol=1e-5)


def test_refitting_replaces_the_first_fit():
    first, second = random_cells(30, 9), random_cells(20, 10)
    model = knn(k=1)
    model.fit(first)
    model(first)
    model.fit(second)
    np.testing.assert_allclose(model(second), second.target, rtol=1e-6)


def test_use_before_fit_and_gradient_steps_are_refused():
    batch = random_cells(4, 11)
    with pytest.raises(RuntimeError, match="KNN has not been fitted"):
        knn(k=1)(batch)
    with pytest.raises(NotImplementedError, match="fitted, not trained"):
        knn(k=1).loss(batch)


@pytest.mark.parametrize("name", ["params", "flops", "knn", "boosting"])
def test_yaml_brings_a_whole_recipe_and_every_field(name):
    with initialize_config_dir(str(registry.CONF), version_base="1.3"):
        config = compose(f"predictor/{name}")
    assert set(config.recipe) == {field.name for field in fields(Recipe)}
    assert set(config.predictor) == {field.name for field in fields(registry.load(config.predictor.target).Config)}


def real_cells(shared, label: str, rows: slice) -> GraphBatch:
    columns = ["arch_str", "params_M_nats", label]
    table = pyarrow.parquet.read_table(shared / "data" / "nasbench201.parquet", columns=columns)[rows]
    ops = torch.from_numpy(node_operations(table["arch_str"].to_pylist()).astype(np.int64))
    count = len(ops)
    first = 8 * torch.arange(count)
    edges = torch.tensor(NODE_EDGES)[None] + first[:, None, None]
    return GraphBatch(
        op=ops.flatten(),
        edge_index=edges.reshape(-1, 2).T,
        ptr=torch.cat([first, torch.tensor([8 * count])]),
        row=torch.arange(count),
        static={"params": torch.tensor(table["params_M_nats"].to_pylist())},
        labels={LABEL: torch.from_numpy(table[label].to_numpy() / 100).float()},
        target_name=LABEL,
    )


def test_yardsticks_rank_real_cells(shared):
    spec = TaskSpec("accuracy", NODE_OPERATIONS, ("params",), "fraction")
    train = real_cells(shared, "hp200_c10valid_val", slice(0, 781))
    test = real_cells(shared, "hp200_c10_test", slice(781, 3781))
    tau = []
    for model in (
        Params(Params.Config("", "params", "isotonic"), spec),
        KNN(KNNConfig("", "knn", 1, 8), spec),
        Boosting(BoostingConfig("", "boosting", 3, "absolute_error", 300, 0.05, 4, 0.7, 0.3, 0), spec),
    ):
        model.fit(train)
        tau.append(kendalltau(model(test), test.target).statistic)
    assert 0.55 < tau[0] < tau[1] < tau[2] < 0.8
    assert tau[2] > 0.7


def test_latencies_are_fitted_in_log():
    batch = random_cells(64, 1)
    batch = replace(batch, labels={LABEL: batch.static["flops"] ** 1.5})
    model = FLOPs(FLOPs.Config("", "flops", "linear"), network_spec())
    model.fit(batch)
    torch.testing.assert_close(model(batch), batch.target, rtol=1e-4, atol=0)


def test_a_run_fits_once_and_counts_it_as_training(tmp_path, monkeypatch):
    fits, fit = [], GradientBoostingRegressor.fit

    def slow(*data):
        fits.append(1)
        time.sleep(0.5)
        return fit(*data)

    monkeypatch.setattr(GradientBoostingRegressor, "fit", slow)
    record = narbench.run("predictor=boosting", "train=60", "logger=none", f"out={tmp_path / 'run'}").record
    assert len(fits) == 1
    assert record["timings"]["train_seconds"] > 0.5
