"""Two processes do what one does: the same batches, weights, predictions and checkpoints."""

import itertools
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback

import narbench
from datasets.base import EpochSampler, PartSampler
from datasets.shares import Share, deal
from harness import experiment
from harness.assembly import build_data, build_predictor
from harness.config import compose, typed
from harness.distributed import launch
from harness.evaluation import evaluate
from harness.training import load_weights, weight_sets

ROOT = Path(__file__).parents[1]
COMMON = (
    "predictor.dropout=0",
    "train=43",  # batches of 7 and a last one of 1, for two processes
    "val=31",
    "protocol.test=201",
    "recipe.batch_size=7",
    "recipe.epochs=4",
    "recipe.eval_every=2",
    "recipe.ema=0.9",
    "trainer.checkpoint_minutes=0",
    "logger=none",
)
ODD = ("predictor=gin", *COMMON)
BY_SIZE = ("predictor=nnformer", "predictor.dim=16", "predictor.depth=2", "predictor.loss_ranking=0", *COMMON)
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
SCRIPT = """
    import os, sys
    import narbench, run
    from harness import experiment
    from harness.config import compose
    from harness.distributed import share
    from test_distributed import BY_SIZE, TWO, Stop, Stopped

    busy, interrupted, other = sys.argv[1:]
    try:
        narbench.run(*BY_SIZE, *TWO, f"out={busy}")
    except narbench.UserError as error:
        os.write(1, f"{share().rank} refused\\n".encode())  # whole, whatever the other process writes
    try:
        experiment.run(compose([*BY_SIZE, *TWO, f"out={interrupted}"]), [Stop()])
    except Stopped:
        pass
    sys.argv[1:] = [f"resume={other}", *TWO]
    run.main()
"""


class Stopped(Exception):
    """Raised instead of a kill."""


