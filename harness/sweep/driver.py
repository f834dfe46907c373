"""The parent of the workers: starts them, tells what they finish, and writes the results."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

from optuna.trial import FrozenTrial, TrialState
from rich.progress import Progress

from datasets.errors import UserError
from harness.assembly import build_data
from harness.config import compose, typed
from harness.progress import bar
from harness.sweep.ledger import Ledger
from harness.sweep.report import best_trial, describe, write_results
from harness.sweep.worker import Sweep, work

POLL_SECONDS = 0.5


def run(sweep: Sweep) -> Ledger:
    """Run the sweep to its end, or continue it, and write its results to ``sweep.out``.

    Raises:
        UserError: for data that are absent, another study of this name, an unreachable storage, or workers that stopped
            early.
        KeyboardInterrupt: passed on once the workers are gone and the results so far are written.
    """
    build_data(typed(compose(sweep.space.overrides))).prepare_data()
    ledger = Ledger.open(sweep.space, sweep.storage, sweep.out)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.sweep.worker"])
    workers = [context.Process(target=work, args=(sweep, index), name=f"worker {index}") for index in range(sweep.workers)]
    try:
        if not ledger.done:
            for worker in workers:
                worker.start()
            _watch(ledger, workers)
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.kill()
                worker.join()
        write_results(ledger, sweep.out)
    if not ledger.done:
        raise UserError(_why(sweep, workers))
    return ledger


def _watch(ledger: Ledger, workers: Sequence[BaseProcess]) -> None:
    """Print a line for each trial that ends, until all workers have."""
    shown = {trial.number for trial in _ended(ledger)}
    with bar() as progress:
        task = progress.add_task(ledger.space.name, total=ledger.space.trials, completed=len(ledger.finished()), note="")
        alive = True
        while alive:
            alive = any(worker.is_alive() for worker in workers)
            for trial in _ended(ledger):
                if trial.number not in shown:
                    shown.add(trial.number)
                    _tell(ledger, trial, progress)
            progress.update(task, completed=len(ledger.finished()))
            time.sleep(POLL_SECONDS if alive else 0)


def _ended(ledger: Ledger) -> list[FrozenTrial]:
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return ledger.study.get_trials(deepcopy=False, states=states)


def _tell(ledger: Ledger, trial: FrozenTrial, progress: Progress) -> None:
    best = best_trial(ledger)
    so_far = (
        "" if best is None else "; the best so far" if best.number == trial.number else f"; best is trial {best.number}"
    )
    progress.console.print(f"{describe(ledger, trial)}{so_far}", highlight=False, soft_wrap=True, markup=False)


def _why(sweep: Sweep, workers: Sequence[BaseProcess]) -> str:
    stopped = [worker.name for worker in workers if worker.exitcode]
    return f"{', '.join(stopped)} stopped early; see {sweep.out / 'workers'}, then the same command continues the sweep"
