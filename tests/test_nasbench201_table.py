"""The import table of NAS-Bench-201."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasets.cells201 import NODE_OPERATIONS, node_operations
from datasets.errors import UserError
from datasets.nasbench201_cost import cell_costs
from datasets.nasbench201_table import LABELS, read_table
from tests.data.nasbench201 import make

NONE, OUTPUT = NODE_OPERATIONS.index("none"), NODE_OPERATIONS.index("output")


def test_table(tmp_path):
    columns, manifest = read_table(make.make_table(tmp_path / "t.parquet"))
    assert {name: values.tolist() for name, values in columns.labels.items()} == {
        "cifar10valid_validation_200ep": [0.815, 0.9025],
        "nats_cifar10_test_200ep": [0.85, 0.93],
    }
    assert columns.static["params"].tolist() == [129_306, 802_426]
    assert columns.static["flops"].tolist() == cell_costs(node_operations(list(make.CELLS[:2])))[1].tolist()
    assert manifest.notes == {}


def test_table_without_optional_columns(tmp_path):
    columns, _ = read_table(make.make_table(tmp_path / "t.parquet", params_M_nats=None, nats_c10_test200=None, other=None))
    assert columns.static["params"].tolist() == [129_306, 802_426]
    assert list(columns.labels) == ["cifar10valid_validation_200ep"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arch_idx": None}, "no column arch_idx"),
        ({"arch_str": None}, "no column arch_str"),
        ({"hp200_c10valid_val": None, "nats_c10_test200": None}, "no column of labels; add one of hp200_c10valid_val"),
        ({"nats_c10_test200": [85.0, math.nan]}, "row 1, column nats_c10_test200: nan"),
        ({"nats_c10_test200": [None, 3.0]}, "row 0, column nats_c10_test200: nan"),
        ({"nats_c10_test200": [85.0, 101.0]}, "row 1, column nats_c10_test200: 101"),
        ({"nats_c10_test200": ["85", "9"]}, "column nats_c10_test200 holds string"),
        ({"nats_c10_test200": [0.85, 1]}, "column nats_c10_test200: no accuracy is above 1: fractions\\? give percent"),
        ({"params_M_nats": [1.0, math.nan]}, "row 1, column params_M_nats"),
        ({"params_M_nats": [0.129306, -1.0]}, "row 1, column params_M_nats: -1 is no number of parameters in millions"),
        ({"params_M_nats": [0, 1]}, "row 0, column params_M_nats: 0 is no number of parameters"),
        ({"params_M_nats": [math.inf, 1]}, "row 0, column params_M_nats: inf is no number of parameters"),
        ({"params_M_nats": [0.129306, 1e30]}, r"row 1, column params_M_nats: 1e\+30 given where .* has 0.802426 million"),
        ({"params_M_nats": [0.129306, 0.802427]}, "row 1, column params_M_nats: 0.802427 given where .* has 0.802426"),
        ({"arch_idx": [0, 2]}, "row 1, column arch_idx: 2 is not the row number"),
        ({"arch_idx": [1, 0]}, "row 0, column arch_idx"),
        ({"arch_str": [make.CELLS[0], make.CELLS[0][1:]]}, "row 1, arch_str"),
        ({"arch_str": [None, make.CELLS[0]]}, "row 0, arch_str"),
        ({"arch_str": [3, 4]}, "column arch_str holds int64"),
    ],
)
def test_bad_tables(tmp_path, changed, message):
    with pytest.raises(UserError, match=rf"t\.parquet: {message}"):
        read_table(make.make_table(tmp_path / "t.parquet", **changed))


def test_a_column_with_one_value_above_1_is_in_percent(tmp_path):
    columns, _ = read_table(make.make_table(tmp_path / "t.parquet", nats_c10_test200=[0.8, 1.01]))
    assert columns.labels["nats_cifar10_test_200ep"].tolist() == [0.008, 0.0101]


def test_file_that_is_no_table(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"t\.parquet: not a readable Parquet file"):
        read_table(path)


@pytest.fixture(scope="module")
def real(shared):
    return read_table(shared / "data/nasbench201.parquet")


def test_real_table(real):
    columns, manifest = real
    assert len(columns.keys) == len(set(columns.keys)) == 15_625
    assert set(columns.labels) == set(LABELS.values())
    best = {name: round(100 * float(values.max()), 3) for name, values in columns.labels.items()}
    assert best["nats_cifar10_test_200ep"] == 94.373
    assert best["nats_cifar100_test_200ep"] == 73.513
    assert best["nats_imagenet16_test_200ep"] == 47.311
    assert best["cifar10valid_validation_200ep"] == 91.607
    assert len(np.unique(columns.hashes, axis=0)) == 8765
    columns.check(manifest.operations, "table")


def test_analytic_parameters_equal_the_official_column(real, shared):
    columns, _ = real
    params, flops = cell_costs(columns.ops.values.reshape(-1, 8))
    millions = pq.read_table(shared / "data/nasbench201.parquet", columns=["params_M_nats"])["params_M_nats"]
    np.testing.assert_array_equal(params, np.rint(millions.to_numpy() * 1e6))
    assert (flops.min(), flops.max()) == (7_783_040, 220_119_680)


def test_cells_of_one_hash_score_alike(real):
    """Equal hashes mean the same function, so accuracies differ by training noise only."""
    columns, _ = real
    accuracy = columns.labels["nats_cifar10_test_200ep"]
    _, group, size = np.unique(columns.hashes, axis=0, return_inverse=True, return_counts=True)
    mean = np.bincount(group, accuracy) / size
    shared_graph = size[group] > 1
    assert np.abs(accuracy - mean[group])[shared_graph].mean() < 0.1 * np.abs(accuracy - accuracy.mean()).mean()
