"""How far a run's predictions of its test networks were from their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.records import test_predictions

SHARE = 0.8
"""Share of the test networks within the band; as many of the others are below it as above."""


@dataclass(frozen=True)
class ErrorBand:
    """Quantiles of the relative error, prediction / latency - 1, over a run's test networks.

    Attributes:
        low: a tenth of the errors are below.
        high: a tenth of the errors are above.
        networks: number of test networks.
    """

    low: float
    high: float
    networks: int

    @classmethod
    def read(cls, predictions: Path) -> ErrorBand | None:
        """The band of a run's ``predictions.parquet``; None if it has no positive predictions to make one of.

        Raises:
            UserError: if the file is missing or damaged.
        """
        table = test_predictions(predictions)
        label, prediction = (table[name].to_numpy().astype(np.float64) for name in ("label", "prediction"))
        if not len(table) or not (np.isfinite(prediction) & (prediction > 0)).all():
            return None
        low, high = np.quantile(prediction / label - 1, [(1 - SHARE) / 2, (1 + SHARE) / 2])
        return cls(float(low), float(high), len(table))

    def around(self, prediction: float) -> tuple[float, float]:
        """The latencies of which ``prediction`` is off by ``high`` and by ``low``."""
        return prediction / (1 + self.high), prediction / (1 + self.low)

    def __str__(self) -> str:
        return (
            f"{SHARE:.0%} of the run's {self.networks:,} test networks took between prediction / {1 + self.high:.3f} and "
            f"prediction / {1 + self.low:.3f}"
        )
