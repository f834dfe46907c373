"""NAS-Bench-101 cells: their vocabulary and compact form, and the graph columns made from it.

Source: "NAS-Bench-101" (Ying et al., ICML 2019, section 2.1): a cell is a DAG of 2 to 7 vertices and at most 9 edges; the
first vertex is the input, the last the output, and every vertex lies on a path between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.nasbench101_cost import cost
from datasets.ragged import Ragged
from datasets.store import Columns, Manifest

OPERATIONS = ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")
"""Vocabulary; an operation's id is its position."""

MAX_VERTICES = 7

_PARENT, _CHILD = np.triu_indices(MAX_VERTICES, 1)
_MASK = (1 << _PARENT + _CHILD * (_CHILD - 1) // 2).astype(np.uint32)
_FEEDING = np.bincount(_CHILD, _MASK, MAX_VERTICES).astype(np.uint32)
_FED = np.bincount(_PARENT, _MASK, MAX_VERTICES).astype(np.uint32)
_KERNEL = np.array([0, 1, 3, 0, 0])


@dataclass(frozen=True)
class Cells:
    """B cells.

    Attributes:
        source: file they come from, for messages.
        hashes: official module hashes (B, 16).
        ops: operation ids, input and output included.
        bits: edges (B,): vertex x feeds vertex y > x where bit ``x + y (y - 1) / 2`` is set.
        params: trainable parameters of the networks as published (B,).
    """

    source: str
    hashes: NDArray[np.uint8]
    ops: Ragged
    bits: NDArray[np.uint32]
    params: NDArray[np.int64]

    def columns(self, labels: Mapping[str, NDArray[np.float64]]) -> Columns:
        """The content of a store.

        Raises:
            UserError: naming the first cell that has an edge to no vertex or a vertex on no path from input to output, or
                whose network has not the published number of parameters.
        """
        self._check_paths()
        present = self.bits[:, None] & _MASK != 0
        params, flops = self._cost(present)
        self._refuse(
            params != self.params,
            lambda row: f"{self.params[row]} parameters given where this cell's network has {params[row]}",
        )
        row, pair = np.nonzero(present)
        edges = np.stack([_PARENT, _CHILD], 1).astype(np.uint8)[pair]
        return Columns(
            keys=[text.hex() for text in self.hashes.view("V16")[:, 0].tolist()],
            hashes=self.hashes,
            ops=self.ops,
            edges=Ragged.from_counts(edges, np.bincount(row, minlength=len(self.bits))),
            static={"params": params, "flops": flops},
            labels=labels,
        )

    def _check_paths(self) -> None:
        size = self.ops.counts
        self._refuse(self.bits >> size * (size - 1) // 2 > 0, lambda row: f"an edge leaves the {size[row]} vertices")
        vertex = np.arange(MAX_VERTICES)
        fed = (self.bits[:, None] & _FEEDING != 0) | (vertex == 0)
        feeds = (self.bits[:, None] & _FED != 0) | (vertex == size[:, None] - 1)
        stray = (vertex < size[:, None]) & ~(fed & feeds)
        self._refuse(
            stray.any(1), lambda row: f"vertex {int(stray[row].argmax())} is on no path from the input to the output"
        )

    def _cost(self, present: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        result = np.zeros((2, len(self.bits)), np.int64)
        for size in np.unique(self.ops.counts):
            rows = np.flatnonzero(self.ops.counts == size)
            adjacency = np.zeros((len(rows), MAX_VERTICES, MAX_VERTICES), bool)
            adjacency[:, _PARENT, _CHILD] = present[rows]
            kernel = _KERNEL[self.ops.take(rows)[0]].reshape(len(rows), size)
            result[:, rows] = cost(adjacency[:, :size, :size], kernel)
        return result[0], result[1]

    def _refuse(self, bad: NDArray[np.bool_], why: Callable[[int], str]) -> None:
        if bad.any():
            row = int(bad.argmax())
            refuse(f"{self.source}: row {row} (module {self.hashes[row].tobytes().hex()}): {why(row)}")


def refuse(problem: str) -> NoReturn:
    """Raise the error for a file that is not what it should be.

    Raises:
        UserError: always.
    """
    raise UserError(f"{problem}; the file is damaged or not NAS-Bench-101: get it again")


def manifest(labels: Mapping[str, str], notes: Mapping[str, Any]) -> Manifest:
    """What a NAS-Bench-101 store holds, its source aside.

    Args:
        labels: unit of each label.
        notes: facts about the file.
    """
    return Manifest(
        name="nasbench101",
        task="accuracy",
        operations=OPERATIONS,
        labels=labels,
        static={"params": "trainable parameters", "flops": "multiply-accumulates of one 32x32 image"},
        hash_rule="official NAS-Bench-101 module hash",
        source={},
        notes=notes,
    )
