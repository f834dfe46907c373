"""Grids: in processes of this machine, on a Ray cluster and through submitit; several writers of one folder."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import run as entry
from datasets.errors import UserError
from harness import cli
from harness.config import compose, config_hash, typed
from harness.grid import Job, Outcome, execute, named_executor, run_jobs
from harness.launchers.local import LocalExecutor
from harness.records import RunFolder
from harness.terminal import InterruptionError

FAILS = "choose 1 to 1256"
"""What a run with ``train=9999`` fails with."""


@pytest.fixture
def grid(monkeypatch, tmp_path, capsys):
    """Run ``run.py -m`` and return what it found: (predictor, seed) of the records, exit status, output, errors."""

    def call(*overrides):
        monkeypatch.setattr(sys, "argv", ["run.py", "-m", *overrides, "logger=none", f"runs={tmp_path / 'runs'}"])
        status = 0
        try:
            entry.main()
        except SystemExit as stop:
            status = stop.code
        records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/record.json")]
        shown = capsys.readouterr()
        return sorted((record["predictor"], record["seed"]) for record in records), status, shown.out, shown.err

    return call


def job(tmp_path, *overrides, **more):
    return Job.of(" ".join(overrides), compose([*overrides, "logger=none", f"runs={tmp_path}"]), "group", **more)


def test_local_processes(grid):
    found, status, out, err = grid("predictor=flops,knn", "seed=0,1", "train=400,9999", "hydra.launcher.n_workers=2")
    assert found == [("flops", 0), ("flops", 1), ("knn", 0), ("knn", 1)]
    assert status == 2
    assert out.count("results in") == 4
    assert len(re.findall(r"^ (flops|knn) +digits201 +strict +400 +[01] ", out, re.MULTILINE)) == 4, "a table of all"
    assert "4 of 8 runs failed; the others are kept" in err
    assert "predictor=knn seed=1 train=9999: protocol.train=9999 means" in err


def test_ray(grid, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs narbench[ray]")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, configure_logging=False)
    try:
        found, status, _, err = grid("predictor=flops", "seed=0,1", "train=400,9999", "hydra/launcher=ray")
        assert ray.is_initialized(), "a cluster of the caller's is left alone"
    finally:
        ray.shutdown()
    assert (found, status) == ([("flops", 0), ("flops", 1)], 2)
    assert err.count(f"{FAILS}\n") == 4, "when it happens and at the end, for both"


def test_submitit(grid):
    pytest.importorskip("submitit", reason="needs narbench[slurm]")
    overrides = ("predictor=flops", "train=400,9999", "hydra/launcher=submitit", "hydra.launcher.cluster=local")
    found, status, _, err = grid(*overrides)
    assert (found, status) == ([("flops", 0)], 2)
    assert "train=9999: protocol.train=9999 means" in err


def test_slurm_where_there_is_none_is_a_mistake(grid):
    pytest.importorskip("submitit", reason="needs narbench[slurm]")
    found, status, _, err = grid("predictor=flops", "seed=0,1", "hydra/launcher=submitit")
    assert (found, status) == ([], 2)
    assert err.startswith("error: hydra/launcher=submitit: Could not detect")


def test_a_dead_process_is_replaced(tmp_path, capsys):
    dying = job(tmp_path, "predictor=flops", "predictor.target='grid_predictors:Dying'")
    with pytest.raises(UserError, match=r"1 of 2 runs failed.*\n.*its process died \(exit status -9"):
        run_jobs([dying, job(tmp_path, "predictor=flops")], LocalExecutor(n_workers=1))
    assert capsys.readouterr().out.count("results in") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("predictor=flops,kn",), "did you mean knn"),
        (("predictor=flops,knn", "predictor.dim=3"), "unknown key"),
        (("predictor=flops,knn", "recipe=fited"), "recipe=fited: unknown; did you mean fitted"),
        (("predictor=flops,nnlp", "recipe.lr=fast"), "recipe.lr"),
        (("predictor=flops,nnlp", "trainer.devices=2"), "leave trainer=ddp, trainer.devices and"),
    ],
)
def test_a_mistake_in_any_point_stops_the_grid_before_it_starts(grid, overrides, message):
    found, status, out, err = grid(*overrides)
    assert (found, status, out) == ([], 2, "")
    assert message in err


def test_an_error_that_is_no_mistake_of_the_users_fails_one_job(tmp_path, monkeypatch, capsys):
    def broken(config):
        raise ZeroDivisionError("in\n the model")

    monkeypatch.setattr("harness.experiment.run", broken)
    assert execute(job(tmp_path, "predictor=flops")).error == "ZeroDivisionError: in the model"
    assert "Traceback" in capsys.readouterr().err


def test_a_job_that_is_running_elsewhere_is_skipped(tmp_path):
    begun = job(tmp_path, "predictor=flops", f"out={tmp_path / 'run'}", resumable=True)
    folder = RunFolder.create(typed(compose(["predictor=flops", "logger=none", f"out={tmp_path / 'run'}"])))
    with folder.lock():
        assert execute(begun) == Outcome(skipped="another process is running it")
    assert execute(begun).results[0].record["id"] == "run"


def test_interruption_keeps_what_is_finished(tmp_path):
    class Interrupted:
        closed = False

        def outcomes(self, jobs):
            try:
                yield 0, execute(jobs[0])
                raise KeyboardInterrupt
            finally:
                Interrupted.closed = True

    jobs = [job(tmp_path, "predictor=flops", f"seed={seed}") for seed in (0, 1)]
    remedy = f"`narbench runs {tmp_path}` lists the unfinished ones with their resume="
    with pytest.raises(InterruptionError, match=f"interrupted; 1 of 2 runs are finished and kept; {remedy}"):
        run_jobs(jobs, Interrupted())
    assert Interrupted.closed
    assert len(list(tmp_path.glob("*/record.json"))) == 1


def test_an_interrupted_grid_ends_quietly_and_says_how_it_goes_on(tmp_path):
    small = ("predictor=gin", "predictor.hidden=8", "train=40", "val=30", "recipe.epochs=100000", "logger=none")
    places = (f"runs={tmp_path}", "trainer.checkpoint_minutes=0", f"hydra.sweep.dir={tmp_path / 'hydra'}")
    ignored = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "run.py", "-m", "seed=0,1", *small, *places, "hydra.launcher.n_workers=1"]
    process = subprocess.Popen(
        command, cwd=Path(entry.__file__).parent, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, ignored)
    patience = time.monotonic() + 120
    while not list(tmp_path.glob("*/checkpoints/last.ckpt")) and time.monotonic() < patience:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"0 of 2 runs are finished and kept; `narbench runs {tmp_path}` lists the unfinished ones" in shown
    assert "Traceback" not in shown


def test_interrupted_tables_have_the_exit_status_of_an_interrupted_run(monkeypatch, capsys, tmp_path):
    class Interrupted:
        def outcomes(self, jobs):
            yield 0, Outcome()
            raise KeyboardInterrupt

    again = job(tmp_path, "predictor=flops", resumable=True)
    monkeypatch.setattr(cli, "app", lambda: run_jobs([again], Interrupted()))
    with pytest.raises(SystemExit, match="130"):
        cli.main()
    assert "0 of 1 runs are finished and kept; the same command finishes the others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "jobs", "cores", "visible", "expected"),
    [
        ({}, 9, 8, "", [("1", None)] * 8),
        ({}, 2, 8, "", [("4", None)] * 2),
        ({"threads": 3}, 9, 8, "", [("3", None)] * 2),
        ({"n_workers": 2}, 9, 8, "", [("4", None)] * 2),
        ({}, 9, 8, "2,5", [("4", "2"), ("4", "5")]),
        ({"n_workers": 3}, 9, 9, "2,5", [("3", "2"), ("3", "5"), ("3", "2")]),
        ({}, 9, 1, "", [("1", None)]),
    ],
)
def test_workers_share_cores_and_gpus(monkeypatch, settings, jobs, cores, visible, expected):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("harness.launchers.local.cpu_count", lambda: cores)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(visible.split(",")) if visible else 0)
    found = LocalExecutor(**settings).environments(jobs)
    assert [(one["OMP_NUM_THREADS"], one.get("CUDA_VISIBLE_DEVICES")) for one in found] == expected


def test_unknown_launchers_are_mistakes():
    with pytest.raises(UserError, match="did you mean ray"):
        named_executor("rai", [])
    with pytest.raises(UserError, match="choose local, ray or submitit"):
        named_executor("basic", [])


@pytest.mark.parametrize("setting", ["n_workers", "threads"])
@pytest.mark.parametrize("value", [0, -1])
def test_less_than_one_worker_or_thread_is_a_mistake(setting, value):
    with pytest.raises(UserError, match=f"{setting}={value}: give 1 or more"):
        named_executor("local", [f"hydra.launcher.{setting}={value}"])


def test_several_writers_never_share_a_folder(tmp_path, monkeypatch):
    """The folders are told apart by the file system alone, so threads are as good as hosts; all find them empty."""

    def create(out):
        config = typed(base)
        config.out = out
        with contextlib.suppress(UserError):
            return RunFolder.create(config).path

    base = compose(["predictor=flops", f"runs={tmp_path}"])
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(()))
    with ThreadPoolExecutor(16) as pool:
        made = [path for path in pool.map(create, [None] * 8 + [str(tmp_path / "one")] * 8) if path]
    assert len(made) == len(set(made)) == 9
    assert made.count(Path(tmp_path / "one")) == 1


def test_a_job_of_several_seeds_leaves_a_run_of_each(tmp_path):
    small = ("predictor=gin", "predictor.hidden=8", "train=40", "val=30", "protocol.test=50", "recipe.epochs=1")
    outcome = execute(job(tmp_path, *small, "seeds=[0,1]"))
    assert [result.record["seed"] for result in outcome.results] == [0, 1], outcome.error
    assert all((result.folder.path / "record.json").is_file() for result in outcome.results)
    alone = compose([*small, "seed=1", "logger=none", f"runs={tmp_path}"])
    assert outcome.results[1].record["config_hash"] == config_hash(typed(alone))
    assert len({result.record["protocol"]["sha256"] for result in outcome.results}) == 2, "each seed has its own split"


def test_the_group_of_a_grid_is_that_of_its_runs(tmp_path):
    assert job(tmp_path, "predictor=flops").config["logger"]["group"] == "group"
    assert job(tmp_path, "predictor=flops", "logger.group=mine").config["logger"]["group"] == "mine"
