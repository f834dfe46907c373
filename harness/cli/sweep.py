"""``narbench sweep``: search a predictor's configuration."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.records import require_folder
from harness.terminal import say

if TYPE_CHECKING:
    from harness.sweep.ledger import Ledger


def sweep(
    name: Annotated[str, typer.Argument(help="A search space of sweeps/, or a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides for every trial, as run.py takes them.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="one for each GPU")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Finished trials.", show_default="that of the space")] = None,
    storage: Annotated[
        str | None, typer.Option(help="PostgreSQL, for many hosts: postgresql://...", show_default="a journal in --out")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; its name is the study's.", show_default="runs/sweeps/NAME")
    ] = None,
) -> None:
    """Search a predictor's configuration; the same command continues a sweep that was interrupted."""
    from harness.launchers.local import gpus
    from harness.sweep.driver import run
    from harness.sweep.space import read_space
    from harness.sweep.worker import Sweep

    space = read_space(name, overrides or [], trials)
    folder = out or Path("runs/sweeps") / space.name
    require_folder(folder, f"--out {folder}")
    space.name = folder.resolve().name
    try:
        ledger = run(Sweep(space, storage, folder, workers or len(gpus()) or 1))
    except KeyboardInterrupt:
        say(f"interrupted; the same command continues the sweep in {folder}", stderr=True)
        raise typer.Exit(130) from None
    _report(ledger, folder)


def _report(ledger: Ledger, folder: Path) -> None:
    from harness.sweep.report import best_trial, configured_trial, describe

    if (best := best_trial(ledger)) is None:
        say(f"all {ledger.space.trials} trials were pruned; results in {folder}")
        return
    say(f"best of {ledger.space.trials} trials: {describe(ledger, best)}")
    if (configured := configured_trial(ledger)) is not None:
        say(f"without the sweep: {describe(ledger, configured)}")
    places = [text for text in ledger.space.overrides if text.startswith(("dataset.root=", "dataset.cache="))]
    again = shlex.join(["python", "run.py", "--config-dir", str(folder), "experiment=best", *places])
    say(f"run it again: {again}")
    say(f"results in {folder}")
