"""Hydra's door to narbench's launchers: Hydra accepts launchers from the namespace ``hydra_plugins`` alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from harness.grid import Job


class GridLauncher(Launcher):  # type: ignore[misc]
    """Runs the points of ``python run.py -m`` on one of narbench's executors.

    Args:
        settings: ``backend``, an executor as ``module:Class``, and its arguments.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what composes the points."""
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check every point, then run them all.

        Raises:
            UserError: for a mistake in a point, before any is run, or because some failed, after all were run.
        """
        from harness.grid import executor, run_jobs

        group = time.strftime("grid-%Y%m%d-%H%M%S")
        jobs = [self._job(overrides, job_overrides, group) for overrides in job_overrides]
        outcomes = run_jobs(jobs, executor(self.settings))
        returns = []
        for overrides, outcome in zip(job_overrides, outcomes, strict=True):
            done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            found = [result.selection for result in outcome.results if result.selection is not None]
            done.return_value = statistics.mean(found) if found and len(found) == len(outcome.results) else None
            returns.append(done)
        return returns

    def _job(self, overrides: Sequence[str], grid: Sequence[Sequence[str]], group: str) -> Job:
        from harness import experiment
        from harness.config import require_files
        from harness.grid import Job

        require_files(self.context.config_loader, overrides)
        whole = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        if config.resume is not None:
            config = experiment.resumed(config, list(overrides))
        own = [text for text in overrides if not all(text in others for others in grid)]
        return Job.of(" ".join(own or overrides), config, group)
