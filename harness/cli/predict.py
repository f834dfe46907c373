"""``narbench predict``: latency of ONNX files, from a finished run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from datasets.errors import UserError
from harness.terminal import say

if TYPE_CHECKING:
    from harness.prediction import Failure, Prediction, TrainedPredictor


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run on whole networks.", show_default=False)],
    paths: Annotated[list[Path], typer.Argument(help="ONNX files, or folders of them.", show_default=False)],
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Batch size.", show_default="that of the file")] = None,
    platform: Annotated[str | None, typer.Option(help="Device, of a run on several.", show_default=False)] = None,
) -> None:
    """Predict the latency of ONNX files with a trained predictor."""
    from harness.prediction import Failure, Prediction, TrainedPredictor

    trained = TrainedPredictor(run)
    answers = trained.predict_files(paths, batch=batch, platform=platform)
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if json_output:
        print(json.dumps(_plain(run, trained, answers), indent=1))
    else:
        _show(trained, [answer for answer in answers if isinstance(answer, Prediction)], failures)
    if failures:
        raise UserError(f"{len(failures)} of {len(answers)} files cannot be predicted; the reasons are above")


def _plain(run: Path, trained: TrainedPredictor, answers: Sequence[Prediction | Failure]) -> dict[str, Any]:
    record, band = trained.record, trained.band
    return {
        "run": str(run),
        "predictor": record["predictor"],
        "dataset": record["dataset"]["name"],
        "label": record["dataset"]["labels"]["test"],
        "band": asdict(band) | {"meaning": str(band)} if band else None,
        "predictions": [asdict(answer) for answer in answers],
    }


def _show(trained: TrainedPredictor, predictions: Sequence[Prediction], failures: Sequence[Failure]) -> None:
    if predictions:
        record = trained.record
        label, dataset = record["dataset"]["labels"]["test"], record["dataset"]["name"]
        say(f"{label} by {record['predictor']}, trained on {record['protocol']['sizes']['train']:,} of {dataset}")
        folder = _common_folder([each.network for each in predictions])
        if folder:
            say(f"files in {folder}")
        Console().print(_table(predictions, folder))
        say(f"Band: {trained.band}." if trained.band else "No band: the run has no positive test predictions.")
    for prediction in predictions:
        for warning in prediction.warnings:
            say(f"{prediction.network}: {warning}", "yellow", stderr=True)
    for failure in failures:
        say(f"{failure.network}: {failure.error}", "red", stderr=True)


def _common_folder(files: Sequence[str]) -> str:
    """The deepest folder that holds all files; empty if there is none, or it is the one we are in."""
    alike = len({Path(file).is_absolute() for file in files}) == 1
    return os.path.commonpath([Path(file).parent for file in files]) if alike else ""


def _table(predictions: Sequence[Prediction], folder: str) -> Table:
    table = Table(Column("network", overflow="fold"), box=None)
    for heading in ("ms", "80 % band", "batch", "nodes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in predictions:
        ends = (each.low_ms, each.high_ms)
        band = " - ".join(_number(end) for end in ends if end is not None)
        mark = " !" if each.warnings else ""
        name = os.path.relpath(each.network, folder) if folder else each.network
        table.add_row(Text(name), _number(each.latency_ms), band + mark, str(each.batch), str(each.nodes))
    return table


def _number(value: float) -> str:
    return f"{value:.4g}"
