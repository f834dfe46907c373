"""Canonical hashes of whole networks: equal for graphs that differ only in the order of their nodes.

Weisfeiler-Lehman colour refinement: a node's colour starts from its operation and features and is refined by the multisets
of its parents' and of its children's colours, until a round splits no class any more (further rounds never would). The hash
is a digest of the sorted colours. Two limits: networks that refinement cannot tell apart get the same hash (regular
structures such as one long and two short cycles; in directed acyclic graphs with operations and shapes such pairs are
contrived), and colours are 64-bit mixes that resist accident, not an attacker.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_RULE = "network-wl-1"

_Colours = NDArray[np.uint64]

_ONE, _TWO, _THREE, _FIVE = map(np.uint64, (1, 2, 3, 5))
_INCREMENT, _LAST_SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(31)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


def network_hash(ops: NDArray[Any], edges: NDArray[Any], features: NDArray[np.float32]) -> bytes:
    """The 16-byte canonical hash of a directed acyclic graph.

    Time grows with the rounds: a chain of n equal operators takes about n / 2, that is quadratic time (2,000 operators half
    a second, 10,000 ten seconds).

    Args:
        ops: operation ids (n,).
        edges: (parent, child) pairs (e, 2).
        features: numbers of each node (n, k).
    """
    parent, child = edges.T.astype(np.intp)
    colours = _mix(ops.astype(np.uint64))
    for column in (features + np.float32(0)).view(np.uint32).T:  # + 0 makes -0 and 0 alike
        colours = _mix(colours ^ column)
    classes, rounds = 0, 0
    while (found := len(np.unique(colours))) > classes:
        classes, rounds = found, rounds + 1
        above, below = np.zeros_like(colours), np.zeros_like(colours)
        mixed = _mix(colours)
        np.add.at(above, child, mixed[parent])
        np.add.at(below, parent, mixed[child])
        colours = _mix(mixed + _mix(above ^ _ONE) * _THREE + _mix(below ^ _TWO) * _FIVE)
    content = np.concatenate([[np.uint64(rounds)], np.sort(colours)])
    return blake2b(content.astype("<u8").tobytes(), digest_size=16).digest()


def _mix(values: _Colours) -> _Colours:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), after its increment."""
    mixed = values + _INCREMENT
    for shift, factor in _ROUNDS:
        mixed ^= mixed >> shift
        mixed *= factor
    mixed ^= mixed >> _LAST_SHIFT
    return mixed
