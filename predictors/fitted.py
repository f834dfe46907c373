"""Predictors that are fitted in one go: the yardsticks every table needs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.errors import UserError, require_choice
from datasets.graph import GraphBatch, TaskSpec
from predictors.base import Predictor, PredictorConfig
from predictors.layers.graph_features import graph_features, log_static

Floats = NDArray[np.float64]


class FittedPredictor(Predictor):
    """A predictor fitted to a feature matrix instead of trained by gradient steps.

    Its state is the training features and targets, kept as buffers: a checkpoint is plain tensors, and loading it fits
    the same estimator again. Features that are the same in every training graph are dropped (``columns`` are those
    that stay). Latencies are fitted in log, where errors are relative. Subclasses give the features and the estimator.
    """

    whole_networks: ClassVar[bool] = True
    inputs: Tensor
    targets: Tensor
    columns: Tensor

    def __init__(self, config: Any, spec: TaskSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("inputs", torch.empty(0, 0, dtype=torch.float64))
        self.register_buffer("targets", torch.empty(0, dtype=torch.float64))
        self.register_buffer("columns", torch.empty(0, dtype=torch.long))
        self._estimator: Any = None

    @abstractmethod
    def features(self, batch: GraphBatch) -> Floats:
        """Feature matrix (B, F) of a batch."""

    @abstractmethod
    def estimator(self) -> Any:
        """A fresh scikit-learn regressor."""

    def fit(self, batch: GraphBatch) -> None:
        """Fit to all training graphs at once."""
        features = self.features(batch)
        varying = np.ptp(features, axis=0) > 0
        self.columns = torch.from_numpy(np.flatnonzero(varying | ~varying.any()))
        self.inputs = torch.from_numpy(features)[:, self.columns]
        target = batch.target.double().cpu()
        self.targets = target.log() if self.spec.task == "latency" else target
        self._estimator = self._fitted()

    def forward(self, batch: GraphBatch) -> Tensor:
        """Predictions (B,).

        Raises:
            RuntimeError: before ``fit``.
        """
        if not len(self.targets):
            raise RuntimeError(f"{type(self).__name__} has not been fitted")
        if self._estimator is None:
            self._estimator = self._fitted()
        features = self.features(batch)[:, self.columns.cpu().numpy()]
        prediction = torch.from_numpy(np.asarray(self._estimator.predict(features)))
        return (prediction.exp() if self.spec.task == "latency" else prediction).float().to(batch.op.device)

    def _fitted(self) -> Any:
        return self.estimator().fit(self.inputs.cpu().numpy(), self.targets.cpu().numpy())

    def loss(self, batch: GraphBatch) -> dict[str, Tensor]:
        """Not defined: a fitted predictor takes no gradient steps."""
        raise NotImplementedError(f"{type(self).__name__} is fitted, not trained by gradient steps")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("inputs", "targets", "columns"):
            loaded = state_dict[prefix + name]
            if not torch.equal(getattr(self, name).cpu(), loaded.cpu()):
                setattr(self, name, loaded.clone())
                self._estimator = None
        super()._load_from_state_dict(state_dict, prefix, *args)


@dataclass
class StaticConfig(PredictorConfig):
    """A predictor from one per-graph feature.

    Attributes:
        fit: ``isotonic`` (monotone steps, rising or falling as the covariance does) or ``linear`` (keeps the ranking).
    """

    fit: str


class StaticPredictor(FittedPredictor):
    """Predicts from the logarithm of one per-graph feature.

    Attributes:
        feature: name of the feature in ``GraphBatch.static``.
    """

    Config = StaticConfig
    feature: ClassVar[str]

    def __init__(self, config: StaticConfig, spec: TaskSpec) -> None:
        """Check that the benchmark has the feature.

        Raises:
            UserError: if it has not, or for an unknown ``fit``.
        """
        if self.feature not in spec.static:
            known = ", ".join(spec.static) or "no per-graph features"
            raise UserError(f"predictor={config.name} needs the feature {self.feature!r}; this benchmark has {known}")
        require_choice("predictor.fit", config.fit, ("isotonic", "linear"))
        super().__init__(config, spec)

    def features(self, batch: GraphBatch) -> Floats:
        """Logarithm of the feature (B, 1)."""
        values: Floats = log_static(batch, (self.feature,)).cpu().numpy()
        return values

    def estimator(self) -> Any:
        """Isotonic regression that is constant beyond the training range, or a straight line."""
        if self.config.fit == "linear":
            from sklearn.linear_model import LinearRegression

            return LinearRegression()
        from sklearn.isotonic import IsotonicRegression

        rising = torch.dot(self.inputs[:, 0] - self.inputs[:, 0].mean(), self.targets) >= 0
        return IsotonicRegression(increasing=bool(rising), out_of_bounds="clip")


@dataclass
class WalkConfig(PredictorConfig):
    """A predictor from counts of operations and walks.

    Attributes:
        walk: longest walk that is counted, in edges.
    """

    walk: int = field(metadata={"least": 0})


class WalkPredictor(FittedPredictor):
    """Predicts from order-free counts of operations and walks, and from the logarithms of the per-graph features."""

    def features(self, batch: GraphBatch) -> Floats:
        """``graph_features``, then every per-graph feature in log."""
        counts = graph_features(batch, len(self.spec.operations), self.config.walk)
        values: Floats = torch.cat([counts, log_static(batch, self.spec.static)], 1).cpu().numpy()
        return values
