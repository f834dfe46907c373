"""Whole experiments on the embedded benchmark, through the public entry points."""

import csv
import errno
import json
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from killed import kill_after_first_checkpoint, resume
from lightning.pytorch import Callback
from scipy.stats import kendalltau
from typer.testing import CliRunner

import narbench
import run as entry
from harness.cli import app
from harness.config import compose
from harness.experiment import resumed, run
from harness.memory import peak_memory_mb
from harness.show import show_result
from harness.stacked_runs import run_seeds
from harness.trained import trained
from harness.training import MovableCheckpoint, Weights, load_weights, read_last
from predictors.gin import GIN

ROOT = Path(__file__).parents[1]
SMALL = (
    "predictor=nnformer",
    "predictor.dim=16",
    "predictor.depth=2",
    "train=40",
    "val=30",
    "recipe.epochs=6",
    "recipe.eval_every=2",
    "protocol.test=200",
    "logger=none",
)


def predictions(result):
    return np.array(pq.read_table(result.folder.path / "predictions.parquet")["prediction"])


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    return narbench.run(*SMALL, f"out={tmp_path_factory.mktemp('runs') / 'whole'}")


def test_record_and_predictions_agree(small_run):
    """Metrics in the record are those of the predictions file, recomputed here."""
    record = json.loads((small_run.folder.path / "record.json").read_text())
    table = pq.read_table(small_run.folder.path / "predictions.parquet").to_pandas()
    assert list(table.columns) == ["key", "split", "label", "prediction"]
    assert set(record["weights"]) == {"best", "best_ema", "last", "last_ema"}
    for split, size in (("val", 30), ("test", 200)):
        part = table[table.split == split]
        assert len(part) == part.key.nunique() == size == record["protocol"]["sizes"][split]
        assert record["metrics"][split]["kendall_tau"] == pytest.approx(
            kendalltau(part.label, part.prediction)[0], abs=1e-6
        )
    chosen = max(record["weights"], key=lambda name: record["weights"][name]["val"]["kendall_tau"])
    best = record["weights"][chosen]["val"]["kendall_tau"]
    assert record["weights"][record["selected_weights"]]["val"]["kendall_tau"] == best
    for key in ("config", "config_hash", "code_version", "environment", "timings", "peak_memory_mb", "seed"):
        assert record[key] not in (None, "", {})
    assert len(record["protocol"]["sha256"]) == len(record["dataset"]["fingerprint"]) == 64


def test_evaluations_are_counted_also_of_a_diverged_training(tmp_path):
    small = ("train=40", "val=30", "protocol.test=50", "logger=none", f"runs={tmp_path}", "recipe.epochs=1")
    result = narbench.run("predictor=gcn", "predictor.hidden=8", "recipe.lr=1e10", "recipe.ema=0.5", *small)
    assert all(scores == {"val": {}, "test": {}} for scores in result.record["weights"].values())
    assert result.record["timings"]["evaluations"] == 2, "the raw weights and their average, whose best are the last"


def test_same_seed_same_predictions_other_seed_other(small_run, tmp_path):
    again = narbench.run(*SMALL, f"out={tmp_path / 'again'}")
    other = narbench.run(*SMALL, "seed=1", f"out={tmp_path / 'other'}")
    assert np.array_equal(predictions(small_run), predictions(again))
    assert not np.array_equal(predictions(small_run), predictions(other))
    assert small_run.record["config_hash"] == again.record["config_hash"] != other.record["config_hash"]


