"""NAR-Former on cells against the official code's numbers."""

import re

import golden
import pytest
import torch

from datasets.graph import TaskSpec
from harness.config import compose, typed
from predictors.layers.codes import code_table, nerf_frequencies
from predictors.layers.relabel import swap_last
from predictors.losses import architecture_consistency, mean_squared_error, sequence_ranking
from predictors.narformer import NARFormer, NARFormerConfig

SPEC = TaskSpec("accuracy", ("input", "conv1x1", "conv3x3", "avgpool", "skip", "none", "output"), (), "fraction")
GROUP = "v1"

FEED_FORWARD = (("norm", "norm"), ("feed_forward.w_1", "expand"), ("feed_forward.w_2", "contract"))
NAMES = (
    (r"dep_map", "depth_map"),
    (r"mlp\.layer", "head"),
    (r"transformer\.norm", "final_norm"),
    (r"transformer\.layers\.(\d+)\.self_attn\.norm", r"encoder.\1.attention.norm"),
    (r"transformer\.layers\.(\d+)\.self_attn\.attn", r"encoder.\1.attention.attention"),
    (r"transformer\.layers\.(\d+)\.feed_forward", r"encoder.\1.feedforward"),
    (r"transformer\.fuseUnit\.(\d+)\.norm_q", r"fusions.\1.query_norm"),
    (r"transformer\.fuseUnit\.(\d+)\.norm_kv", r"fusions.\1.memory_norm"),
    (r"transformer\.fuseUnit\.(\d+)\.fuse_attn", r"fusions.\1.attention"),
    (r"transformer\.fuseUnit\.(\d+)\.feed_forward", r"fusions.\1.feedforward"),
    (r"transformer\.fuseStages\.(\d+)\.cross_attn\.norm", r"stages.\1.norm"),
    (r"transformer\.fuseStages\.(\d+)\.cross_attn\.attn", r"stages.\1.attention"),
    (r"transformer\.fuseStages\.(\d+)\.feed_forwards\.0", r"stages.\1.feedforward"),
    (r"transformer\.fuseStages\.(\d+)\.feed_forwards\.(\d+)", r"stages.\1.layers.\2.feedforward"),
    (r"transformer\.fuseStages\.(\d+)\.self_attns\.(\d+)\.norm", r"stages.\1.layers.\2.attention.norm"),
    (r"transformer\.fuseStages\.(\d+)\.self_attns\.(\d+)\.attn", r"stages.\1.layers.\2.attention.attention"),
    (r"transformer\.learnt_q\.(\d+)", r"stages.\1.queries"),
)


def renamed(official):
    """Our name of an official module or parameter; the linears of an attention keep their numbers."""
    for pattern, name in NAMES:
        found = re.match(rf"{pattern}(?=\.|$)", official)
        if found:
            ours = found.expand(name) + official[found.end() :]
            if name.endswith("layers.\\2.feedforward"):
                ours = ours.replace(f"layers.{found[2]}", f"layers.{int(found[2]) - 1}")
            for theirs, mine in FEED_FORWARD:
                ours = ours.replace(f"feedforward.{theirs}", f"feedforward.{mine}")
            return ours
    raise KeyError(official)


def ours(official):
    """Our parameters of official ones: every projection of an attention but the last is stacked into ``input``."""
    result, linears = {}, {}
    for name, value in official.items():
        found = re.fullmatch(r"(.*)\.linears\.(\d)\.(weight|bias)", renamed(name))
        if found:
            linears.setdefault((found[1], found[3]), {})[int(found[2])] = value
        else:
            result[renamed(name)] = value
    for (module, kind), values in linears.items():
        *stacked, last = (values[i] for i in range(len(values)))
        result[f"{module}.input.{kind}"], result[f"{module}.output.{kind}"] = torch.cat(stacked), last
    return result


