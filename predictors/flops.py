"""The flops yardstick: how far the number of floating-point operations alone goes."""

from __future__ import annotations

from predictors.fitted import StaticPredictor


class FLOPs(StaticPredictor):
    """Predicts from the logarithm of the number of floating-point operations."""

    feature = "flops"
