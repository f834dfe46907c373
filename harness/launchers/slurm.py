"""Runs as jobs of SLURM, through submitit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from datasets.errors import UserError
from harness.grid import Job, Outcome, execute

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL_SECONDS = 10
"""How often SLURM is asked for jobs that have ended."""


class SubmititExecutor:
    """One job array.

    Args:
        cluster: ``slurm``, or ``local`` for processes of this machine, all at once.
        logs: folder of submitit's scripts and of the output of jobs, on the shared file system.
        parameters: of ``submitit.AutoExecutor.update_parameters``; those without a value are left out.
    """

    def __init__(self, cluster: str, logs: str, **parameters: Any) -> None:
        try:
            import submitit
        except ModuleNotFoundError:
            raise UserError("hydra/launcher=submitit needs submitit: pip install -e '.[slurm]' in the checkout") from None
        try:
            self.executor = submitit.AutoExecutor(logs, cluster)
            self.executor.update_parameters(**{key: value for key, value in parameters.items() if value is not None})
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise UserError(f"hydra/launcher=submitit: {' '.join(str(error).split())}") from None
        self.poll_seconds = POLL_SECONDS if cluster == "slurm" else 1

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Yield the number and the outcome of every job as it ends; closing it cancels those left."""
        from submitit.helpers import as_completed

        submitted = self.executor.map_array(Requeued(), jobs)
        numbers = {job.job_id: number for number, job in enumerate(submitted)}
        try:
            for job in as_completed(submitted, poll_frequency=self.poll_seconds):
                yield numbers.pop(job.job_id), _outcome(job)
        finally:
            for job in submitted:
                if job.job_id in numbers:
                    job.cancel(check=False)


class Requeued:
    """A job that submitit submits again when SLURM takes its host away or its time is up."""

    def __call__(self, job: Job) -> Outcome:
        """Run it."""
        return execute(job)

    def checkpoint(self, job: Job) -> DelayedSubmission:
        """What to submit again: a resumable job continues, another starts anew."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _outcome(job: Any) -> Outcome:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        found: Outcome = job.result()
    except (FailedJobError, UncompletedJobError) as error:
        return Outcome(error=f"{' '.join(str(error).split())[:200]}; see {job.paths.stderr}")
    return found
