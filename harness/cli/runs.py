"""``narbench runs``: what has been run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasets.errors import UserError
from harness.terminal import say, show_error


def runs(
    folder: Annotated[Path, typer.Argument(help="where the runs are")] = Path("runs"),
    predictor: Annotated[str | None, typer.Option(help="only runs of this predictor")] = None,
    dataset: Annotated[str | None, typer.Option(help="only runs on this benchmark")] = None,
    protocol: Annotated[str | None, typer.Option(help="only runs under this protocol")] = None,
    seed: Annotated[int | None, typer.Option(help="only runs with this seed")] = None,
) -> None:
    """List finished runs, oldest first, then those that are not."""
    from harness.records import RECORD, list_runs, list_unfinished
    from harness.show import show_runs

    wanted = {"predictor": predictor, "dataset": dataset, "protocol": protocol, "seed": seed}
    readable, wrong = list_runs(folder)
    for problem in wrong:
        show_error(problem)
    found = [
        (path, record)
        for path, record in readable
        for facts in [{**record, "dataset": record["dataset"]["name"], "protocol": record["protocol"]["name"]}]
        if all(value is None or facts[key] == value for key, value in wanted.items())
    ]
    unfinished = list_unfinished(folder)
    if not found and not unfinished:
        deeper = [] if readable else sorted({path.parent.parent for path in folder.rglob(RECORD)} - {folder})
        remedy = f"there are some in {', '.join(map(str, deeper[:3]))}" if deeper else "`python run.py` makes one"
        raise UserError(f"{folder}: no run matches; {remedy}")
    if found:
        show_runs(found)
    for path in unfinished:
        say(f"unfinished, or running: resume={path}")
