"""Plots of a study: history, importance and the Pareto front."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from harness.figures import save
from harness.sweep.ledger import Ledger
from harness.sweep.space import MILLISECONDS, OBJECTIVES

MIN_TRIALS = 4
"""Complete trials from which on importance is computed."""


def write_plots(ledger: Ledger, complete: Sequence[FrozenTrial], configured: FrozenTrial | None, out: Path) -> None:
    """Write ``history.png``, ``importance.png`` (of four trials or more) and, for two objectives, ``pareto.png``."""
    figures = {"history": history(ledger, complete, configured)}
    if len(complete) >= MIN_TRIALS:
        figures["importance"] = importance(ledger)
    if len(ledger.space.objectives) > 1:
        figures["pareto"] = pareto(ledger, complete)
    for name, figure in figures.items():
        save(figure, out / f"{name}.png")


def history(ledger: Ledger, complete: Sequence[FrozenTrial], configured: FrozenTrial | None) -> Figure:
    """The first objective of each trial, the best so far, and a line at what the configuration had without the sweep."""
    figure = Figure(figsize=(6, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    numbers = [trial.number for trial in complete]
    values = np.array([trial.values[0] for trial in complete])
    running = np.maximum.accumulate if ledger.space.directions[0] == "maximize" else np.minimum.accumulate
    axes.scatter(numbers, values, s=18, label="complete", zorder=3)
    axes.step(numbers, running(values), where="post", color="black", linewidth=1, label="best so far")
    if configured is not None:
        axes.axhline(configured.values[0], color="C1", linestyle="--", linewidth=1, label="without the sweep")
    pruned = ledger.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    if pruned:
        axes.scatter([trial.number for trial in pruned], last, s=18, marker="x", color="0.6", label="pruned, last value")
    axes.set_ylim(*_limits(np.array([*values, *last])))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=_label(ledger.space.objectives[0]), title=ledger.space.name)
    figure.legend(frameon=False, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def importance(ledger: Ledger) -> Figure:
    """Share of each key in the variance of good results (PED-ANOVA), a panel for each objective."""
    names = ledger.space.objectives
    keys = list(ledger.space.space)
    figure = Figure(figsize=(1.6 + 3.4 * len(names), 1.3 + 0.32 * len(keys)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*low `target` values")
            found = get_param_importances(ledger.study, params=keys, target=_cost(index, ledger.space.directions[index]))
        shares = dict(reversed(found.items()))
        bars = axes.barh(list(shares), list(shares.values()))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
        axes.set(xlim=(0, 1.15 * max(shares.values())), xlabel="importance", title=_label(name))
        axes.title.set_fontsize("medium")
    return figure


def pareto(ledger: Ledger, complete: Sequence[FrozenTrial]) -> Figure:
    """Every trial's time against its metric; the front, from which no trial is better in both, joined and numbered."""
    figure = Figure(figsize=(6, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    front = sorted(ledger.study.best_trials, key=lambda trial: trial.values[1])
    on_front = {trial.number for trial in front}
    others = [trial.values for trial in complete if trial.number not in on_front]
    axes.scatter([v[1] for v in others], [v[0] for v in others], s=18, color="0.7", label="dominated")
    ends = [trial.values[1] for trial in front], [trial.values[0] for trial in front]
    axes.step(*ends, where="post", linewidth=1)
    axes.scatter(*ends, s=24, label="Pareto front", zorder=3)
    for trial in front:
        axes.annotate(
            str(trial.number), (trial.values[1], trial.values[0]), (4, 4), textcoords="offset points", fontsize="small"
        )
    axes.set_ylim(*_limits(np.array([trial.values[0] for trial in complete])))
    metric, time = ledger.space.objectives
    if max(times := [trial.values[1] for trial in complete]) > 10 * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=_label(time), ylabel=_label(metric), title=ledger.space.name)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _label(objective: str) -> str:
    title = OBJECTIVES[objective].title
    return title if objective == MILLISECONDS else f"validation {title}"


def _cost(index: int, direction: str) -> Callable[[FrozenTrial], float]:
    sign = -1 if direction == "maximize" else 1
    return lambda trial: sign * trial.values[index]


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Ends of an axis on which all but far outliers (beyond four times the middle half's width) are seen."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [0.25, 0.75])
    reach = 4 * (high - low)
    seen = finite[(finite >= low - reach) & (finite <= high + reach)]
    margin = 0.08 * float(np.ptp(seen)) or 0.05 * (math.fabs(float(seen[0])) or 1.0)
    return float(seen.min()) - margin, float(seen.max()) + margin
