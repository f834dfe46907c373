"""Four workers on one study, one of them killed: nothing is lost and nothing counts twice."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from harness.sweep import driver
from harness.sweep.ledger import FINISHED, Ledger
from harness.sweep.space import Dimension, Space
from harness.sweep.worker import Sweep

POSTGRES = Path("/usr/lib/postgresql/15/bin")
TRIALS = 6
TINY = Space(
    name="tiny",
    overrides=[
        *("predictor=gin", "predictor.layers=1", "train=60", "val=40", "protocol.test=60", "logger=none"),
        *("recipe.epochs=8", "recipe.eval_every=2"),
    ],
    space={
        "recipe.lr": Dimension("float", 1e-4, 1e-2, log=True),
        "predictor.hidden": Dimension("categorical", choices=[8, 16]),
    },
    objectives=["kendall_tau"],
    trials=TRIALS,
    seeds=[0],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of a PostgreSQL server of our own, on the loopback interface."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip(f"PostgreSQL's server is not in {POSTGRES}")
    folder = tmp_path_factory.mktemp("postgres")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    data, as_user = Path("/tmp") / folder.parent.name / f"{folder.name}-{os.getpid()}", []
    data.parent.mkdir(exist_ok=True, mode=0o755)
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", user, "--"]
        shutil.chown(data, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-h 127.0.0.1 -p {port} -k {data} -c fsync=off"
    for command in (
        ["initdb", "-D", data, "-A", "trust", "-U", "narbench", "--no-sync"],
        ["pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start"],
    ):
        subprocess.run([*as_user, POSTGRES / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL, cwd="/")
    yield f"postgresql://narbench@127.0.0.1:{port}/postgres"
    stop = [*as_user, POSTGRES / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
    subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, cwd="/")
    shutil.rmtree(data)


def kill_a_worker(sweep, killed):
    """SIGKILL the worker of a trial that has been running for a moment; note the trial's number."""
    ledger = Ledger.open(sweep.space, sweep.storage, sweep.out)
    patience = time.monotonic() + 120
    while not killed and time.monotonic() < patience:
        time.sleep(0.02)
        for trial in ledger.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker and list((sweep.out / "trials").glob(f"{trial.number:05}-s0/checkpoints/*.ckpt")):
                os.kill(int(worker.split(":")[1]), signal.SIGKILL)
                killed.append(trial.number)
                return


def run_and_kill(sweep):
    killed = []
    killer = threading.Thread(target=kill_a_worker, args=(sweep, killed))
    killer.start()
    ledger = driver.run(sweep)
    killer.join()
    assert len(killed) == 1
    return ledger, killed[0]


def check(ledger, killed, out):
    trials = ledger.study.get_trials()
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == TRIALS
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: TRIALS, TrialState.FAIL: 1}
    assert trials[killed].state == TrialState.FAIL
    (again,) = [trial for trial in trials if trial.user_attrs.get("retry_of") == killed]
    assert again.state == TrialState.COMPLETE
    assert again.params == trials[killed].params
    values = [tuple(trial.params.values()) for trial in finished]
    assert len(set(values)) == TRIALS, "each point is evaluated once"
    workers = {trial.user_attrs["worker"] for trial in trials}
    assert len(workers) == 4
    records = {int(path.parent.name[:5]): json.loads(path.read_text()) for path in out.glob("trials/*/record.json")}
    assert {trial.number: trial.value for trial in finished} == {
        number: record["metrics"]["val"]["kendall_tau"] for number, record in records.items()
    }


def test_four_workers_on_a_journal_one_killed(tmp_path):
    ledger, killed = run_and_kill(Sweep(TINY, None, tmp_path, 4))
    check(ledger, killed, tmp_path)


def test_four_workers_on_postgres_one_killed(tmp_path, server):
    ledger, killed = run_and_kill(Sweep(TINY, server, tmp_path, 4))
    check(ledger, killed, tmp_path)
    assert not (tmp_path / "journal.log").exists()
