"""Canonical hash of the whole network of a NAS-Bench-201 cell: equal where the same layers compute the same sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.cells201 import CELL_EDGES, parse_cell
from datasets.hashing import graph_hash

HASH_RULE = (
    "graph_hash (NAS-Bench-101 module hash) of the cell with `none` and branches that cannot matter kept, `skip_connect` "
    "as a plain edge, and sums of sums as one sum: devices execute what no compiler removes"
)
"""What ``network_hashes`` hashes, for a manifest."""

Edges = list[tuple[int, int]]


def network_hashes(cells: Sequence[str]) -> NDArray[np.uint8]:
    """Canonical hashes (B, 16) of architecture strings; see ``HASH_RULE``.

    Raises:
        ValueError: naming the first string that is not a cell.
    """
    hashes = [graph_hash(*layer_graph(parse_cell(cell))) for cell in cells]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)


def layer_graph(operations: Sequence[str]) -> tuple[Edges, list[str]]:
    """Edges (parallel ones repeated) and labels of the graph that is hashed, from the six operations of a cell."""
    one_sum = operations[CELL_EDGES.index((2, 3))] == "skip_connect"
    labels = ["input", "output"] if one_sum else ["input", "output", "sum"]
    place = {0: 0, 3: 1, 2: len(labels) - 1}
    edges: Edges = []
    for (source, target), operation in zip(CELL_EDGES, operations, strict=True):
        end = place[source]
        if operation != "skip_connect":
            edges.append((end, len(labels)))
            labels.append(operation)
            end = len(labels) - 1
        if target == 1:
            place[1] = end
        elif end != place[target]:
            edges.append((end, place[target]))
    return edges, labels
