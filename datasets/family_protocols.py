"""Protocols of latency benchmarks, which divide graphs by family, by published stage or by platform.

Each says which rows may train (the pool) and which are scored. Selection is then on ``validation``, carved out of the pool
with every graph that is also scored removed from it, or on ``test``, as the official code of NNLP, NAR-Former V2 and
NN-Former selects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError, require_choice
from datasets.protocol_types import LabelConfig, ProtocolConfig, Rows, Split, graph_numbers, parse_size
from datasets.store import GraphStore

TEST_SHARE = 10
"""In domain one graph in so many of each family and platform is tested, the last in file order (NNLQP: 200 of 2,000)."""

SELECT = ("validation", "test")


def family_split(store: GraphStore, config: ProtocolConfig, labels: LabelConfig) -> Split:
    """Rows of each role under ``in_domain``, ``ood``, ``multi_platform`` or ``transfer``.

    Raises:
        UserError: for an unknown family or platform, a store without the groups the rule needs, impossible sizes or
            validation rows without a label.
    """
    require_choice("protocol.select", config.select, SELECT)
    tested = RULES[config.name](store, config)
    within = np.ones(len(store), bool) if config.name in ("in_domain", "ood") else _platforms(store, config)
    train_y, val_y, test_y = (store.label(name) for name in (labels.train, labels.val, labels.test))
    test = np.flatnonzero(tested & within & ~np.isnan(test_y))
    pool = np.flatnonzero(~tested & within & ~np.isnan(train_y))
    unlabelled = int((tested & within & np.isnan(test_y)).sum() + (~tested & within & np.isnan(train_y)).sum())
    excluded = {"no label": unlabelled, "outside the protocol": int((~within).sum())}
    rng = np.random.default_rng(config.seed)
    test = np.sort(rng.permutation(test)[: parse_size(config.test, len(test), "protocol.test")])
    if config.select == "test":
        train = rng.permutation(pool)[: parse_size(config.train, len(pool), "protocol.train")]
        val = _labelled(test, val_y, labels.val)
        return Split(train, val, test, None, excluded, "the checkpoint is selected on the test set")
    numbers = graph_numbers(store.hashes)
    fresh = pool[~np.isin(numbers[pool], numbers[test])]
    excluded["same graph as one that is tested"] = len(pool) - len(fresh)
    selecting = _labelled(fresh, val_y, labels.val)
    val = _whole_graphs(numbers, selecting, parse_size(config.val, len(selecting), "protocol.val"), rng)
    free = fresh[~np.isin(numbers[fresh], numbers[val])]
    excluded["no label"] += len(fresh) - len(val) - len(free)
    left = rng.permutation(free)
    train = left[: parse_size(config.train, len(left), "protocol.train")]
    return Split(train, val, test, None, excluded, "")


def _in_domain(store: GraphStore, config: ProtocolConfig) -> NDArray[np.bool_]:
    """The published stage where the benchmark has one, else the last tenth of each family on each platform."""
    stages, stage = store.groups("stage")
    if stages:
        return np.equal(stage, _place("stage", "test", stages))
    _, family = _required(store, "family")
    platforms, platform = store.platforms
    groups = family * max(1, len(platforms)) + platform
    tested = np.zeros(len(store), bool)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        tested[rows[len(rows) - len(rows) // TEST_SHARE :]] = True
    if not tested.any():
        raise UserError(
            f"protocol=in_domain tests one row in {TEST_SHARE} of each family, and no family of {store.manifest.name} has "
            "so many; add rows, or choose protocol=strict or ood"
        )
    return tested


def _ood(store: GraphStore, config: ProtocolConfig) -> NDArray[np.bool_]:
    """One family, which no training graph belongs to."""
    names, family = _required(store, "family")
    return np.equal(family, _place("protocol.family", config.family, names))


def _by_stage(store: GraphStore, config: ProtocolConfig) -> NDArray[np.bool_]:
    """The published stage."""
    names, stage = _required(store, "stage")
    return np.equal(stage, _place("stage", "test", names))


RULES = {"in_domain": _in_domain, "ood": _ood, "multi_platform": _by_stage, "transfer": _by_stage}


def _platforms(store: GraphStore, config: ProtocolConfig) -> NDArray[np.bool_]:
    """Rows of the platforms in play: ``transfer`` has the named one, ``multi_platform`` all but the named one."""
    names, platform = _required(store, "platform")
    if config.name == "multi_platform" and config.platform is None:
        return np.ones(len(store), bool)
    named = np.equal(platform, _place("protocol.platform", config.platform, names))
    return named if config.name == "transfer" else ~named


def _labelled(rows: Rows, values: NDArray[np.float64], label: str) -> Rows:
    found = rows[~np.isnan(values[rows])]
    if not len(found):
        raise UserError(f"protocol.val: no row that may select has {label}; choose another dataset.labels.val")
    return found


def _whole_graphs(numbers: NDArray[np.int64], pool: Rows, size: int, rng: np.random.Generator) -> Rows:
    """About ``size`` rows of ``pool``, all rows of a graph together."""
    graphs, place = np.unique(numbers[pool], return_inverse=True)
    rank = rng.permutation(len(graphs))[place]
    order = np.argsort(rank, kind="stable")
    last = rank[order[size - 1]]
    return np.sort(pool[rank <= last])


def _required(store: GraphStore, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    values, numbers = store.groups(name)
    if not values:
        raise UserError(
            f"{store.manifest.name} has no {name} column, which this protocol divides by; choose protocol=strict or paper"
        )
    return values, numbers


def _place(key: str, value: str | None, known: tuple[str, ...]) -> int:
    if value is None:
        raise UserError(f"{key}: not given; choose one of {', '.join(known)}")
    require_choice(key, value, known)
    return known.index(value)
