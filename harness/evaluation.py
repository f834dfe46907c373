"""Predictions of a trained predictor, gathered by sample id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.base import Benchmark, Rows
from datasets.graph import GraphBatch
from harness import distributed
from harness.metrics import Scores, score
from harness.progress import track
from predictors.base import Predictor


@dataclass(frozen=True)
class Predictions:
    """Predictions and labels of rows of a store, each row once, in row order."""

    rows: NDArray[np.int64]
    prediction: NDArray[np.float64]
    label: NDArray[np.float64]

    @classmethod
    def gather(cls, parts: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Predictions:
        """Join (row, prediction, label) batches of all processes; a row seen twice counts once."""
        own = np.stack([torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True)])
        columns = distributed.gather(own)
        rows, first = np.unique(columns[0].astype(np.int64), return_index=True)
        return cls(rows, columns[1][first], columns[2][first])

    def at(self, rows: Rows) -> Predictions:
        """The predictions of ``rows``, all of which must be present."""
        index = np.searchsorted(self.rows, rows)
        return Predictions(rows, self.prediction[index], self.label[index])

    def scores(self, task: str) -> Scores:
        """Every metric of these predictions."""
        return score(self.prediction, self.label, higher_is_better=task == "accuracy")


def predict(predictor: Predictor, batches: Iterable[GraphBatch], graphs: int) -> Predictions:
    """Predict every batch, ``graphs`` in all, in evaluation mode, on the predictor's device; of all processes together.

    Results are copied into one array made beforehand: small tensors kept from every batch pin the memory of the large ones
    between them, gigabytes in all for NAS-Bench-101.
    """
    columns, done = torch.empty(3, graphs, dtype=torch.float64), 0
    was_training = predictor.training
    predictor.eval()
    with torch.inference_mode():
        for batch in batches:
            moved = batch.to(predictor.device)
            found = torch.stack([moved.row.double(), predictor(moved).double(), moved.target.double()])
            columns[:, done : done + len(batch)] = found
            done += len(batch)
    predictor.train(was_training)
    row, prediction, label = columns[:, :done]
    return Predictions.gather([(row, prediction, label)])


def by_size(predictor: Predictor, data: Benchmark, rows: Rows, label: str) -> Rows:
    """``rows`` ordered by token count, so that batches hold little padding."""
    return rows[np.argsort(token_counts(predictor, data, rows, label), kind="stable")]


def token_counts(predictor: Predictor, data: Benchmark, rows: Rows, label: str) -> NDArray[np.int64]:
    """Tokens the predictor makes of each of ``rows``."""
    counts = [predictor.token_counts(batch).numpy() for batch in data.eval_dataloader(rows, label)]
    return np.concatenate(counts)


def evaluate(predictor: Predictor, data: Benchmark, name: str) -> dict[str, Predictions]:
    """Predictions of the validation and the test rows, ``name`` shown beside the progress bar."""
    labels = data.labels
    roles = {"val": (data.parts.val, labels.val), "test": (data.parts.test, labels.test)}
    result = {}
    for role, (rows, label) in roles.items():
        own = distributed.share().of_sorted(by_size(predictor, data, rows, label))
        loader = data.eval_dataloader(own, label)
        result[role] = predict(predictor, track(loader, f"{name}: scoring {role}"), len(own))
    if data.parts.rest is not None:
        result["rest"] = result["test"].at(data.parts.rest)
    return result
