"""Figures drawn from predictions, and how figures are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.evaluation import Predictions

CROWD = 5000
"""More points than this are shown as a density."""


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def scatter(predictions: Predictions, unit: str, title: str) -> Figure:
    """Predicted against true label, with the diagonal; density is shown where points are many."""
    figure = Figure(figsize=(4.5, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    values = np.concatenate([predictions.label, predictions.prediction])
    density = draw_scatter(axes, predictions.label, predictions.prediction, (float(values.min()), float(values.max())))
    if density is not None:
        figure.colorbar(density, ax=axes, label="architectures")
    axes.set(xlabel=f"true ({unit})", ylabel=f"predicted ({unit})", title=title)
    return figure


def draw_scatter(
    axes: Any, label: NDArray[np.float64], prediction: NDArray[np.float64], limits: tuple[float, float]
) -> Any:
    """Draw labels and predictions, both (B,), and the diagonal.

    Returns:
        The density if points are many, else None.

    Args:
        axes: matplotlib axes.
        label: true labels.
        prediction: predicted labels.
        limits: of both axes; points outside are drawn at their edge.
    """
    shown, density = (label.clip(*limits), prediction.clip(*limits)), None
    if len(label) > CROWD and limits[0] < limits[1]:
        hexagons = {"gridsize": (60, 35), "extent": (*limits, *limits), "mincnt": 1}
        density = axes.hexbin(*shown, **hexagons, bins="log", cmap="viridis", rasterized=True)
    else:
        axes.scatter(*shown, s=8, alpha=0.5, linewidths=0, rasterized=True)
    axes.plot(limits, limits, color=axes.xaxis.label.get_color(), linewidth=0.8, linestyle="--")
    return density
