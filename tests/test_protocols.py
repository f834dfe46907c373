from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from stores import hashed_store

from datasets.errors import UserError
from datasets.protocol_types import LabelConfig, ProtocolConfig, Split, parse_size
from datasets.protocols import prove_disjoint, split

NAN = float("nan")
AB = LabelConfig("a", "a", "b")


def config(name="strict", train=2, val=1, test="all", seed=0) -> ProtocolConfig:
    return ProtocolConfig(name, train, val, test, seed)


@pytest.fixture
def duplicated(tmp_path):
    """300 rows of 40 graphs, each 1 to 20 times; every seventh label a and every fifth label b is missing."""
    rng = np.random.default_rng(9)
    groups = np.concatenate([np.arange(40), rng.integers(0, 40, 260)])
    a, b = rng.random(300), rng.random(300)
    a[::7], b[::5] = NAN, NAN
    return hashed_store(tmp_path / "many", rng.permutation(groups).tolist(), a.tolist(), b.tolist())


def graph_ids(store, rows):
    return {store.hashes[row].tobytes() for row in rows}


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (424, 424),
        ("424", 424),
        (" 7 ", 7),
        (1, 1),
        (1000, 1000),
        ("all", 1000),
        (0.05, 50),
        ("0.05", 50),
        ("5%", 50),
        ("5 %", 50),
        ("0.1%", 1),
        ("100%", 1000),
        (1.0, 1000),
        (0.0004, None),
        (0, None),
        (-3, None),
        (1001, None),
        ("101%", None),
        (2.0, None),
    ],
)
def test_sizes(value, size):
    if size is not None:
        assert parse_size(value, 1000, "protocol.train") == size
        return
    with pytest.raises(UserError, match=r"protocol.train=.* means -?\d+ graphs; choose 1 to 1000"):
        parse_size(value, 1000, "protocol.train")


@pytest.mark.parametrize("value", [1, "10%", "all"])
def test_a_size_of_nothing_says_what_may_have_left_nothing(value):
    with pytest.raises(UserError, match=rf"protocol.val={value}: no graph is left for it by the protocol, the other sizes"):
        parse_size(value, 0, "protocol.val")


@pytest.mark.parametrize("value", ["many", "", "%", "5 percent", "nan%", "inf%", "1e400%", "0.1.2", True, np.inf, None])
def test_what_is_no_size_names_its_key(value):
    with pytest.raises(UserError, match=r"protocol.val=.*: not a size; give a count \(424\), a fraction .* or all"):
        parse_size(value, 1000, "protocol.val")


def test_paper_takes_rows_in_order_and_tests_on_all(tmp_path):
    store = hashed_store(tmp_path / "s", [0, 0, 1, 2, 3, 3, 4, 5], list(range(8)), list(range(8)))
    parts = split(store, config("paper", train=3, val="25%"), AB)
    assert parts.train.tolist() == [0, 1, 2]
    assert parts.val.tolist() == [3, 4]
    assert parts.test.tolist() == list(range(8))
    assert parts.rest.tolist() == [5, 6, 7]
    assert parts.excluded == {}
    assert parts.leaks == "test contains the training and validation graphs"
    smaller = split(store, config("paper", train=3, val=2, test=6), AB)
    assert (smaller.test.tolist(), smaller.rest.tolist()) == (list(range(6)), [5])
    assert split(store, config("paper", train=3, val="25%", seed=77), AB).sha256 == parts.sha256


@pytest.mark.parametrize(("train", "val", "test"), [(3, 2, 5), (3, 2, 1), (4, 4, "all")])
def test_paper_says_when_it_tests_on_nothing_new(tmp_path, train, val, test):
    store = hashed_store(tmp_path / "s", list(range(8)), list(range(8)), list(range(8)))
    parts = split(store, config("paper", train, val, test), AB)
    assert parts.rest is None
    assert parts.leaks.endswith(f" graphs and no others: it is within the {train + val} rows that train or select")


