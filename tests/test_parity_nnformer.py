"""NN-Former on cells against the official code's numbers."""

import re

import golden
import pytest
import torch

from datasets.graph import TaskSpec
from harness.config import compose, typed
from predictors.losses import architecture_consistency, mean_squared_error, sequence_ranking
from predictors.nnformer import NNFormer, NNFormerConfig

SPECS = {
    "nb101": TaskSpec("accuracy", ("input", "conv1x1", "conv3x3", "maxpool", "output"), (), "fraction"),
    "nb201": TaskSpec("accuracy", ("input", "conv1x1", "conv3x3", "avgpool", "skip", "none", "output"), (), "fraction"),
}

GROUP = "nnformer_acc"

NAMES = (
    (r"cls_token", "cls"),
    (r"op_embed\.weight", "operation.weight"),
    (r"depth_embed\.weight", "size.weight"),
    (r"norm\.(.*)", r"norm.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.norm\.(.*)", r"blocks.\1.attention_norm.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.attn\.(.*)", r"blocks.\1.attention.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.norm\.(.*)", r"blocks.\1.feedforward_norm.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.mlp\.(.*)", r"blocks.\1.feedforward.\2"),
    (r"encoder\.norm\.(.*)", r"final_norm.\1"),
    (r"head\.layer\.(.*)", r"head.\1"),
)


def ours(official, value):
    """Our name and layout of an official parameter: embeddings are the transpose of a linear layer on one-hots."""
    for pattern, name in NAMES:
        if re.fullmatch(pattern, official):
            renamed = re.sub(pattern, name, official)
            if renamed in ("operation.weight", "size.weight"):
                value = value.T
            return renamed, value.reshape(1, -1) if renamed == "cls" else value
    raise KeyError(official)


def configuration(facts):
    return NNFormerConfig(
        target="",
        name="nnformer",
        dim=facts["dim"],
        depth=facts["depths"][0],
        ratio=int(facts["mlp_ratio"]),
        activation=facts["act_layer"],
        dropout=0.0,
        masks="as_code",
        prune=False,
        readout="mean" if facts["avg_tokens"] else "cls",
        class_token=facts["class_token"],
        depth_token=facts["depth_embed"],
        degree_gate=False,
        loss_mse=1.0,
        loss_relative=0.0,
        loss_ranking=0.2,
        loss_consistency=1.0,
    )


def build(case):
    """The predictor, with the case's weights."""
    model = NNFormer(configuration(case.facts["config"]), SPECS["nb201"])
    model.network.load_state_dict(dict(ours(name, value) for name, value in golden.weights(case).items()))
    return model


def test_initial_weights(golden_folder):
    """Of the full model, as the official code draws them."""
    torch.manual_seed(0)
    config = typed(compose(["predictor=nnformer", "dataset=nasbench101"])).predictor
    weights = NNFormer(config, SPECS["nb101"]).network.state_dict()
    stored = golden.initial_statistics(golden_folder, "nnf")
    golden.assert_drawn_alike(weights, {ours(name, weights["head.weight"])[0]: row for name, row in stored.items()})


def test_parameter_count(case):
    assert sum(p.numel() for p in build(case).parameters()) == case.facts["n_params"]


def test_outputs(case):
    model, io = build(case).eval(), case.tensors["io"]
    for batch in case.facts["batches"]:
        with torch.no_grad():
            ours_out = model(golden.cells(batch["ops"], batch["adj"]))
        torch.testing.assert_close(ours_out, io[f"{batch['key']}/out_f64"].float().view(-1), atol=1e-5, rtol=1e-5)


def test_mixed_sizes_in_one_padded_batch(case):
    model, io = build(case).eval(), case.tensors["io"]
    batches = case.facts["batches"]
    together = golden.cells([o for b in batches for o in b["ops"]], [a for b in batches for a in b["adj"]])
    expected = torch.cat([io[f"{b['key']}/out_f64"].float().view(-1) for b in batches])
    with torch.no_grad():
        torch.testing.assert_close(model(together), expected, atol=1e-5, rtol=1e-5)


def test_double_precision(case):
    model, io = build(case).eval().double(), case.tensors["io"]
    for batch in case.facts["batches"]:
        graphs = golden.cells(batch["ops"], batch["adj"])
        with torch.no_grad():
            torch.testing.assert_close(model(graphs), io[f"{batch['key']}/out_f64"].view(-1), atol=1e-11, rtol=1e-11)


