"""Seeds trained as a stack against the same seeds trained alone, through the public entry points."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from killed import kill_after_first_checkpoint, resume
from torch import nn
from torch.func import functional_call

import narbench
import run as entry
from datasets.errors import UserError
from harness import experiment, registry
from harness.assembly import build_predictor
from harness.config import compose, config_hash, typed
from harness.experiment import finish, resumed
from harness.memory import peak_memory_mb
from harness.records import RunFolder, list_unfinished
from harness.stacked import Layout, StackedWeight, StackingError
from harness.stacked_runs import run_seeds
from harness.stacked_weights import JoinedBatches, WeightStack
from predictors.base import Predictor
from predictors.fitted import FittedPredictor
from predictors.recipe import build_optimizer
from tests.graphs import cell_spec, pick, random_cells

ROOT = Path(__file__).parents[1]
SEEDS = (1, 0)
SHARED = (
    "train=45", "val=60", "protocol.test=200", "logger=none",
    "recipe.epochs=3", "recipe.eval_every=2", "recipe.batch_size=8", "recipe.lr=1e-3", "recipe.warmup=0", "recipe.ema=0.8",
)  # fmt: skip
CASES = {
    "nnformer": ("predictor.dim=16", "predictor.depth=2"),
    "nnformer paper": ("predictor.dim=16", "predictor.depth=2", "protocol=paper", "recipe.ema=0"),
    "nnformer mean": ("predictor.dim=16", "predictor.depth=1", "predictor.readout=mean", "predictor.class_token=false"),
    "narformer": (
        "predictor.dim=24", "predictor.heads=2", "predictor.depths=[1,2,1]", "predictor.queries=[2,1]",
        "predictor.feedforward=32", "predictor.code_widths=[8,8,8]",
    ),
    "narformer2": ("predictor.layers=2", "predictor.hidden=16", "predictor.head=16", "recipe.lr=2e-4"),
    "nnlp": ("predictor.hidden=16", "predictor.head=16", "recipe.batching=by_size"),
    "gin": ("predictor.hidden=16", "recipe.clip=0.1"),
    "gat": ("predictor.hidden=16",),
    "gcn": ("predictor.hidden=16",),
    "graphsage": ("predictor.hidden=16",),
    "brpnas": ("predictor.hidden=16", "recipe.warmup=0.5"),
}  # fmt: skip
"""Small predictors with dropout on; the names' second words are only there to tell cases apart."""


def overrides(case: str, *more: str) -> list[str]:
    return [f"predictor={case.split()[0]}", *SHARED, *CASES[case], *more]


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def assert_same_run(stacked: Path, alone: Path) -> None:
    """Folders hold the same run: predictions and metrics to float tolerance, everything else to the letter."""
    a, b = predictions(stacked), predictions(alone)
    assert a[["key", "split", "label"]].equals(b[["key", "split", "label"]])
    spread = float(b.prediction.std())
    assert spread > 0
    np.testing.assert_allclose(a.prediction, b.prediction, rtol=0, atol=1e-6 + 2e-3 * spread)
    ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (stacked, alone))
    assert set(ours) == set(theirs)
    for key in ("config_hash", "seed", "parameters", "protocol", "dataset", "selected_weights"):
        assert ours[key] == theirs[key], key
    assert set(ours["weights"]) == set(theirs["weights"])
    assert ours["timings"]["train_steps"] == theirs["timings"]["train_steps"]
    for weights in theirs["weights"]:
        for split, values in theirs["weights"][weights].items():
            assert ours["weights"][weights][split] == pytest.approx(values, rel=1e-3, abs=5e-3), (weights, split)
    curves = [pd.read_csv(folder / "csv" / "metrics.csv") for folder in (stacked, alone)]
    for prefix in ("val", "test"):
        a, b = (curve.dropna(subset=f"{prefix}/kendall_tau").filter(regex="epoch|step|val|test") for curve in curves)
        assert len(b)
        np.testing.assert_allclose(a, b[a.columns], rtol=1e-3, atol=5e-3)  # epoch and step, too
    for name in {path.name for path in (alone / "checkpoints").iterdir()}:
        steps = [torch.load(f / "checkpoints" / name, weights_only=True)["global_step"] for f in (stacked, alone)]
        assert steps[0] == steps[1]


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("nnformer mean", "gcn", "graphsage")])
def test_a_stack_leaves_the_runs_that_its_seeds_leave_alone(case, tmp_path):
    results = run_seeds(compose(overrides(case, "logger=csv", f"seeds={list(SEEDS)}", f"out={tmp_path / 'stack'}")))
    assert [result.record["seed"] for result in results] == list(SEEDS)
    for seed, result in zip(SEEDS, results, strict=True):
        narbench.run(*overrides(case, "logger=csv", f"seed={seed}", f"out={tmp_path / str(seed)}"))
        assert_same_run(result.folder.path, tmp_path / str(seed))
    steps = {result.record["timings"]["train_steps"] for result in results}
    assert len(steps) == (2 if case == "nnformer" else 1), "sizes that differ make epochs of other lengths"


