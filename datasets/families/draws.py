"""The random choices that make a variant of a family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Draw:
    """Random choices of one variant; its overall width differs by up to 2 either way, log-uniformly."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width = 2 ** rng.uniform(-1, 1)

    def channels(self, usual: float) -> int:
        """``usual`` times the variant's width and a factor in [0.6, 1.4], rounded to a multiple of 8, at least 8."""
        return max(8, 8 * round(usual * self.width * self.rng.uniform(0.6, 1.4) / 8))

    def pick(self, choices: Sequence[int]) -> int:
        """One of ``choices``, all equally likely."""
        return int(self.rng.choice(choices))
