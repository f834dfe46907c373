"""NN-Former on whole networks against the official code's numbers, in both layouts of its pairs."""

import re

import golden
import pytest
import torch
from omegaconf import OmegaConf

from datasets.errors import UserError
from harness import registry
from harness.config import compose, typed
from predictors.losses import pair_terms, relative_squared_error
from predictors.nnformer import NNFormer, NNFormerConfig
from predictors.nnformer_networks import Network
from tests.graphs import cell_spec, force_layout, network_spec, random_cells

GROUP = "nnformer_lat"

NAMES = (
    (r"embedding\.(.*)", r"embedding.\1"),
    (r"gnn_layers\.(\d+)\.norm\.(.*)", r"blocks.\1.attention_norm.\2"),
    (r"gnn_layers\.(\d+)\.attn\.lin_d\.(.*)", r"blocks.\1.attention.degree.\2"),
    (r"gnn_layers\.(\d+)\.attn\.(qkv|proj)\.(.*)", r"blocks.\1.attention.\2.\3"),
    (r"gnn_layers\.(\d+)\.layer_scale\.scale", r"blocks.\1.attention_scale"),
    (r"FFN_layers\.(\d+)\.norm\.(.*)", r"blocks.\1.feedforward_norm.\2"),
    (r"FFN_layers\.(\d+)\.mlp\.(.*)", r"blocks.\1.feedforward.\2"),
    (r"FFN_layers\.(\d+)\.layer_scale\.scale", r"blocks.\1.feedforward_scale"),
    (r"pre_reduction\.norm\.(.*)", r"reduction.norm.\1"),
    (r"pre_reduction\.mlp\.0\.(.*)", r"reduction.hidden.\1"),
    (r"pre_reduction\.mlp\.3\.(.*)", r"reduction.output.\1"),
    (r"norm_sf_linear\.(.*)", r"static.linear.\1"),
    (r"predictor\.0\.(.*)", r"hidden.\1"),
    (r"predictor\.3\.(.*)", r"output.\1"),
)

MODULES = (
    (r"embedding", "embedding"),
    (r"gnn_layers\.(\d+)\.norm", r"blocks.\1.attention_norm"),
    (r"gnn_layers\.(\d+)\.attn", r"blocks.\1.attention"),
    (r"gnn_layers\.(\d+)\.attn\.(qkv|proj|lin_d)", r"blocks.\1.attention.\2"),
    (r"FFN_layers\.(\d+)", r"blocks.\1"),
    (r"FFN_layers\.(\d+)\.norm", r"blocks.\1.feedforward_norm"),
    (r"FFN_layers\.(\d+)\.mlp", r"blocks.\1.feedforward"),
    (r"FFN_layers\.(\d+)\.mlp\.(fc1|gcn|fc2)", r"blocks.\1.feedforward.\2"),
    (r"pre_reduction\.norm", "reduction.norm"),
    (r"pre_reduction\.mlp\.0", "reduction.hidden"),
    (r"norm_sf_linear", "static.linear"),
    (r"predictor\.0", "hidden"),
    (r"predictor\.3", "output"),
)
"""Modules whose outputs are stored: once a graph in the layers, once a batch after them."""

PER_BATCH = ("static.linear", "hidden", "output")


def rename(official, table):
    for pattern, name in table:
        if re.fullmatch(pattern, official):
            return re.sub(pattern, name, official).replace("lin_d", "degree")
    return None


@pytest.fixture(scope="module")
def weights(case):
    """The case's weights under our names."""
    return {rename(name, NAMES): value for name, value in golden.weights(case).items()}


def build(case, weights):
    """The network alone, with the case's weights."""
    facts = case.facts["config"]
    network = Network(
        facts["num_node_features"],
        40,
        dim=facts["gnn_hidden"],
        head=facts["fc_hidden"],
        depth=facts["n_attned_gnn"],
        ratio=facts["ffn_ratio"],
        activation="relu",
        dropout=0.0,
        degree_gate=facts["use_degree"],
    )
    network.load_state_dict(weights)
    return network