def test_block_activations(case):
    """Every encoder block's output, official order of tokens (class, nodes, depth) put into ours (class, depth, nodes)."""
    model, acts = build(case).eval(), case.tensors["acts"]
    compared = 0
    for batch in case.facts["batches"]:
        seen = {}
        hooks = [
            block.register_forward_hook(lambda _m, _i, out, n=n, seen=seen: seen.__setitem__(n, out))
            for n, block in enumerate(model.network.blocks)
        ]
        with torch.no_grad():
            model(golden.cells(batch["ops"], batch["adj"]))
        for hook in hooks:
            hook.remove()
        for number, out in seen.items():
            name = f"{batch['key']}/encoder.layers.{number}#0"
            if name in acts:
                expected = acts[name]
                if case.facts["config"]["depth_embed"]:
                    front = int(case.facts["config"]["class_token"])
                    expected = torch.cat([expected[:, :front], expected[:, -1:], expected[:, front:-1]], 1)
                golden.assert_output(out, expected[:, : out.shape[1]], name)
                compared += 1
    if not compared:
        pytest.skip("this case stores no outputs of blocks")


def test_training_step(case):
    """Loss and the gradient of every parameter for the stored batch, targets and permutation."""
    if "step" not in case.tensors:
        pytest.skip("this case stores no training step")
    network, step, facts = build(case).network.train(), case.tensors["step"], case.facts["step"]
    half = len(facts["cell_index"]) // 2
    graphs = golden.dense(step["code"].argmax(-1)[:half], step["code_adj"][:half])
    tokens = network.tokenize(graphs).repeat(2, 1, 1)
    prediction = network.encode(tokens, graphs)
    torch.testing.assert_close(prediction, step["out"].view(-1), atol=1e-5, rtol=1e-5)
    target, permutation = step["target"].view(-1), torch.tensor(facts["perm"])
    loss = (
        facts["lambda_mse"] * mean_squared_error(prediction, target)
        + facts["lambda_rank"] * sequence_ranking(prediction, target, permutation)
        + facts["lambda_consist"] * architecture_consistency(*prediction.chunk(2))
    )
    assert loss.item() == pytest.approx(facts["loss"], abs=1e-5, rel=1e-5)
    loss.backward()
    gradients = dict(network.named_parameters())
    for official, value in golden.gradients(case).items():
        name, expected = ours(official, value)
        golden.assert_gradient(gradients[name].grad, expected, name)


def test_head_masks(case):
    from predictors.layers.asma import head_masks

    io, config = case.tensors["io"], case.facts["config"]
    frames = config["class_token"] + config["depth_embed"]
    for batch in case.facts["batches"]:
        stored = io.get(f"{batch['key']}/head_masks_allowed")
        if stored is None:
            continue
        graphs = golden.cells(batch["ops"], batch["adj"]).dense
        allowed = head_masks(graphs.adjacency, graphs.mask, frames, "as_code")
        order = list(range(stored.shape[-1]))
        if config["depth_embed"]:
            order.insert(config["class_token"], order.pop())
        assert torch.equal(allowed, stored.bool()[:, :, order][:, :, :, order])


def test_losses(golden_folder):
    case = golden.read(golden_folder, "nnformer_acc", "losses")
    io = case.tensors["io"]
    prediction, target = (io[name].view(-1) for name in ("pred", "target"))
    permutation = torch.tensor(case.facts["perm"])
    for term in case.facts["terms"].values():
        if not isinstance(term, dict):
            continue
        weights = term["lambdas"]
        terms = {
            "loss_mse": weights[0] * mean_squared_error(prediction, target),
            "loss_rank": weights[1] * sequence_ranking(prediction, target, permutation),
            "loss_consist": weights[2] * architecture_consistency(*prediction.chunk(2)),
        }
        for name, value in terms.items():
            assert value.item() == pytest.approx(term[name], abs=1e-7, rel=1e-6)


def test_pruning_matches_the_official_cells(golden_folder):
    """Pruned NAS-Bench-201 cells: same operations and adjacency as the official loader's."""
    from predictors.layers.prune import prune

    for cell in golden.facts(golden_folder, "cells", "nb201.json")["cells"]:
        graphs = golden.cells([cell["v1"]["ops"]], [cell["v1"]["adj"]]).dense
        pruned = prune(graphs, none=5, keep=(0, 6))
        assert pruned.op[0].tolist() == cell["nnformer"]["ops"]
        assert pruned.adjacency[0].int().tolist() == cell["nnformer"]["adj"]
