"""The nearest-neighbour yardstick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from predictors.fitted import WalkConfig, WalkPredictor


@dataclass
class KNNConfig(WalkConfig):
    """Configuration of the nearest-neighbour yardstick.

    Attributes:
        k: training graphs that vote, weighted by inverse distance; all of them where there are fewer.
    """

    k: int


class KNN(WalkPredictor):
    """Inverse-distance mean of the nearest training graphs, by Manhattan distance of standardised features."""

    Config = KNNConfig

    def estimator(self) -> Any:
        """Scaling and neighbours in one pipeline."""
        from sklearn.neighbors import KNeighborsRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        k = min(self.config.k, len(self.targets))
        return make_pipeline(StandardScaler(), KNeighborsRegressor(k, weights="distance", p=1))