def inputs(case, key):
    io = case.tensors["io"]
    sizes = io[f"{key}/n_nodes"]
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return io[f"{key}/x"], io[f"{key}/edge_index_batched"], ptr, io[f"{key}/static"]


def keys(case):
    return [batch["key"] for batch in case.facts["batches"]]


@pytest.fixture(params=["padded", "listed"])
def layout(request, monkeypatch):
    """Both layouts of the pairs, whatever the size of the graphs."""
    force_layout(monkeypatch, request.param)


def test_parameter_count(case, weights):
    assert sum(p.numel() for p in build(case, weights).parameters()) == case.facts["n_params"]


@torch.no_grad()
def test_outputs(case, weights, layout):
    network = build(case, weights).eval()
    for key in keys(case):
        expected = case.tensors["io"][f"{key}/out_f64"].float().view(-1)
        for passes in (1, 3):
            actual = network(*inputs(case, key), passes=passes)
            torch.testing.assert_close(actual, expected.repeat(passes), atol=1e-5, rtol=1e-5, equal_nan=True)


@torch.no_grad()
def test_double_precision(case, weights, layout):
    network = build(case, weights).eval().double()
    for key in keys(case):
        wide = [part.double() if part.is_floating_point() else part for part in inputs(case, key)]
        expected = case.tensors["io"][f"{key}/out_f64"].view(-1)
        torch.testing.assert_close(network(*wide), expected, atol=1e-11, rtol=1e-11, equal_nan=True)


@torch.no_grad()
def test_predictor_from_stored_columns(case, weights, golden_folder):
    """Operations, attributes, output shapes and raw per-graph features through the predictor's own coding."""
    model = NNFormer(configuration(), network_spec()).eval()
    model.network = build(case, weights).eval()
    for stored in golden.of_extracted(case):
        prediction = model(golden.extracted(golden_folder, stored["graphs"]))
        expected = torch.tensor(stored["out"]).view(-1)
        known = ~expected.isnan()
        torch.testing.assert_close(prediction[known], expected[known], atol=1e-4, rtol=1e-4)  # see golden.code_limit


