"""Protocols: named, versioned rules that say which graphs train, select and test.

``paper`` reproduces the official code of the NAR-Former and NN-Former papers: the first rows train, the next rows select,
*all* rows test, so the test set contains the training and validation graphs (``rest`` is the part that does not).
``strict`` draws train and validation at random and keeps every graph with an equal canonical hash out of test.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError, require_choice
from datasets.store import GraphStore

VERSIONS = {"paper": 1, "strict": 1}
Rows = NDArray[np.int64]


@dataclass
class ProtocolConfig:
    """Which graphs train, select and test.

    Sizes are a count (``424``), a fraction (``0.05``, ``5%``) or ``all``.

    Attributes:
        name: ``paper`` or ``strict``.
        train: training graphs.
        val: graphs that choose the checkpoint.
        test: test graphs; ``all`` is every row for ``paper`` and every row left for ``strict``.
        seed: draws the ``strict`` split; ``paper`` ignores it.
    """

    name: str
    train: int | float | str
    val: int | float | str
    test: int | float | str
    seed: int


@dataclass(frozen=True)
class Split:
    """Rows of a store by role.

    Attributes:
        train: rows that train.
        val: rows that choose the checkpoint.
        test: rows that are scored.
        rest: the test rows that neither trained nor selected, where ``test`` has others too.
        excluded: graphs in none of the sets, by reason.
        leaks: what the rule lets through, in words; empty for a clean rule.
    """

    train: Rows
    val: Rows
    test: Rows
    rest: Rows | None
    excluded: dict[str, int]
    leaks: str

    @property
    def sha256(self) -> str:
        """Digest of the rows of every role, in order."""
        digest = hashlib.sha256()
        for name in ("train", "val", "test"):
            rows = np.ascontiguousarray(getattr(self, name), dtype="<i8")
            digest.update(f"{name} {len(rows)}\n".encode())
            digest.update(rows.data)
        return digest.hexdigest()


def parse_size(value: int | float | str, total: int, key: str) -> int:
    """Number of graphs meant by a size.

    Raises:
        UserError: naming ``key`` if the value is no size, is not positive or exceeds ``total``.
    """
    text = str(value).strip()
    try:
        if text == "all":
            size = total
        elif text.endswith("%"):
            size = round(float(text[:-1]) / 100 * total)
        elif isinstance(value, float) or "." in text:
            size = round(float(text) * total)
        else:
            size = int(text)
    except (ValueError, OverflowError):
        raise UserError(f"{key}={value}: not a size; give a count (424), a fraction (0.05, 5%) or all") from None
    if not 0 < size <= total:
        raise UserError(f"{key}={value} means {size} graphs; the data have {total}: choose 1 to {total}")
    return size


def split(store: GraphStore, config: ProtocolConfig, train_label: str, test_label: str) -> Split:
    """Apply a protocol: a pure function of the store, the protocol, its sizes and its seed.

    Raises:
        UserError: for an unknown protocol, impossible sizes or missing labels.
    """
    rules = {"paper": _paper, "strict": _strict}
    require_choice("protocol.name", config.name, rules)
    return rules[config.name](store, config, store.label(train_label), store.label(test_label), train_label, test_label)


def _paper(
    store: GraphStore, config: ProtocolConfig, train_y: Any, test_y: Any, train_label: str, test_label: str
) -> Split:
    total = len(store)
    train = parse_size(config.train, total, "protocol.train")
    val = parse_size(config.val, total, "protocol.val")
    test = parse_size(config.test, total, "protocol.test")
    if train + val > total:
        raise UserError(f"protocol.train={train} and protocol.val={val} exceed the {total} graphs; make them smaller")
    rows = np.arange(total)
    _require_labels(store, rows[: train + val], train_y, train_label)
    _require_labels(store, rows[:test], test_y, test_label)
    return Split(
        train=rows[:train],
        val=rows[train : train + val],
        test=rows[:test],
        rest=rows[train + val : test],
        excluded={},
        leaks="test contains the training and validation graphs",
    )


def _strict(
    store: GraphStore, config: ProtocolConfig, train_y: Any, test_y: Any, train_label: str, test_label: str
) -> Split:
    """Draw uniformly over distinct graphs: over rows, graphs that occur often would all end up in train and val."""
    groups = _hash_groups(store.hashes)
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(store))
    labelled = order[~np.isnan(train_y[order])]
    _, first = np.unique(groups[labelled], return_index=True)
    candidates = rng.permutation(labelled[np.sort(first)])
    train = parse_size(config.train, len(candidates), "protocol.train")
    val = parse_size(config.val, len(candidates), "protocol.val")
    if train + val >= len(candidates):
        raise UserError(
            f"protocol.train={train} and protocol.val={val} leave nothing to test of the {len(candidates)} distinct graphs "
            f"labelled {train_label}; make them smaller"
        )
    used = np.zeros(groups.max() + 1, bool)
    used[groups[candidates[: train + val]]] = True
    free = order[~used[groups[order]]]
    scored = free[~np.isnan(test_y[free])]
    if not len(scored):
        raise UserError(f"protocol.test: no graph outside train and val has {test_label}; make train or val smaller")
    test = len(scored) if str(config.test) == "all" else parse_size(config.test, len(scored), "protocol.test")
    return Split(
        train=candidates[:train],
        val=candidates[train : train + val],
        test=np.sort(scored[:test]),
        rest=None,
        excluded={
            "same graph as one that trains or selects": int(len(order) - len(free) - train - val),
            f"no {test_label}": len(free) - len(scored),
        },
        leaks="",
    )


def prove_disjoint(store: GraphStore, parts: Split) -> None:
    """Check that no canonical graph is in two roles.

    Raises:
        UserError: naming two roles that share a graph.
    """
    groups = _hash_groups(store.hashes)
    roles = {"train": parts.train, "val": parts.val, "test": parts.test}
    seen = np.full(groups.max() + 1, -1, np.int8)
    for number, (role, rows) in enumerate(roles.items()):
        clash = rows[(seen[groups[rows]] != -1) & (seen[groups[rows]] != number)]
        if len(clash):
            other = list(roles)[seen[groups[clash[0]]]]
            raise UserError(f"{store.manifest.name}: graph {store.keys(clash[:1])[0]} is in both {other} and {role}")
        seen[groups[rows]] = number


def _hash_groups(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number graphs so that equal hashes have equal numbers (B,)."""
    words = np.ascontiguousarray(hashes).view(">u8")
    order = np.lexsort((words[:, 1], words[:, 0]))
    changed = np.any(words[order][1:] != words[order][:-1], axis=1)
    groups = np.empty(len(order), np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(changed)])
    return groups


def _require_labels(store: GraphStore, rows: Rows, values: NDArray[np.float64], label: str) -> None:
    missing = rows[np.isnan(values[rows])]
    if len(missing):
        key = store.keys(missing[:1])[0]
        raise UserError(
            f"{store.manifest.name}: {len(missing)} of the {len(rows)} rows have no {label} (NaN), first row {missing[0]} "
            f"({key}); choose another label or smaller sizes, or protocol=strict, which skips them"
        )