def test_paper_refuses_missing_labels_naming_row_and_key(tmp_path):
    a, b = [0, 1, NAN, 3, NAN], [0, 1, 2, 3, NAN]
    store = hashed_store(tmp_path / "s", [0, 1, 2, 3, 4], a, b)
    with pytest.raises(UserError, match=r"toy: 1 of the 3 rows have no a \(NaN\), first row 2 \(g2\).*protocol=strict"):
        split(store, config("paper", train=3, val=1), AB)
    with pytest.raises(UserError, match=r"toy: 1 of the 5 rows have no b \(NaN\), first row 4 \(g4\)"):
        split(store, config("paper", train=1, val=1), AB)
    assert split(store, config("paper", train=1, val=1, test=4), AB).test.tolist() == [0, 1, 2, 3]


def test_paper_needs_the_validation_label_of_validation_rows_only(tmp_path):
    store = hashed_store(tmp_path / "s", [0, 1, 2, 3], [0, 1, 2, 3], [NAN, 1, NAN, 3])
    labels = LabelConfig("a", "b", "a")
    assert split(store, config("paper", train=1, val=1), labels).val.tolist() == [1]
    with pytest.raises(UserError, match=r"toy: 1 of the 2 rows have no b \(NaN\), first row 2 \(g2\)"):
        split(store, config("paper", train=1, val=2), labels)


def test_paper_refuses_sizes_that_do_not_fit(tmp_path):
    store = hashed_store(tmp_path / "s", [0, 1, 2, 3], [0] * 4, [0] * 4)
    with pytest.raises(UserError, match=r"protocol.train=3 and protocol.val=2 exceed the 4 graphs"):
        split(store, config("paper", train=3, val=2), AB)
    with pytest.raises(UserError, match=r"protocol.test=0 means 0 graphs"):
        split(store, config("paper", test=0), AB)


def test_strict_on_a_store_small_enough_to_do_by_hand(tmp_path):
    groups = [0, 0, 1, 2, 2, 2, 3, 4]
    a = [1, NAN, 1, 1, 1, 1, NAN, 1]
    b = [1, 1, 1, 1, 1, NAN, 1, 1]
    store = hashed_store(tmp_path / "s", groups, a, b)
    for seed in range(20):
        parts = split(store, config(seed=seed), AB)
        rng = np.random.default_rng(seed)
        order = [row for row in rng.permutation(8) if not np.isnan(a[row])]
        distinct = rng.permutation(
            [row for i, row in enumerate(order) if groups[row] not in [groups[r] for r in order[:i]]]
        )
        distinct = distinct.tolist()
        assert parts.train.tolist() == distinct[:2]
        assert parts.val.tolist() == distinct[2:3]
        used = {groups[row] for row in distinct[:3]}
        assert parts.test.tolist() == [row for row in range(8) if groups[row] not in used and b[row] == 1]
        duplicates = sum(group in used for group in groups) - 3
        unscored = int(2 not in used)
        assert parts.excluded == {"same graph as one that trains or selects": duplicates, "no b": unscored}
        assert len(parts.train) + len(parts.val) + len(parts.test) + sum(parts.excluded.values()) == 8
        assert parts.rest is None
        assert parts.leaks == ""


def test_strict_selects_on_rows_with_the_validation_label(duplicated):
    same, other = (split(duplicated, config(train=12, val=8), labels) for labels in (AB, LabelConfig("a", "b", "a")))
    assert np.isnan(duplicated.label("b")[same.val]).any()
    assert not np.isnan(duplicated.label("b")[other.val]).any()
    assert other.train.tolist() == same.train.tolist()
    assert len(other.val) == 8
    assert sum(map(len, (other.train, other.val, other.test))) + sum(other.excluded.values()) == 300
    prove_disjoint(duplicated, other)


def test_strict_refuses_more_validation_graphs_than_have_the_label(tmp_path):
    store = hashed_store(tmp_path / "s", list(range(8)), [1] * 8, [1] + [NAN] * 7)
    with pytest.raises(UserError, match=r"protocol.val=2: of the 6 graphs that do not train, [01] have b"):
        split(store, config(val=2), LabelConfig("a", "b", "a"))


