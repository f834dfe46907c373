from __future__ import annotations

import json
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from datasets import digits201, digits201_training
from datasets.base import DatasetConfig, LabelConfig, LoadingConfig
from datasets.cells201 import (
    CELL_EDGES,
    NODE_EDGES,
    NODE_OPERATIONS,
    cell_string,
    enumerate_cells,
    node_operations,
    parse_cell,
)
from datasets.digits201 import Digits201, noise_ceilings
from datasets.digits201_training import (
    Cell,
    DigitsNetwork,
    Recipe,
    count_cost,
    load_images,
    read_journal,
    sampled_cells,
    train_all,
)
from datasets.embedded import read_columns
from datasets.errors import UserError
from datasets.protocol_types import ProtocolConfig
from datasets.store import fingerprint

LABELS = ("validation_accuracy", "validation_accuracy", "test_accuracy")
TINY = Recipe(cells=3, epochs=1, channels=2, train_images=64, batch_size=64)
ARCH = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"


@pytest.fixture(scope="module")
def store():
    config = DatasetConfig("", "digits201", "", "", True, LabelConfig(*LABELS))
    benchmark = Digits201(
        config, ProtocolConfig("strict", 400, 200, "all", 0), LoadingConfig(batch_size=32, eval_nodes=64 * 8), 0
    )
    benchmark.prepare_data()
    benchmark.setup()
    return benchmark


def test_every_cell_survives_writing_and_parsing():
    cells = enumerate_cells()
    assert len(set(cells)) == 5**6
    assert all(cell_string(parse_cell(cell)) == cell for cell in cells)


@pytest.mark.parametrize(
    "text", ["", "|none~0|", ARCH + "|", ARCH.replace("none", "conv"), ARCH.replace("~2", "~1"), ARCH.replace("+", "")]
)
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a NAS-Bench-201 cell"):
        parse_cell(text)


def test_the_node_dag_is_the_line_graph_of_the_cell():
    edges = list(CELL_EDGES)
    cell = nx.DiGraph([("in", 0), *edges, (3, "out")])
    number = {("in", 0): 0, (3, "out"): 7} | {edge: i + 1 for i, edge in enumerate(edges)}
    assert {(number[a], number[b]) for a, b in nx.line_graph(cell).edges} == set(NODE_EDGES)
    names = [NODE_OPERATIONS[i] for i in node_operations([ARCH])[0]]
    assert names == ["input", *parse_cell(ARCH), "output"]


def test_the_cell_computes_what_its_string_says():
    torch.manual_seed(0)
    cell = Cell("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|", 4)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(cell(x), 3 * x)
    cut = Cell("|none~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|", 4)
    assert not cut(x).any()


def test_parameters_and_multiplications_counted_by_hand():
    # Per cell of c channels: two 3x3 and one 1x1 convolution, each with a scale and a shift per channel.
    def cell(c):
        return 2 * (9 * c * c + 2 * c) + (c * c + 2 * c)

    stem, reduction = 9 * 8 + 2 * 8, 9 * 8 * 16 + 2 * 16
    head = 2 * 16 + 16 * 10 + 10
    parameters = stem + cell(8) + reduction + cell(16) + head
    multiplications = 64 * (9 * 8 + 19 * 8 * 8) + 16 * (9 * 8 * 16 + 19 * 16 * 16) + 16 * 10
    assert count_cost(DigitsNetwork(ARCH, 8)) == (parameters, multiplications)


def test_the_images_are_all_of_them_once():
    from sklearn.datasets import load_digits

    images, classes = load_images()
    official, _ = load_digits(return_X_y=True)
    assert images.shape == (1797, 1, 8, 8)
    restored = ((images.view(-1, 64) + 0.3) * 16).round().int()
    assert sorted(map(tuple, restored.tolist())) == sorted(map(tuple, official.astype(int).tolist()))
    assert classes.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    recipe = Recipe()
    assert 1797 - recipe.train_images - recipe.validation_images == 749


def _in_this_process(missing, recipe, _workers):
    return [digits201_training._train_cell(index, arch, recipe) for index, arch in missing]


def _without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_run_cut_short_in_the_middle_of_a_line_continues_and_gives_the_same(tmp_path, monkeypatch):
    journal = tmp_path / "deep" / "journal.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(digits201_training, "_results", _in_this_process)
        whole = train_all(journal, TINY, 1)
    assert [row["arch"] for row in whole] == sampled_cells(TINY)
    assert all(len(row[name]) == 3 for row in whole for name in ("validation", "test", "seconds"))
    lines = journal.read_text().splitlines(keepends=True)
    assert json.loads(lines[0]) == vars(TINY)
    journal.write_text("".join(lines[:3]) + lines[3][:40])
    assert len(read_journal(journal, TINY)) == 2
    assert _without_times(train_all(journal, TINY, 1)) == _without_times(whole)
    assert sorted(json.loads(line)["index"] for line in journal.read_text().splitlines()[1:]) == [0, 1, 2]
    assert [path.name for path in journal.parent.iterdir()] == ["journal.jsonl"]

    def trains(*_):
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(digits201_training, "_train_cell", trains)
    assert len(digits201.make(journal, tmp_path / "store", 1, TINY)) == 3


def test_a_journal_of_another_recipe_or_with_a_damaged_line_is_refused(tmp_path):
    journal = tmp_path / "j.jsonl"
    journal.write_text(json.dumps(vars(TINY)) + "\n" + '{"index": 0, "ar\n')
    with pytest.raises(UserError, match=r"j.jsonl: made with another recipe"):
        train_all(_journal(tmp_path, replace(TINY, epochs=2)), TINY, 1)
    with pytest.raises(UserError, match=r"j.jsonl, line 2: not JSON"):
        train_all(journal, TINY, 1)
    assert '"ar\n' in journal.read_text()


