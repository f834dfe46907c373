"""``narbench measure``: latencies of this machine, in NNLQP's folder format."""

from __future__ import annotations

import statistics
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from harness.terminal import say

if TYPE_CHECKING:
    from harness.measure import Campaign

UNSTEADY = 0.1
"""Relative variation, or slowdown, of the reference from which on the user is warned."""


class DeviceName(StrEnum):
    """What can be measured on."""

    ort_cpu = "ort-cpu"


def measure(
    out: Annotated[Path, typer.Option(help="Folder of the result; an interrupted run continues in it.")],
    device: Annotated[DeviceName, typer.Option(help="ONNX Runtime on cores of this machine.")] = DeviceName.ort_cpu,
    families: Annotated[str, typer.Option(help="Families of networks, separated by commas.")] = "all",
    per_family: Annotated[int, typer.Option(min=1, help="Variants of each family.")] = 60,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one inference, each on a core of its own.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the variants and of the order in which they run.")] = 0,
) -> None:
    """Measure random variants of common network families on this machine; keep it quiet meanwhile."""
    from filelock import FileLock, Timeout

    from datasets.errors import UserError
    from harness.measure import JOURNAL, Campaign, Rules, choose_samples, settings, with_measured, write_corpus
    from harness.measure_journal import Journal
    from harness.ort_cpu import OrtCpu, pinned

    asked, runtime, rules = choose_samples(families, per_family), OrtCpu(threads), Rules()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0), pinned(threads) as cores:
            journal = Journal.open(out / JOURNAL, settings(runtime.facts, rules, seed))
            campaign = Campaign(with_measured(asked, journal), runtime, journal, rules, seed)
            _run(campaign, out)
            write_corpus(out, campaign, {**runtime.facts, "cores": cores})
    except Timeout:
        raise UserError(
            f"{out}: another `narbench measure` is writing there; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); check its permissions and the disk") from None
    _report(campaign, out)


def _run(campaign: Campaign, out: Path) -> None:
    from harness.progress import QUIET_SECONDS, bar, console

    printed = time.monotonic()
    try:
        with bar() as progress:
            task = progress.add_task("measuring", note="")

            def show(round_: int, done: int, total: int) -> None:
                nonlocal printed
                text = f"round {round_ + 1}" if round_ else "measuring"
                progress.update(task, description=text, completed=done, total=total)
                if not console.is_terminal and time.monotonic() - printed > QUIET_SECONDS:
                    console.print(f"{text}: {done}/{total}", highlight=False)
                    printed = time.monotonic()

            campaign.run(show)
    except KeyboardInterrupt:
        say(f"interrupted; the same command continues from {campaign.journal.path}", stderr=True)
        raise typer.Exit(130) from None


def _report(campaign: Campaign, out: Path) -> None:
    from datasets.ortcpu import DEVICE, TABLE

    noise = campaign.noise()
    Console().print(_table(campaign))
    say(
        f"noise: the reference varied by {noise['reference_iqr']:.1%} (interquartile range), its median "
        f"{noise['reference_slowdown']:.1%} above its quickest run; repeats of one network varied by "
        f"{noise['sample_iqr_median']:.1%}; {noise['measured_again']} of {len(campaign.samples)} networks measured again, "
        f"{len(noise['still_restless'])} still restless"
    )
    if max(noise["reference_iqr"], noise["reference_slowdown"]) > UNSTEADY:
        say("the machine was not quiet; measure again, into another --out", "yellow")
    for name in (TABLE, DEVICE, campaign.journal.path.name):
        say(str(out / name))


def _table(campaign: Campaign) -> Table:
    final = campaign.journal.quietest()
    latencies: dict[str, list[float]] = {}
    for sample in campaign.samples:
        latencies.setdefault(sample.family, []).append(final[sample.name][1].median_ms)
    table = Table("family", box=None)
    for heading in ("networks", "fastest, ms", "median", "slowest"):
        table.add_column(heading, justify="right")
    for family, values in latencies.items():
        shown = (min(values), statistics.median(values), max(values))
        table.add_row(family, str(len(values)), *(f"{value:.2f}" for value in shown))
    return table
