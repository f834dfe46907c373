"""The report's figures as SVG that takes its ink from the page, so that it suits light and dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.figures import draw_scatter
from harness.metric_facts import Metric
from harness.report.ranking import Ranks
from harness.tables.cells import Summary

INK = "#010203"
"""Drawn wherever the text colour of the page is meant; no other part of a figure has this colour."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "narbench",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "savefig.dpi": 150,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK),
}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
COLOURS = [mpl.colors.to_hex(colour) for colour in mpl.color_sequences["tab10"]]
MARKERS = "osD^vPX"
CENTRE = 0.98
"""Share of the labels within the axes of a scatter: a few failed architectures would squeeze the others together."""
Draw = Callable[[Any], object]


@dataclass(frozen=True)
class Series:
    """One predictor's line or bars.

    Attributes:
        number: place in the legend, which decides its colour and marker.
        points: results by training size or family.
        published: published figures by the same.
    """

    number: int
    points: dict[Any, Summary]
    published: dict[Any, float]


@cache
def line_swatch(number: int) -> Markup:
    """The line and marker of a series, for a legend."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], **_line(number), markevery=[1])
        axes.set_axis_off()

    return drawn(draw, (0.42, 0.16), "")


@cache
def bar_swatch(number: int) -> Markup:
    """The colour and hatch of a series, for a legend."""

    def draw(axes: Any) -> None:
        axes.bar(0, 1, **_bar(number))
        axes.margins(0)
        axes.set_axis_off()

    return drawn(draw, (0.3, 0.16), "")


def learning_curves(axes: Any, series: Sequence[Series], every: Sequence[Series], metric: Metric) -> None:
    """The metric over the number of training graphs, with the intervals over seeds; crosses are published figures.

    Args:
        axes: matplotlib axes.
        series: what is drawn.
        every: what the neighbouring figures draw as well: all have the same axes.
        metric: what is shown.
    """
    sizes = sorted({size for one in every for size in (*one.points, *one.published)})
    values = [value for one in every for value in (*one.published.values(), *(point.mean for point in one.points.values()))]
    for one in series:
        places = sorted(one.points)
        means = [one.points[place].mean for place in places]
        errors = [one.points[place].half_width or 0 for place in places]
        style = _line(one.number)
        axes.errorbar(places, means, errors, capsize=2, elinewidth=0.8, **style)
        axes.scatter(
            list(one.published), list(one.published.values()), marker="x", s=28, linewidths=1.2, color=style["color"]
        )
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    axes.set_ylim(min(values) - (margin := 0.08 * (max(values) - min(values)) or 0.01), max(values) + margin)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training architectures")
    axes.set_ylabel(f"{metric.title} {metric.arrow}")
    axes.grid(True, axis="y")


def family_bars(axes: Any, families: Sequence[str], series: Sequence[Series], metric: Metric) -> None:
    """The metric on each family, a bar for each predictor, with the intervals over seeds."""
    width = 0.84 / len(series)
    for place, one in enumerate(series):
        at = [number for number, family in enumerate(families) if family in one.points]
        shown = [one.points[families[number]] for number in at]
        axes.bar(
            np.array(at) + (place - (len(series) - 1) / 2) * width,
            [summary.mean for summary in shown],
            0.92 * width,
            yerr=[summary.half_width or 0 for summary in shown],
            error_kw={"ecolor": INK, "elinewidth": 0.8},
            **_bar(one.number),
        )
    means = [summary.mean for one in series for summary in one.points.values()]
    axes.set_ylim(min(0, *means), max(0, 1.25 * max(means)))
    axes.set_xticks(range(len(families)), families)
    axes.set_ylabel(f"{metric.title} {metric.arrow}")
    axes.grid(True, axis="y")


def predicted_against_true(axes: Any, label: NDArray[np.float64], prediction: NDArray[np.float64], unit: str) -> None:
    """Test predictions within the range of nearly all labels; what is outside is drawn at its edge."""
    low, high = np.quantile(label, [(1 - CENTRE) / 2, (1 + CENTRE) / 2])
    draw_scatter(axes, label, prediction, (float(low), float(high)))
    axes.set_box_aspect(1)
    axes.set(xlabel=f"true ({unit})", ylabel=f"predicted ({unit})")


def mean_rank_axis(axes: Any, ranks: Ranks, labels: Sequence[str]) -> None:
    """Mean ranks with the critical difference; bars join predictors that do not differ (Demsar, JMLR 2006, figure 1).

    The better half is named to the left of the axis, the others to the right.
    """
    count = len(ranks.means)
    left, right = np.floor(min(ranks.means)), np.ceil(max(ranks.means))
    pad = 0.04 * (right - left)
    groups = ranks.groups()
    below = 0.55 + 0.3 * len(groups)
    for place, (number, mean) in enumerate(zip(ranks.predictors, ranks.means, strict=True)):
        better = place < (count + 1) // 2
        depth = below + 0.75 * (place if better else count - 1 - place)
        edge, side = (left - pad, "right") if better else (right + pad, "left")
        axes.plot([mean, mean, edge], [0, depth, depth], color=INK, linewidth=0.8)
        text = f"{labels[number]}  {mean:.2f}" if better else f"{mean:.2f}  {labels[number]}"
        axes.text(edge + (-pad / 2 if better else pad / 2), depth, text, ha=side, va="center")
    for level, (first, last) in enumerate(groups):
        depth = 0.35 + 0.3 * level
        axes.plot([ranks.means[first] - pad / 3, ranks.means[last] + pad / 3], [depth, depth], color=INK, linewidth=3.5)
    _scale(axes, ranks.critical_difference, int(left), int(right))
    axes.set_ylim(below + 0.75 * ((count + 1) // 2 - 1) + 0.4, -1.9)
    axes.set_axis_off()


def _scale(axes: Any, difference: float, left: int, right: int) -> None:
    axes.plot([left, right], [0, 0], color=INK, linewidth=1)
    for rank in range(left, right + 1):
        axes.plot([rank, rank], [0, -0.18], color=INK, linewidth=1)
        axes.text(rank, -0.3, str(rank), ha="center", va="bottom")
    axes.plot([left, left + difference], [-1.2, -1.2], color=INK, linewidth=1.5, marker="|", markersize=6)
    axes.text(left + difference / 2, -1.35, f"critical difference {difference:.2f}", ha="center", va="bottom")


def drawn(draw: Draw, size: tuple[float, float], description: str) -> Markup:
    """A figure as inline SVG.

    Args:
        draw: draws on the axes it is given.
        size: width and height in inches.
        description: what a screen reader says; empty for an ornament.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=METADATA)
    return Markup(_inline(text.getvalue(), description))


def _inline(svg: str, description: str) -> str:
    """An SVG file as part of a page: without declarations, names of groups and metadata."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'(<g) id="[^"]*"', r"\1", body).replace("xlink:href", "href").replace(INK, "currentColor")
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt" viewBox="([^"]*)"', body)
    if size is None:
        raise ValueError("matplotlib's SVG has no size")
    width, _, box = size.groups()
    role = f'role="img" aria-label="{html.escape(description)}"' if description else 'aria-hidden="true"'
    body = re.sub(r"<svg[^>]*>", "", body, count=1)
    return f'<svg {role} viewBox="{box}" style="width:{float(width) * 4 / 3:.0f}px">{body}'


def _line(number: int) -> dict[str, Any]:
    """Colour, marker and stroke of a series: 70 differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLOURS) else "--",
        "markersize": 4.5,
        "linewidth": 1.3,
    }


def _bar(number: int) -> dict[str, Any]:
    """Colour and hatch of a series: 20 differ."""
    hatch = "" if number < len(COLOURS) else "/////"
    return {"color": COLOURS[number % len(COLOURS)], "hatch": hatch, "edgecolor": INK, "linewidth": 0}
