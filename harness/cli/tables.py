"""``narbench tables``: result tables from the recorded runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from datasets.errors import UserError
from harness.terminal import say


class ShowByDefault(TyperGroup):
    """``narbench tables NAME`` stands for ``narbench tables show NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command where there is none."""
        if not args or args[0] not in (*self.commands, "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ShowByDefault, help="Result tables. `narbench tables NAME...` is short for `narbench tables show NAME...`."
)

Runs = Annotated[
    list[Path] | None,
    typer.Option(help="Folder with records; give it again for more.", show_default="runs and results/records"),
]


class Format(StrEnum):
    """How tables are written."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


@app.command()
def show(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tables of results/tables, or YAML files.", show_default="all")
    ] = None,
    runs: Runs = None,
    format: Annotated[Format | None, typer.Option(help="Instead of a table for the terminal.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to, as Markdown unless --format is given.")] = None,
) -> None:
    """Make the result tables: every figure with its error bar, its published value and what is missing."""
    from harness.records import require_folder, write_text
    from harness.tables.build import build
    from harness.tables.definition import known_tables, read_definition
    from harness.tables.formats import FORMATS
    from harness.tables.published import read_published
    from harness.tables.recorded import read_records
    from harness.tables.terminal import print_table

    definitions = [read_definition(name) for name in names or known_tables()]
    if not definitions:
        raise UserError("no table definitions here; give the path of a YAML file, or run in a checkout")
    if out is not None:
        require_folder(out, f"--out {out}")
    records, published = read_records(record_folders(runs)), read_published()
    for definition in definitions:
        table = build(definition, records, published)
        if out is None and format is None:
            print_table(table, Console())
            continue
        render, suffix = FORMATS[format or Format.markdown]
        if out is None:
            print(render(table), end="")
            continue
        path = out / f"{definition.name}.{suffix}"
        write_text(path, render(table))
        say(str(path))


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="A table of results/tables, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Of every run, such as dataset.root=FOLDER, or of hydra.launcher.")
    ] = None,
    only_missing: Annotated[bool, typer.Option("--only-missing", help="Leave out what some record fills.")] = False,
    max_hours: Annotated[float | None, typer.Option(min=0, help="Start no run after this time.")] = None,
    launcher: Annotated[str, typer.Option(help="local, ray or submitit.")] = "local",
    runs: Runs = None,
) -> None:
    """Make the runs of a table, cheapest first; what was interrupted is continued."""
    from harness.grid import named_executor, run_jobs
    from harness.tables.definition import read_definition
    from harness.tables.recorded import read_records
    from harness.tables.run import plan

    definition, records = read_definition(name), read_records(record_folders(runs))
    executor = named_executor(launcher, [text for text in overrides or [] if _is_launchers(text)])
    changes = [text for text in overrides or [] if not _is_launchers(text)]
    planned = plan(definition, records, changes, only_missing, max_hours)
    hours = sum(one.seconds for one in planned) / 3600
    say(f"{definition.name}: {len(planned)} runs to make, about {hours:.2g} hours of one worker")
    run_jobs([one.job for one in planned], executor)


def _is_launchers(override: str) -> bool:
    return override.lstrip("+~").startswith("hydra.launcher.")


def record_folders(given: list[Path] | None) -> list[Path]:
    """The folders given, which must exist, or those of the defaults that do."""
    from harness.tables.definition import RESULTS

    if not given:
        return [folder for folder in (Path("runs"), RESULTS / "records") if folder.is_dir()]
    for folder in given:
        if not folder.is_dir():
            raise UserError(f"--runs {folder}: no such folder; give one that holds runs")
    return given
