"""Which trials are taken, finished or abandoned: exactly as many finish as were asked for, however workers die."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna import Study, Trial
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from datasets.errors import UserError
from harness.sweep.space import Space
from harness.sweep.storage import Locks, open_storage

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States that count towards the number of trials; a failed trial does not."""

ATTEMPTS = 3
"""Times that the values of an abandoned trial are tried: they may be what kills the worker."""

REASON = "error"
"""User attribute of a failed trial: what was raised, in one line."""


class Ledger:
    """A study and the locks of its trials."""

    def __init__(self, study: Study, locks: Locks, space: Space) -> None:
        self.study = study
        self.locks = locks
        self.space = space

    @classmethod
    def open(cls, space: Space, storage: str | None, out: Path) -> Ledger:
        """Create the study, or continue the one of this name.

        The first trial of a new study is the configuration as it is, if the space contains it: what a sweep is worth is
        its difference from that. If it failed it is tried again whenever the study is continued.

        Raises:
            UserError: if that one has another space, or if the storage cannot be reached.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kept, locks = open_storage(storage, space.name, out)
        pruner = _pruner(space)
        with locks.study():
            study = optuna.create_study(
                storage=kept, study_name=space.name, directions=space.directions, pruner=pruner, load_if_exists=True
            )
            for key, value in space.identity.items():
                if study.user_attrs.get(key, value) != value:
                    raise UserError(
                        f"sweep {space.name}: {key} differs from the study that is there; undo the change, or start "
                        "another study with another --out"
                    )
                study.set_user_attr(key, value)
            if space.configured and space.configured not in _tried(study):
                study.enqueue_trial(space.configured)
        return cls(study, locks, space)

    def claim(self) -> Trial | None:
        """The next trial with its values drawn and its lock held, or None while all that are missing are running."""
        with self.locks.study():
            self._retry_abandoned()
            trials = self.study.get_trials(deepcopy=False)
            if sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials) >= self.space.trials:
                return None
            self.study.sampler = _sampler(self.space.sampler, seed=len(trials))
            trial = self.study.ask(self.space.distributions)
            self.locks.try_hold(trial.number)
        return trial

    def finish(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Write down the outcome, unless the trial was given to another worker meanwhile, and free its lock."""
        self.study.tell(trial, values, state, skip_if_finished=True)
        self.locks.release(trial.number)

    def fail(self, trial: Trial, reason: str) -> None:
        """Write down that and why a trial failed; its values are not tried again while this study goes on."""
        trial.set_user_attr(REASON, reason)
        self.finish(trial, TrialState.FAIL)

    def finished(self) -> list[FrozenTrial]:
        """Complete and pruned trials, by number."""
        return self.study.get_trials(deepcopy=False, states=FINISHED)

    @property
    def done(self) -> bool:
        """Whether as many trials are finished as were asked for."""
        return len(self.finished()) >= self.space.trials

    def _retry_abandoned(self) -> None:
        for number in self._running():
            if self.locks.try_hold(number):
                if number in self._running():
                    self._retry(number)
                self.locks.release(number)

    def _running(self) -> list[int]:
        return [trial.number for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def _retry(self, number: int) -> None:
        """Queue the trial's values again, at most once, then mark it as failed."""
        trials = self.study.get_trials(deepcopy=False)
        attempt = trials[number].user_attrs.get("attempt", 1)
        queued = any(trial.user_attrs.get("retry_of") == number for trial in trials)
        if attempt < ATTEMPTS and not queued:
            values = trials[number].system_attrs.get("fixed_params", {}) | trials[number].params
            self.study.enqueue_trial(values, user_attrs={"retry_of": number, "attempt": attempt + 1})
        self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)


def _tried(study: Study) -> list[dict[str, Any]]:
    """Values of the trials that did not fail, those that are yet to begin included."""
    trials = study.get_trials(deepcopy=False)
    return [t.system_attrs.get("fixed_params", {}) | t.params for t in trials if t.state != TrialState.FAIL]


def _sampler(name: str, seed: int) -> BaseSampler:
    """A sampler seeded by the number of trials so far: a continued study draws what an uninterrupted one would."""
    if name == "gp":
        return GPSampler(seed=seed)
    return TPESampler(seed=seed) if name == "tpe" else NSGAIISampler(seed=seed)


def _pruner(space: Space) -> BasePruner:
    if space.pruner == "median":
        return MedianPruner(n_warmup_steps=space.warmup)
    return HyperbandPruner(min_resource=max(1, space.warmup)) if space.pruner == "hyperband" else NopPruner()
