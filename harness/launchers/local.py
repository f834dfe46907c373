"""Runs in processes of this machine, one for each GPU or each group of cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

import torch
from joblib import cpu_count  # type: ignore[import-untyped]

from datasets.errors import UserError
from harness.grid import Job, Outcome, execute

PATIENCE_SECONDS = 10
"""What a process is given to end before it is made to."""


class LocalExecutor:
    """A process a GPU, each seeing its own; without GPUs as many as there are cores or jobs, the cores shared evenly.

    Args:
        n_workers: processes; more of them than GPUs share these.
        threads: threads of a process; by default ``OMP_NUM_THREADS``, or its share of the cores.

    Raises:
        UserError: for fewer than one.
    """

    def __init__(self, n_workers: int | None = None, threads: int | None = None) -> None:
        for name, value in {"n_workers": n_workers, "threads": threads}.items():
            if value is not None and value < 1:
                raise UserError(f"hydra.launcher.{name}={value}: give 1 or more")
        self.n_workers = n_workers
        self.threads = threads

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield the number and the outcome of every job as it ends; closing it ends the processes."""
        waiting = deque(range(len(jobs)))
        idle = [Worker(environment) for environment in self.environments(len(jobs))]
        busy: dict[Connection, tuple[Worker, int]] = {}
        try:
            while waiting or busy:
                while waiting and idle:
                    worker, number = idle.pop(), waiting.popleft()
                    busy[worker.start(jobs[number])] = worker, number
                ready = wait(list(busy))
                for connection in [connection for connection in busy if connection in ready]:
                    worker, number = busy.pop(connection)
                    idle.append(worker)
                    yield number, worker.outcome()
        finally:
            for worker in [worker for worker, _ in busy.values()]:
                worker.process.terminate()
            for worker in [*idle, *(worker for worker, _ in busy.values())]:
                worker.stop()

    def environments(self, jobs: int) -> list[dict[str, str]]:
        """The environment of each process: its GPU, its threads, and no progress bars between those of the others."""
        cores, devices = cpu_count(), gpus()
        room = len(devices) or cores // (self.threads or 1)
        count = min(jobs, self.n_workers or max(1, room))
        threads = self.threads or os.environ.get("OMP_NUM_THREADS") or max(1, cores // max(1, count))
        common = {"OMP_NUM_THREADS": str(threads), "TTY_COMPATIBLE": "0"}
        return [common | ({"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} if devices else {}) for n in range(count)]


class Worker:
    """A process that runs one job at a time; it is replaced if it dies."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._spawn()

    def start(self, job: Job) -> Connection:
        """Give it a job; the connection is ready when that has ended."""
        self.connection.send(job)
        return self.connection

    def outcome(self) -> Outcome:
        """The outcome of the job that has ended."""
        try:
            found: Outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.stop()
            code = self.process.exitcode
            self._spawn()
            return Outcome(error=f"its process died (exit status {code}; -9 is often a lack of memory)")
        return found

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(PATIENCE_SECONDS)
        self.process.kill()
        self.process.join()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        with _environment(self.environment):
            self.process.start()
        theirs.close()


def gpus() -> list[str]:
    """Names of the visible GPUs, as ``CUDA_VISIBLE_DEVICES`` has them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(torch.cuda.device_count())]
    return chosen.split(",")[: len(names)] if chosen else names


def _serve(connection: Connection) -> None:
    """Run the jobs that come, in the process of a worker; the user's Ctrl-C is its parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        while True:
            try:
                outcome = execute(connection.recv())
            except KeyboardInterrupt:  # what training makes of its parent's SIGTERM
                sys.exit(130)
            connection.send(outcome)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that a process started meanwhile inherits: libraries read theirs when they are first imported."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