def build(case):
    facts = case.facts["config"]
    weights = ours(golden.weights(case))
    queries = {int(name.split(".")[1]): value.shape[1] for name, value in weights.items() if name.endswith("queries")}
    config = NARFormerConfig(
        target="",
        name="narformer",
        dim=facts["graph_d_model"],
        feedforward=facts["graph_d_ff"],
        heads=facts["graph_n_head"],
        depths=facts["depths"],
        queries=[queries[i] for i in range(len(queries))],
        activation=facts["act_function"],
        dropout=0.0,
        codes=facts["embed_type"],
        code_widths=[2 * facts[f"multires_{field}"] for field in ("x", "p", "r")],
        frequencies="as_code",
        depth_token=facts["use_extra_token"],
        readout="mean" if facts["avg_tokens"] else "last",
        augmentation="paper",
        loss_mse=1.0,
        loss_ranking=0.1,
        loss_consistency=0.5,
    )
    model = NARFormer(config, SPEC)
    model.load_state_dict(weights)
    return model


def test_initial_weights(golden_folder):
    """Of the full model, as the official code draws them, each projection of an attention by itself."""
    torch.manual_seed(0)
    config = typed(compose(["predictor=narformer", "dataset=nasbench101"])).predictor
    state = NARFormer(config, SPEC).state_dict()
    stored, weights = golden.initial_statistics(golden_folder, "v1", "stats"), {}
    for name in stored:
        found = re.fullmatch(r"(.*)\.linears\.(\d)\.(weight|bias)", renamed(name))
        if found:
            projections = *state[f"{found[1]}.input.{found[3]}"].split(config.dim), state[f"{found[1]}.output.{found[3]}"]
            weights[name] = projections[int(found[2])]
        else:
            weights[name] = state[renamed(name)]
    assert sum(value.numel() for value in weights.values()) == sum(value.numel() for value in state.values())
    golden.assert_drawn_alike(weights, stored)


def batches(case):
    """Key, graphs and expected predictions (float64) of every stored batch."""
    io = case.tensors["io"]
    return [(b["key"], golden.cells(b["ops"], b["adj"]), io[f"{b['key']}/out_f64"].view(-1)) for b in case.facts["batches"]]


def test_parameter_count(case):
    assert sum(p.numel() for p in build(case).parameters()) == case.facts["n_params"]


def test_tokens(case):
    model, io = build(case), case.tensors["io"]
    for key, graphs, _ in batches(case):
        torch.testing.assert_close(model.tokenize(graphs.dense), io[f"{key}/tokens"], atol=1e-6, rtol=0)
        if model.config.depth_token:
            code = model.depth_codes[graphs.count[0]]
            torch.testing.assert_close(code, io[f"{key}/depth_code"].view(-1), atol=1e-6, rtol=0)


def test_tokens_of_padded_graphs_are_those_of_the_graphs_alone(case):
    model, stored = build(case), batches(case)
    together = model.tokenize(joined(case).dense)
    alone = [tokens for _, graphs, _ in stored for tokens in model.tokenize(graphs.dense)]
    for padded, tokens in zip(together, alone, strict=True):
        torch.testing.assert_close(padded[: len(tokens)], tokens, atol=1e-6, rtol=0)


def joined(case):
    """All stored cells in one batch."""
    facts = case.facts["batches"]
    return golden.cells([o for b in facts for o in b["ops"]], [a for b in facts for a in b["adj"]])


def test_outputs(case):
    model = build(case).eval()
    for _, graphs, expected in batches(case):
        with torch.no_grad():
            torch.testing.assert_close(model(graphs), expected.float(), atol=1e-5, rtol=1e-5)


def test_mixed_sizes_in_one_padded_batch(case):
    model, expected = build(case).eval(), torch.cat([out for *_, out in batches(case)])
    with torch.no_grad():
        torch.testing.assert_close(model(joined(case)), expected.float(), atol=1e-5, rtol=1e-5)


