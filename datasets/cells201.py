"""NAS-Bench-201 cells: the architecture string, its operations and its fixed node-op DAG.

Source: "NAS-Bench-201" (Dong and Yang, ICLR 2020, section 2.1). A cell is a complete DAG of four feature maps; each of
its six edges carries one of five operations. The string lists the edges by target node:
``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

EDGE_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The search space, in the official order."""

CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, target) feature map of each operation, in the order of the architecture string."""

NODE_OPERATIONS = ("input", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", "output")
"""Vocabulary of the node-op DAG; an operation's id is its position."""

NODE_EDGES = ((0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7))
"""Edges (parent, child) of the 8-node DAG every cell has: node 0 input, nodes 1-6 the operations, node 7 output."""

_SLOT = re.compile(r"([a-z0-9_]+)~([0-2])")


def parse_cell(arch: str) -> tuple[str, ...]:
    """Return the six edge operations of an architecture string, in string order.

    Raises:
        ValueError: if ``arch`` is not a NAS-Bench-201 architecture string.
    """
    slots = _SLOT.findall(arch)
    operations = tuple(op for op, _ in slots)
    if not operations or cell_string(operations) != arch:
        raise ValueError(f"{arch!r} is not a NAS-Bench-201 cell such as {cell_string(['none'] * 6)!r}")
    return operations


def cell_string(operations: tuple[str, ...] | list[str]) -> str:
    """Write six edge operations as an official architecture string; other counts or names give an empty string."""
    if len(operations) != len(CELL_EDGES) or any(op not in EDGE_OPERATIONS for op in operations):
        return ""
    slots = [f"{op}~{source}" for op, (source, _) in zip(operations, CELL_EDGES, strict=True)]
    return "+".join("|" + "|".join(slots[a:b]) + "|" for a, b in ((0, 1), (1, 3), (3, 6)))


def enumerate_cells() -> list[str]:
    """All 5**6 = 15,625 architecture strings in lexicographic order of their operation indices."""
    grid = np.indices((len(EDGE_OPERATIONS),) * len(CELL_EDGES)).reshape(len(CELL_EDGES), -1).T
    return [cell_string([EDGE_OPERATIONS[i] for i in row]) for row in grid]


def node_operations(cells: list[str]) -> NDArray[np.uint8]:
    """Node-operation ids, shape (cells, 8), of architecture strings.

    Raises:
        ValueError: naming the first string that is not a cell.
    """
    ids = {op: NODE_OPERATIONS.index(op) for op in EDGE_OPERATIONS}
    middle = [[ids[op] for op in parse_cell(cell)] for cell in cells]
    nodes = np.empty((len(cells), 8), np.uint8)
    nodes[:, 0] = NODE_OPERATIONS.index("input")
    nodes[:, 1:7] = np.array(middle, np.uint8).reshape(-1, 6)
    nodes[:, 7] = NODE_OPERATIONS.index("output")
    return nodes
