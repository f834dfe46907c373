"""Predictors that are fitted in one go: the yardsticks every table needs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor

Floats = NDArray[np.float64]


class FittedPredictor(Predictor):
    """A predictor fitted to a feature matrix instead of trained by gradient steps.

    Its state is the training features and targets, kept as buffers: a checkpoint is plain tensors, and loading it fits
    the same estimator again. Subclasses give the features and the estimator.
    """

    inputs: Tensor
    targets: Tensor

    def __init__(self, config: Any, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("inputs", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("targets", torch.empty(0, dtype=torch.float64))
        self._estimator: Any = None

    @abstractmethod
    def features(self, batch: GraphBatch) -> Floats:
        """Feature matrix (B, F) of a batch."""

    @abstractmethod
    def estimator(self) -> Any:
        """A fresh scikit-learn regressor."""

    def fit(self, batch: GraphBatch) -> None:
        """Fit to all training graphs at once."""
        self.inputs = torch.from_numpy(self.features(batch))
        self.targets = batch.target.double().cpu()
        self._estimator = None

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,).

        Raises:
            RuntimeError: before ``fit``.
        """
        if not len(self.targets):
            raise RuntimeError(f"{type(self).__name__} has not been fitted")
        if self._estimator is None:
            self._estimator = self.estimator().fit(self.inputs.numpy(), self.targets.numpy())
        return torch.from_numpy(np.asarray(self._estimator.predict(self.features(batch)))).float()

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Not defined: a fitted predictor takes no gradient steps."""
        raise NotImplementedError(f"{type(self).__name__} is fitted, not trained by gradient steps")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self.inputs = state_dict[prefix + "inputs"].clone()
        self.targets = state_dict[prefix + "targets"].clone()
        self._estimator = None
        super()._load_from_state_dict(state_dict, prefix, *args)
