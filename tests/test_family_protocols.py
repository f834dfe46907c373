"""Protocols by family, stage and platform."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from stores import hashed_store

from datasets.errors import UserError
from datasets.protocol_types import LabelConfig, ProtocolConfig
from datasets.protocols import prove_disjoint, split

NAN = float("nan")
LABELS = LabelConfig("a", "a", "b")


def config(name, train="all", val="20%", select="validation", seed=0, **rest):
    return ProtocolConfig(name, train, val, rest.pop("test", "all"), seed, select, **rest)


@pytest.fixture
def families(tmp_path):
    """Three families of 40, 30 and 30 rows; row i of a family repeats the graph of row i - 5."""
    names = ["vgg"] * 40 + ["resnet"] * 30 + ["alexnet"] * 30
    graphs = [100 * (row >= 40) + 40 * (row >= 70) + row % 35 for row in range(100)]
    labels = list(np.linspace(1, 2, 100))
    return hashed_store(tmp_path / "families", graphs, labels, labels, family=names)


@pytest.fixture
def platforms(tmp_path):
    """Ten graphs on three devices, the last three graphs published as the test stage."""
    graphs = list(range(10)) * 3
    stage = ["test" if graph >= 7 else "train" for graph in graphs]
    device = [name for name in ("cpu", "gpu", "npu") for _ in range(10)]
    labels = list(np.linspace(1, 2, 30))
    return hashed_store(tmp_path / "platforms", graphs, labels, labels, stage=stage, platform=device)


def parts_of(store, **values):
    parts = split(store, config(**values), LABELS)
    if not parts.leaks:
        prove_disjoint(store, parts)
    return parts


def test_in_domain_tests_the_last_tenth_of_each_family(families):
    parts = parts_of(families, name="in_domain")
    assert parts.test.tolist() == [36, 37, 38, 39, 67, 68, 69, 97, 98, 99]
    tested = {families.hashes[row].tobytes() for row in parts.test}
    twins = [row for row in range(100) if families.hashes[row].tobytes() in tested]
    assert not set(twins) & (set(parts.train) | set(parts.val))
    assert parts.excluded["same graph as one that is tested"] == len(set(twins) - set(parts.test))
    assert len(parts.train) + len(parts.val) + len(set(twins) | set(parts.test)) == 100
    assert len(parts.val) == round(0.2 * (100 - len(twins)))


def test_in_domain_tests_every_platform(tmp_path):
    """Rows by platform: the last two networks of twenty are tested on all three."""
    ones = [1.0] * 60
    device = [name for name in ("cpu", "gpu", "npu") for _ in range(20)]
    store = hashed_store(tmp_path / "s", [*range(20)] * 3, ones, ones, family=["vgg"] * 60, platform=device)
    parts = parts_of(store, name="in_domain")
    assert parts.test.tolist() == [18, 19, 38, 39, 58, 59]
    assert len(parts.train) + len(parts.val) == 54


def test_in_domain_needs_a_family_of_ten(tmp_path):
    labels = list(np.linspace(1, 2, 18))
    store = hashed_store(tmp_path / "small", list(range(18)), labels, labels, family=["vgg"] * 9 + ["resnet"] * 9)
    with pytest.raises(UserError, match=r"one row in 10 of each family, and no family of \w+ has so many; add rows"):
        parts_of(store, name="in_domain")


def test_a_published_stage_goes_before_the_last_tenth(tmp_path):
    stage = ["test", "train"] * 10
    ones = [1.0] * 20
    store = hashed_store(tmp_path / "s", list(range(20)), ones, ones, family=["vgg"] * 20, stage=stage)
    assert parts_of(store, name="in_domain").test.tolist() == list(range(0, 20, 2))


def test_out_of_domain_holds_a_family_out(families):
    parts = parts_of(families, name="ood", family="resnet")
    assert parts.test.tolist() == list(range(40, 70))
    assert not set(range(40, 70)) & (set(parts.train) | set(parts.val))
    again = parts_of(families, name="ood", family="resnet", seed=1)
    assert set(again.val) != set(parts.val)


def test_selection_on_test_is_as_published_and_says_so(families):
    parts = parts_of(families, name="ood", family="vgg", select="test", train=25)
    assert parts.val.tolist() == parts.test.tolist() == list(range(40))
    assert len(parts.train) == 25
    assert set(parts.train) <= set(range(40, 100))
    assert "selected on the test set" in parts.leaks


@pytest.mark.parametrize("select", ["validation", "test"])
def test_training_graphs_are_drawn_from_the_whole_pool(families, select):
    """A few of them, drawn anew with each seed, not the first rows of the file."""
    pool = set(parts_of(families, name="ood", family="vgg", select=select).train)
    drawn = [set(parts_of(families, name="ood", family="vgg", select=select, train=12, seed=seed).train) for seed in (0, 1)]
    assert all(len(rows) == 12 and rows < set(range(40, 100)) for rows in drawn)
    assert drawn[0] != drawn[1]
    assert drawn[0] < pool
    assert all(min(rows) < 60 and max(rows) > 80 for rows in drawn)


def test_no_graph_is_tested_on_one_platform_and_trained_on_another(platforms):
    parts = parts_of(platforms, name="multi_platform")
    assert sorted(parts.test % 10) == sorted([7, 8, 9] * 3)
    validated = set(parts.val % 10)
    assert len(parts.val) == 3 * len(validated)
    assert not validated & set(parts.train % 10)


def test_multi_platform_can_leave_one_device_out_and_transfer_takes_it_up(platforms):
    rest = parts_of(platforms, name="multi_platform", platform="gpu")
    assert not {*rest.train, *rest.val, *rest.test} & set(range(10, 20))
    assert rest.excluded["outside the protocol"] == 10
    one = parts_of(platforms, name="transfer", platform="gpu", train=3)
    assert len(one.train) == 3
    assert {*one.train, *one.val, *one.test} <= set(range(10, 20))
    assert one.test.tolist() == [17, 18, 19]


def test_unlabelled_rows_are_left_out_and_counted(tmp_path):
    a = [NAN if row in (3, 95) else 1.0 for row in range(100)]
    store = hashed_store(tmp_path / "s", list(range(100)), a, a, family=["vgg"] * 100)
    parts = parts_of(store, name="in_domain")
    assert parts.excluded["no label"] == 2
    assert 95 not in parts.test
    assert 3 not in {*parts.train, *parts.val}


@pytest.fixture
def half_selecting(tmp_path):
    """Two rows of each of fifty graphs; every odd row and the first ten graphs have no ``b``."""
    b = [NAN if row % 2 or row < 20 else 1.0 for row in range(100)]
    return hashed_store(tmp_path / "s", [row // 2 for row in range(100)], [1.0] * 100, b, family=["vgg"] * 100)


def test_rows_without_the_validation_label_never_select(half_selecting):
    parts = split(half_selecting, config("in_domain", val=7), LabelConfig("a", "b", "a"))
    assert len(parts.val) == 7
    assert not np.isnan(half_selecting.label("b")[parts.val]).any()
    assert parts.excluded["no label"] == 7  # the twins of those that select
    assert len(parts.train) == 100 - 10 - 7 - 7
    prove_disjoint(half_selecting, parts)


def test_selection_on_test_skips_rows_without_the_validation_label(half_selecting, tmp_path):
    labels = LabelConfig("a", "b", "a")
    parts = split(half_selecting, config("in_domain", select="test"), labels)
    assert parts.test.tolist() == list(range(90, 100))
    assert parts.val.tolist() == [90, 92, 94, 96, 98]
    store = hashed_store(tmp_path / "none", list(range(20)), [1.0] * 20, [NAN] * 20, family=["vgg"] * 20)
    for select in ("validation", "test"):
        with pytest.raises(
            UserError, match=r"protocol.val: no row that may select has b; choose another dataset.labels.val"
        ):
            split(store, config("in_domain", select=select), labels)


def test_part_of_the_test_set(families):
    some = parts_of(families, name="ood", family="vgg", test=10)
    assert len(some.test) == 10
    assert set(some.test) < set(range(40))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "ood"}, "protocol.family: not given; choose one of vgg, resnet, alexnet"),
        ({"name": "ood", "family": "vgg16"}, "protocol.family=vgg16: unknown; choose one of vgg, resnet, alexnet"),
        ({"name": "transfer", "platform": "gpu"}, "toy has no stage column"),
        ({"name": "in_domain", "select": "train"}, "protocol.select=train: unknown"),
        ({"name": "in_domain", "train": 1000}, "protocol.train=1000 means 1000 graphs"),
    ],
)
def test_mistakes_name_the_key(families, values, message):
    with pytest.raises(UserError, match=message):
        parts_of(families, **values)


def test_nnlqp_stages_are_the_last_tenth_of_each_family(shared, tmp_path):
    content = gzip.decompress((shared / "data" / "nnlqp_gt_stage.txt.gz").read_bytes()).decode()
    lines = [line.split() for line in content.splitlines()]
    stages, names = [line[-1] for line in lines], [line[4] for line in lines]
    ones = [1.0] * len(lines)
    store = hashed_store(tmp_path / "s", [i % 1600 for i in range(len(lines))], ones, ones, family=names)
    tested = parts_of(store, name="in_domain", select="test").test
    assert tested.tolist() == [row for row, stage in enumerate(stages) if stage == "test"]