@pytest.mark.parametrize("seed", range(5))
def test_strict_is_disjoint_by_graph_however_many_duplicates_there_are(duplicated, seed):
    parts = split(duplicated, config(train="30%", val=8, seed=seed), AB)
    train, val, test = (graph_ids(duplicated, rows) for rows in (parts.train, parts.val, parts.test))
    assert not train & val | train & test | val & test
    assert len(train) == len(parts.train) == 12
    assert len(val) == len(parts.val) == 8
    assert len(train | val | test) == 40
    assert not np.isnan(duplicated.label("a")[np.concatenate([parts.train, parts.val])]).any()
    assert not np.isnan(duplicated.label("b")[parts.test]).any()
    assert sum(map(len, (parts.train, parts.val, parts.test))) + sum(parts.excluded.values()) == 300
    prove_disjoint(duplicated, parts)


def test_strict_is_a_function_of_its_seed(duplicated):
    digests = [split(duplicated, config(train=10, val=5, seed=seed), AB).sha256 for seed in (0, 0, 1, 2)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_smaller_strict_training_set_is_part_of_a_larger_one(duplicated):
    small, large = (split(duplicated, config(train=n, val=5), AB).train.tolist() for n in (4, 15))
    assert large[:4] == small


def test_strict_test_can_be_cut(duplicated):
    whole = split(duplicated, config(train=10, val=5), AB).test
    part = split(duplicated, config(train=10, val=5, test=30), AB).test
    assert len(part) == 30
    assert set(part) < set(whole)
    assert part.tolist() == sorted(part)
    with pytest.raises(UserError, match=rf"protocol.test=300 means 300 graphs; choose 1 to {len(whole)}"):
        split(duplicated, config(train=10, val=5, test=300), AB)


def test_strict_refuses_sizes_that_leave_nothing(duplicated, tmp_path):
    with pytest.raises(UserError, match=r"protocol.train=35 and protocol.val=5 leave nothing to test of the 40"):
        split(duplicated, config(train=35, val=5), AB)
    with pytest.raises(UserError, match=r"protocol.train=41 means 41 graphs; choose 1 to 40"):
        split(duplicated, config(train=41), AB)
    store = hashed_store(tmp_path / "s", [0, 1, 2, 3], [1, 1, 1, 1], [NAN] * 4)
    with pytest.raises(UserError, match=r"no graph outside train and val has b"):
        split(store, config(), AB)


def test_the_digest_is_that_of_the_rows_of_each_role():
    rows = [np.array(r) for r in ([5, 2], [7], [1, 3, 4])]
    parts = Split(*rows, rest=None, excluded={}, leaks="")
    text = (
        b"train 2\n"
        + struct.pack("<2q", 5, 2)
        + b"val 1\n"
        + struct.pack("<q", 7)
        + b"test 3\n"
        + struct.pack("<3q", 1, 3, 4)
    )
    assert parts.sha256 == hashlib.sha256(text).hexdigest()
    assert replace(parts, train=parts.train[::-1]).sha256 != parts.sha256
    assert replace(parts, val=rows[2], test=rows[1]).sha256 != parts.sha256


def test_a_graph_in_two_roles_is_named(tmp_path):
    store = hashed_store(tmp_path / "s", [0, 1, 2, 1], [0] * 4, [0] * 4)
    parts = Split(np.array([0, 1]), np.array([2]), np.array([3]), rest=None, excluded={}, leaks="")
    with pytest.raises(UserError, match=r"toy: graph g3 is in both train and test"):
        prove_disjoint(store, parts)
    prove_disjoint(store, replace(parts, test=np.array([], np.int64)))


def test_an_unknown_protocol_lists_the_known_ones(duplicated):
    with pytest.raises(UserError, match=r"protocol.name=papers: unknown; choose one of paper, strict"):
        split(duplicated, config("papers"), AB)
