"""The graph network baselines, against dense matrices in numpy, one graph at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.networks import ATTRIBUTES, OPERATIONS
from harness import registry
from harness.config import compose, typed
from predictors.brpnas import BRPNAS, BRPNASConfig
from predictors.gat import GAT, HEADS
from predictors.gcn import GCN
from predictors.gin import GIN
from predictors.gnn import GNNConfig
from predictors.graphsage import GraphSAGE
from predictors.layers.network_features import NormalisedNodes
from tests.graphs import STATIC, cell_spec, cells, network_spec, random_cells

CLASSES = {"gcn": GCN, "gin": GIN, "gat": GAT, "graphsage": GraphSAGE}
WIDTH = 8
SPECS = {"accuracy": cell_spec(), "latency": network_spec()}
VOCABULARY = {task: len(spec.operations) for task, spec in SPECS.items()}
"""Operations drawn."""


def graphs(task):
    """Cells or whole networks of 2 to 12 nodes, and one without edges."""
    batch = random_cells(12, 0, sizes=(2, 12), operations=VOCABULARY[task])
    dense = batch.dense
    plain = [(dense.op[k, :n].tolist(), dense.adjacency[k].nonzero().tolist()) for k, n in enumerate(batch.count.tolist())]
    return cells([*plain, ([0, 3, 2], [])], [*batch.static["params"].tolist(), 5e5])


def randomised(model):
    """The model in evaluation mode with every parameter away from its initial value."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def gnn(name, task):
    return randomised(CLASSES[name](GNNConfig("", name, 2, WIDTH, 0.5), SPECS[task]))


def brpnas(task, layers=3):
    return randomised(BRPNAS(BRPNASConfig("", "brpnas", layers, WIDTH, 0.5), SPECS[task]))


def numbers(module):
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


def dense_gcn(weights, x, links):
    looped = links + np.eye(len(x))
    scale = np.diag(looped.sum(1) ** -0.5)
    return scale @ looped @ scale @ x @ weights["lin.weight"].T + weights["bias"]


def dense_gin(weights, x, links):
    return linear(weights, "nn.2", relu(linear(weights, "nn.0", (1 + weights["eps"]) * x + links @ x)))


def dense_gat(weights, x, links):
    values = (x @ weights["lin.weight"].T).reshape(len(x), HEADS, -1)
    logits = (values * weights["att_dst"]).sum(-1)[:, None] + (values * weights["att_src"]).sum(-1)[None]
    logits = np.where(logits > 0, logits, 0.2 * logits)
    weight = np.exp(logits) * (links + np.eye(len(x)))[..., None]
    weight /= weight.sum(1, keepdims=True)
    return np.einsum("ijh,jhd->ihd", weight, values).reshape(len(x), -1) + weights["bias"]


def dense_graphsage(weights, x, links):
    mean = links @ x / np.maximum(links.sum(1, keepdims=True), 1)
    return linear(weights, "lin_l", mean) + x @ weights["lin_r.weight"].T


DENSE = {"gcn": dense_gcn, "gin": dense_gin, "gat": dense_gat, "graphsage": dense_graphsage}
each = pytest.mark.parametrize("name", CLASSES)
both_tasks = pytest.mark.parametrize("task", SPECS)


def single_graphs(batch, task):
    """Node features and directed adjacency of each graph, as numpy arrays."""
    spec = SPECS[task]
    nodes = NormalisedNodes(spec)(batch) if task == "latency" else torch.eye(len(spec.operations))[batch.op]
    adjacency = batch.dense.adjacency.double().numpy()
    for graph, (first, last) in enumerate(batch.ptr.unfold(0, 2, 1).tolist()):
        yield nodes[first:last].double().numpy(), adjacency[graph, : last - first, : last - first]


@each
def test_convolution_equals_dense_matrices(name):
    model, batch = gnn(name, "accuracy"), graphs("accuracy")
    convolution, x = model.convolutions[0], torch.randn(len(batch.op), WIDTH)
    found = convolution(x, torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)).detach()
    for graph, (first, last) in enumerate(batch.ptr.unfold(0, 2, 1).tolist()):
        adjacency = batch.dense.adjacency[graph, : last - first, : last - first].double().numpy()
        expected = DENSE[name](numbers(convolution), x[first:last].double().numpy(), adjacency + adjacency.T)
        np.testing.assert_allclose(found[first:last], expected, rtol=1e-5, atol=1e-5)


def dense_prediction(name, weights, x, links, static):
    x = linear(weights, "input", x)
    for layer in range(2):
        own = {key.removeprefix(f"convolutions.{layer}."): value for key, value in weights.items()}
        x = x + relu(norm(weights, f"norms.{layer}", DENSE[name](own, x, links)))
    pooled = [x.mean(0), x.max(0), x.sum(0) / np.sqrt(WIDTH)]
    if static is not None:
        pooled.append(relu(linear(weights, "static.linear", np.log10(static))))
    names = [f"head.layers.{place}" for place in ((0, 3, 6) if static is None else (0, 1, 2))]
    hidden = relu(linear(weights, names[1], relu(linear(weights, names[0], np.concatenate(pooled)))))
    output = linear(weights, names[2], hidden)[0]
    return output + 0.5 if static is None else np.logaddexp(0, -output)