class Stop(Callback):
    """Ends training after two epochs."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise Stopped


def start(*command):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_training(folder, other, name="last"):
    ours, theirs = checkpoint(folder, name), checkpoint(other, name)
    assert [ours[key] for key in ("global_step", "epoch")] == [theirs[key] for key in ("global_step", "epoch")]
    for weights in ("state_dict", "current_model_state"):
        torch.testing.assert_close(ours[weights], theirs[weights], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process."""
    return narbench.run(*ODD, f"out={tmp_path_factory.mktemp('one') / 'run'}").folder.path


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same in two processes that Lightning starts: its folder and what was printed."""
    runs = tmp_path_factory.mktemp("two")
    done = start("run.py", *ODD, *TWO, f"runs={runs}")
    (folder,) = runs.iterdir()
    return folder, done


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """A run of two processes that was interrupted, one of one process that two finished, and a whole one, by size."""
    home = tmp_path_factory.mktemp("crossed")
    with pytest.raises(Stopped):
        experiment.run(compose([*BY_SIZE, f"out={home / 'finished_by_two'}"]), [Stop()])
    (home / "busy").mkdir()
    (home / "busy" / "notes.txt").write_text("mine")
    script = home / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = start(*torchrun, script, home / "busy", home / "interrupted", home / "finished_by_two")
    whole = narbench.run(*BY_SIZE, f"out={home / 'whole'}").folder.path
    return home, whole, done


def test_two_processes_train_the_weights_of_one(one, two):
    for name in ("best", "best_ema", "last"):
        assert_same_training(two[0], one, name)


def test_only_the_first_process_writes_and_prints(two):
    folder, done = two
    assert done.stdout.count("results in") == 1
    assert all("find_unused_parameters" in line for line in done.stderr.splitlines()), done.stderr
    files = {"config.yaml", "checkpoints", "predictions.parquet", "record.json"}
    assert {path.name for path in folder.iterdir()} == files | {".lock"}


def test_every_graph_is_predicted_once_and_scored_as_by_one_process(two):
    folder, _ = two
    record = json.loads((folder / "record.json").read_text())
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    assert table.groupby("split", observed=True).key.agg(["size", "nunique"]).values.tolist() == [[31, 31], [201, 201]]
    config = typed(compose(ODD))
    data = build_data(config)
    data.setup()
    predictor = build_predictor(config, data.spec)
    for name, weights in weight_sets(ema=True).items():
        load_weights(predictor, folder / "checkpoints", weights)
        for split, found in evaluate(predictor, data, name).items():
            assert record["weights"][name][split] == pytest.approx(found.scores(data.task).values, abs=1e-6)
            if name == record["selected_weights"]:
                keys = np.array(data.store.keys(found.rows))
                ours = table[table.split == split].set_index("key").prediction[keys]
                assert ours.to_numpy() == pytest.approx(found.prediction, abs=1e-6)


def test_validation_chooses_as_one_process_does(one, two):
    """The monitored metric, which each process must have of all graphs, is that of the final evaluation."""
    record = json.loads((two[0] / "record.json").read_text())
    for name, prefix in (("best", "val"), ("best_ema", "val_ema")):
        (state,) = (
            state
            for key, state in checkpoint(two[0])["callbacks"].items()
            if f"'{prefix}/kendall_tau'" in key and "Checkpoint" in key
        )
        assert state["best_model_score"].item() == pytest.approx(record["weights"][name]["val"]["kendall_tau"], abs=1e-6)


def test_two_processes_finish_what_one_began(crossed):
    home, whole, done = crossed
    assert_same_training(home / "finished_by_two", whole)
    record = json.loads((home / "finished_by_two" / "record.json").read_text())
    assert record["config"]["trainer"]["devices"] == 2
    assert done.stdout.count("results in") == 1


def test_one_process_finishes_what_two_began(crossed):
    home, whole, _ = crossed
    folder = home / "interrupted"
    assert checkpoint(folder)["epoch"] == 1
    overrides = [f"resume={folder}", "trainer=default"]
    experiment.run(experiment.resumed(compose(overrides), overrides))
    assert_same_training(folder, whole)


def test_a_mistake_found_by_the_first_process_stops_all(crossed):
    home, _, done = crossed
    assert sorted(line for line in done.stdout.splitlines() if "refused" in line) == ["0 refused", "1 refused"]
    assert [path.name for path in (home / "busy").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_batches_are_dealt_evenly(size, world):
    """Equally many to within one, and beside the best of all such ways no one does much more."""
    rng = np.random.default_rng([size, world])
    for _ in range(5):
        costs = rng.integers(2, 40, size)
        owner = deal(costs, world)
        counts = np.bincount(owner, minlength=world)
        assert counts.sum() == size
        assert np.ptp(counts) <= 1
        totals = np.bincount(owner, costs, minlength=world)
        ways = (np.array(way) for way in itertools.product(range(world), repeat=size))
        even = [way for way in ways if np.ptp(np.bincount(way, minlength=world)) <= 1]
        best = min(np.bincount(way, costs, minlength=world).max() for way in even)
        assert totals.max() <= best + np.ptp(costs)
        for count in set(counts):
            assert np.ptp(totals[counts == count]) <= np.ptp(costs)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_parts_make_up_the_batches_of_one_process(world):
    rng = np.random.default_rng(0)
    rows, costs, value = rng.permutation(100)[:37], rng.integers(2, 9, 100), rng.normal(size=100)
    for sizes in (None, costs[rows]):
        whole = EpochSampler(rows, 6, seed=1, sizes=sizes)
        samplers = [PartSampler(EpochSampler(rows, 6, seed=1, sizes=sizes), costs, Share(r, world)) for r in range(world)]
        for sampler in (whole, *samplers):
            sampler.set_epoch(3)
        assert {len(sampler) for sampler in samplers} == {len(whole)}
        for batch, *parts in zip(whole, *samplers, strict=True):
            assert sorted(np.concatenate([part.rows for part in parts if part.weight])) == sorted(batch)
            assert all(len(part.rows) for part in parts)
            mean = np.mean([part.weight * value[part.rows].mean() for part in parts])
            assert mean == pytest.approx(value[batch].mean())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31])
def test_evaluation_is_shared_in_order_of_cost(count):
    costs = np.sort(np.random.default_rng(count).integers(2, 60, 31))[:count]
    shares = [Share(rank, 3).of_sorted(np.arange(count)) for rank in range(3)]
    assert set(np.concatenate(shares)) == set(range(count))
    assert all(len(share) for share in shares)
    if count >= 3:
        assert sum(map(len, shares)) == count
        assert np.ptp([costs[share].sum() for share in shares]) <= costs.max()


@pytest.mark.parametrize(
    ("overrides", "environment", "message"),
    [
        (("predictor=knn", *TWO), {}, "fitted in one go"),
        (("trainer.devices=2",), {}, "give trainer=ddp"),
        (("trainer.strategy=fsdp",), {}, "choose one of auto, ddp"),
        ((), {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "2 processes were started"),
        ((*TWO, "trainer.devices=3"), {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "3"),
    ],
)
def test_mistakes(overrides, environment, message, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(narbench.UserError, match=message):
        narbench.run("train=41", "val=31", "logger=none", *overrides, f"runs={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_one_process_needs_no_group(monkeypatch):
    hardware = typed(compose([])).trainer
    launch(hardware)
    assert not torch.distributed.is_initialized()
    with pytest.raises(narbench.UserError, match="2 devices"):
        launch(replace(hardware, num_nodes=2))