def test_double_precision(case):
    """Fed with the stored float32 codes, as the reference was: equal-length and, padded with junk, mixed batches."""
    model, io, stored = build(case).eval().double(), case.tensors["io"], batches(case)
    tokens = [io[f"{key}/tokens"].double() for key, *_ in stored]
    for key, graphs, _ in stored if model.config.depth_token else []:
        model.depth_codes[graphs.count[0]] = io[f"{key}/depth_code"].view(-1).double()
    limits = {"atol": 1e-11, "rtol": 1e-11}
    with torch.no_grad():
        for (_, graphs, expected), own in zip(stored, tokens, strict=True):
            torch.testing.assert_close(model.encode(own, graphs.count), expected, **limits)
        longest = max(own.shape[1] for own in tokens)
        padded = torch.cat([torch.nn.functional.pad(own, (0, 0, 0, longest - own.shape[1]), value=9.0) for own in tokens])
        together = model.encode(padded, torch.cat([graphs.count for _, graphs, _ in stored]))
        torch.testing.assert_close(together, torch.cat([out for *_, out in stored]), **limits)


def test_activations(case):
    """Every stored output of a module that ours has too; none of a whole layer is left out."""
    model, acts = build(case).eval(), case.tensors["acts"]
    modules, compared, wanted = dict(model.named_modules()), set(), set()
    for key, graphs, _ in batches(case):
        seen = {}
        hooks = [
            module.register_forward_hook(lambda _m, _i, out, name=name, seen=seen: seen.__setitem__(name, out))
            for name, module in modules.items()
        ]
        with torch.no_grad():
            model(graphs)
        for hook in hooks:
            hook.remove()
        for stored, expected in acts.items():
            found = re.fullmatch(rf"{re.escape(key)}/((?:transformer|dep_map)\..*|mlp\.layer)#0(\.0)?", stored)
            name = found and our_module(found[1])
            if name and re.fullmatch(r"(encoder|stages|fusions)\.\d+|final_norm", name):
                wanted.add(name)
            if name in seen and seen[name].shape == expected.shape:
                golden.assert_output(seen[name], expected, stored)
                compared.add(name)
    if not wanted:
        pytest.skip("this case stores no outputs of whole layers")
    assert wanted <= compared


def our_module(official):
    """Our module of an official one, or None where there is none of the same output."""
    layer = re.fullmatch(r"transformer\.(layers|fuseStages|fuseUnit)\.(\d+)", official)
    if layer:
        return {"layers": "encoder", "fuseStages": "stages", "fuseUnit": "fusions"}[layer[1]] + f".{layer[2]}"
    own_attention = re.fullmatch(r"transformer\.layers\.(\d+)\.self_attn", official)
    if own_attention:
        return f"encoder.{own_attention[1]}.attention"
    try:
        return renamed(official)
    except KeyError:
        return None


def test_training_step(case):
    """Loss and the gradient of every parameter for the stored pairs, targets and permutation."""
    if "step" not in case.tensors:
        pytest.skip("this case stores no training step")
    model, step, facts = build(case).train(), case.tensors["step"], case.facts["step"]
    graphs = [
        golden.cells([p[f"{k}ops"] for p in facts["pairs"]], [p[f"{k}adj"] for p in facts["pairs"]]) for k in ("", "aug_")
    ]
    tokens = torch.cat([model.tokenize(half.dense) for half in graphs])
    torch.testing.assert_close(tokens, step["tokens"], atol=1e-6, rtol=0)
    prediction, target = model.encode(tokens, graphs[0].count.repeat(2)), step["target"].view(-1)
    torch.testing.assert_close(prediction, step["out"].view(-1), atol=1e-5, rtol=1e-5)
    loss = (
        facts["lambda_mse"] * mean_squared_error(prediction, target)
        + facts["lambda_sr"] * sequence_ranking(prediction, target, torch.tensor(facts["perm"]))
        + facts["lambda_ac"] * architecture_consistency(*prediction.chunk(2))
    )
    assert loss.item() == pytest.approx(facts["loss"], abs=1e-5, rel=1e-5)
    loss.backward()
    expected = ours(golden.gradients(case))
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        golden.assert_gradient(parameter.grad, expected[name], name)


