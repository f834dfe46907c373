"""The params yardstick: how far the number of parameters alone goes."""

from __future__ import annotations

from predictors.fitted import StaticPredictor


class Params(StaticPredictor):
    """Predicts from the logarithm of the number of parameters."""

    feature = "params"