@torch.no_grad()
def test_activations(case, weights, layout):
    """Every stored output of ``MODULES``: the rows of graph c in call c of a layer, the whole batch elsewhere."""
    network, acts, seen = build(case, weights).eval(), case.tensors["acts"], {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    compared = set()
    for key in keys(case):
        arguments = inputs(case, key)
        network(*arguments)
        ptr = arguments[2].tolist()
        for stored, expected in acts.items():
            module, _, call = stored.removeprefix(f"{key}/").rpartition("#")
            name = rename(module, MODULES)
            if stored.startswith(f"{key}/") and name:
                actual = seen[name]
                if name not in PER_BATCH:
                    actual = actual[ptr[int(call)] : ptr[int(call) + 1]]
                golden.assert_output(actual.reshape(expected.shape), expected, stored)
                compared.add(name)
    if not compared:
        pytest.skip("this case stores no outputs of such modules")


def test_training_step(case, weights, layout):
    """Loss and the gradient of every parameter over two passes, which are equal without dropout."""
    if "step" not in case.tensors:
        pytest.skip("this case stores no training step")
    step = case.tensors["step"]
    for key in golden.keys_of_step(case):
        network = build(case, weights).train()
        prediction = network(*inputs(case, key), passes=2)
        torch.testing.assert_close(prediction, step[f"{key}/out"].view(-1).repeat(2), atol=1e-5, rtol=1e-5)
        loss = official_loss(prediction, step[f"{key}/target"].view(-1))
        assert loss.item() == pytest.approx(step[f"{key}/loss"].item(), abs=1e-6, rel=1e-5)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        stored = {rename(name, NAMES): value for name, value in golden.gradients(case, f"{key}/grad/").items()}
        assert stored.keys() == gradients.keys()
        for name, expected in stored.items():
            golden.assert_gradient(gradients[name], expected, name)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm().item()
        assert norm == pytest.approx(case.facts["step"][key]["global_grad_norm"], rel=1e-4)


def test_losses(golden_folder):
    case = golden.read(golden_folder, GROUP, "losses")
    io, terms = case.tensors["io"], case.facts["terms"]
    prediction = torch.cat([io["pred"], io["pred2"]]).view(-1).requires_grad_()
    loss = official_loss(prediction, io["target"].view(-1))
    assert loss.item() == pytest.approx(terms["total"], abs=1e-7, rel=1e-6)
    loss.backward()
    expected = torch.cat([io["grad_pred"], io["grad_pred2"]]).view(-1)
    torch.testing.assert_close(prediction.grad, expected, atol=1e-7, rtol=1e-5)


def official_loss(prediction, target):
    """The loss with the weights for whole networks."""
    config = networks_file().predictor
    error = ("relative_mse", config.loss_relative, relative_squared_error)
    return sum(pair_terms(prediction, target, error, config.loss_ranking, config.loss_consistency).values())


def networks_file():
    return OmegaConf.load(registry.CONF / "networks" / "nnformer.yaml")


def configuration(**changes):
    values = OmegaConf.load(registry.CONF / "predictor" / "nnformer.yaml").predictor
    merged = OmegaConf.merge(OmegaConf.structured(NNFormerConfig), values, networks_file().predictor, changes)
    return OmegaConf.to_object(merged)


def test_published_size():
    model = NNFormer(configuration(), network_spec())
    assert sum(p.numel() for p in model.parameters()) == 10_104_321


def test_initial_weights(golden_folder):
    """Of the full model, as the official code draws them."""
    torch.manual_seed(0)
    weights = NNFormer(configuration(), network_spec()).network.state_dict()
    stored = golden.initial_statistics(golden_folder, "lat")
    golden.assert_drawn_alike(weights, {rename(name, NAMES): row for name, row in stored.items()})


def test_values_for_whole_networks():
    """Over those for cells, when the networks group is chosen."""
    config = typed(compose(["predictor=nnformer", "networks=nnformer", "dataset=nasbench101", "logger=none"]))
    assert config.predictor == configuration()
    recipe = config.recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.schedule) == ("adamw", 1e-3, 0.01, "linear")
    assert (recipe.warmup, recipe.final, recipe.epochs, recipe.batch_size) == (0.1, 0.0, 50, 16)
    assert (recipe.batching, recipe.ema, recipe.clip) == ("shuffled", 0.0, 5.0)


def test_two_passes_differ_by_their_dropout():
    torch.manual_seed(0)
    model = NNFormer(configuration(dim=32, dropout=0.2), network_spec())
    batch = random_cells(6, 3)
    first, second = model.train()._predict(batch, 2).chunk(2)
    assert (first - second).abs().min() > 0
    assert model.loss(batch)["consistency"] > 0
    assert torch.equal(*model.eval()._predict(batch, 2).chunk(2))


def test_mistakes():
    with pytest.raises(UserError, match=r"has no virtual tokens; set predictor\.readout=sum"):
        NNFormer(configuration(readout="cls", class_token=True), network_spec())
    with pytest.raises(UserError, match=r"predictor\.readout=sum: unknown; choose one of cls, mean"):
        NNFormer(configuration(), cell_spec())
    with pytest.raises(UserError, match=r"predictor\.degree_gate=true"):
        NNFormer(configuration(readout="mean", degree_gate=True), cell_spec())
    with pytest.raises(UserError, match="give one of them a weight"):
        NNFormer(configuration(loss_mse=1.0), network_spec())
    with pytest.raises(UserError, match=r"predictor\.dim=30: choose a multiple of its 4 heads"):
        NNFormer(configuration(dim=30), network_spec())
