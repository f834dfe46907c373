"""Figures drawn from predictions."""

from __future__ import annotations

from matplotlib.figure import Figure

from harness.evaluation import Predictions


def scatter(predictions: Predictions, unit: str, title: str) -> Figure:
    """Predicted against true label, with the diagonal; density is shown where points are many."""
    figure = Figure(figsize=(4.5, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    low, high = float(predictions.label.min()), float(predictions.label.max())
    if len(predictions.label) > 5000:
        shown = axes.hexbin(predictions.label, predictions.prediction, gridsize=70, bins="log", mincnt=1, cmap="viridis")
        figure.colorbar(shown, ax=axes, label="architectures")
    else:
        axes.scatter(predictions.label, predictions.prediction, s=8, alpha=0.5, linewidths=0)
    axes.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle="--")
    axes.set(xlabel=f"true ({unit})", ylabel=f"predicted ({unit})", title=title)
    return figure
