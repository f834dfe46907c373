"""NAS-Bench-201 cells as the graph columns of a store, with a hash that is equal where the computation is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.cells201 import NODE_EDGES, NODE_OPERATIONS, node_operations
from datasets.hashing import graph_hash
from datasets.ragged import Ragged

HASH_RULE = (
    "graph_hash (NAS-Bench-101 module hash) with operation names as labels, of the node-op DAG without `none` nodes and "
    "without nodes that lie on no path from input to output; cells that compute the same graph share a hash"
)
"""What ``graph_columns`` hashes, for a manifest."""

_NODES = 8


def graph_columns(cells: Sequence[str]) -> tuple[Ragged, Ragged, NDArray[np.uint8]]:
    """Graph columns of architecture strings: each cell as the fixed 8-node DAG, ``none`` nodes kept.

    Args:
        cells: B official architecture strings.

    Returns:
        Operation ids (B lists of 8), edges (B lists of 10 (parent, child) pairs) and canonical hashes (B, 16).

    Raises:
        ValueError: naming the first string that is not a cell.
    """
    nodes = node_operations(list(cells))
    edges = np.tile(np.array(NODE_EDGES, np.uint8), (len(nodes), 1))
    ops = Ragged.from_counts(nodes.reshape(-1), np.full(len(nodes), _NODES))
    return ops, Ragged.from_counts(edges, np.full(len(nodes), len(NODE_EDGES))), cell_hashes(nodes)


def used_nodes(nodes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """True for input, output and every node on a path between them that no ``none`` interrupts.

    Args:
        nodes: operation ids (B, 8).

    Returns:
        Mask (B, 8).
    """
    present = nodes != NODE_OPERATIONS.index("none")
    reached, reaches = np.zeros_like(present), np.zeros_like(present)
    reached[:, 0] = reaches[:, -1] = True
    for parent, child in NODE_EDGES:
        reached[:, child] |= reached[:, parent] & present[:, child]
    for parent, child in reversed(NODE_EDGES):
        reaches[:, parent] |= reaches[:, child] & present[:, parent]
    used: NDArray[np.bool_] = reached & reaches
    used[:, [0, -1]] = True
    return used


def cell_hashes(nodes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Canonical hashes (B, 16) of cells given by their operation ids (B, 8); see ``HASH_RULE``."""
    unused = len(NODE_OPERATIONS)
    distinct, cell = np.unique(np.where(used_nodes(nodes), nodes, unused), axis=0, return_inverse=True)
    hashes = [_pruned_hash([op if op != unused else None for op in row]) for row in distinct.tolist()]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)[cell]


def _pruned_hash(row: list[int | None]) -> bytes:
    kept = {node: number for number, node in enumerate(n for n, op in enumerate(row) if op is not None)}
    edges = [(kept[a], kept[b]) for a, b in NODE_EDGES if a in kept and b in kept]
    return graph_hash(edges, [NODE_OPERATIONS[op] for op in row if op is not None])
