"""Protocols: named, versioned rules that say which graphs train, select and test.

``paper`` reproduces the official code of the NAR-Former and NN-Former papers: the first rows train, the next rows select,
*all* rows test, so the test set contains the training and validation graphs (``rest`` is the part that does not).
``strict`` draws train and validation at random and keeps every graph with an equal canonical hash out of test.
The rules by family, stage and platform are in ``datasets.family_protocols``.
"""

from __future__ import annotations

import numpy as np

from datasets.errors import UserError, require_choice
from datasets.family_protocols import RULES, family_split
from datasets.protocol_types import LabelConfig, ProtocolConfig, Rows, Split, graph_numbers, parse_size
from datasets.store import GraphStore

VERSIONS = {"paper": 1, "strict": 1, **dict.fromkeys(RULES, 1)}


def split(store: GraphStore, config: ProtocolConfig, labels: LabelConfig) -> Split:
    """Apply a protocol: a pure function of the store, the protocol, its sizes and its seed.

    Raises:
        UserError: for an unknown protocol, impossible sizes or missing labels.
    """
    rules = {"paper": _paper, "strict": _strict}
    require_choice("protocol.name", config.name, VERSIONS)
    if config.name in RULES:
        return family_split(store, config, labels)
    return rules[config.name](store, config, labels)


def _paper(store: GraphStore, config: ProtocolConfig, labels: LabelConfig) -> Split:
    total = len(store)
    train = parse_size(config.train, total, "protocol.train")
    val = parse_size(config.val, total, "protocol.val")
    test = parse_size(config.test, total, "protocol.test")
    if train + val > total:
        raise UserError(f"protocol.train={train} and protocol.val={val} exceed the {total} graphs; make them smaller")
    rows = np.arange(total)
    new = test > train + val
    _require_labels(store, rows[:train], labels.train)
    _require_labels(store, rows[train : train + val], labels.val)
    _require_labels(store, rows[:test], labels.test)
    return Split(
        train=rows[:train],
        val=rows[train : train + val],
        test=rows[:test],
        rest=rows[train + val : test] if new else None,
        excluded={},
        leaks="test contains the training and validation graphs"
        + ("" if new else f" and no others: it is within the {train + val:,} rows that train or select"),
    )


def _strict(store: GraphStore, config: ProtocolConfig, labels: LabelConfig) -> Split:
    """Draw uniformly over distinct graphs: over rows, graphs that occur often would all end up in train and val."""
    train_y, val_y, test_y = (store.label(name) for name in (labels.train, labels.val, labels.test))
    groups = graph_numbers(store.hashes)
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
            f"labelled {labels.train}; make them smaller"
        )
    selecting = candidates[train:][~np.isnan(val_y[candidates[train:]])]
    if val > len(selecting):
        raise UserError(
            f"protocol.val={val}: of the {len(candidates) - train} graphs that do not train, {len(selecting)} have "
            f"{labels.val}; make it smaller or choose another dataset.labels.val"
        )
    used = np.zeros(groups.max() + 1, bool)
    used[groups[np.concatenate([candidates[:train], selecting[:val]])]] = True
    free = order[~used[groups[order]]]
    scored = free[~np.isnan(test_y[free])]
    if not len(scored):
        raise UserError(f"protocol.test: no graph outside train and val has {labels.test}; make train or val smaller")
    test = len(scored) if str(config.test) == "all" else parse_size(config.test, len(scored), "protocol.test")
    return Split(
        train=candidates[:train],
        val=selecting[:val],
        test=np.sort(scored[:test]),
        rest=None,
        excluded={
            "same graph as one that trains or selects": int(len(order) - len(free) - train - val),
            f"no {labels.test}": len(free) - len(scored),
        },
        leaks="",
    )


def prove_disjoint(store: GraphStore, parts: Split) -> None:
    """Check that no canonical graph is in two roles.

    Raises:
        UserError: naming two roles that share a graph.
    """
    groups = graph_numbers(store.hashes)
    roles = {"train": parts.train, "val": parts.val, "test": parts.test}
    seen = np.full(groups.max() + 1, -1, np.int8)
    for number, (role, rows) in enumerate(roles.items()):
        clash = rows[(seen[groups[rows]] != -1) & (seen[groups[rows]] != number)]
        if len(clash):
            other = list(roles)[seen[groups[clash[0]]]]
            raise UserError(f"{store.manifest.name}: graph {store.keys(clash[:1])[0]} is in both {other} and {role}")
        seen[groups[rows]] = number


def _require_labels(store: GraphStore, rows: Rows, label: str) -> None:
    missing = rows[np.isnan(store.label(label)[rows])]
    if len(missing):
        key = store.keys(missing[:1])[0]
        raise UserError(
            f"{store.manifest.name}: {len(missing)} of the {len(rows)} rows have no {label} (NaN), first row {missing[0]} "
            f"({key}); choose another label or smaller sizes, or protocol=strict, which skips them"
        )
