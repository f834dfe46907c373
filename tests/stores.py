"""Random and hand-made stores for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.hashing import graph_hash
from datasets.ragged import Ragged
from datasets.store import Columns, GraphStore, Manifest, write_store

OPERATIONS = ("input", "conv", "pool", "output")


def random_dag(rng: np.random.Generator, nodes: int, density: float = 0.5) -> list[tuple[int, int]]:
    return [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if rng.random() < density]


def random_columns(rng: np.random.Generator, graphs: int) -> tuple[Columns, list[tuple[list[int], list[tuple[int, int]]]]]:
    """Columns of random DAGs of 1 to 9 nodes, and the same graphs as plain lists of operations and edges."""
    plain = []
    for _ in range(graphs):
        nodes = int(rng.integers(1, 10))
        plain.append((rng.integers(0, len(OPERATIONS), nodes).tolist(), random_dag(rng, nodes)))
    ops = Ragged.from_counts(
        np.concatenate([ops for ops, _ in plain]).astype(np.uint8), np.array([len(o) for o, _ in plain])
    )
    pairs = np.array([edge for _, edges in plain for edge in edges], np.uint8).reshape(-1, 2)
    edges = Ragged.from_counts(pairs, np.array([len(e) for _, e in plain]))
    hashes = [graph_hash(edges, [OPERATIONS[i] for i in ops]) for ops, edges in plain]
    columns = Columns(
        keys=[f"g{i}" for i in range(graphs)],
        hashes=np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16),
        ops=ops,
        edges=edges,
        static={"params": rng.integers(0, 1000, graphs)},
        labels={"a": rng.random(graphs), "b": rng.random(graphs)},
    )
    return columns, plain


def manifest(**changes: object) -> Manifest:
    facts: dict[str, object] = {
        "name": "toy",
        "task": "accuracy",
        "operations": OPERATIONS,
        "labels": {"a": "fraction", "b": "fraction"},
        "static": {"params": "count"},
        "hash_rule": "graph_hash",
        "source": {"file": "toy.bin", "sha256": "0" * 64},
    }
    return Manifest(**{**facts, **changes})


def hashed_store(folder: Path, groups: list[int], a: list[float], b: list[float], **named: list[str]) -> GraphStore:
    """One-node graphs; graphs of the same group share a hash; ``named`` are group columns."""
    count = len(groups)
    hashes = np.zeros((count, 16), np.uint8)
    hashes[:, 3], hashes[:, 12] = np.array(groups) // 7, np.array(groups) % 7
    columns = Columns(
        keys=[f"g{i}" for i in range(count)],
        hashes=hashes,
        ops=Ragged.from_counts(np.zeros(count, np.uint8), np.ones(count)),
        edges=Ragged.from_counts(np.zeros((0, 2), np.uint8), np.zeros(count)),
        static={"params": np.arange(count)},
        labels={"a": np.array(a, float), "b": np.array(b, float)},
        groups=named,
    )
    return write_store(folder, columns, manifest())
