"""``narbench report``: one HTML file of everything that the recorded runs show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datasets.errors import UserError
from harness.cli.tables import record_folders
from harness.terminal import say


def report(
    names: Annotated[
        list[str] | None, typer.Argument(help="Tables of results/tables, or YAML files.", show_default="all")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with records; give it again for more.", show_default="runs and results/records"),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
) -> None:
    """Write one HTML file: leaderboard, tables, figures, costs and what leaking protocols gain."""
    from harness.metric_facts import METRICS
    from harness.records import require_folder, write_text
    from harness.report.page import render
    from harness.tables.build import build
    from harness.tables.definition import known_tables, read_definition
    from harness.tables.published import read_published
    from harness.tables.recorded import read_records

    definitions = [read_definition(name) for name in names or known_tables()]
    ranked = [definition for definition in definitions if definition.metric in METRICS]
    if not definitions:
        raise UserError("no table definitions here; give the path of a YAML file, or run in a checkout")
    if not ranked:
        raise UserError(
            f"{', '.join(names or [])}: shows costs, which every section of a report has; name a table of test results"
        )
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; give the file to write, such as {out / 'report.html'}")
    records, published = read_records(record_folders(runs)), read_published()
    if not records:
        raise UserError("no recorded runs here; `python run.py` makes one, --runs names other folders")
    require_folder(out.parent, f"--out {out}")
    page = render([build(definition, records, published) for definition in ranked], records)
    write_text(out, page)
    say(str(out))