def test_a_killed_stack_resumes_to_the_same_result(tmp_path):
    case = overrides("gin", "seeds=[0,1]", "recipe.epochs=12")
    whole = run_seeds(compose([*case, f"out={tmp_path / 'whole'}"]))
    out = tmp_path / "killed"
    last = kill_after_first_checkpoint(case, out)
    assert not (out / "s0" / "record.json").exists()
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["seconds"] += 10_000
    torch.save(checkpoint, last)
    out = out.rename(tmp_path / "moved")
    resume(out)
    for result in whole:
        again = out / result.folder.path.name
        assert np.array_equal(predictions(again).prediction, predictions(result.folder.path).prediction)
        seconds = json.loads((again / "record.json").read_text())["timings"]["train_seconds"]
        assert 5_000 < seconds < 5_100, "each seed's half of the time, that before the kill included"


def test_a_stack_that_is_interrupted_while_it_is_scored_goes_on(tmp_path, monkeypatch):
    case = overrides("gin", "seeds=[0,1]")
    whole = run_seeds(compose([*case, f"out={tmp_path / 'whole'}"]))

    def interrupted(config, *rest):
        if config.seed:
            raise KeyboardInterrupt
        return finish(config, *rest)

    out = tmp_path / "out"
    monkeypatch.setattr("harness.stacked_runs.finish", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"interrupted; resume={out} finishes the run from its last checkpoint"):
        run_seeds(compose([*case, f"out={out}"]))
    assert [(out / seed / "record.json").exists() for seed in ("s0", "s1")] == [True, False]
    monkeypatch.undo()
    older = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    del older["seconds"]
    torch.save(older, out / "checkpoints" / "last.ckpt")
    resume(out)
    for result in whole:
        again = predictions(out / result.folder.path.name)
        assert np.array_equal(again.prediction, predictions(result.folder.path).prediction)


def test_a_stack_that_is_still_running_is_not_resumed_and_none_of_its_seeds(tmp_path, monkeypatch):
    refused = []

    def impatient(*_):
        for path, start in ((tmp_path, run_seeds), (tmp_path / "s1", experiment.run)):
            with pytest.raises(UserError, match=f"{path}: another process is running it"):
                start(resumed(compose([f"resume={path}"]), []))
            refused.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.stacked_runs.finish", impatient)
    with pytest.raises(KeyboardInterrupt):
        run_seeds(compose(overrides("gin", "seeds=[0,1]", f"out={tmp_path}")))
    assert len(refused) == 2


def test_a_stack_is_scored_in_batches_of_any_size(tmp_path, monkeypatch):
    """Every seed has a graph in each of them, also where one of every seed is more than was asked for."""
    case = overrides("nnformer", f"seeds={list(SEEDS)}", "recipe.epochs=1")
    batches, predict = [], JoinedBatches._predict

    def witness(self, leaves, members, rows, label):
        batches.append(sum(self.nodes[own].sum() for own in rows))
        return predict(self, leaves, members, rows, label)

    monkeypatch.setattr(JoinedBatches, "_predict", witness)
    reached = []
    for nodes in (1, 100, 4096):
        batches.clear()
        run_seeds(compose([*case, f"trainer.eval_nodes={nodes}", f"out={tmp_path / str(nodes)}"]))
        stack = torch.load(tmp_path / str(nodes) / "checkpoints" / "last.ckpt", weights_only=True)
        reached.append([values["val/kendall_tau"] for curve in stack["curves"] for _, values in curve])
        assert max(batches) <= max(1.25 * nodes, 2 * 8), "of equally many graphs, which have up to 8 nodes each"
    assert len(reached[0]) == 2
    assert reached[0] == pytest.approx(reached[2], abs=5e-3)
    assert reached[1] == pytest.approx(reached[2], abs=5e-3)


