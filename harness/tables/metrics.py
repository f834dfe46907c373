"""The metrics a table can show."""

from __future__ import annotations

from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Metric:
    """How a metric of a record is shown and compared.

    Attributes:
        title: its name in a heading.
        higher_is_better: direction.
        decimals: digits behind the point.
    """

    title: str
    higher_is_better: bool
    decimals: int

    @property
    def arrow(self) -> str:
        """Points to where better values lie."""
        return "↑" if self.higher_is_better else "↓"

    def text(self, value: float, *, signed: bool = False) -> str:
        """``value`` with this metric's decimals and a true minus sign."""
        return f"{value:{'+' if signed else ''}.{self.decimals}f}".replace("-", MINUS)


METRICS = {
    "kendall_tau": Metric("Kendall's tau", True, 3),
    "spearman": Metric("Spearman's rho", True, 3),
    "mape_percent": Metric("MAPE, %", False, 2),
    "acc_10_percent": Metric("predictions within 10 %, %", True, 1),
    "acc_5_percent": Metric("predictions within 5 %, %", True, 1),
    "acc_1_percent": Metric("predictions within 1 %, %", True, 1),
}
"""By the names of ``harness.metrics``."""
