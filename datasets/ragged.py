"""Lists of different lengths in two flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ragged:
    """``values[offsets[i]:offsets[i + 1]]`` is the i-th list; values may have trailing dimensions."""

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def from_counts(cls, values: NDArray[Any], counts: NDArray[Any]) -> Ragged:
        """Lists of the given lengths, one after the other in ``values``."""
        return cls(values, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))

    @classmethod
    def from_arrow(cls, array: pa.ListArray) -> Ragged:
        """View an Arrow list column (of scalars or of fixed-size lists) without copying its values."""
        values, offsets = array.values, array.offsets.to_numpy()
        if pa.types.is_fixed_size_list(values.type):
            return cls(values.values.to_numpy().reshape(-1, values.type.list_size), offsets)
        return cls(values.to_numpy(), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Length of each list."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The lists at ``rows`` joined, and their offsets (len(rows) + 1,)."""
        starts = self.offsets[rows].astype(np.int64)
        counts = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return self.values[index], offsets