def test_a_stack_goes_on_where_it_is_told_to_and_is_left_when_it_is_finished(tmp_path):
    results = run_seeds(compose(overrides("gin", "seeds=[0,1]", f"out={tmp_path}")))
    for result in results:
        (result.folder.path / "record.json").unlink()
    config = resumed(compose([f"resume={tmp_path}", "trainer.eval_nodes=50"]), ["trainer.accelerator=cpu"])
    config.trainer.accelerator = "cpu"
    again = run_seeds(config)
    assert [result.record["config"]["trainer"]["accelerator"] for result in again] == ["cpu", "cpu"]
    written = [(result.folder.path / "record.json").read_text() for result in again]
    assert [result.record for result in run_seeds(config)] == [json.loads(text) for text in written]
    assert [(result.folder.path / "record.json").read_text() for result in again] == written


def test_a_stack_from_an_encoder_goes_on_without_it(tmp_path):
    encoder = tmp_path / "encoder"
    experiment.run(compose(overrides("gin", "seed=7", f"out={encoder}")))
    results = run_seeds(compose(overrides("gin", "seeds=[0,1]", f"init={encoder}", f"out={tmp_path / 'stack'}")))
    shutil.rmtree(encoder)
    for result in results:
        assert result.record["init"]["seed"] == 7
        (result.folder.path / "record.json").unlink()
    again = run_seeds(resumed(compose([f"resume={tmp_path / 'stack'}"]), []))
    for result, kept in zip(again, results, strict=True):
        assert result.record["init"] == kept.record["init"]
        assert result.record["metrics"] == kept.record["metrics"]