def test_an_interrupted_run_says_how_it_is_finished(tmp_path):
    out, ignored = tmp_path / "run", signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs in the background ignore it
    command = [sys.executable, "run.py", *SMALL, "recipe.epochs=100000", "trainer.checkpoint_minutes=0", f"out={out}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, ignored)
    patience = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"interrupted; resume={out} finishes the run from its last checkpoint" in shown
    assert "Traceback" not in shown
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert listed.stdout == f"unfinished, or running: resume={out}\n"


def test_a_paper_test_set_within_train_and_val_has_no_rest(tmp_path):
    run = narbench.run("predictor=params", "protocol=paper", "train=60", "val=40", "protocol.test=80", f"runs={tmp_path}")
    assert "rest" not in run.record["metrics"]
    assert run.record["protocol"]["sizes"] == {"train": 60, "val": 40, "test": 80}


def test_a_killed_run_resumes_to_the_same_result(small_run, tmp_path):
    out = tmp_path / "killed"
    last = kill_after_first_checkpoint(SMALL, out)
    assert not (out / "record.json").exists()
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"] += 10_000
    torch.save(checkpoint, last)
    out = out.rename(tmp_path / "moved")
    resume(out)
    table = pq.read_table(out / "predictions.parquet")
    assert np.array_equal(np.array(table["prediction"]), predictions(small_run))
    assert json.loads((out / "record.json").read_text())["timings"]["train_seconds"] > 10_000, "time before the kill counts"


def test_a_run_that_is_still_running_is_not_resumed(tmp_path):
    out, messages = tmp_path / "run", []

    class Impatient(Callback):
        def on_train_epoch_start(self, *_):
            with pytest.raises(narbench.UserError) as refused:
                run(resumed(compose([f"resume={out}"]), []))
            messages.append(str(refused.value))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(compose([*SMALL, f"out={out}"]), [Impatient()])
    assert messages == [f"{out}: another process is running it; wait for it, or end it"]
    assert run(resumed(compose([f"resume={out}"]), [])).record["id"] == "run"


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_that_goes_on_otherwise_is_judged_by_its_own_weights(every, tmp_path, monkeypatch):
    """Resumed with other random numbers, as by other processes: the best is of the steps up to the checkpoint or after."""
    from harness import training

    class Witness(Callback):
        def __init__(self, stop):
            self.seen, self.stop = {}, stop

        def on_train_epoch_start(self, trainer, *_):
            if trainer.current_epoch == self.stop:
                raise KeyboardInterrupt
            if trainer.current_epoch == every - 1:
                last = next(c for c in trainer.callbacks if isinstance(c, training.LastCheckpoint))
                last._saved = -np.inf  # a long epoch, after which a checkpoint is due

        def on_validation_end(self, trainer, *_):
            self.seen[trainer.global_step] = float(trainer.callback_metrics["val/kendall_tau"])

    out, real = tmp_path / "run", training.step_seed
    case = [*SMALL, "recipe.epochs=9", f"recipe.eval_every={every}", "recipe.batch_size=8", "recipe.ema=0", f"out={out}"]
    before = Witness(stop=6)
    with pytest.raises(KeyboardInterrupt):
        run(compose(case), [before])
    steps = {name: checkpoint_step(out, name) for name in ("best", "last")}
    assert min(before.seen) < steps["best"] <= steps["last"]
    monkeypatch.setattr(training, "step_seed", lambda seed, *rest: real(seed + 1, *rest))
    after = Witness(stop=None)
    result = run(resumed(compose([f"resume={out}"]), []), [after])
    kept = {step: value for step, value in before.seen.items() if step <= steps["last"]}
    assert kept
    assert not kept.keys() & after.seen.keys()
    best = result.record["weights"]["best"]["val"]["kendall_tau"]
    assert best == pytest.approx(max((kept | after.seen).values()))


def checkpoint_step(folder, name):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def test_best_checkpoints_have_no_more_than_the_weights(small_run):
    """Last has them twice, raw and averaged, and two moments of each: best does without the moments."""
    size = {name: (small_run.folder.checkpoints / f"{name}.ckpt").stat().st_size for name in ("best", "best_ema", "last")}
    weights = 4 * small_run.record["parameters"]
    for name in ("best", "best_ema"):
        assert size[name] > 2 * weights
        assert size["last"] - size[name] == pytest.approx(2 * weights, rel=0.3)


def test_averaged_weights_are_the_moving_average(tmp_path, monkeypatch):
    """The averaged weights of the last checkpoint equal a moving average kept by hand beside the optimiser steps."""
    from harness import training

    seen = []

    class Witness(training.StepSeed):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(pl_module.network.head.weight.detach().clone())

    monkeypatch.setattr(training, "StepSeed", Witness)
    result = narbench.run(*SMALL, "recipe.ema=0.9", f"out={tmp_path / 'ema'}")
    average = seen[0]
    for weight in seen[1:]:
        average = 0.9 * average + 0.1 * weight
    checkpoint = torch.load(result.folder.checkpoints / "last.ckpt", weights_only=True)
    torch.testing.assert_close(checkpoint["state_dict"]["network.head.weight"], average)
    torch.testing.assert_close(checkpoint["current_model_state"]["network.head.weight"], seen[-1])


@pytest.mark.parametrize("clip", [0, 1])
def test_bfloat16_trains_with_and_without_clipping(small_run, tmp_path, clip):
    result = narbench.run(*SMALL, "trainer.precision=bf16-mixed", f"recipe.clip={clip}", f"out={tmp_path / 'bf16'}")
    assert np.isfinite(predictions(result)).all()
    assert not np.array_equal(predictions(result), predictions(small_run))


def test_a_run_in_bfloat16_is_selected_by_predictions_in_float32(tmp_path):
    """By those that its record scores."""
    small = ("predictor=gin", "train=40", "val=200", "protocol.test=200", "recipe.epochs=3", "recipe.eval_every=1")
    result = narbench.run(*small, "trainer.precision=bf16-mixed", "logger=csv", f"out={tmp_path / 'bf16'}")
    with next(result.folder.path.rglob("metrics.csv")).open() as file:
        logged = [float(row["val/kendall_tau"]) for row in csv.DictReader(file) if row["epoch"]]
    weights = result.record["weights"]
    assert logged[-1] == pytest.approx(weights["last"]["val"]["kendall_tau"], abs=1e-6)
    assert max(logged) == pytest.approx(weights["best"]["val"]["kendall_tau"], abs=1e-6)


def test_yardsticks_are_shown_beside_a_result(tmp_path, capsys):
    from harness.show import show_result

    shared = ("train=40", "val=30", "protocol.test=200", "logger=none")
    narbench.run("predictor=params", *shared, f"out={tmp_path / 'params'}")
    narbench.run("predictor=knn", *shared, f"out={tmp_path / 'knn'}", "seed=1")
    show_result(narbench.run(*SMALL, f"out={tmp_path / 'nnformer'}"))
    shown = capsys.readouterr().out
    assert "params" in shown
    assert "knn" not in shown, "another split is not comparable"


def test_wandb_offline_run_can_be_read_back(tmp_path):
    result = narbench.run(*[o for o in SMALL if o != "logger=none"], "logger=wandb", f"out={tmp_path / 'logged'}")
    folder = next((result.folder.path / "wandb").glob("offline-run-*"))
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", folder]
    summary = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    text = json.dumps(summary)
    assert "predicted_vs_true" in text
    logged = summary["summary"]
    assert float(logged["test/kendall_tau"]) == pytest.approx(result.record["metrics"]["test"]["kendall_tau"])


def test_tensorboard_logger_writes_events(tmp_path):
    result = narbench.run(*[o for o in SMALL if o != "logger=none"], "logger=tensorboard", f"out={tmp_path / 'tb'}")
    assert list(result.folder.path.rglob("events.out.tfevents.*"))


def test_csv_logger_writes_curves(tmp_path):
    result = narbench.run(*[o for o in SMALL if o != "logger=none"], "logger=csv", f"out={tmp_path / 'csv'}")
    lines = next(result.folder.path.rglob("metrics.csv")).read_text()
    assert "val/kendall_tau" in lines
    assert "val_ema/kendall_tau" in lines


def test_a_resumed_run_ends_with_the_whole_curve(tmp_path):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, *_):
            if trainer.current_epoch == 6:
                raise KeyboardInterrupt

    def rows(out):
        with (out / "csv" / "metrics.csv").open(newline="") as lines:
            return list(csv.DictReader(lines))

    case = [*SMALL, "recipe.epochs=8", "recipe.eval_every=4", "recipe.batch_size=8", "logger=csv"]
    whole = run(compose([*case, f"out={tmp_path / 'whole'}"]))
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(compose([*case, f"out={cut}"]), [Stop()])
    abandoned = [row for row in rows(cut) if int(row["step"]) >= checkpoint_step(cut, "last")]
    assert abandoned
    with (cut / "csv" / "metrics.csv").open("a") as lines:
        lines.write("5,3")  # as of a kill
    run(resumed(compose([f"resume={cut}"]), []))
    assert rows(cut) == rows(tmp_path / "whole")
    steps = [int(row["step"]) for row in rows(cut)]
    assert steps == sorted(steps)
    assert steps[-1] == whole.record["timings"]["train_steps"]
    assert float(rows(cut)[-1]["test/kendall_tau"]) == whole.record["metrics"]["test"]["kendall_tau"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictor=nnfomer"], "did you mean nnformer"),
        (["predictor"], "predictor: not of the form key=value"),
        (
            ["out=runs/lr=3e-4"],
            """runs/lr=3e-4: the value has characters that are reserved; give it quotes of its own, 'out="runs/lr=3e-4"'""",
        ),
        (["seeds=[0,1"], "seeds=[0,1: not a list or mapping; write seeds=[0,1] or"),
        (["dataset.root=~/nas"], "dataset.root=~/nas: a value cannot begin with ~; write dataset.root=$HOME/nas"),
        (["experiment=nnformer_nasbench101_10"], "experiment=nnformer_nasbench101_10: unknown; did you mean nnformer_nas"),
        (["protocol.seed=-3"], "protocol.seed=-3: give a whole number from 0 to"),
        (["dataset=nasbench20"], "nasbench201"),
        (["predictor.dpeth=3"], "did you mean depth"),
        (["recipe.epocs=3"], "did you mean epochs"),
        (["recipe.lr=fast"], "recipe.lr"),
        (["predictor.masks=as_is"], "choose one of as_code, as_paper"),
        (["predictor.class_token=false"], "predictor.class_token=true"),
        (["train=0"], "choose 1 to"),
        (["train=many"], "not a size"),
        (["train=99999"], "choose 1 to"),
        (["protocol=stric"], "did you mean strict"),
        (["resume=nowhere"], "no run here"),
        (["recipe=nnformer_digits20"], "recipe=nnformer_digits20: unknown; did you mean nnformer_digits201"),
        (["networks=nosuch"], "networks=nosuch: unknown; choose one of"),
        (["+epochs=1"], "epochs: unknown key"),
        (["predictor.target=harness.config:TrainerConfig"], "no Predictor with a Config; docs/add-a-predictor.md"),
        (["seed=-1"], "from 0 to 4,294,967,295"),
        (["seed=4294967296"], "from 0 to 4,294,967,295"),
        (["dataset=nasbench201", "dataset.root=nowhere"], "NATS"),
        (["dataset.labels.test=speed"], "speed"),
        (["predictor=gin", "predictor.hidden=0"], "predictor.hidden=0: give 1 or more"),
        (["predictor=narformer2", "predictor.layers=0"], "predictor.layers=0: give 1 or more"),
        (
            ["predictor=narformer", "predictor.depths=[1,-2]"],
            "predictor.depths=[1, -2]: give 1 or more",
        ),
        (
            ["predictor=narformer", "predictor.queries=[0]"],
            "predictor.queries=[0]: give 1 or more",
        ),
        (["predictor=narformer", "predictor.code_widths=[0,0,192]"], "predictor.code_widths=[0, 0, 192]: give 1 or more"),
        (["predictor=knn", "predictor.walk=-1"], "predictor.walk=-1: give 0 or more"),
        (["predictor=boosting", "predictor.loss=mse"], "choose one of absolute_error"),
        (["predictor=boosting", "predictor.subsample=1.5"], "predictor.subsample=1.5: give a number above 0"),
        (["trainer.eval_nodes=0"], "trainer.eval_nodes=0: give 1 or more"),
        (["trainer.precision=float"], "trainer.precision=float: unknown; choose one of 32-true, bf16-mixed, 16-mixed"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: unknown; choose one of 32-true, bf16-mixed, 16-mixed"),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu", "train=40"], "give bf16-mixed or 32-true, or a GPU"),
        (["trainer.accelerator=abacus"], "trainer.accelerator=abacus: unknown; choose one of auto, cpu"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "logger=none", f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.startswith("error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(tmp_path):
    for absent in ("cuda", "gpu"):
        with pytest.raises(narbench.UserError, match=rf"trainer\.accelerator={absent}: "):
            narbench.run(*SMALL, f"trainer.accelerator={absent}", f"out={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_an_unreadable_record_of_another_run_takes_nothing_along(tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text('{"half')
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "record.json").write_text("[]")
    show_result(narbench.run("predictor=params", "train=40", "logger=none", f"out={tmp_path / 'params'}"))
    assert "results in" in capsys.readouterr().out
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    assert "params" in listed.stdout
    assert "not valid JSON" in listed.stderr
    assert "schema version None" in listed.stderr


def test_peak_memory_is_that_of_the_run(tmp_path):
    large = np.ones(50_000_000)
    before = peak_memory_mb()
    del large
    record = narbench.run("predictor=params", "train=40", "logger=none", f"out={tmp_path / 'params'}").record
    assert record["peak_memory_mb"] < before - 300, "400 MB of before the run do not count"


def test_checkpoints_go_through_no_folder_but_their_own(tmp_path, monkeypatch):
    """One for temporary files may be of another disk, to which nothing is moved in one step, or be full."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    result = narbench.run(*SMALL, f"out={tmp_path / 'run'}")
    assert {path.name for path in result.folder.checkpoints.iterdir()} == {"best.ckpt", "best_ema.ckpt", "last.ckpt"}


@pytest.mark.parametrize("overrides", [SMALL, (*SMALL, "seeds=[0,1]"), ("predictor=knn", "train=40", "logger=none")])
def test_a_checkpoint_is_written_whole_or_not_at_all(overrides, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    save = torch.save

    def cut(content, file):
        if "state_dict" not in content:  # of a whole stack
            return save(content, file)
        Path(file).write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", cut)
    config = compose([*overrides, f"out={tmp_path}"])
    with pytest.raises(Killed):
        (run_seeds if config.seeds else run)(config)
    checkpoints = [path for path in tmp_path.rglob("*.ckpt") if not path.name.startswith(".")]
    assert [path for path in checkpoints if path.read_bytes() == b"half"] == []


def test_a_damaged_checkpoint_is_named(small_run, tmp_path):
    """Cut after every few bytes, or with a name that is none."""
    whole = (small_run.folder.checkpoints / "best.ckpt").read_bytes()
    _, predictor, _ = trained(small_run.folder, small_run.record)
    other = whole.replace(b"global_step", b"\xff" * 11)
    for content in (b"garbage", other, *(whole[:size] for size in (*range(30), *range(30, len(whole), 4_999)))):
        (tmp_path / "best.ckpt").write_bytes(content)
        with pytest.raises(narbench.UserError, match=r"best\.ckpt: damaged checkpoint; train again"):
            load_weights(predictor, tmp_path, Weights("best.ckpt", averaged=False))


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """Deleting it would lose the training."""

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(torch, "load", stale)
    with pytest.raises(narbench.UserError, match=r"last\.ckpt: cannot be read .Stale file handle.; check its permissions"):
        read_last(tmp_path / "last.ckpt")


@pytest.mark.parametrize("seeds", ["seed=0", "seeds=[0,1]"])
def test_a_damaged_last_checkpoint_is_named_when_a_run_is_resumed(seeds, tmp_path):
    out = tmp_path / "run"
    config = compose([*SMALL, "recipe.epochs=2", seeds, f"out={out}"])
    start = run if seeds == "seed=0" else run_seeds
    start(config)
    for record in out.rglob("record.json"):
        record.unlink()
    last = out / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:10_000])
    with pytest.raises(narbench.UserError, match=rf"last\.ckpt: damaged checkpoint; delete it, and resume={out} trains"):
        start(resumed(compose([f"resume={out}"]), []))
    last.unlink()
    start(resumed(compose([f"resume={out}"]), []))
    assert last.exists()


def test_what_is_no_checkpoint_of_a_run_is_named(small_run, tmp_path):
    _, predictor, _ = trained(small_run.folder, small_run.record)
    torch.save({"other": 1}, tmp_path / "best.ckpt")
    with pytest.raises(narbench.UserError, match="state_dict, global_step missing"):
        load_weights(predictor, tmp_path, Weights("best.ckpt", averaged=False))


def test_a_moved_checkpoint_keeps_its_best_score(tmp_path):
    here, there = (MovableCheckpoint(tmp_path / name, filename="best", monitor="val/tau") for name in ("here", "there"))
    here.best_model_score = here.kth_value = torch.tensor(0.7)
    here.best_model_path = here.kth_best_model_path = str(tmp_path / "here" / "best.ckpt")
    here.best_k_models = {here.best_model_path: torch.tensor(0.7)}
    there.load_state_dict(here.state_dict())
    moved = str(tmp_path / "there" / "best.ckpt")
    assert (there.best_model_score, there.kth_value, there.last_model_path) == (0.7, 0.7, "")
    assert (there.best_model_path, there.kth_best_model_path) == (moved, moved)
    assert there.best_k_models == {moved: 0.7}


def test_predictions_of_another_shape_are_named(monkeypatch, tmp_path):
    forward = GIN.forward
    monkeypatch.setattr(GIN, "forward", lambda self, batch: forward(self, batch)[:, None])
    small = ("predictor=gin", "predictor.hidden=8", "train=40", "val=30", "recipe.epochs=1", "logger=none")
    with pytest.raises(narbench.UserError, match=r"GIN.forward gives \(30, 1\) for 30 graphs; it must give \(30,\)"):
        narbench.run(*small, f"out={tmp_path / 'run'}")


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(narbench.UserError, match="not empty"):
        narbench.run(*SMALL, f"out={tmp_path}")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_resume_in_python_takes_the_configuration_of_the_run(tmp_path):
    whole = narbench.run("predictor=knn", "train=60", "val=40", "seed=3", "logger=none", f"out={tmp_path / 'run'}")
    (tmp_path / "run" / "record.json").unlink()
    again = narbench.run(f"resume={tmp_path / 'run'}")
    assert again.record["config_hash"] == whole.record["config_hash"]
    assert again.record["metrics"] == whole.record["metrics"]
    with pytest.raises(narbench.UserError, match="differs from the run"):
        narbench.run("seed=4", f"resume={tmp_path / 'run'}")


@pytest.mark.parametrize("again", ["predictor=flops", "protocol=paper", "dataset=digits201", "experiment=mine"])
def test_the_command_of_a_run_finishes_it(tmp_path, again):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrain: 60\n")
    command = ["predictor=flops", "protocol=paper", "experiment=mine", "val=40", "logger=none"]
    command.append(f"hydra.searchpath=[file://{tmp_path}]")
    whole = narbench.run(*command, f"out={tmp_path / 'run'}")
    (tmp_path / "run" / "record.json").unlink()
    overrides = [*command, "dataset.cache=elsewhere", f"resume={tmp_path / 'run'}"]
    assert resumed(compose(overrides), [again]).train == 60
    with pytest.raises(narbench.UserError, match=f"{again}: differs"):
        resumed(compose([*overrides, "train=70", "predictor=knn", "protocol=strict", "dataset=ortcpu"]), [again])
    assert narbench.run(*command, f"resume={tmp_path / 'run'}").record["metrics"] == whole.record["metrics"]


def test_a_finished_run_is_left_as_it_is(small_run):
    path = small_run.folder.path / "record.json"
    before = path.read_text()
    assert narbench.run(f"resume={small_run.folder.path}").record == json.loads(before)
    assert path.read_text() == before


def test_numbers_are_folders_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = narbench.run("predictor=params", "train=40", "val=30", "logger=none", "out=5")
    assert made.folder.path == Path("5")
    assert narbench.run("resume=5").record["id"] == made.record["id"]
    with pytest.raises(narbench.UserError, match="runs=null: give the folder"):
        narbench.run("predictor=params", "runs=null")


@pytest.mark.parametrize("place", ["out", "runs"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(narbench.UserError, match=f"{place}=.*file/runs: cannot be written"):
        narbench.run("predictor=params", "train=40", "logger=none", f"{place}={tmp_path / 'file' / 'runs'}")


@pytest.mark.parametrize("override", ["recipe.lr=0.5", "experiment=nnformer_nasbench101_100", "networks=nnformer"])
def test_resume_refuses_another_configuration(small_run, monkeypatch, capsys, override):
    monkeypatch.setattr(sys, "argv", ["run.py", override, f"resume={small_run.folder.path}"])
    with pytest.raises(SystemExit):
        entry.main()
    assert "differs from the run" in capsys.readouterr().err


def test_a_grid_makes_one_run_for_each_point(monkeypatch, tmp_path, capsys):
    arguments = ["-m", "predictor=params,flops", "seed=0,1", "logger=none", f"runs={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    entry.main()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/record.json")]
    found = {(record["predictor"], record["seed"]) for record in records}
    assert found == {("params", 0), ("params", 1), ("flops", 0), ("flops", 1)}
    assert capsys.readouterr().out.count("results in") == 4


def test_equal_checkpoints_are_scored_once(small_run):
    """The last epoch is validated, so `last` is `best` whenever the last validation was the best one."""
    steps = {name: checkpoint_step(small_run.folder.path, name) for name in ("best", "last")}
    weights = small_run.record["weights"]
    assert (weights["best"] == weights["last"]) == (steps["best"] == steps["last"])


def test_configurations_are_composed_in_many_threads():
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: compose([f"seed={seed}", "predictor=knn"]).seed, range(40)))
    assert found == list(range(40))
