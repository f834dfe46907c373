"""Tables in the terminal, cut into blocks of columns that fit its width."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from harness.tables.build import Table
from harness.tables.page import Field, Page, lay_out

SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")
GAP = 2
"""Spaces between columns."""


def print_table(table: Table, console: Console) -> None:
    """Print a table with its footnotes and the commands for what is missing."""
    page = lay_out(table)
    console.print(page.title, style="bold", markup=False, highlight=False)
    if not page.headings:
        console.print("nothing recorded yet", style="yellow")
    for block in _blocks(page, console.width):
        console.print(_grid(page, block))
    for text in page.remarks:
        console.print(text, style="dim", markup=False, highlight=False)
    for number, text in enumerate(page.footnotes, 1):
        console.print(f"{str(number).translate(SUPERSCRIPT)} {text}", style="dim", markup=False, highlight=False)
    if page.missing:
        console.print("missing:", style="yellow")
    for command in page.missing:
        console.print(f"  {escape(command)}", soft_wrap=True, highlight=False)
    console.print()


def _blocks(page: Page, width: int) -> Iterator[list[int]]:
    left = max(map(len, page.labels)) + GAP
    block: list[int] = []
    used = left
    for number in range(len(page.headings)):
        needed = _width(page, number) + GAP
        if block and used + needed > width:
            yield block
            block, used = [], left
        block.append(number)
        used += needed
    if block:
        yield block


def _width(page: Page, number: int) -> int:
    lines = [line for fields in page.fields for line in _cell(fields[number]).plain.split("\n")]
    return max(map(len, [*page.headings[number], *lines]))


def _grid(page: Page, block: list[int]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column("", no_wrap=True)
    for number in block:
        grid.add_column(Text("\n".join(page.headings[number])), justify="right", no_wrap=True)
    for label, fields in zip(page.labels, page.fields, strict=True):
        grid.add_row(Text(label), *(_cell(fields[number]) for number in block))
    return grid


def _cell(field: Field) -> Text:
    text = Text()
    for number, line in enumerate(field.lines):
        style = "dim" if number else "bold" if field.bold else ""
        marks = ",".join(map(str, line.marks)).translate(SUPERSCRIPT)
        text.append("\n" if number else "").append(line.text, style).append(marks, "dim")
    return text
