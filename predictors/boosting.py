"""The gradient-boosting yardstick: regression trees on counted structure, often hard to beat with few labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datasets.errors import UserError, require_choice
from datasets.graph import TaskSpec
from predictors.fitted import WalkConfig, WalkPredictor


@dataclass
class BoostingConfig(WalkConfig):
    """Configuration of the boosting yardstick; the fields are those of scikit-learn's ``GradientBoostingRegressor``.

    Attributes:
        loss: ``absolute_error``, ``huber`` or ``squared_error``.
        trees: boosting rounds.
        learning_rate: shrinkage of each tree.
        depth: largest depth of a tree.
        subsample: fraction of the training graphs each tree sees.
        columns: fraction of the features each split chooses from.
        seed: of the sampling.
    """

    loss: str
    trees: int
    learning_rate: float
    depth: int
    subsample: float
    columns: float
    seed: int = field(metadata={"least": 0})


class Boosting(WalkPredictor):
    """Stochastic gradient boosting (Friedman, Computational Statistics & Data Analysis 2002)."""

    Config = BoostingConfig

    def __init__(self, config: BoostingConfig, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        require_choice("predictor.loss", config.loss, ("absolute_error", "huber", "squared_error"))
        for name in ("learning_rate", "subsample", "columns"):
            if not 0 < (value := getattr(config, name)) <= 1:
                raise UserError(f"predictor.{name}={value}: give a number above 0, at most 1")

    def estimator(self) -> Any:
        """The unfitted ensemble."""
        from sklearn.ensemble import GradientBoostingRegressor

        config: BoostingConfig = self.config
        # scikit-learn scores the graphs that a tree leaves out, of which one graph leaves none
        subsample = config.subsample if len(self.targets) > 1 else 1.0
        return GradientBoostingRegressor(
            loss=config.loss,
            n_estimators=config.trees,
            learning_rate=config.learning_rate,
            max_depth=config.depth,
            subsample=subsample,
            max_features=config.columns,
            random_state=config.seed,
        )
