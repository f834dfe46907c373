"""A predictor that a grid must survive."""

import os

from predictors.flops import FLOPs


class Dying(FLOPs):
    """Ends its process as a lack of memory would: without a word."""

    def fit(self, batch):
        os.kill(os.getpid(), 9)
