"""The ``narbench`` command."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from datasets.errors import UserError
from harness.cli import data
from harness.cli.bench import bench
from harness.cli.measure import measure
from harness.cli.predict import predict
from harness.cli.runs import runs
from harness.cli.tables import tables

app = typer.Typer(
    name="narbench",
    help="Train, compare and serve neural-architecture performance predictors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command()(runs)
app.command()(bench)
app.command()(measure)
app.command()(tables)
app.command()(predict)


def main() -> None:
    """Run the command line; a mistake of the user's is one red line on stderr and exit status 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2)
