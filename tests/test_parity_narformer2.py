"""NAR-Former V2 on cells and on whole networks against the official code's numbers."""

import functools
import re

import golden
import pytest
import torch
from torch.nn import functional as F

from datasets.errors import UserError
from datasets.graph import TaskSpec
from harness import registry
from harness.config import compose, typed
from predictors.layers.graph_attention import Neighbours
from predictors.layers.relabel import AUGMENTATIONS, first
from predictors.losses import architecture_consistency, relative_squared_error, sequence_ranking
from predictors.narformer2 import CellTokens, NARFormer2, NARFormer2Config, Network
from tests.graphs import cell_spec, cells, force_layout, network_spec, random_cells

GROUP = "v2"

SPEC = TaskSpec("accuracy", ("input", "conv1x1", "conv3x3", "avgpool", "skip", "none", "output"), (), "fraction")

NAMES = (
    (r"gnn_layers\.(\d+)\.lin_d\.(.*)", r"attentions.\1.degree.\2"),
    (r"gnn_layers\.(\d+)\.lin_qk\.(.*)", r"attentions.\1.query_key.\2"),
    (r"gnn_layers\.(\d+)\.lin_l\.(.*)", r"attentions.\1.neighbour.\2"),
    (r"gnn_layers\.(\d+)\.lin_r\.(.*)", r"attentions.\1.own.\2"),
    (r"FFN_layers\.(\d+)\.norm\.(.*)", r"feedforwards.\1.norm.\2"),
    (r"FFN_layers\.(\d+)\.fn\.net\.0\.normalization_fn\.(.*)", r"feedforwards.\1.expand.norm.\2"),
    (r"FFN_layers\.(\d+)\.fn\.net\.3\.normalization_fn\.(.*)", r"feedforwards.\1.contract.norm.\2"),
    (r"FFN_layers\.(\d+)\.fn\.net\.0\.weights", r"feedforwards.\1.expand.weight"),
    (r"FFN_layers\.(\d+)\.fn\.net\.3\.weights", r"feedforwards.\1.contract.weight"),
    (r"FFN_layers\.(\d+)\.fn\.net\.0\.bias", r"feedforwards.\1.expand.bias"),
    (r"FFN_layers\.(\d+)\.fn\.net\.3\.bias", r"feedforwards.\1.contract.bias"),
    (r"layer_scale\.(\d+)", r"feedforwards.\1.scale"),
    (r"fusion_mlp\.0\.(.*)", r"gate.hidden.\1"),
    (r"fusion_mlp\.2\.(.*)", r"gate.output.\1"),
    (r"norm_sf_linear\.(.*)", r"static.linear.\1"),
    (r"fc_1\.(.*)", r"head.layers.0.\1"),
    (r"fc_2\.(.*)", r"head.layers.1.\1"),
    (r"predictor\.(.*)", r"head.layers.2.\1"),
)

MODULES = (
    (r"gnn_layers\.(\d+)", r"attentions.\1"),
    (r"gnn_layers\.(\d+)\.lin_l", r"attentions.\1.neighbour"),
    (r"gnn_layers\.(\d+)\.lin_qk", r"attentions.\1.query_key"),
    (r"gnn_layers\.(\d+)\.lin_d", r"attentions.\1.degree"),
    (r"FFN_layers\.(\d+)\.fn\.net\.0", r"feedforwards.\1.expand"),
    (r"FFN_layers\.(\d+)\.fn\.net\.3", r"feedforwards.\1.contract"),
    (r"fusion_mlp\.2", "gate.output"),
    (r"norm_sf_linear", "static.linear"),
    (r"fc_1", "head.layers.0"),
    (r"predictor", "head.layers.2"),
)
"""Modules whose outputs are stored call by call: once a graph in the layers, once a batch after them."""


def rename(official, table):
    for pattern, name in table:
        if re.fullmatch(pattern, official):
            return re.sub(pattern, name, official)
    return None


