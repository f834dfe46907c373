"""Canonical hashes: equal for graphs that differ only in the order of their nodes.

The rule is the published NAS-Bench-101 module hash (Ying et al., ICML 2019; ``graph_util.hash_module``): node hashes
start from (out-degree, in-degree, label) and are refined as many times as there are nodes from the sorted hashes of
children and parents; the graph's hash is the MD5 of the sorted node hashes. For NAS-Bench-101 cells the labels are the
official ones and the hash equals the official module hash. For any other DAG the labels are the operation names.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from hashlib import md5


def graph_hash(edges: Sequence[tuple[int, int]], labels: Sequence[Hashable]) -> bytes:
    """Return the 16-byte canonical hash of a labelled DAG given by (parent, child) pairs."""
    nodes = range(len(labels))
    parents: list[list[int]] = [[] for _ in nodes]
    children: list[list[int]] = [[] for _ in nodes]
    for parent, child in edges:
        parents[child].append(parent)
        children[parent].append(child)
    hashes = [_md5(str((len(children[v]), len(parents[v]), labels[v]))) for v in nodes]
    for _ in nodes:
        hashes = [
            _md5(
                "".join(sorted(hashes[w] for w in parents[v]))
                + "|"
                + "".join(sorted(hashes[w] for w in children[v]))
                + "|"
                + hashes[v]
            )
            for v in nodes
        ]
    return md5(str(sorted(hashes)).encode(), usedforsecurity=False).digest()


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()
