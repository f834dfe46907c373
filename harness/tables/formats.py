"""Tables as Markdown, LaTeX, HTML and CSV: each format is a function from a built table to text."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from typing import Any

from harness.metric_facts import MINUS
from harness.tables.build import Entry, Table
from harness.tables.page import NOTHING, Field, Page, lay_out

LATEX = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    MINUS: "$-$",
    NOTHING: "--",
}
"""What LaTeX takes for a command or does not have in every font."""

STYLE = """
body { font-family: sans-serif; margin: 2em }
table { border-collapse: collapse }
tr { border-bottom: 1px solid }
td, th { padding: .2em .8em; text-align: right }
tbody th { text-align: left }
"""

CSV_FIELDS = (
    *("table", "metric", "predictor", "label", "dataset", "protocol", "train", "family", "platform"),
    *("mean", "half_width_95", "seeds", "missing_seeds", "configurations", "selected_on_test"),
    *("standing", "p_holm", "common_seeds", "reason"),
    *("published", "delta", "published_source", "published_confidence", "published_note"),
)


def markdown(table: Table) -> str:
    """A GitHub table with footnotes, and the missing runs as commands."""
    page = lay_out(table)
    headings = ["", *(f"{_markdown(label)}<br>{_markdown(protocol)}" for label, protocol in page.headings)]
    rows = [
        [_markdown(label), *(_cell(field, _markdown, "**{}**", "<sup>{}</sup>", "<br>") for field in fields)]
        for label, fields in zip(page.labels, page.fields, strict=True)
    ]
    lines = [headings, ["---", *["---:"] * len(page.headings)], *rows]
    notes = [f"{number}. {_markdown(text)}" for number, text in enumerate(page.footnotes, 1)]
    blocks = [f"## {_markdown(page.title)}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    blocks += [_markdown(text) for text in page.remarks] + (["\n".join(notes)] if notes else [])
    if page.missing:
        blocks.append("Missing:\n\n```\n" + "\n".join(page.missing) + "\n```")
    return "\n\n".join(blocks) + "\n"


def latex(table: Table) -> str:
    """A ``table`` environment; needs the package booktabs. The missing runs are comments."""
    page = lay_out(table)
    headings = [rf"\shortstack{{{_latex(label)}\\{_latex(protocol)}}}" for label, protocol in page.headings]
    rows = [
        [_latex(label), *(_cell(field, _latex, r"\textbf{{{}}}", r"\textsuperscript{{{}}}", r"\\") for field in fields)]
        for label, fields in zip(page.labels, page.fields, strict=True)
    ]
    body = [" & ".join([row[0], *map(_stacked, row[1:])]) + r" \\" for row in rows]
    notes = [rf"\textsuperscript{{{number}}} {_latex(text)}" for number, text in enumerate(page.footnotes, 1)]
    lines = [
        *(rf"% missing: {command}" for command in page.missing),
        *(r"\begin{table}", r"\centering", rf"\caption{{{_latex(page.title)}}}", rf"\label{{tab:{page.name}}}"),
        rf"\begin{{tabular}}{{l{'r' * len(headings)}}}",
        *(r"\toprule", " & ".join(["", *headings]) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}"),
        *(rf"\par\footnotesize {text}" for text in [*map(_latex, page.remarks), *notes]),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def html_page(table: Table) -> str:
    """A page of its own without scripts."""
    page = lay_out(table)
    heads = "".join(f"<th>{html.escape(label)}<br>{html.escape(protocol)}</th>" for label, protocol in page.headings)
    rows = [
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(f"<td>{_cell(field, html.escape, '<b>{}</b>', '<sup>{}</sup>', '<br>')}</td>" for field in fields)
        + "</tr>"
        for label, fields in zip(page.labels, page.fields, strict=True)
    ]
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(page.title)}</title>',
            f"<style>{STYLE}</style>",
            f"<h1>{html.escape(page.title)}</h1>",
            f"<table>\n<thead><tr><th></th>{heads}</tr></thead>\n<tbody>",
            *rows,
            "</tbody>\n</table>",
            *(f"<p>{html.escape(text)}</p>" for text in page.remarks),
            *_html_lists(page),
            "</html>\n",
        ]
    )


def comma_separated(table: Table) -> str:
    """One line for each cell, with every figure in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_facts(table, entry) for row in table.entries for entry in row)
    return text.getvalue()


FORMATS: dict[str, tuple[Callable[[Table], str], str]] = {
    "markdown": (markdown, "md"),
    "latex": (latex, "tex"),
    "csv": (comma_separated, "csv"),
    "html": (html_page, "html"),
}
"""Renderers and suffixes by name."""


def _cell(field: Field, escape: Callable[[str], str], bold: str, mark: str, newline: str) -> str:
    lines = []
    for number, line in enumerate(field.lines):
        text = escape(line.text)
        marks = mark.format(",".join(map(str, line.marks))) if line.marks else ""
        lines.append((bold.format(text) if field.bold and number == 0 else text) + marks)
    return newline.join(lines)


def _markdown(text: str) -> str:
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return text


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _stacked(cell: str) -> str:
    return rf"\shortstack[r]{{{cell}}}" if r"\\" in cell else cell


def _html_lists(page: Page) -> list[str]:
    lists = []
    if page.footnotes:
        lists.append("<ol>\n" + "\n".join(f"<li>{html.escape(text)}</li>" for text in page.footnotes) + "\n</ol>")
    if page.missing:
        lists.append("<p>Missing:</p>\n<pre>" + html.escape("\n".join(page.missing)) + "</pre>")
    return lists


def _facts(table: Table, entry: Entry) -> dict[str, Any]:
    """A value that does not exist is None, which is written as nothing."""
    row, column, summary, standing, published = entry.row, entry.column, entry.summary, entry.standing, entry.published
    return {
        "table": table.definition.name,
        "metric": column.metric,
        "predictor": row.predictor,
        "label": row.label,
        "dataset": column.dataset,
        "protocol": column.protocol,
        "train": column.train,
        "family": column.family,
        "platform": column.platform,
        "mean": summary and summary.mean,
        "half_width_95": summary and summary.half_width,
        "seeds": summary.count if summary else 0,
        "missing_seeds": " ".join(map(str, entry.missing)),
        "configurations": entry.cell.configurations,
        "selected_on_test": entry.cell.selects_on_test,
        "standing": standing.place,
        "p_holm": standing.p,
        "common_seeds": standing.seeds or None,
        "reason": standing.reason,
        "published": published and published.value,
        "delta": entry.delta,
        "published_source": published and published.source,
        "published_confidence": published and published.confidence,
        "published_note": published and published.note,
    }
