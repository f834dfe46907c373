"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.errors import UserError
from harness.grid import Job, Outcome, execute


class RayExecutor:
    """A task for each run; Ray places them on the cluster's hosts and gives them their GPUs and threads.

    Args:
        address: of the cluster; by default ``RAY_ADDRESS``, one that runs on this host, or a new one of this machine alone.
        cpus: cores of a run.
        gpus: GPUs of a run, fractions allowed; by default one if the cluster has any.
        init: more arguments of ``ray.init``.
    """

    def __init__(
        self, address: str | None = None, cpus: float = 1, gpus: float | None = None, init: Mapping[str, Any] | None = None
    ) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("hydra/launcher=ray needs Ray: pip install -e '.[ray]' in the checkout") from None
        self.ray: Any = ray
        self.cpus = cpus
        self.gpus = gpus
        self.init = {"address": address, "include_dashboard": False, **(init or {})}

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield the number and the outcome of every job as it ends; closing it cancels those left."""
        ours = not self.ray.is_initialized()
        if ours:
            self._connect()
        task = self.ray.remote(**self._resources())(execute)
        pending = {task.remote(job): number for number, job in enumerate(jobs)}
        try:
            while pending:
                (ready,), _ = self.ray.wait(list(pending))
                yield pending.pop(ready), self._outcome(ready)
        finally:
            for reference in pending:
                self.ray.cancel(reference, force=True)
            if ours:
                self.ray.shutdown()

    def _connect(self) -> None:
        try:
            self.ray.init(**self.init)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"hydra.launcher.address={self.init['address']}: no Ray cluster there ({error})") from None

    def _resources(self) -> dict[str, Any]:
        gpus = self.gpus if self.gpus is not None else min(1.0, self.ray.cluster_resources().get("GPU", 0.0))
        quiet = {"env_vars": {"TTY_COMPATIBLE": "0"}}
        return {"num_cpus": self.cpus, "num_gpus": gpus, "max_retries": 0, "runtime_env": quiet}

    def _outcome(self, reference: Any) -> Outcome:
        try:
            found: Outcome = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return Outcome(error=f"its Ray task failed ({' '.join(str(error).split())})")
        return found