def configuration(facts, **changes):
    values = {
        "target": "",
        "name": "narformer2",
        "layers": facts["n_attned_gnn"],
        "hidden": facts["gnn_hidden"],
        "head": facts["fc_hidden"],
        "ratio": facts["ffn_ratio"],
        "dropout": 0.0,
        "frequencies": "as_code",
        "degree_gate": facts["use_degree"],
        "group_norm": facts["glt_norm"] == "LN",
        "shuffle": facts["feat_shuffle"],
        "augmentation": "none",
        "loss_relative": 1.0,
        "loss_ranking": 0.1,
        "loss_consistency": 0.5,
    }
    return NARFormer2Config(**values | changes)


def is_cells(case):
    return case.facts["config"]["dataset"] != "nnlqp"


def build(case):
    """The network alone, with the case's weights."""
    facts = case.facts["config"]
    network = Network(configuration(facts), facts["num_node_features"], 0 if is_cells(case) else 40)
    network.load_state_dict({rename(name, NAMES): value for name, value in golden.weights(case).items()})
    return network


@pytest.mark.parametrize(("kind", "spec"), [("cell", SPEC), ("nnlqp", network_spec())], ids=["cells", "networks"])
def test_initial_weights(golden_folder, kind, spec):
    """Of the full models, as the official code draws them."""
    torch.manual_seed(0)
    dataset = {"cell": "dataset=nasbench101", "nnlqp": "dataset=nnlqp"}[kind]
    config = typed(compose(["predictor=narformer2", dataset])).predictor
    stored = golden.initial_statistics(golden_folder, "v2", kind)
    weights = NARFormer2(config, spec).network.state_dict()
    golden.assert_drawn_alike(weights, {rename(name, NAMES): row for name, row in stored.items()})


def starts(sizes):
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def ragged(code, adjacency, n):
    """Network inputs from padded cells."""
    x = torch.cat([code[i, :size] for i, size in enumerate(n.tolist())])
    ptr = starts(n)
    edges = [adjacency[i].nonzero().T + ptr[i] for i in range(len(n))]
    return x, torch.cat(edges, 1), ptr


def inputs(case, key):
    io = case.tensors["io"]
    if is_cells(case):
        return ragged(io[f"{key}/code"], io[f"{key}/adj_sym"], io[f"{key}/n"])
    return io[f"{key}/x"], io[f"{key}/edge_index_batched"], starts(io[f"{key}/n_nodes"]), io[f"{key}/static"]


def keys(case):
    return [batch["key"] for batch in case.facts["batches"]]


@pytest.fixture(params=["padded", "listed"])
def layout(request, monkeypatch):
    """Both layouts of the neighbourhoods, whatever the size of the graphs."""
    force_layout(monkeypatch, request.param)


def test_parameter_count(case):
    assert sum(p.numel() for p in build(case).parameters()) == case.facts["n_params"]


