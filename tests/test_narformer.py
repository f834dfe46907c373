"""NAR-Former beyond the official code's numbers: start, configuration, augmentation in the loss."""

from dataclasses import replace

import pytest
import torch

from datasets.errors import UserError
from harness import registry
from harness.config import compose, typed
from predictors.layers.attention import FeedForward, SelfAttention
from predictors.layers.relabel import AUGMENTATIONS
from predictors.narformer import MOST_NODES, NARFormer, NARFormerConfig
from tests.graphs import cell_spec, random_cells

CONFIG = NARFormerConfig(
    target="",
    name="narformer",
    dim=24,
    feedforward=48,
    heads=2,
    depths=[2, 1, 2],
    queries=[3, 2],
    activation="relu",
    dropout=0.0,
    codes="nerf",
    code_widths=[8, 8, 8],
    frequencies="as_code",
    depth_token=True,
    readout="last",
    augmentation="none",
    loss_mse=1.0,
    loss_ranking=0.1,
    loss_consistency=0.5,
)


EXPERIMENTS = sorted((registry.CONF / "experiment").glob("narformer_*.yaml"))


def build(**changes):
    torch.manual_seed(0)
    return NARFormer(replace(CONFIG, **changes), cell_spec())


def test_projections_of_an_attention_start_alike():
    parameters = dict(build().named_parameters())
    inputs = [name for name in parameters if name.endswith("input.weight")]
    assert len(inputs) == 2 + 2 + 1 + 1
    firsts = []
    for name in inputs:
        last = parameters[name.replace("input", "output")]
        for projection in parameters[name].split(CONFIG.dim):
            assert torch.equal(projection, last)
        for bias in parameters[name.replace("weight", "bias")].split(CONFIG.dim):
            assert torch.equal(bias, parameters[name.replace("input.weight", "output.bias")])
        firsts.append(last)
    assert all(not torch.equal(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


@pytest.mark.parametrize("changes", [{}, {"depths": [2], "queries": []}], ids=["stages", "encoder"])
@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("depth_token", [True, False])
def test_padding_changes_nothing(changes, readout, depth_token):
    model = build(**changes, readout=readout, depth_token=depth_token).eval()
    batch = random_cells(30, 4)
    with torch.no_grad():
        together, dense = model(batch), batch.dense
        tokens = model.tokenize(dense)
        for row, n in enumerate(batch.count.tolist()):
            alone = model.encode(tokens[row : row + 1, : n + 1], batch.count[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_have_the_published_recipe(path):
    config = typed(compose([f"experiment={path.stem}"]))
    recipe = config.recipe
    assert recipe.epochs == {"nasbench101": 6000, "nasbench201": 4000}[config.dataset.name]
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.schedule) == ("adamw", 1e-4, 0.01, "linear")
    assert (recipe.warmup, recipe.final, recipe.batch_size, recipe.batching) == (0.1, 0.0, 128, "by_size")
    assert (recipe.ema, recipe.clip, recipe.eval_every) == (0.99, 0.0, 1)
    assert config.predictor.augmentation == "paper"


def test_weights_files_hold_no_tables():
    assert not [name for name in build().state_dict() if "codes" in name]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_consistency_compares_a_graph_with_its_augmentation(augmentation):
    model, batch = build(augmentation=augmentation).train(), random_cells(30, 5, (5, 8))
    torch.manual_seed(3)
    consistency = model.loss(batch)["consistency"].item()
    torch.manual_seed(3)
    other = AUGMENTATIONS[augmentation](batch.dense)
    difference = model(batch) - model.encode(model.tokenize(other), batch.count)
    assert consistency == pytest.approx(0.5 * difference.abs().mean().item(), abs=1e-7)
    assert (consistency > 1e-5) == (augmentation != "none")


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": "onehot"},
        {"frequencies": "log"},
        {"readout": "cls"},
        {"augmentation": "flip"},
        {"activation": "swish"},
        {"code_widths": [8, 8, 6]},
        {"code_widths": [9, 9, 6]},
        {"code_widths": [12, 12]},
        {"heads": 5},
        {"queries": [3]},
    ],
)
def test_wrong_configurations_are_named(changes):
    (name,) = changes
    with pytest.raises(UserError, match=f"^predictor.{name}="):
        build(**changes)


def test_large_graphs_are_refused():
    model = build()
    with pytest.raises(UserError, match=f"at most {MOST_NODES} nodes, got {MOST_NODES + 1}"):
        model(random_cells(2, 0, (MOST_NODES + 1, MOST_NODES + 1)))
    assert model(random_cells(2, 0, (MOST_NODES, MOST_NODES))).isfinite().all()


@pytest.mark.parametrize("depth_token", [True, False])
def test_last_readout_of_an_encoder_alone_is_the_end_token(depth_token):
    model, batch = build(depths=[2], queries=[], depth_token=depth_token).eval(), random_cells(30, 6)
    seen = []
    model.final_norm.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        prediction = model(batch)
        for row, n in enumerate(batch.count.tolist()):
            expected = model.head(seen[0][row, n + depth_token]).sigmoid()
            torch.testing.assert_close(prediction[row : row + 1], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [SelfAttention(16, 2, 0.3), FeedForward(16, 32, "relu", 0.3)], ids=["attention", "ffn"])
def test_dropout_varies_the_branch_but_not_its_mean(layer):
    """Both drop what a linear layer reads, so the mean over many passes is the pass without dropout."""
    torch.manual_seed(0)
    x = torch.randn(1, 5, 16)
    with torch.no_grad():
        passes, without = layer.train()(x.repeat(8000, 1, 1)), layer.eval()(x)[0]
    spread = passes.std(0)
    assert (spread > 0.01).all()
    assert ((passes.mean(0) - without).abs() / spread * 8000**0.5).max() < 5
