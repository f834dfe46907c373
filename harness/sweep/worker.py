"""A worker: a process of its own that runs one trial after the other, on its share of the machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import torch
from optuna import TrialPruned
from optuna.trial import TrialState

from datasets.errors import UserError
from harness import loggers
from harness.launchers.local import gpus
from harness.sweep.ledger import Ledger
from harness.sweep.space import Space
from harness.sweep.trial import run_trial

FAILURES = 5
"""Failed trials in a row after which a worker gives up."""

PATIENCE = 1.0
"""Seconds between looks at trials that other workers run and may abandon."""


@dataclass(frozen=True)
class Sweep:
    """What a worker is told.

    Attributes:
        space: what to search.
        storage: URL of the study, None for a journal in ``out``.
        out: folder of the results.
        workers: workers on this machine.
    """

    space: Space
    storage: str | None
    out: Path
    workers: int


def work(sweep: Sweep, index: int) -> None:
    """Run trials until as many are finished as were asked for, or until the parent is gone."""
    _become_quiet(sweep.out / "workers" / f"{index}.log")
    _take_share(index, sweep.workers)
    ledger = Ledger.open(sweep.space, sweep.storage, sweep.out)
    failures = 0
    while not ledger.done and _parent_lives():
        outcome = _run_one(ledger, sweep.out)
        if outcome is None:
            time.sleep(PATIENCE)
        failures = failures + 1 if outcome is False else 0
        if failures == FAILURES:
            sys.exit(f"{failures} trials in a row failed")


def shares(cores: list[int], workers: int) -> list[list[int]]:
    """Cores of each worker: groups of neighbours, or one each, taken in turn, where there are too few."""
    if workers > len(cores):
        return [[cores[index % len(cores)]] for index in range(workers)]
    return [list(map(int, group)) for group in np.array_split(cores, workers)]


def _run_one(ledger: Ledger, out: Path) -> bool | None:
    """Run one trial and say whether it was finished; None if there is none to run for now."""
    trial = ledger.claim()
    if trial is None:
        return None
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    try:
        values = run_trial(trial, ledger.space, out)
    except TrialPruned:
        ledger.finish(trial, TrialState.PRUNED)
    except Exception as error:  # a trial's values may be what fails, in any way; those of others need not
        loggers.close_unfinished()
        traceback.print_exc()
        ledger.fail(trial, " ".join(str(error).split()) if isinstance(error, UserError) else repr(error))
        return False
    else:
        ledger.finish(trial, TrialState.COMPLETE, values)
    return True


def _become_quiet(log: Path) -> None:
    """Write to a log file; leave Ctrl-C to the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _take_share(index: int, workers: int) -> None:
    found = gpus()
    if found:
        os.environ["CUDA_VISIBLE_DEVICES"] = found[index % len(found)]
    if hasattr(os, "sched_setaffinity"):
        cores = shares(sorted(os.sched_getaffinity(0)), workers)[index]
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(len(cores))


def _parent_lives() -> bool:
    parent = parent_process()
    return parent is None or parent.is_alive()
