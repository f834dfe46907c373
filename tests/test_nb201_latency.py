"""``dataset=nb201_latency``: tables to stores, devices, families, and a run from end to end."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import narbench as api
from datasets.cells201 import EDGE_OPERATIONS, cell_string, enumerate_cells, node_operations, parse_cell
from datasets.errors import UserError
from datasets.nb201_devices import DEVICES, NNMETER_TABLE, TABLE
from datasets.nb201_latency_table import families, folded, read_latencies

CELLS = enumerate_cells()[3::251]
"""63 different cells."""

DISCONNECTED = cell_string(["nor_conv_3x3", "none", "none", "none", "none", "skip_connect"])


def table(path, cells=CELLS, **columns):
    rows = {"arch_str": list(cells), "help_lat_1080ti_1": 5.0 + np.arange(len(cells)), **columns}
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({name: values for name, values in rows.items() if values is not None}), path)
    return path


def read(path, device="1080ti_1"):
    return read_latencies(path, DEVICES[device])


def test_devices_are_those_of_the_papers():
    helps = [name for name, device in DEVICES.items() if device.columns[0].startswith("help_lat_")]
    assert len(helps) == 27
    assert len(DEVICES) == 27 + 2 + 2 * 6 + 4
    assert DEVICES["titan_rtx_256"].setting.batch == 256
    assert DEVICES["essential_ph_1"].setting.batch == 1
    assert (DEVICES["pixel3_imagenet16"].setting.side, DEVICES["pixel3_imagenet16"].setting.classes) == (16, 120)
    assert DEVICES["raspi4"].columns == ("help_lat_raspi4", "hwnb_cifar10_raspi4_latency")


def test_labels_of_the_devices_of_one_setting(tmp_path):
    path = table(tmp_path / TABLE, help_lat_1080ti_32=np.ones(63), hwnb_cifar10_raspi4_latency=np.full(63, 2.0))
    columns, manifest = read(path)
    assert list(columns.labels) == ["latency_ms.1080ti_1", "latency_ms.raspi4"]
    assert manifest.labels == {"latency_ms.1080ti_1": "ms", "latency_ms.raspi4": "ms"}
    assert columns.labels["latency_ms.1080ti_1"].tolist() == (5.0 + np.arange(63)).tolist()
    assert columns.static["batch"].tolist() == [1] * 63
    columns.check(manifest.operations, "table")
    large, _ = read(path, "2080ti_32")
    assert list(large.labels) == ["latency_ms.1080ti_32"]
    assert large.static["batch"].tolist() == [32] * 63
    assert set(large.output_shape.values[:, 0]) == {0, 32}, "constants have no shape, all else the batch"
    np.testing.assert_array_equal(large.hashes, columns.hashes)


def test_failures_are_missing_and_counted(tmp_path):
    latency = np.full(63, 2.0)
    latency[[3, 9]], latency[5] = -1, np.nan
    columns, manifest = read(table(tmp_path / TABLE, hwnb_cifar10_edgetpu_latency=latency))
    assert np.flatnonzero(np.isnan(columns.labels["latency_ms.edgetpu"])).tolist() == [3, 5, 9]
    assert manifest.notes == {"networks not measured": {"edgetpu": 3}}


def test_constant_networks_that_a_compiler_folded_are_missing_and_counted(tmp_path):
    """Only where nothing connects input and output, the time is below that of every other network, on such devices."""
    cells = [DISCONNECTED, cell_string(["skip_connect"] * 6), cell_string(["none"] * 6), cell_string(["nor_conv_3x3"] * 6)]
    latency = [0.01, 2.5, 2.6, 9.0]
    path = table(tmp_path / TABLE, cells, help_lat_pixel3=latency, help_lat_pixel2=latency)
    columns, manifest = read(path)
    assert np.isnan(columns.labels["latency_ms.pixel3"]).tolist() == [True, False, False, False]
    assert columns.labels["latency_ms.pixel2"].tolist() == latency
    assert manifest.notes == {"networks left out as folded to a constant": {"pixel3": 1}}


def test_family_is_the_operation_that_a_cell_has_most():
    def costliest(cell):
        operations = parse_cell(cell)
        order = ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none")
        return next((name for name in order if operations.count(name) >= 3), "mixed")

    cells = enumerate_cells()
    family = families(node_operations(cells))
    assert family == [costliest(cell) for cell in cells]
    assert {name: family.count(name) for name in ("mixed", *EDGE_OPERATIONS)} == {
        "mixed": 8100,
        "none": 1465,
        "skip_connect": 1485,
        "nor_conv_1x1": 1525,
        "nor_conv_3x3": 1545,
        "avg_pool_3x3": 1505,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arch_str": None}, "no column arch_str"),
        ({"help_lat_1080ti_1": None, "other": [1.0] * 63}, "no column of latencies; add one of help_lat_1080ti_1"),
        ({"help_lat_1080ti_1": ["5"] * 63}, "column help_lat_1080ti_1 holds string"),
        ({"help_lat_1080ti_1": [5.0] * 62 + [0.0]}, "row 62, column help_lat_1080ti_1: 0 is no latency"),
        ({"help_lat_1080ti_1": [5.0, -2.0] + [5.0] * 61}, "row 1, column help_lat_1080ti_1: -2 is no latency"),
        ({"help_lat_1080ti_1": [5.0] * 62 + [np.inf]}, "row 62, column help_lat_1080ti_1: inf"),
        ({"arch_str": [*CELLS[:-1], "|none~0|"]}, r"row 62, arch_str: '\|none~0\|' is not"),
        ({"arch_str": [None, *CELLS[1:]]}, "row 0, arch_str"),
    ],
)
def test_bad_tables(tmp_path, changed, message):
    with pytest.raises(UserError, match=rf"nasbench201\.parquet: {message}"):
        read(table(tmp_path / TABLE, **changed))


def test_file_that_is_no_table(tmp_path):
    (tmp_path / TABLE).write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"nasbench201\.parquet: not a readable Parquet file"):
        read(tmp_path / TABLE)


def run(tmp_path, *overrides):
    folders = [f"dataset.root={tmp_path / 'data'}", f"dataset.cache={tmp_path / 'cache'}", f"runs={tmp_path / 'runs'}"]
    return api.run("dataset=nb201_latency", "logger=none", "train=20", "val=10", *folders, *overrides)


def test_run_on_one_device(tmp_path):
    table(tmp_path / "data" / TABLE, help_lat_1080ti_32=np.linspace(1, 9, 63))
    small = ("predictor=nnlp", "predictor.hidden=8", "predictor.head=8", "recipe.epochs=1")
    record = run(tmp_path, *small, "dataset.device=1080ti_32").record
    assert record["dataset"]["labels"]["test"] == "latency_ms.1080ti_32"
    assert (record["dataset"]["name"], record["dataset"]["unit"]) == ("nb201_latency", "ms")
    assert record["config"]["dataset"]["device"] == "1080ti_32"
    assert record["protocol"]["sizes"]["test"] + sum(record["protocol"]["excluded"].values()) == 63 - 30
    assert record["metrics"]["test"]["mape_percent"] > 0
    run(tmp_path, *small)
    stores = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "cache").glob("nb201*"))
    assert stores == ["nb201_latency-batch1-side32-classes10", "nb201_latency-batch32-side32-classes10"]


def test_family_held_out(tmp_path):
    """Equal graphs are of one family, so that none has to be taken out of the training pool."""
    table(tmp_path / "data" / TABLE)
    held = families(node_operations(CELLS)).count("none")
    small = ("predictor=nnlp", "predictor.hidden=8", "predictor.head=8", "recipe.epochs=1")
    record = run(tmp_path, *small, "protocol=ood", "protocol.family=none").record
    assert record["protocol"]["sizes"]["test"] == held > 0
    assert record["protocol"]["excluded"]["same graph as one that is tested"] == 0


def test_unknown_device_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.device=1080ti: unknown; choose one of 1080ti_1, 1080ti_32"):
        run(tmp_path, "predictor=nnlp", "dataset.device=1080ti")


def test_device_that_the_table_has_not_is_a_mistake(tmp_path):
    table(tmp_path / "data" / TABLE)
    with pytest.raises(UserError, match=r"no label 'latency_ms\.pixel2'; it has latency_ms\.1080ti_1"):
        run(tmp_path, "predictor=nnlp", "dataset.device=pixel2")


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"nasbench201_nnmeter_latency\.parquet\n.*nn-Meter"):
        run(tmp_path, "predictor=nnlp", "dataset.device=nnmeter_cpu")


def test_data_commands_know_the_device_of_the_yaml(tmp_path, monkeypatch, narbench):
    table(tmp_path / "data" / TABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    status, out, _ = narbench("data", "describe", "nb201_latency")
    assert not status
    assert "latency_ms.1080ti_1" in out
    (tmp_path / "data" / TABLE).unlink()
    table(tmp_path / "data" / TABLE, help_lat_1080ti_32=np.linspace(1, 9, 63))
    assert narbench("data", "prepare", "nb201_latency", "--device", "1080ti_32")[0] == 0
    status, out, _ = narbench("data", "describe", "nb201_latency", "--device", "1080ti_32")
    assert (status, "latency_ms.1080ti_32" in out, "latency_ms.1080ti_1 " in out) == (0, True, False)
    _, _, err = narbench("data", "prepare", "nb201_latency", "--device", "1080ti")
    assert "dataset.device=1080ti: unknown; choose one of 1080ti_1, 1080ti_32" in err
    status, _, err = narbench("data", "describe", "digits201", "--device", "1080ti_1")
    assert (status, err) == (2, "error: --device: digits201 has no devices; leave it out\n")


def test_real_table(shared, tmp_path):
    whole = pq.read_table(shared / "data" / TABLE)
    nodes = node_operations(whole["arch_str"].to_pylist())
    counts = {}
    for name in ("edgegpu", "pixel3", "raspi4", "eyeriss", "fpga"):
        counts[name] = int(folded(whole[f"hwnb_cifar10_{name}_latency"].to_numpy(), nodes).sum())
    assert counts == {"edgegpu": 341, "pixel3": 283, "raspi4": 289, "eyeriss": 0, "fpga": 0}
    part = tmp_path / TABLE
    pq.write_table(whole.slice(0, 500), part)
    for setting in {device.setting for device in DEVICES.values() if device.table == TABLE}:
        devices = [name for name, d in DEVICES.items() if (d.table, d.setting) == (TABLE, setting)]
        columns, manifest = read(part, devices[0])
        assert [name.removeprefix("latency_ms.") for name in columns.labels] == devices
        columns.check(manifest.operations, "table")
        lowest = min(np.nanmin(values) for values in columns.labels.values())
        assert lowest > 0.2


def test_real_nnmeter_table(shared):
    columns, manifest = read(shared / "data" / NNMETER_TABLE, "nnmeter_vpu")
    assert len(columns.keys) == 2000
    assert list(columns.labels) == [f"latency_ms.nnmeter_{name}" for name in ("cpu", "gpu", "gpu1", "vpu")]
    assert manifest.notes == {"networks not measured": {"nnmeter_vpu": 1}}