@torch.no_grad()
def test_outputs(case, layout):
    network = build(case).eval()
    for key in keys(case):
        expected = case.tensors["io"][f"{key}/out_f64"].float().view(-1)
        torch.testing.assert_close(network(*inputs(case, key)), expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@torch.no_grad()
def test_predictor_on_whole_networks(case, golden_folder):
    """From stored columns to predictions."""
    if is_cells(case):
        pytest.skip("a case of cells")
    model = NARFormer2(configuration(case.facts["config"], loss_ranking=0.0, loss_consistency=0.0), network_spec()).eval()
    model.network.load_state_dict(build(case).state_dict())
    for stored in golden.of_extracted(case):
        prediction = model(golden.extracted(golden_folder, stored["graphs"]))
        expected = torch.tensor(stored["out"]).view(-1)
        known = ~expected.isnan()
        torch.testing.assert_close(prediction[known], expected[known], atol=1e-4, rtol=1e-4)  # see golden.code_limit


@torch.no_grad()
def test_double_precision(case, layout):
    network = build(case).eval().double()
    for key in keys(case):
        wide, expected = widened(inputs(case, key)), case.tensors["io"][f"{key}/out_f64"].view(-1)
        torch.testing.assert_close(network(*wide), expected, atol=1e-11, rtol=1e-11, equal_nan=True)


@torch.no_grad()
def test_predictor_on_cells(case):
    """From operation ids and directed edges, all sizes in one batch, in float64 with codes rounded to float32."""
    if not is_cells(case):
        pytest.skip("whole networks have no operation codes here")
    model = NARFormer2(configuration(case.facts["config"]), SPEC)
    model.network.load_state_dict(build(case).state_dict())
    batches = case.facts["batches"]
    together = golden.cells([o for b in batches for o in b["ops"]], [a for b in batches for a in b["adj"]])
    expected = torch.cat([case.tensors["io"][f"{b['key']}/out_f64"].view(-1) for b in batches])
    torch.testing.assert_close(model.eval()(together), expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.double()(together), expected, atol=1e-6, rtol=1e-6)


def test_tokens(case):
    if not is_cells(case):
        pytest.skip("whole networks have no operation codes here")
    model = NARFormer2(configuration(case.facts["config"]), SPEC)
    for batch in case.facts["batches"]:
        graphs = golden.cells(batch["ops"], batch["adj"])
        tokens = model.tokens(graphs.op, graphs.position)
        torch.testing.assert_close(tokens, inputs(case, batch["key"])[0], atol=1e-6, rtol=0)


def widened(arguments):
    return [part.double() if part.is_floating_point() else part for part in arguments]


def every_output(network, arguments):
    """The output of every module, by its name."""
    seen = {}
    for name, module in network.eval().named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    network(*arguments)
    return seen


@torch.no_grad()
def test_activations(case, layout):
    """Every stored output of ``MODULES``: the rows of graph c in call c of a layer, the whole batch elsewhere.

    Groups of few channels are normalised, so float32 may lose much: even the stored outputs are more than 2e-5 off.
    """
    acts, compared = case.tensors["acts"], set()
    for key in keys(case):
        arguments = inputs(case, key)
        seen, exact = every_output(build(case), arguments), every_output(build(case).double(), widened(arguments))
        for stored, expected in acts.items():
            module, _, call = stored.removeprefix(f"{key}/").rpartition("#")
            name = rename(module, MODULES)
            if stored.startswith(f"{key}/") and name:
                actual, ptr, lost = seen[name], arguments[2].tolist(), float((seen[name] - exact[name]).abs().max())
                if "s." in name.split("layers")[0]:
                    actual = actual[ptr[int(call)] : ptr[int(call) + 1]]
                golden.assert_output(actual.reshape(expected.shape), expected, stored, lost)
                compared.add(name)
    if not compared:
        pytest.skip("this case stores no outputs of such modules")


def check_gradients(case, arguments, loss_of, official):
    """Of ``loss_of`` the predictions from ``arguments``; float32 may lose much, as for ``test_activations``."""
    stored = {rename(name, NAMES): value for name, value in official.items()}
    gradients, exact = (
        of_parameters(network, loss_of(network(*parts)))
        for network, parts in ((build(case).train(), arguments), (build(case).train().double(), widened(arguments)))
    )
    assert stored.keys() == gradients.keys()
    for name, expected in stored.items():
        lost = float((gradients[name] - exact[name]).abs().max())
        golden.assert_gradient(gradients[name], expected, name, lost)


def of_parameters(network, loss):
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def test_training_step_on_cells(case, layout):
    if not is_cells(case) or "step" not in case.tensors:
        pytest.skip("this case stores no such training step")
    step, facts = case.tensors["step"], case.facts["step"]
    arguments, target = ragged(step["code"], step["adj_sym"], step["n"]), step["target"].view(-1)
    prediction = build(case).train()(*arguments)
    torch.testing.assert_close(prediction, step["out"].view(-1), atol=1e-5, rtol=1e-5)

    def terms(prediction):
        return {
            "loss_rel_mse": relative_squared_error(prediction, target),
            "loss_sr_x0.1": 0.1 * sequence_ranking(prediction, target, torch.tensor(facts["perm"])),
            "loss_ac_x0.5": 0.5 * architecture_consistency(*prediction.chunk(2)),
        }

    for name, term in terms(prediction).items():
        assert term.item() == pytest.approx(step[name].item(), abs=1e-6, rel=1e-5)
    assert sum(terms(prediction).values()).item() == pytest.approx(facts["loss"], abs=1e-5, rel=1e-5)
    check_gradients(case, arguments, lambda prediction: sum(terms(prediction).values()), golden.gradients(case))


def test_training_step_on_networks(case, layout):
    if is_cells(case) or "step" not in case.tensors:
        pytest.skip("this case stores no such training step")
    step = case.tensors["step"]
    for key in golden.keys_of_step(case):
        arguments, target = inputs(case, key), step[f"{key}/target"].view(-1)
        prediction = build(case).train()(*arguments)
        torch.testing.assert_close(prediction, step[f"{key}/out"].view(-1), atol=1e-5, rtol=1e-5)
        loss = relative_squared_error(prediction, target)
        assert loss.item() == pytest.approx(step[f"{key}/loss"].item(), abs=1e-6, rel=1e-5)
        loss_of = functools.partial(relative_squared_error, target=target)
        check_gradients(case, arguments, loss_of, golden.gradients(case, f"{key}/grad/"))


def test_losses(golden_folder):
    case = golden.read(golden_folder, "v2", "losses")
    io, terms = case.tensors["io"], case.facts["terms"]
    prediction, target = io["pred"].view(-1).requires_grad_(), io["target"].view(-1)
    values = {
        "rel_mse": relative_squared_error(prediction, target),
        "sr": sequence_ranking(prediction, target, torch.tensor(case.facts["perm"])),
        "ac": architecture_consistency(*prediction.chunk(2)),
    }
    for name, value in values.items():
        assert value.item() == pytest.approx(terms["sr_l1" if name == "sr" else name], abs=1e-7, rel=1e-6)
        (gradient,) = torch.autograd.grad(value, prediction)
        torch.testing.assert_close(gradient, io[f"{name}_grad"].view(-1), atol=1e-7, rtol=1e-5)
    total = values["rel_mse"] + 0.1 * values["sr"] + 0.5 * values["ac"]
    assert total.item() == pytest.approx(terms["total_cell"], abs=1e-7, rel=1e-6)


def test_codes(golden_folder):
    stored = golden.tensors(golden_folder, "encodings", "encodings.safetensors")
    ids = stored["v2/ids"]
    table = CellTokens(int(ids.max()) + 1, "as_code").operations[ids]
    torch.testing.assert_close(table, stored["v2_numpy1/nerf_F32"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("benchmark", ["nb101", "nb201"])
def test_augmentation_matches_the_official_cells(golden_folder, benchmark):
    """The first stored augmentation, or the cell itself where none is stored, alone and in one padded batch."""
    stored = [cell["v2"] for cell in golden.facts(golden_folder, "cells", f"{benchmark}.json")["cells"]]
    together = first(golden.cells([c["ops"] for c in stored], [c["adj"] for c in stored]).dense)
    for row, cell in enumerate(stored):
        ops, adjacency = (cell[f"aug_{k}"][0] if cell[f"aug_{k}"] else cell[k] for k in ("ops", "adj"))
        n = len(ops)
        assert together.op[row, :n].tolist() == ops
        assert together.adjacency[row, :n, :n].int().tolist() == adjacency
        assert not together.adjacency[row, n:].any()
        alone = first(golden.cells([cell["ops"]], [cell["adj"]]).dense)
        assert (alone.op[0].tolist(), alone.adjacency[0].int().tolist()) == (ops, adjacency)


def test_attention_by_hand(layout):
    """A path 0 - 1 - 2 and an isolated node: weights are the products over their sum."""
    h, x = torch.tensor([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0], [5.0, 5.0]]), torch.arange(8.0).view(4, 2)
    neighbours = Neighbours(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.tensor([0, 3, 4]), x)
    assert neighbours.degree.tolist() == [1, 2, 1, 0]
    middle = (5 * x[0] + 8 * x[2]) / 13
    expected = torch.stack([x[1], middle, x[1], torch.zeros(2)])
    torch.testing.assert_close(neighbours.attend(h, x), expected, atol=1e-5, rtol=0)


def small(**changes):
    facts = {"n_attned_gnn": 2, "gnn_hidden": 16, "fc_hidden": 16, "ffn_ratio": 2, "use_degree": True}
    return configuration(facts | {"glt_norm": "LN", "feat_shuffle": False}, **changes)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_training_pairs(augmentation):
    """Each graph twice: in its own order, and in another that has the same undirected edges between the same operations."""
    model, batch = NARFormer2(small(augmentation=augmentation), cell_spec()), random_cells(20, 7)
    op, position, edges, ptr = model._pairs(batch)
    nodes = len(batch.op)
    assert torch.equal(ptr.diff(), batch.count.repeat(2))
    assert torch.equal(op[:nodes], batch.op)
    assert torch.equal(position, batch.position.repeat(2))
    assert (position[edges[0]] < position[edges[1]]).all()
    graph = torch.repeat_interleave(ptr.diff())

    def bags(which):
        inside = which(graph[edges[0]])
        return sorted(zip(graph[edges[0, inside]].tolist(), *op[edges[:, inside]].tolist(), strict=True))

    second = [(g - 20, a, b) for g, a, b in bags(lambda g: g >= 20)]
    assert second == bags(lambda g: g < 20)
    moved = (op[nodes:] != batch.op).any()
    assert bool(moved) == (augmentation != "none")


def test_a_graph_without_another_order_is_its_own_pair():
    """A chain counts twice in every term, and its consistency is that of two dropout passes: 0 without dropout."""
    chain = cells([([0, 1, 2, 6], [(0, 1), (1, 2), (2, 3)])], [1e5])
    for rate in (0.0, 0.5):
        terms = NARFormer2(small(augmentation="first", dropout=rate), cell_spec()).loss(chain)
        assert terms["relative_mse"] > 0
        assert bool(terms["consistency"]) == bool(rate)


@pytest.mark.parametrize(
    "path", sorted((registry.CONF / "experiment").glob("narformer2_*.yaml")), ids=lambda path: path.stem
)
def test_experiments_augment_as_published(path):
    config = typed(compose([f"experiment={path.stem}"]))
    assert config.predictor.augmentation == ("none" if config.dataset.name == "nnlqp" else "first")


def test_loss_terms_are_weighted():
    torch.manual_seed(0)
    batch, model = random_cells(12, 8), NARFormer2(small(), cell_spec())
    terms = model.loss(batch)
    prediction = model(batch)
    torch.testing.assert_close(terms["relative_mse"], relative_squared_error(prediction, batch.target))
    assert terms["consistency"] == 0
    heavy = NARFormer2(small(loss_relative=3.0, dropout=0.5), cell_spec())
    heavy.load_state_dict(model.state_dict())
    assert heavy.loss(batch)["consistency"] > 0
    torch.testing.assert_close(heavy.eval().loss(batch)["relative_mse"], 3 * terms["relative_mse"])


def test_mistakes():
    with pytest.raises(
        UserError, match=r"predictor\.augmentation=swap: unknown; choose one of paper, first, uniform, none"
    ):
        NARFormer2(small(augmentation="swap"), cell_spec())
    with pytest.raises(UserError, match=r"predictor\.hidden=20: choose a multiple of 8"):
        NARFormer2(small(hidden=20), cell_spec())
    chain = ([0, *[1] * 31, 6], [(i, i + 1) for i in range(32)])
    with pytest.raises(UserError, match="at most 32 nodes, got 33"):
        NARFormer2(small(), cell_spec())(cells([chain], [1e5]))


def test_gradients_of_both_layouts_agree(monkeypatch):
    """Double-precision gradient check of the sum over edges, and the padded products against it."""
    torch.manual_seed(0)
    batch = random_cells(5, 9)
    edges = torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)
    h, x = (torch.rand(len(batch.op), 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def attend(h, x, layout):
        force_layout(monkeypatch, layout)
        return Neighbours(edges, batch.ptr, x).attend(h, x)

    assert torch.autograd.gradcheck(lambda h, x: attend(h, x, "listed"), (h, x))
    seed = torch.rand_like(x)
    both = [torch.autograd.grad(F.relu(attend(h, x, layout)), (h, x), seed) for layout in ("listed", "padded")]
    torch.testing.assert_close(*both)
