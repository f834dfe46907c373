"""``narbench adapt``: few-shot transfer of a trained latency predictor to another device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from datasets.errors import UserError
from harness.terminal import say

if TYPE_CHECKING:
    from harness.adapt import Adaptation
    from harness.adapt_result import Result
    from harness.records import RunFolder
    from harness.tables.cells import Summary


def adapt(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run on whole networks.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(help="Latencies on the other device: gt.txt, a folder of `narbench measure`, or a prepared store."),
    ],
    k: Annotated[
        list[str] | None,
        typer.Option(
            "--k", help="Networks that train; several, or separated by commas.", show_default="8, 16, ... to half the data"
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of these networks.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, the same for every k.")] = 1000,
    platform: Annotated[str | None, typer.Option(help="Device, of data on several.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw; the others count on from it.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the result.", show_default="a new one in runs")] = None,
) -> None:
    """Adapt a trained latency predictor to another device from k measured networks, and draw the learning curve."""
    from harness.adapt import Adaptation, Options
    from harness.adapt_result import Progress, Result, write_run

    adaptation = Adaptation(run, data, Options(_numbers(k), draws, steps, seed, platform, out))
    _introduce(adaptation)
    largest = adaptation.sizes[-1]
    config = adaptation.config(adaptation.draws[0], largest)
    progress = Progress(adaptation, config)
    say(f"results go to {progress.folder.path}; interrupted, the same command with --out {progress.folder.path} continues")
    for point, predictor, predictions in adaptation.points(progress.done):
        if predictor is not None and (point.draw, point.k, point.method) == (0, largest, "adapted"):
            write_run(adaptation, progress.folder, config, predictor, predictions)
        progress.add(point)
    result = Result(adaptation, progress.points)
    result.write(progress.folder)
    _report(result, progress.folder)


def _numbers(given: list[str] | None) -> list[int] | None:
    if not given:
        return None
    try:
        return [int(text) for part in given for text in part.split(",")]
    except ValueError:
        raise UserError(f"k={','.join(given)}: give whole numbers, separated by commas") from None


def _introduce(adaptation: Adaptation) -> None:
    facts, data, options = adaptation.source.facts, adaptation.draws[0], adaptation.options
    name, evaluated = adaptation.source.config.predictor.name, len(data.parts.test)
    say(
        f"{name} of {facts['run']}: the encoder of its weights {facts['weights']!r} (step {facts['step']:,}, chosen by "
        f"{facts['selection']}) and a new head"
    )
    if facts["leaks"]:
        say(f"that run: {facts['leaks']}", "yellow")
    say(
        f"{len(data.store):,} networks of {data.config.root}: k = {', '.join(map(str, adaptation.sizes))} train for "
        f"{options.steps:,} steps, the last weights are taken; {evaluated:,} others are predicted; {options.draws} draws"
    )
    if adaptation.seen:
        say(
            f"{adaptation.seen:,} of these {evaluated:,} trained the run: that helps adapting and scaling. For networks "
            "new to it measure others (`narbench measure --seed 1`)",
            "yellow",
        )
    elif adaptation.seen is None:
        say("whether the run was trained on some of them is not known: its data or its origin are gone", "yellow")


def _report(result: Result, folder: RunFolder) -> None:
    from harness.adapt_result import CURVE, FIGURE

    Console().print(_table(result))
    say("mean ± 95 % confidence interval over draws; scaled: the run's own predictions times one factor fitted on the k")
    say(_verdict(result))
    for name in (CURVE, FIGURE):
        say(str(folder.path / name))
    largest = result.adaptation.sizes[-1]
    say(f"predictor adapted to {largest} networks (first draw): narbench predict {folder.path} MODEL.onnx")


def _table(result: Result) -> Table:
    from harness.adapt_result import SHOWN, TITLES
    from harness.metric_facts import METRICS

    table = Table(header_style="bold", box=None)
    table.add_column("k", justify="right")
    table.add_column("predictor")
    for name in SHOWN:
        table.add_column(METRICS[name].short, justify="right")
    for k in result.adaptation.sizes:
        means = {method: result.summary(k, method, "mape_percent") for method in TITLES}
        best = min((summary.mean for summary in means.values() if summary), default=None)
        for method, title in TITLES.items():
            found = [(result.summary(k, method, name), METRICS[name]) for name in SHOWN]
            cells = ["failed" if each is None else each.text(metric) for each, metric in found]
            summary = means[method]
            style = "bold" if summary and summary.mean == best else ""
            table.add_row(str(k) if method == "adapted" else "", title, *cells, style=style)
    return table


def _verdict(result: Result) -> str:
    """What the largest k shows, draw by draw."""
    k = result.adaptation.sizes[-1]
    parts = [
        f"{_difference(gain)} {name}"
        for method, name in (("scaled", "the scaled run"), ("scratch", "training from scratch"))
        if (gain := result.gain(k, method))
    ]
    return f"k = {k}: adapting has a MAPE {' and '.join(parts)}, draw by draw" if parts else f"k = {k}: adapting failed"


def _difference(gain: Summary) -> str:
    from harness.metric_facts import METRICS

    side = "below" if gain.mean > 0 else "above"
    unclear = " (not clear)" if gain.half_width is not None and abs(gain.mean) <= gain.half_width else ""
    distance = replace(gain, mean=abs(gain.mean))
    return f"{distance.text(METRICS['mape_percent'])} points {side}{unclear}"
