"""What an adaptation leaves behind: the run folder of the adapted predictor, the curve as JSON and as a figure."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from datasets.errors import UserError
from datasets.measured import VERSION
from harness.adapt import METHODS, Adaptation, Point
from harness.checkpoints import write_checkpoint
from harness.config import ExperimentConfig
from harness.evaluation import Predictions
from harness.experiment import record_of
from harness.figures import save
from harness.journal import JsonLines
from harness.metrics import Scores
from harness.records import RunFolder, write_text
from harness.tables.cells import Summary, summarise
from predictors.base import Predictor

CURVE, FIGURE, POINTS = "adaptation.json", "curve.png", "points.jsonl"
SHOWN = ("mape_percent", "acc_10_percent", "kendall_tau")
TITLES = {"adapted": "adapted", "scratch": "from scratch", "scaled": "scaled run"}
STYLES = {"adapted": ("C0", "o"), "scratch": ("C1", "s"), "scaled": ("0.35", "^")}


class Progress:
    """The folder of an adaptation and the points that it holds already.

    Attributes:
        folder: a new one, or that of the same adaptation, which was interrupted.
        points: in the order in which they were made.
    """

    def __init__(self, adaptation: Adaptation, config: ExperimentConfig) -> None:
        """Begin or continue.

        Raises:
            UserError: if the folder holds something else, or an adaptation that is finished or another.
        """
        out = adaptation.options.out
        remedy = "give another --out"
        begun = out is not None and (out / POINTS).is_file() and not (out / CURVE).exists()
        if out is not None and not begun and out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out}: not empty, and holds no adaptation that was interrupted; {remedy}")
        self.folder = RunFolder(out) if begun and out else RunFolder.create(config)
        self._lines = JsonLines.open(self.folder.path / POINTS, adaptation.settings, remedy)
        self.points = [Point(**{**line, "scores": Scores(**line["scores"])}) for line in self._lines.lines]

    @property
    def done(self) -> set[tuple[int, int, str]]:
        """What need not be made again."""
        return {(point.draw, point.k, point.method) for point in self.points}

    def add(self, point: Point) -> None:
        """Keep a point."""
        self._lines.append(asdict(point))
        self.points.append(point)


class Result:
    """The points of a finished adaptation.

    Attributes:
        adaptation: what was run.
        points: one for each draw, k and method.
    """

    def __init__(self, adaptation: Adaptation, points: Sequence[Point]) -> None:
        self.adaptation = adaptation
        self.points = points

    def values(self, k: int, method: str, metric: str) -> dict[int, float]:
        """A metric by draw, without the draws it failed on."""
        found = {p.draw: p.scores.values.get(metric) for p in self.points if (p.k, p.method) == (k, method)}
        return {draw: value for draw, value in found.items() if value is not None}

    def summary(self, k: int, method: str, metric: str) -> Summary | None:
        """Mean over draws and its 95 % confidence interval; None if it failed on all."""
        values = list(self.values(k, method, metric).values())
        return summarise(values) if values else None

    def gain(self, k: int, method: str) -> Summary | None:
        """How much greater the MAPE of ``method`` is than that of ``adapted``, draw by draw."""
        ours, theirs = (self.values(k, name, "mape_percent") for name in ("adapted", method))
        gains = [theirs[draw] - ours[draw] for draw in ours if draw in theirs]
        return summarise(gains) if gains else None

    def plain(self) -> dict[str, Any]:
        """As JSON: what was run, and every value."""
        adaptation, options = self.adaptation, self.adaptation.options
        data = adaptation.draws[0]
        return {
            "source": adaptation.source.facts,
            "data": data.config.root,
            "platform": data.config.platform,
            "networks": len(data.store),
            "evaluated": [len(each.parts.test) for each in adaptation.draws],
            "evaluated_that_trained_the_run": adaptation.seen,
            "draws": options.draws,
            "steps": options.steps,
            "seed": options.seed,
            "curve": [
                {"k": k, "method": method, "metrics": {metric: self._plain(k, method, metric) for metric in SHOWN}}
                for k in adaptation.sizes
                for method in METHODS
            ],
            "failed": [
                {"k": p.k, "method": p.method, "draw": p.draw, **p.scores.failed} for p in self.points if p.scores.failed
            ],
        }

    def figure(self) -> Figure:
        """MAPE over k, with the confidence intervals of the means."""
        figure = Figure(figsize=(5.2, 3.9), dpi=150, layout="constrained")
        axes = figure.subplots()
        sizes = self.adaptation.sizes
        for number, method in enumerate(METHODS):
            color, marker = STYLES[method]
            found = [(k, summary) for k in sizes if (summary := self.summary(k, method, "mape_percent"))]
            axes.errorbar(
                [k * 1.03 ** (number - 1) for k, _ in found],
                [summary.mean for _, summary in found],
                [summary.half_width or 0.0 for _, summary in found],
                color=color,
                marker=marker,
                markersize=4,
                capsize=3,
                linewidth=1.2,
                label=TITLES[method],
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(k) for k in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
        axes.set(xlabel="measured networks k", ylabel="MAPE (%)")
        name, draws = self.adaptation.source.config.predictor.name, self.adaptation.options.draws
        axes.set_title(f"{name} on another device: mean of {draws} draws, 95 % interval", fontsize="medium")
        axes.legend(frameon=False)
        return figure

    def write(self, folder: RunFolder) -> None:
        """Write the figure, then the JSON, which marks the adaptation as finished, into ``folder``."""
        save(self.figure(), folder.path / FIGURE)
        write_text(folder.path / CURVE, json.dumps(self.plain(), indent=1, allow_nan=False) + "\n")

    def _plain(self, k: int, method: str, metric: str) -> dict[str, Any] | None:
        summary = self.summary(k, method, metric)
        if summary is None:
            return None
        return asdict(summary) | {"values": list(self.values(k, method, metric).values())}


def write_run(
    adaptation: Adaptation, folder: RunFolder, config: ExperimentConfig, predictor: Predictor, predictions: Predictions
) -> None:
    """Make ``folder`` that of a finished run with ``predictor``, adapted to the first draw of the largest k."""
    data, steps = adaptation.draws[0], adaptation.options.steps
    write_checkpoint({"state_dict": predictor.state_dict(), "global_step": steps}, folder.checkpoints / "last.ckpt")
    folder.write_predictions(data.store, {"test": predictions})
    record = record_of(config, predictor, data, VERSION, {"last": {"test": predictions}}, "last")
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    folder.write_record(
        record | {"id": folder.path.name, "started": started, "init": adaptation.source.facts, "timings": {}}
    )
