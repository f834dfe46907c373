"""NNLP's network against the official code's numbers: with and without the static layer, one head and nine."""

import re
from dataclasses import replace

import golden
import pytest
import torch

from harness.config import compose, typed
from predictors.losses import relative_squared_error
from predictors.nnlp import NNLP, Network, NNLPConfig
from tests.graphs import cell_spec, network_spec, random_cells

GROUP = "nnlp"

NAMES = (
    (r"graph_conv_1\.(.*)", r"graph_layers.0.\1"),
    (r"graph_conv_2\.(.*)", r"graph_layers.1.\1"),
    (r"norm_sf_linear\.(.*)", r"static.linear.\1"),
    (r"head_(\d+)\.fc_1\.(.*)", r"heads.\1.layers.0.\2"),
    (r"head_(\d+)\.fc_2\.(.*)", r"heads.\1.layers.1.\2"),
    (r"head_(\d+)\.predictor\.(.*)", r"heads.\1.layers.2.\2"),
    (r"fc_1\.(.*)", r"heads.0.layers.0.\1"),
    (r"fc_2\.(.*)", r"heads.0.layers.1.\1"),
    (r"predictor\.(.*)", r"heads.0.layers.2.\1"),
)


def configuration(hidden, head, encode_static=True):
    return NNLPConfig(target="", name="nnlp", hidden=hidden, head=head, dropout=0.0, encode_static=encode_static)


def ours(official):
    for pattern, name in NAMES:
        if re.fullmatch(pattern, official):
            return re.sub(pattern, name, official)
    raise KeyError(official)


def build(case):
    facts = case.facts["config"]
    network = Network(
        facts["num_node_features"],
        4,
        facts["gnn_hidden"],
        facts["fc_hidden"],
        0.0,
        encode_static=facts["norm_sf"],
        platforms=max(1, len(facts["multi_plt"])),
    )
    network.load_state_dict({ours(name): value for name, value in golden.weights(case).items()})
    return network


def test_initial_weights(golden_folder):
    """Of the full model with the static layer, as the official code draws them."""
    torch.manual_seed(0)
    config = typed(compose(["predictor=nnlp", "dataset=nnlqp"])).predictor
    weights = NNLP(config, network_spec()).network.state_dict()
    stored = golden.initial_statistics(golden_folder, "nnlp")
    golden.assert_drawn_alike(weights, {ours(name): row for name, row in stored.items()})


def inputs(case, key):
    return tuple(case.tensors["io"][f"{key}/{name}"] for name in ("x", "edge_index_batched", "batch", "static"))


def keys(case):
    return [batch["key"] for batch in case.facts["batches"]]


def test_parameter_count(case):
    assert sum(p.numel() for p in build(case).parameters()) == case.facts["n_params"]


@torch.no_grad()
def test_outputs(case):
    network, io = build(case).eval(), case.tensors["io"]
    for key in keys(case):
        out = network(*inputs(case, key))
        torch.testing.assert_close(out, io[f"{key}/out_f64"].float(), atol=1e-5, rtol=1e-5, equal_nan=True)
        if f"{key}/platform_gather" in io and f"{key}/out_selected" in io:
            selected = out.gather(1, io[f"{key}/platform_gather"])
            torch.testing.assert_close(selected, io[f"{key}/out_selected"], atol=1e-5, rtol=1e-5, equal_nan=True)


@torch.no_grad()
def test_double_precision(case):
    network = build(case).eval().double()
    for key in keys(case):
        wide = [part.double() if part.is_floating_point() else part for part in inputs(case, key)]
        expected = case.tensors["io"][f"{key}/out_f64"]
        torch.testing.assert_close(network(*wide), expected, atol=1e-11, rtol=1e-11, equal_nan=True)


@torch.no_grad()
def test_graph_layer_activations(case):
    network, acts, compared = build(case).eval(), case.tensors["acts"], 0
    for key in keys(case):
        x, edges, _, _ = inputs(case, key)
        for number, layer in enumerate(network.graph_layers, 1):
            x = layer(x, edges)
            stored = f"{key}/graph_conv_{number}#0"
            if stored in acts:
                golden.assert_output(x, acts[stored], stored)
                compared += 1
            x = x.relu()
    if not compared:
        pytest.skip("this case stores no outputs of graph layers")


def test_training_step(case):
    """Loss and the gradient of every parameter; heads of platforms that are absent get none."""
    if "step" not in case.tensors:
        pytest.skip("this case stores no training step")
    step, io = case.tensors["step"], case.tensors["io"]
    for key in golden.keys_of_step(case):
        network = build(case).train()
        out = network(*inputs(case, key))
        prediction = out.gather(1, io.get(f"{key}/platform_gather", torch.zeros(len(out), 1, dtype=torch.long))).view(-1)
        torch.testing.assert_close(prediction, step[f"{key}/out"].view(-1), atol=1e-5, rtol=1e-5)
        loss = relative_squared_error(prediction, step[f"{key}/target"].view(-1))
        assert loss.item() == pytest.approx(step[f"{key}/loss"].item(), abs=1e-6, rel=1e-5)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        stored = {ours(name): value for name, value in golden.gradients(case, f"{key}/grad/").items()}
        assert stored.keys() == gradients.keys()
        for name, expected in stored.items():
            golden.assert_gradient(gradients[name], expected, name)


def test_loss(golden_folder):
    case = golden.read(golden_folder, "nnlp", "losses")
    io = case.tensors["io"]
    prediction = io["pred"].view(-1).requires_grad_()
    loss = relative_squared_error(prediction, io["target"].view(-1))
    assert loss.item() == pytest.approx(case.facts["terms"]["total"], abs=1e-7, rel=1e-6)
    loss.backward()
    torch.testing.assert_close(prediction.grad, io["grad_pred"].view(-1), atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_predictor_on_whole_networks(case, golden_folder):
    """From stored columns to predictions, one platform or several."""
    facts = case.facts["config"]
    platforms = [str(platform) for platform in facts["multi_plt"]]
    config = configuration(facts["gnn_hidden"], facts["fc_hidden"], facts["norm_sf"])
    model = NNLP(config, network_spec(platforms)).eval()
    model.network.load_state_dict(build(case).state_dict())
    for stored in golden.of_extracted(case):
        batch = golden.extracted(golden_folder, stored["graphs"])
        heads = torch.tensor(stored.get("gather_index", [0] * len(batch)))
        expected = torch.tensor(stored["out"]).view(len(batch), -1).gather(1, heads[:, None])[:, 0]
        batch = replace(batch, platform=heads if platforms else None)
        known = ~expected.isnan()
        torch.testing.assert_close(model(batch)[known], expected[known], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_predictor_on_cells_feeds_operations_and_logarithms():
    model = NNLP(configuration(16, 16), cell_spec()).eval()
    batch = random_cells(10, 1)
    both = torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)
    static = torch.stack([batch.static[name].log10() for name in cell_spec().static], 1) / 10
    expected = model.network(torch.eye(7)[batch.op], both, batch.batch, static).view(-1)
    assert torch.equal(model(batch), expected)
