"""``narbench bench``: speed on this machine, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datasets.errors import UserError
from harness.cli.data import benchmark
from harness.terminal import say

if TYPE_CHECKING:
    from datasets.store import GraphStore


class Group(StrEnum):
    """What is measured."""

    data = "data"
    train = "train"
    predict = "predict"
    all = "all"
    attention = "attention"
    seeds = "seeds"


def bench(
    what: Annotated[Group, typer.Argument(help="what to measure")] = Group.all,
    root: Annotated[Path | None, typer.Option(help="folder with NAS-Bench-101")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the result to this file")] = None,
) -> None:
    """Measure speed and print one flat JSON object: medians of repeated runs, to four significant digits."""
    from harness.records import write_text

    text = json.dumps({name: float(f"{value:.4g}") for name, value in _figures(what, root)}, indent=1)
    print(text)
    if json_file:
        write_text(json_file, text + "\n")


def _figures(what: Group, root: Path | None) -> Iterator[tuple[str, float]]:
    """What is measured, by name; ``attention`` and ``seeds`` take minutes and are no part of ``all``."""
    if what is Group.attention:
        from harness.bench_attention import bench_attention

        return bench_attention()
    if what is Group.seeds:
        from harness.stacked_bench import bench_seeds

        return bench_seeds()
    from harness.bench import run

    return run(what.value, _store(what, root))


def _store(what: Group, root: Path | None) -> GraphStore | None:
    if what in (Group.train, Group.predict):
        return None
    try:
        return benchmark("nasbench101", root=root).open_store()
    except UserError as error:
        if what is Group.data or root:
            raise
        say(f"data figures left out: {error}", "yellow", stderr=True)
        return None
