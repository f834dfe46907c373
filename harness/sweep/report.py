"""What a sweep leaves: the best configurations as experiment files, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from harness.config import NOT_HASHED, compose
from harness.records import write_text
from harness.sweep.ledger import REASON, Ledger
from harness.sweep.plots import write_plots
from harness.sweep.space import OBJECTIVES, Space
from harness.sweep.trial import trial_config


def complete_trials(ledger: Ledger) -> list[FrozenTrial]:
    """Trials with values, by number."""
    return ledger.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_trial(ledger: Ledger) -> FrozenTrial | None:
    """The trial that is best in the first objective, None while there is none."""
    sign = 1 if ledger.space.directions[0] == "maximize" else -1
    return max(complete_trials(ledger), key=lambda trial: sign * trial.values[0], default=None)


def configured_trial(ledger: Ledger) -> FrozenTrial | None:
    """The trial of the configuration as it is without the sweep, None if there is none or it was pruned."""
    values = ledger.space.configured
    return next((trial for trial in complete_trials(ledger) if trial.params == values), None)


def describe(ledger: Ledger, trial: FrozenTrial) -> str:
    """A trial in one line: its number, its objectives or what became of it, and its values."""
    if trial.state == TrialState.COMPLETE:
        names = ledger.space.objectives
        outcome = ", ".join(
            f"{OBJECTIVES[name].short} {value:.4g}" for name, value in zip(names, trial.values, strict=True)
        )
    else:
        failed = f"failed ({trial.user_attrs[REASON]})" if REASON in trial.user_attrs else "abandoned"
        outcome = "pruned" if trial.state == TrialState.PRUNED else failed
    values = " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
    return f"trial {trial.number}: {outcome}; {values}"


def write_results(ledger: Ledger, out: Path) -> None:
    """Write ``experiment/best.yaml``, with two objectives a file for every trial of the Pareto front, and plots."""
    best = best_trial(ledger)
    if best is None:
        return
    chosen = {"best": best}
    if len(ledger.space.objectives) > 1:
        chosen |= {f"pareto-{trial.number:05}": trial for trial in ledger.study.best_trials}
    folder = out / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("pareto-*.yaml"):
        if stale.stem not in chosen:
            stale.unlink()
    for name, trial in chosen.items():
        write_text(folder / f"{name}.yaml", experiment_file(ledger.space, trial.params, describe(ledger, trial)))
    write_plots(ledger, complete_trials(ledger), configured_trial(ledger), out)


def experiment_file(space: Space, values: dict[str, Any], title: str) -> str:
    """An ``experiment=`` file with what a trial's configuration changes of its predictor, dataset and protocol."""
    config = trial_config(space, values, space.seeds[0], Path())
    chosen = {group: config[group].name for group in ("predictor", "dataset", "protocol")}
    base = compose([f"{group}={name}" for group, name in chosen.items()])
    content = {
        "defaults": [{f"override /{group}": name} for group, name in chosen.items()],
        **_difference(_plain(config), _plain(base)),
    }
    return f"# @package _global_\n# Sweep {space.name}, {title}\n{yaml.safe_dump(content, sort_keys=False)}"


def _plain(config: DictConfig) -> dict[str, Any]:
    """The configuration, unresolved, without places, loggers and the seed."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    for key in (*NOT_HASHED, "seed"):
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        node.pop(leaf)
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _difference(content: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The leaves of ``content`` that ``base`` has not, or has with another value."""
    found = {}
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            value = _difference(value, base[key])
            if value:
                found[key] = value
        elif key not in base or base[key] != value:
            found[key] = value
    return found
