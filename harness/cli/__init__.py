"""The ``narbench`` command."""

from __future__ import annotations

import sys

import typer

from datasets.errors import UserError
from harness.cli import data, tables
from harness.cli.adapt import adapt
from harness.cli.bench import bench
from harness.cli.measure import measure
from harness.cli.predict import predict
from harness.cli.report import report
from harness.cli.runs import runs
from harness.cli.sweep import sweep
from harness.cli.wandb import app as wandb
from harness.memory import keep_freed_memory
from harness.terminal import InterruptionError, show_error

app = typer.Typer(
    name="narbench",
    help="Train, compare and serve neural-architecture performance predictors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(tables.app, name="tables")
app.add_typer(wandb, name="wandb")
app.command()(runs)
app.command()(bench)
app.command()(measure)
app.command()(adapt)
app.command()(report)
app.command()(predict)
app.command()(sweep)


def main() -> None:
    """Run the command line; a mistake of the user's is one red line on stderr and exit status 2, an interruption 130."""
    keep_freed_memory()
    try:
        app()
    except UserError as error:
        show_error(str(error))
        sys.exit(130 if isinstance(error, InterruptionError) else 2)