def _journal(folder, recipe):
    path = folder / "other-j.jsonl"
    path.write_text(json.dumps(vars(recipe)) + "\n")
    return path


def test_the_store_holds_means_and_seeds(tmp_path):
    journal = tmp_path / "j.jsonl"
    rng = np.random.default_rng(0)
    validation, test = rng.random((3, 3)), rng.random((3, 3))
    rows = [
        {"index": i, "arch": arch, "params": 10 + i, "flops": 20 + i}
        | {"validation": validation[i].tolist(), "test": test[i].tolist(), "seconds": [1.0, 2.0, 6.0]}
        for i, arch in enumerate(sampled_cells(TINY))
    ]
    journal.write_text("".join(json.dumps(row) + "\n" for row in [vars(TINY), *rows[::-1]]))
    store = digits201.make(journal, tmp_path / "store", 1, TINY)
    assert store.keys(np.arange(3)).to_pylist() == sampled_cells(TINY)
    np.testing.assert_allclose(store.label("validation_accuracy"), validation.mean(1))
    np.testing.assert_allclose(store.label("test_accuracy"), test.mean(1))
    for seed in range(3):
        np.testing.assert_array_equal(store.label(f"validation_accuracy_seed{seed}"), validation[:, seed])
        np.testing.assert_array_equal(store.label(f"test_accuracy_seed{seed}"), test[:, seed])
    assert store.label("training_seconds").tolist() == [1.0] * 3
    assert store.static("params").tolist() == [10, 11, 12]
    assert store.static("flops").tolist() == [20, 21, 22]
    assert store.manifest.notes["recipe"] == {**vars(TINY), "seeds": [0, 1, 2]}


def test_the_estimated_ceiling_matches_a_simulation():
    # True quality plus independent noise of each seed: two further sets of seeds give the figure that is estimated.
    rng = np.random.default_rng(3)
    quality = rng.normal(size=(4000, 1))
    validation, test, again = (quality + 0.7 * rng.normal(size=(4000, 3)) for _ in range(3))
    ceilings = noise_ceilings(validation, test)
    simulated = kendalltau(test.mean(1), again.mean(1)).statistic
    assert ceilings["test_mean_vs_independent_mean_estimated"] == pytest.approx(simulated, abs=0.015)
    simulated = kendalltau(test.mean(1), quality[:, 0]).statistic
    assert ceilings["test_mean_vs_expectation_estimated"] == pytest.approx(simulated, abs=0.015)
    pairs = [kendalltau(test[:, a], test[:, b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert ceilings["test_single_seed_vs_single_seed"] == pytest.approx(sum(pairs) / 3, abs=1e-4)
    expected = kendalltau(validation.mean(1), test.mean(1)).statistic
    assert ceilings["validation_mean_vs_test_mean"] == pytest.approx(expected, abs=1e-4)


def test_the_committed_store_is_the_benchmark(store):
    columns, manifest = store.store, store.store.manifest
    assert columns.keys(np.arange(2000)).to_pylist() == sampled_cells(Recipe())
    assert manifest.fingerprint == fingerprint(read_columns(columns))
    assert sum(path.stat().st_size for path in digits201.FOLDER.iterdir()) < 1_000_000
    assert store.spec.task == "accuracy"
    assert store.spec.unit == "fraction"
    assert store.spec.operations == NODE_OPERATIONS
    assert store.spec.static == ("params", "flops")
    assert (len(store.parts.train), len(store.parts.val)) == (400, 200)
    assert len(store.parts.test) > 600
    assert manifest.notes["recipe"] == {**vars(Recipe()), "seeds": [0, 1, 2]}


@pytest.mark.parametrize(("part", "images"), [("validation", 748), ("test", 749)])
def test_committed_accuracies_are_counts_of_images_and_means_of_seeds(store, part, images):
    seeds = np.array([store.store.label(f"{part}_accuracy_seed{seed}") for seed in range(3)])
    assert np.abs(seeds * images - np.round(seeds * images)).max() < 1e-9
    np.testing.assert_allclose(store.store.label(f"{part}_accuracy"), seeds.mean(0))
    assert seeds.min() >= 0
    assert 0.9 < seeds.max() <= 1


def test_committed_ceilings_follow_from_the_committed_labels(store):
    parts = [
        np.stack([store.store.label(f"{part}_accuracy_seed{seed}") for seed in range(3)], 1)
        for part in ("validation", "test")
    ]
    assert store.store.manifest.notes["noise_ceiling_tau_b"] == noise_ceilings(*parts)


@pytest.mark.parametrize("row", [0, 1999])
def test_committed_costs_are_those_of_the_networks(store, row):
    arch = store.store.keys(np.array([row]))[0].as_py()
    cost = count_cost(DigitsNetwork(arch, Recipe().channels))
    assert cost == (store.store.static("params")[row], store.store.static("flops")[row])


def test_cells_cut_from_their_input_classify_at_chance(store):
    none = NODE_OPERATIONS.index("none")
    ops = store.store.ops.values.reshape(-1, 8)
    cut = (ops[:, [4, 5, 6]] == none).all(1)
    assert cut.sum() > 5
    assert store.store.label("test_accuracy")[cut].max() < 0.15


def test_validation_predicts_test_better_than_parameters_do(store):
    test = store.store.label("test_accuracy")
    by_validation = kendalltau(store.store.label("validation_accuracy"), test).statistic
    by_parameters = kendalltau(store.store.static("params"), test).statistic
    assert by_validation > 0.8
    assert by_parameters < by_validation - 0.1