def test_runs_of_seeds_are_listed_beside_the_others(tmp_path, monkeypatch):
    results = run_seeds(compose(overrides("gin", "seeds=[3,5]", f"runs={tmp_path}")))
    first, second = (result.folder.path for result in results)
    with pytest.raises(UserError, match=rf"-stack: a stack of seeds; choose one of {first}, {second}$"):
        RunFolder.existing(Path(f"{first}-stack")).finished()
    (second / "record.json").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"-stack: not finished; finish it with resume="):
        RunFolder.existing(Path(f"{first}-stack")).finished()
    (tmp_path / "kept").rename(second / "record.json")
    before = (first / "record.json").read_text()
    assert {path.parent.name for path in tmp_path.glob("*/record.json")} == {r.folder.path.name for r in results}
    assert list_unfinished(tmp_path) == []
    (results[1].folder.path / "record.json").unlink()
    assert set(list_unfinished(tmp_path)) == {results[1].folder.path, Path(f"{results[0].folder.path}-stack")}
    monkeypatch.setattr(sys, "argv", ["run.py", f"resume={results[0].folder.path}"])
    entry.main()
    assert (results[0].folder.path / "record.json").read_text() == before, "it is finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictor=boosting", "seeds=[0,1]"], "predictor=boosting cannot be stacked: it is fitted"),
        (["predictor=gin", "seeds=[0,0]"], "different whole numbers"),
        (["predictor=gin", "seeds=3"], "different whole numbers"),
        (["predictor=gin", "seeds=[0,1]", "seed=2"], "give one of them"),
        (["predictor=gin", "seeds=[0,1]", "trainer.precision=bf16-mixed"], "trainer.precision=32-true"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "logger=none", "train=40", "val=30", f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_seeds_are_refused_where_one_result_is_returned():
    with pytest.raises(narbench.UserError, match="several runs"):
        narbench.run(*overrides("gin", "seeds=[0,1]"))


def test_the_hash_of_a_configuration_does_not_know_of_stacks():
    assert config_hash(typed(compose(["seeds=[0,1]"]))) == config_hash(typed(compose([])))


def trained() -> list[str]:
    classes = {name: registry.load(registry.target("predictor", name)) for name in registry.names("predictor")}
    return [name for name, cls in classes.items() if not issubclass(cls, FittedPredictor)]


def test_every_trained_predictor_is_compared():
    assert {case.split()[0] for case in CASES} == set(trained())


def member(case: str, seed: int) -> Predictor:
    torch.manual_seed(seed)
    predictor = build_predictor(typed(compose(overrides(case, "predictor.dropout=0"))), cell_spec())
    return predictor.requires_grad_(False)


@pytest.mark.parametrize("case", CASES)
def test_batches_of_any_sizes_can_be_joined(case):
    """Members with other numbers of graphs, of other sizes: on a GPU every step is like this."""
    pool = random_cells(40, 3, (2, 8))
    shares = [list(range(12)), list(range(12, 17)), list(range(17, 40))]
    members = [member(case, seed) for seed in range(3)]
    alone = torch.cat([model(pick(pool, rows)) for model, rows in zip(members, shares, strict=True)])
    joined = Layout(*zip(*[(len(rows), int(pool.count[rows].sum())) for rows in shares], strict=True), torch.device("cpu"))
    weights = {
        name: StackedWeight(torch.stack([dict(model.named_parameters())[name] for model in members]), joined)
        for name, _ in members[0].named_parameters()
    }
    together = functional_call(members[0], weights, (pick(pool, list(range(40))),))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_stack_decays_what_its_members_decay(case):
    alone = member(case, 0).requires_grad_()
    named = dict(alone.named_parameters())
    optimizer, _ = build_optimizer(replace(alone.recipe, optimizer="adamw", weight_decay=0.1), named.items(), 10)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    matrices, others = WeightStack([alone], set(named)).shapes
    assert matrices.keys() == {name for name, p in named.items() if id(p) in decayed}
    assert matrices.keys() | others.keys() == named.keys()


def test_rows_go_to_their_members():
    joined = Layout([2, 1], [5, 4], torch.device("cpu"))
    copies = joined.rows(6)
    assert copies.member.tolist() == [0, 0, 1, 0, 0, 1]
    x = torch.arange(6.0)[:, None]
    assert [part.flatten().tolist() for part in copies.split(x)] == [[0, 1, 3, 4], [2, 5]]
    assert torch.equal(copies.join(copies.split(x)), x)
    assert torch.equal(copies.unstack(copies.stack(x)), x)
    assert copies.stack(x)[..., 0].tolist() == [[[0, 1], [2, 0]], [[3, 4], [5, 0]]]
    assert joined.rows(12).member.tolist() == [0] * 5 + [1] * 4 + [0, 0, 1]
    with pytest.raises(StackingError, match="7 rows"):
        joined.rows(7)


def test_sizes_that_do_not_tell_graphs_from_nodes_are_noticed():
    cpu = torch.device("cpu")
    assert Layout([2, 3], [4, 6], cpu).ambiguous, "five graphs twice, or ten nodes"
    assert not Layout([2, 3], [2, 3], cpu).ambiguous, "graphs are nodes"
    assert not Layout([2, 3], [5, 6], cpu).ambiguous
    assert not Layout([2], [4], cpu).ambiguous, "one member has all rows"


def test_what_has_no_rule_is_refused():
    weight = StackedWeight(torch.randn(2, 3, 4), Layout([2, 2], [5, 5], torch.device("cpu")))
    assert weight.shape == (3, 4)
    assert torch.equal(weight[1:].per_member, weight.per_member[:, 1:])
    for unknown in (
        lambda: torch.cdist(torch.randn(4, 4), weight),
        lambda: nn.functional.linear(torch.randn(3, 4), weight),
    ):
        with pytest.raises(StackingError):
            unknown()


def test_peak_memory_is_that_of_the_stack(tmp_path):
    large = np.ones(50_000_000)
    before = peak_memory_mb()
    del large
    results = run_seeds(compose(overrides("gin", "seeds=[0,1]", f"out={tmp_path / 'stack'}")))
    assert all(result.record["peak_memory_mb"] < before - 300 for result in results), "400 MB of before do not count"