@each
@both_tasks
def test_batched_forward_equals_a_dense_loop_over_graphs(name, task):
    model, batch = gnn(name, task), graphs(task)
    weights = numbers(model)
    static = [None] * len(batch)
    if task == "latency":
        static = torch.stack([batch.static[name] for name in STATIC], 1).double().numpy()
    singles = zip(single_graphs(batch, task), static, strict=True)
    expected = [dense_prediction(name, weights, x, a + a.T, own) for (x, a), own in singles]
    found = model(batch).detach()
    assert found.std() > 0.002
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@each
def test_output_padding_weighs_no_more_than_other_attributes(name):
    """A transposed convolution whose output is padded by one element takes about as long as one that is not padded."""
    batch, padding = graphs("latency"), ATTRIBUTES["ConvTranspose"].index("output_padding")
    transposed = batch.op == OPERATIONS.index("ConvTranspose")
    assert transposed.any()
    torch.manual_seed(0)
    model, latencies = CLASSES[name](GNNConfig("", name, 2, 128, 0.0), SPECS["latency"]).eval(), []
    for size in (0.0, 1.0):
        attributes = torch.ones_like(batch.attributes)
        attributes[transposed, padding] = size
        latencies.append(model(replace(batch, attributes=attributes)).detach())
    assert not torch.equal(*latencies)
    torch.testing.assert_close(*latencies, rtol=0.05, atol=0)


def dense_brpnas(weights, layers, x, adjacency):
    count = len(x)
    matrix = np.eye(count + 1)
    matrix[1:, 1:] += adjacency
    matrix[0] = 1
    framed = np.zeros((count + 1, x.shape[1] + 1))
    framed[1:, :-1], framed[0, -1] = x, 1
    for layer in range(layers):
        framed = relu(norm(weights, f"norms.{layer}", linear(weights, f"layers.{layer}", matrix @ framed)))
    return linear(weights, "output", framed[0])[0]


@both_tasks
@pytest.mark.parametrize("layers", [1, 3])
def test_brpnas_equals_dense_matrices_with_a_global_node(task, layers):
    model, batch = brpnas(task, layers), graphs(task)
    weights = numbers(model)
    expected = np.array([dense_brpnas(weights, layers, x, adjacency) for x, adjacency in single_graphs(batch, task)])
    if task == "latency":
        expected = np.logaddexp(0, -expected)
    found = model(batch).detach()
    assert found.std() > 0.002
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_brpnas_starts_from_the_authors_ranges():
    model = BRPNAS(BRPNASConfig("", "brpnas", 4, 100, 0.2), cell_spec())
    for layer in model.layers:
        for parameter in layer.parameters():
            assert 0.08 < parameter.abs().max() <= 0.1


@pytest.mark.parametrize("build", [lambda task: gnn("gcn", task), brpnas], ids=["gnn", "brpnas"])
def test_losses(build):
    batch = random_cells(20, 3)
    model = build("accuracy")
    prediction, target = model(batch).detach().double(), batch.target.double()
    terms = {name: term.item() for name, term in model.loss(batch).items()}
    expected = {"mse": ((prediction - target) ** 2).mean(), "mae": (prediction - target).abs().mean()}
    assert terms == {name: pytest.approx(expected[name].item(), rel=1e-4) for name in terms}
    model, batch = build("latency"), random_cells(20, 3, sizes=(3, 20), operations=VOCABULARY["latency"])
    prediction = model(batch).detach().double()
    assert (prediction > 0).all()
    error = ((prediction / batch.target.double() - 1) ** 2).mean().item()
    assert {name: term.item() for name, term in model.loss(batch).items()} == {
        "relative_mse": pytest.approx(error, rel=1e-4)
    }


def test_the_loss_of_accuracies_is_named():
    batch = random_cells(4, 0)
    assert set(gnn("gin", "accuracy").loss(batch)) == {"mse"}
    assert set(brpnas("accuracy").loss(batch)) == {"mae"}


H = 128
BODY = (7 * H + H) + 3 * 2 * H + (3 * H * H + H) + (H * H + H) + (H + 1)
"""Input, norms and head on a vocabulary of seven."""

PARAMETERS = {
    "gcn": BODY + 3 * (H * H + H),
    "gin": BODY + 3 * (2 * (H * H + H) + 1),
    "gat": BODY + 3 * (H * H + 2 * H + H),
    "graphsage": BODY + 3 * (2 * H * H + H),
    "brpnas": (8 * 600 + 600) + 3 * (600 * 600 + 600) + 4 * 2 * 600 + 601,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_defaults(name):
    config = typed(compose([f"predictor={name}", "dataset=nasbench201"])).predictor
    model = registry.load(registry.target("predictor", name))(config, cell_spec())
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_width_that_the_heads_do_not_divide():
    with pytest.raises(UserError, match=r"^predictor\.hidden=10: choose a multiple of the 4 heads of gat$"):
        GAT(GNNConfig("", "gat", 1, 10, 0.0), cell_spec())
