"""``narbench tables``: result tables from the recorded runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from datasets.errors import UserError
from harness.records import write_text


class Format(StrEnum):
    """How tables are written."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


def tables(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tables of results/tables, or YAML files.", show_default="all")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with records; give it again for more.", show_default="runs and results/records"),
    ] = None,
    format: Annotated[Format | None, typer.Option(help="Instead of a table for the terminal.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to, as Markdown unless --format is given.")] = None,
) -> None:
    """Make the result tables: every figure with its error bar, its published value and what is missing."""
    from harness.tables.build import build
    from harness.tables.definition import known_tables, read_definition
    from harness.tables.formats import FORMATS
    from harness.tables.published import read_published
    from harness.tables.recorded import read_records
    from harness.tables.terminal import print_table

    definitions = [read_definition(name) for name in names or known_tables()]
    if not definitions:
        raise UserError("no table definitions here; give the path of a YAML file, or run in a checkout")
    records, published = read_records(_folders(runs)), read_published()
    for definition in definitions:
        table = build(definition, records, published)
        if out is None and format is None:
            print_table(table, Console())
            continue
        render, suffix = FORMATS[format or Format.markdown]
        if out is None:
            print(render(table), end="")
            continue
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{definition.name}.{suffix}"
        write_text(path, render(table))
        Console().print(path, soft_wrap=True, highlight=False)


def _folders(given: list[Path] | None) -> list[Path]:
    """The folders given, which must exist, or those of the defaults that do."""
    from harness.tables.definition import RESULTS

    if not given:
        return [folder for folder in (Path("runs"), RESULTS / "records") if folder.is_dir()]
    for folder in given:
        if not folder.is_dir():
            raise UserError(f"--runs {folder}: no such folder; give one that holds runs")
    return given
