"""Many runs of one command: what a job is, how it is run in any process, and how the results of all are told."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from datasets.errors import UserError
from harness import experiment, loggers
from harness.config import compose, require_one_device, typed
from harness.experiment import Result
from harness.records import CONFIG, BusyError, RunFolder
from harness.registry import load
from harness.show import show_result, show_runs
from harness.stacked_runs import run_seeds
from harness.terminal import InterruptionError, say


@dataclass(frozen=True)
class Job:
    """One run, ready to be sent to another process or host.

    Attributes:
        name: the overrides that tell it from the other jobs.
        config: its configuration, with the interpolations by which a seed decides the split.
        directory: what relative paths start from.
        resumable: its folder is ``config.out`` whoever runs it: what is finished is kept, what was interrupted continued.
        start_before: Unix time from which on it is not started any more.
    """

    name: str
    config: Mapping[str, Any]
    directory: str
    resumable: bool = False
    start_before: float | None = None

    @classmethod
    def of(cls, name: str, config: DictConfig, group: str, **more: Any) -> Job:
        """Check a composed configuration and make it a job.

        Raises:
            UserError: for any mistake in the configuration, or if it wants more than one device.
        """
        checked = typed(config)
        require_one_device(checked.trainer, f"{name}: a grid")
        content = OmegaConf.to_container(config)
        assert isinstance(content, dict)
        content["logger"]["group"] = checked.logger.group or group
        return cls(name, {str(key): value for key, value in content.items()}, os.fspath(Path.cwd()), **more)


@dataclass(frozen=True)
class Outcome:
    """How a job went.

    Attributes:
        results: what it left behind, one for each seed of a stack.
        error: why there is nothing, in one line.
        skipped: why it was not started.
    """

    results: tuple[Result, ...] = ()
    error: str = ""
    skipped: str = ""


class Executor(Protocol):
    """Something that runs jobs side by side."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield the number and the outcome of every job as it ends, starting them in order; closing it stops those left."""


def executor(settings: Mapping[str, Any]) -> Executor:
    """What a ``hydra/launcher`` file describes: ``backend: module:Class`` and the arguments of the class."""
    arguments = {key: value for key, value in settings.items() if key not in ("_target_", "backend")}
    made: Executor = load(settings["backend"])(**arguments)
    return made


def named_executor(name: str, overrides: Sequence[str]) -> Executor:
    """The launcher of that name.

    Args:
        name: a file of ``conf/hydra/launcher``.
        overrides: such as ``hydra.launcher.n_workers=2``.

    Raises:
        UserError: for an unknown launcher or key.
    """
    config = compose([f"hydra/launcher={name}", *overrides], with_hydra=True)
    settings = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    if not isinstance(settings, dict) or "backend" not in settings:
        raise UserError(f"launcher {name}: only for `python run.py -m`; choose local, ray or submitit")
    return executor({str(key): value for key, value in settings.items()})


def execute(job: Job) -> Outcome:
    """Run a job and say how it went; whatever goes wrong in it stays with it."""
    if job.start_before is not None and time.time() >= job.start_before:
        return Outcome(skipped="the time was up")
    try:
        with contextlib.chdir(job.directory), contextlib.ExitStack() as cleanup:
            cleanup.callback(loggers.close_unfinished)
            return _run(job)
    except (Timeout, BusyError):
        return Outcome(skipped="another process is running it")
    except UserError as error:
        return Outcome(error=str(error))
    except Exception as error:  # another exception may not survive being sent, which would take every other job with it
        traceback.print_exc()
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())}")


def run_jobs(jobs: Sequence[Job], executor: Executor) -> list[Outcome]:
    """Run every job, print each result as it comes and the failed ones at the end.

    Raises:
        UserError: if a job failed; the results of the others are kept.
        InterruptionError: after Ctrl-C, with a message that says how the jobs are finished.
    """
    if not jobs:
        return []
    outcomes: dict[int, Outcome] = {}
    try:
        with contextlib.closing(executor.outcomes(jobs)) as stream:  # type: ignore[type-var]
            for number, outcome in stream:
                outcomes[number] = outcome
                _show(jobs[number], outcome, f"[{len(outcomes)}/{len(jobs)}]")
    except KeyboardInterrupt:
        kept = sum(bool(outcome.results) for outcome in outcomes.values())
        again = "the same command finishes the others"
        listed = f"`narbench runs {jobs[0].config['runs']}` lists the unfinished ones with their resume="
        remedy = again if jobs[0].resumable else listed
        raise InterruptionError(f"interrupted; {kept} of {len(jobs)} runs are finished and kept; {remedy}") from None
    _summarise(jobs, outcomes)
    return [outcomes[number] for number in range(len(jobs))]


def _run(job: Job) -> Outcome:
    config = OmegaConf.create(dict(job.config))
    if not job.resumable:
        return Outcome(tuple(run_seeds(config)) if config.seeds else (experiment.run(config),))
    folder = Path(config.out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
        finished = RunFolder(folder).record()
        if finished:
            return Outcome((Result(RunFolder(folder), finished),))
        if (folder / CONFIG).is_file():
            config.resume = os.fspath(folder)
            config = experiment.resumed(config, experiment.PLACES)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # was killed before it began
        return Outcome((experiment.run(config),))


def _show(job: Job, outcome: Outcome, count: str) -> None:
    if outcome.skipped:
        return
    say(f"{count} {job.name}", "bold cyan")
    for result in outcome.results:
        show_result(result)
    if outcome.error:
        say(f"failed: {outcome.error}", "yellow", stderr=True)


def _summarise(jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
    results = [result for number in sorted(outcomes) for result in outcomes[number].results]
    if len(results) > 1:
        show_runs([(result.folder.path, result.record) for result in results])
    failed = [number for number in sorted(outcomes) if outcomes[number].error]
    for reason, count in Counter(outcome.skipped for outcome in outcomes.values() if outcome.skipped).items():
        say(f"{count} of {len(jobs)} runs were not started: {reason}")
    if failed:
        lines = "".join(f"\n  {jobs[number].name}: {outcomes[number].error}" for number in failed)
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed; the others are kept{lines}")