def test_loss_of_a_batch(case, monkeypatch):
    """``loss`` augments by itself: its terms for the originals are the stored ones."""
    if "step" not in case.tensors:
        pytest.skip("this case stores no training step")
    model, step, facts = build(case).train(), case.tensors["step"], case.facts["step"]
    permutation = torch.tensor(facts["perm"])
    monkeypatch.setattr("predictors.losses.random_permutation", lambda like: permutation[: len(like)])
    pairs, half = facts["pairs"], len(facts["pairs"])
    batch = golden.cells([p["ops"] for p in pairs], [p["adj"] for p in pairs], step["target"].view(-1)[:half])
    terms = model.loss(batch)
    stored = {"mse": "loss_mse", "ranking": "loss_sr_x0.1", "consistency": "loss_ac_x0.5"}
    assert terms.keys() == stored.keys()
    for name, key in stored.items():
        assert terms[name].item() == pytest.approx(step[key].item(), abs=1e-6, rel=1e-5), name


def test_losses(golden_folder):
    case = golden.read(golden_folder, GROUP, "losses")
    io, terms = case.tensors["io"], case.facts["terms"]
    prediction, target = io["pred"].view(-1), io["target"].view(-1)
    ranking = sequence_ranking(prediction, target, torch.tensor(case.facts["perm"]))
    assert mean_squared_error(prediction, target).item() == pytest.approx(terms["mse"], abs=1e-7, rel=1e-6)
    assert ranking.item() == pytest.approx(terms["sr_l1"], abs=1e-7, rel=1e-6)
    assert architecture_consistency(*prediction.chunk(2)).item() == pytest.approx(terms["ac"], abs=1e-7, rel=1e-6)


@pytest.mark.parametrize("benchmark", ["nb101", "nb201"])
def test_augmentation_matches_the_official_cells(golden_folder, benchmark):
    """The stored augmentation (lists of graphs, empty where there is none), alone and in one padded batch."""
    cells = [cell["v1"] for cell in golden.facts(golden_folder, "cells", f"{benchmark}.json")["cells"]]
    together = swap_last(golden.cells([c["ops"] for c in cells], [c["adj"] for c in cells]).dense)
    for row, cell in enumerate(cells):
        ops, adjacency = (cell[f"aug_{k}"][0] if cell[f"aug_{k}"] else cell[k] for k in ("ops", "adj"))
        n = len(ops)
        assert together.op[row, :n].tolist() == ops
        assert together.adjacency[row, :n, :n].int().tolist() == adjacency
        assert not together.adjacency[row, n:].any()
        alone = swap_last(golden.cells([cell["ops"]], [cell["adj"]]).dense)
        assert (alone.op[0].tolist(), alone.adjacency[0].int().tolist()) == (ops, adjacency)


def test_code_tables(golden_folder):
    tables = golden.tensors(golden_folder, "encodings", "encodings.safetensors")
    compared = 0
    for name, expected in tables.items():
        found = re.fullmatch(r"v1/(nerf|trans)_(depth_)?F\d+", name)
        if found:
            ids = tables["v1/depth_ids" if found[2] else "v1/ids"]
            codes = code_table(ids.float(), expected.shape[1], found[1], "as_code")
            torch.testing.assert_close(codes, expected, atol=1e-6, rtol=0)
        elif re.fullmatch(r"v1/freq_nerf_F\d+", name):
            assert torch.equal(nerf_frequencies(len(expected), "as_code"), expected)
        compared += name.startswith("v1/")
    if not compared:
        pytest.skip("no tables of NAR-Former")


def test_frequencies_as_in_the_paper():
    assert nerf_frequencies(5, "as_paper").tolist() == [1, 2, 4, 8, 16]
    angles = torch.tensor([0.25, 0.5]).double() * torch.pi
    expected = torch.stack([angles.sin(), angles.cos()], 1).flatten().float()
    torch.testing.assert_close(code_table(torch.tensor([0.25]), 4, "nerf", "as_paper")[0], expected, atol=1e-7, rtol=0)
