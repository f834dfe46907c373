"""``narbench wandb``: send finished runs to wandb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from harness.terminal import say

app = typer.Typer(help="Send finished runs to wandb.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Send finished runs to wandb."""


@app.command()
def push(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs, or folders of runs.", show_default="runs")] = None,
) -> None:
    """Upload finished runs that wandb does not have yet; WANDB_MODE=offline only makes the files to upload."""
    from harness.wandb_push import finished_runs, upload, write_local

    folders = finished_runs(runs or [Path("runs")])
    made = sum(write_local(folder) for folder in folders)
    say(f"finished runs: {len(folders)}; wandb's files made of {made} records, the others have theirs")
    if os.environ.get("WANDB_MODE") != "offline":
        say(f"{upload(folders)} uploaded")
