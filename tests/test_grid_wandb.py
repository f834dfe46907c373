"""``narbench wandb push``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import narbench
from harness import wandb_push
from harness.cli import app

SMALL = ("train=40", "val=30", "protocol.test=50", "predictor=gin", "predictor.hidden=8", "recipe.epochs=2")


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run with curves as CSV and one whose record alone was kept."""
    folder = tmp_path_factory.mktemp("runs")
    narbench.run(*SMALL, "recipe.eval_every=1", "logger=csv", "logger.group=mine", f"out={folder / 'whole'}")
    (folder / "kept").mkdir()
    shutil.copy(folder / "whole" / "record.json", folder / "kept")
    return folder


@pytest.fixture
def push(monkeypatch, logged):
    def call(mode, *places):
        monkeypatch.setenv("WANDB_MODE", mode)
        words = ["wandb", "push", *map(str, places or [logged])]
        return CliRunner().invoke(app, words, catch_exceptions=False).output

    return call


def test_offline_files_are_made_once_and_uploaded_once(push, logged, monkeypatch):
    assert "wandb's files made of 2 records" in push("offline")
    assert "wandb's files made of 0 records" in push("offline")
    (files,) = (logged / "whole" / "wandb").glob("offline-run-*")
    record = json.loads((logged / "whole" / "record.json").read_text())
    assert files.name.endswith(wandb_push.run_id(record))
    assert [path.parent.name for path in sorted(logged.rglob("record.json"))] == ["kept", "whole"], "tables read them all"
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", files]
    summary = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert float(summary["summary"]["test/kendall_tau"]) == pytest.approx(record["metrics"]["test"]["kendall_tau"])
    for expected in ("predicted_vs_true", "val/kendall_tau", "metrics"):
        assert expected in summary["summary"]
    calls = []

    def sync(command):
        calls.append(command)
        for folder in command[4:]:
            (path,) = Path(folder).glob("*.wandb")
            path.with_name(f"{path.name}.synced").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", sync)
    assert "2 uploaded" in push("online")
    assert "0 uploaded" in push("online")
    assert [command[:4] for command in calls] == [[sys.executable, "-m", "wandb", "sync"]]
    assert str(files) in calls[0]


def test_what_a_killed_push_left_is_made_again(push, logged):
    push("offline", logged / "kept")
    (files,) = (logged / "kept" / "wandb").glob("offline-run-*/*.wandb")
    whole = files.stat().st_size
    files.write_bytes(b"")
    (logged / "kept" / "wandb" / wandb_push.MADE).unlink()
    assert "wandb's files made of 1 record" in push("offline", logged / "kept")
    (files,) = (logged / "kept" / "wandb").glob("offline-run-*/*.wandb")
    assert files.stat().st_size > 0.5 * whole > 1000


def test_a_failed_upload_is_said(push, logged, monkeypatch):
    push("offline", logged / "kept")
    for mark in logged.rglob("*.synced"):
        mark.unlink()
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(narbench.UserError, match="wandb login"):
        push("online", logged / "kept")


def test_no_runs_is_a_mistake(push, tmp_path):
    with pytest.raises(narbench.UserError, match="no finished run"):
        push("offline", tmp_path)
