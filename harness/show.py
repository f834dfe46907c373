"""What a person sees of results in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.metric_facts import METRICS, selection_metric
from harness.records import list_runs
from harness.terminal import say

if TYPE_CHECKING:
    from harness.experiment import Result

YARDSTICKS = ("params", "flops", "knn", "boosting")
"""Predictors shown beside every result that shares their data and split."""

SHOWN = {
    "accuracy": ("spearman", "mape_percent", "rmse", "regret_top10"),
    "latency": ("acc_10_percent", "acc_5_percent", "kendall_tau", "rmse"),
}
"""Test metrics of the terminal table beside the selection metric, by task."""

HEADINGS = {name: metric.short for name, metric in METRICS.items()} | {"rmse": "RMSE", "regret_top10": "regret"}


def show_result(result: Result) -> None:
    """Print a run's table: every set of weights on the test set, then yardsticks of the same split if they were run."""
    record = result.record
    protocol, task = record["protocol"], record["dataset"]["task"]
    metric, mode = selection_metric(task)
    splits = [split for split in ("val", "test", "rest") if split in record["metrics"]]
    table = Table(header_style="bold")
    table.add_column("weights", no_wrap=True)
    for heading in (*(f"{split} {HEADINGS[metric]}" for split in splits), *(HEADINGS[name] for name in SHOWN[task])):
        table.add_column(heading, justify="right", no_wrap=True)
    for weights, scores in record["weights"].items():
        chosen = weights == record["selected_weights"]
        cells = _cells(scores, metric, splits, task)
        table.add_row(f"{weights} *" if chosen else weights, *cells, style="bold" if chosen else "")
    table.add_section()
    yardsticks = _yardsticks(record, result.folder.path.parent)
    for other in yardsticks:
        table.add_row(other["predictor"], *_cells(other["metrics"], metric, splits, task), style="dim")
    say(_title(record), "bold")
    _print_whole(table)
    selected = result.selection is not None
    say(f"* selected by {mode} {metric} on val" if selected else f"* reported; {metric} on val has no value to select by")
    for shown in (record, *yardsticks):
        for reason, places in _failures(shown).items():
            say(f"{shown['predictor']} failed on {', '.join(places)}: {reason}", "yellow")
    if not all(scores for parts in record["weights"].values() for scores in parts.values()):
        say("training diverged; lower recipe.lr or set recipe.clip", "yellow")
    if protocol["leaks"]:
        clean = "; rest is the part that does not leak" if "rest" in splits else ""
        say(f"{protocol['name']}: {protocol['leaks']}{clean}", "yellow")
    init, scored = record["init"] or {}, sum(protocol["sizes"][split] for split in ("val", "test"))
    if init.get("seen"):
        say(f"init: {init['seen']:,} of the {scored:,} val and test graphs trained or selected the encoder", "yellow")
    elif "seen" in init and init["seen"] is None:
        say("init: whether val or test graphs trained the encoder is not known: its data or its origin are gone", "yellow")
    say(f"results in {result.folder.path}")


def show_runs(runs: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Print a row for each finished run, as wide as its folder's name needs."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("predictor", "dataset", "protocol", "train", "seed", "metric", "val", "test", "configuration", "folder"):
        table.add_column(name, justify="right" if name in ("train", "seed", "val", "test") else "left", no_wrap=True)
    for path, record in runs:
        metric, _ = selection_metric(record["dataset"]["task"])
        metrics = record["metrics"]
        scores = [_number(metrics[split].get(metric)) if split in metrics else "" for split in ("val", "test")]
        table.add_row(
            record["predictor"],
            record["dataset"]["name"],
            " ".join((record["protocol"]["name"], *_parts(record))),
            f"{record['protocol']['sizes']['train']:,}",
            str(record["seed"]),
            HEADINGS[metric],
            *scores,
            record["config_hash"][:8],
            Text(path.name),
        )
    _print_whole(table)


def _print_whole(table: Table) -> None:
    """Print a table as wide as its cells need, however narrow the terminal: nothing of a figure is cut off."""
    console = Console()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)


def _yardsticks(record: Mapping[str, Any], runs: Path) -> list[dict[str, Any]]:
    """The newest run of each yardstick on the same data, labels and split."""

    def same(other: Mapping[str, Any]) -> bool:
        return (
            other["predictor"] in YARDSTICKS
            and other["predictor"] != record["predictor"]
            and other["protocol"]["sha256"] == record["protocol"]["sha256"]
            and other["dataset"]["fingerprint"] == record["dataset"]["fingerprint"]
            and other["dataset"]["labels"] == record["dataset"]["labels"]
        )

    newest = {other["predictor"]: other for _, other in list_runs(runs)[0] if same(other)}
    return [newest[name] for name in YARDSTICKS if name in newest]


def _failures(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Why metrics of a record have no value: the splits of each reason."""
    reasons: dict[str, list[str]] = {}
    for split, failed in record["failed_metrics"].items():
        for reason in dict.fromkeys(failed.values()):
            reasons.setdefault(reason, []).append(split)
    return reasons


def _parts(record: Mapping[str, Any]) -> list[str]:
    """The family and the platform that the protocol is about, if it is."""
    settings = record["config"]["protocol"]
    return [settings[name] for name in ("family", "platform") if settings.get(name)]


def _title(record: Mapping[str, Any]) -> str:
    protocol, sizes = record["protocol"], record["protocol"]["sizes"]
    rules = ", ".join((f"{protocol['name']} v{protocol['version']}", *_parts(record)))
    return (
        f"{record['predictor']} on {record['dataset']['name']}, protocol {rules}: "
        f"{sizes['train']:,} train, {sizes['val']:,} val, {sizes['test']:,} test, seed {record['seed']}"
    )


def _cells(scores: Mapping[str, Mapping[str, float]], metric: str, splits: list[str], task: str) -> list[str]:
    selection = [scores[split].get(metric) for split in splits]
    return [_number(value) for value in (*selection, *(scores["test"].get(name) for name in SHOWN[task]))]


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.4f}"
