"""What is known of the figures that tables show: names, directions, formats, and which of them choose checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Metric:
    """How a metric of a record is shown and compared.

    Attributes:
        title: its name in a heading.
        short: its name in a narrow heading.
        higher_is_better: direction.
        decimals: digits behind the point.
    """

    title: str
    short: str
    higher_is_better: bool
    decimals: int

    @property
    def arrow(self) -> str:
        """Points to where better values lie."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def worst(self) -> float:
        """What a metric counts as that could not be computed."""
        return -1.0 if self.higher_is_better else math.inf

    def text(self, value: float, *, signed: bool = False) -> str:
        """``value`` with this metric's decimals and a true minus sign."""
        return f"{value:{'+' if signed else ''}.{self.decimals}f}".replace("-", MINUS)


METRICS = {
    "kendall_tau": Metric("Kendall's tau", "tau", True, 3),
    "spearman": Metric("Spearman's rho", "rho", True, 3),
    "mape_percent": Metric("MAPE, %", "MAPE %", False, 2),
    "acc_10_percent": Metric("predictions within 10 %, %", "acc@10%", True, 1),
    "acc_5_percent": Metric("predictions within 5 %, %", "acc@5%", True, 1),
    "acc_1_percent": Metric("predictions within 1 %, %", "acc@1%", True, 1),
}
"""Metrics of predictions, by the names of ``harness.metrics``."""

COSTS = {
    "params_million": Metric("parameters, million", "params M", False, 2),
    "train_seconds": Metric("training, s", "train s", False, 1),
    "ms_per_architecture": Metric("ms per architecture", "ms", False, 3),
    "peak_memory_mb": Metric("peak host memory, MB", "MB", False, 0),
}
"""What a run cost, by the names of ``harness.tables.costs``."""


def selection_metric(task: str) -> tuple[str, str]:
    """The metric that chooses checkpoints for a task and whether it is to be ``max`` or ``min``."""
    return ("kendall_tau", "max") if task == "accuracy" else ("mape_percent", "min")
