"""narbench in Python: run experiments and read their results."""

from __future__ import annotations

from datasets.errors import UserError
from datasets.graph import GraphBatch, TaskSpec
from datasets.store import GraphStore
from harness import experiment
from harness.config import compose
from harness.experiment import Result
from predictors.base import Predictor, PredictorConfig

__all__ = ["GraphBatch", "GraphStore", "Predictor", "PredictorConfig", "Result", "TaskSpec", "UserError", "run"]


def run(*overrides: str) -> Result:
    """Run one experiment: ``narbench.run("predictor=nnformer", "dataset=digits201", "seed=1")``.

    Raises:
        UserError: for any mistake in the overrides or the data.
    """
    return experiment.run(compose(overrides))
