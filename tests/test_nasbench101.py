from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from omegaconf import OmegaConf

from datasets.base import DatasetConfig, LabelConfig, LoadingConfig
from datasets.cells101 import OPERATIONS
from datasets.errors import UserError
from datasets.hashing import graph_hash
from datasets.nasbench101 import NASBench101
from datasets.nasbench101_cost import cost, vertex_channels
from datasets.nasbench101_table import read_table
from datasets.nasbench101_tfrecord import read_tfrecord
from datasets.protocol_types import ProtocolConfig
from tests.data.nasbench101 import make
from tests.data.nasbench101.make import CELLS, Run

CONFIG = Path(__file__).parents[1] / "harness/conf/dataset/nasbench101.yaml"


def benchmark(root: Path, cache: Path, protocol: str = "paper", train: int = 2, val: int = 1) -> NASBench101:
    """The benchmark as its YAML configures it, checksums off."""
    values = OmegaConf.to_container(OmegaConf.load(CONFIG).dataset)
    assert values["target"] == "datasets.nasbench101:NASBench101"
    labels = LabelConfig(**values.pop("labels"))
    config = DatasetConfig(**{**values, "root": str(root), "cache": str(cache), "checksum": False, "labels": labels})
    return NASBench101(config, ProtocolConfig(protocol, train, val, "all", 0), LoadingConfig(2, 4), 0)


def runs() -> list[Run]:
    """Three interleaved repeats of every cell at 108 epochs, and worthless ones at 4."""
    short = [Run(cell, 0.1, 0.1, 1.0, epochs=4) for cell in CELLS]
    repeats = [
        Run(cell, 0.9 + r / 100, 0.8 + place / 50 + r / 200, 1000.0 * place + r)
        for r in range(3)
        for place, cell in enumerate(CELLS)
    ]
    return [repeats[3], *short, *repeats[:3], *repeats[4:]]


def plain(columns, row):
    """Operation names and edges of one row."""
    ops = columns.ops.values[columns.ops.offsets[row] : columns.ops.offsets[row + 1]]
    edges = columns.edges.values[columns.edges.offsets[row] : columns.edges.offsets[row + 1]]
    return [OPERATIONS[op] for op in ops], [tuple(edge) for edge in edges.tolist()]


def test_the_miniature_is_a_tfrecord_another_reader_accepts(tmp_path):
    tensorboard = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    path = make.write_tfrecord(tmp_path / "a.tfrecord", runs())
    reader, found = tensorboard.PyRecordReader_New(str(path)), []
    for _ in runs():
        reader.GetNext()
        found.append(json.loads(reader.record()))
    assert found == [make.record(run) for run in runs()]


def test_the_miniature_metrics_are_what_the_protobuf_library_reads():
    pb = pytest.importorskip("google.protobuf.descriptor_pb2")
    pool = pytest.importorskip("google.protobuf.descriptor_pool").DescriptorPool()
    factory = pytest.importorskip("google.protobuf.message_factory")
    names = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    file = pb.FileDescriptorProto(name="m.proto", package="n", syntax="proto2")
    data = file.message_type.add(name="EvaluationData")
    for number, name in enumerate(names, 1):
        data.field.add(name=name, number=number, type=1, label=1)
    data.field.add(name="checkpoint_path", number=6, type=9, label=1)
    whole = file.message_type.add(name="ModelMetrics")
    whole.field.add(name="evaluation_data", number=1, type=11, label=3, type_name=".n.EvaluationData")
    whole.field.add(name="trainable_parameters", number=2, type=5, label=1)
    whole.field.add(name="total_time", number=3, type=1, label=1)
    pool.Add(file)
    message = factory.GetMessageClass(pool.FindMessageTypeByName("n.ModelMetrics"))
    content = make.metrics(Run(CELLS[0], 0.25, 0.5, 7.0))
    read = message.FromString(content)
    final = read.evaluation_data[2]
    assert (final.validation_accuracy, final.test_accuracy, final.training_time) == (0.25, 0.5, 7.0)
    assert read.trainable_parameters == make.cost(CELLS[0])[0]
    assert read.SerializeToString() == content


def test_crc32c_of_the_miniatures_has_the_published_check_value():
    assert make.crc32c(b"123456789") == 0xE3069283


def test_official_records_become_means_in_the_order_of_first_appearance(tmp_path):
    columns, manifest = read_tfrecord(make.write_tfrecord(tmp_path / "nasbench_full.tfrecord", runs()))
    order = [3, 0, 1, 2, 4]
    assert columns.keys == [CELLS[place].hash for place in order]
    assert [row.tobytes().hex() for row in columns.hashes] == columns.keys
    assert columns.labels["validation_accuracy"] == pytest.approx([0.91] * 5)
    assert columns.labels["test_accuracy"] == pytest.approx([0.8 + place / 50 + 0.005 for place in order])
    assert columns.labels["training_seconds"] == pytest.approx([1000.0 * place + 1 for place in order])
    assert manifest.operations == ("input", "conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3", "output")
    assert manifest.notes == {"modules_by_repeats": {"3": 5}}
    assert set(manifest.labels) == set(columns.labels)
    for row, place in enumerate(order):
        cell = CELLS[place]
        assert plain(columns, row) == (cell.operations, sorted(cell.edges))
        assert (columns.static["params"][row], columns.static["flops"][row]) == make.cost(cell)


def _content(change):
    """A file whose record 1 has one field changed."""

    def write(path):
        records = [make.record(run) for run in runs()]
        change(records[1])
        path.write_bytes(b"".join(make.framed(json.dumps(record).encode()) for record in records))

    return write


def _bytes(change):
    """A file changed as bytes; the length of the first record is given too."""

    def write(path):
        good = make.write_tfrecord(path, runs()).read_bytes()
        path.write_bytes(change(good, 16 + struct.unpack("<Q", good[:8])[0]))

    return write


def _set(place, value):
    return _content(lambda record: record.__setitem__(place, value))


def _metrics(change):
    return _content(
        lambda record: record.__setitem__(
            slice(1, 5), [108, *record[2:4], b64encode(change(b64decode(record[4]))).decode()]
        )
    )


def _first_length(length):
    """A file whose first length is another one, checksum included."""
    head = struct.pack("<Q", length)
    return _bytes(lambda data, first: head + make.masked(head) + data[12:])


BAD_RECORDS = {
    "truncated payload": (_bytes(lambda data, first: data[:-30]), r"record 19: the file ends within it"),
    "truncated header": (_bytes(lambda data, first: data[: first + 5]), r"record 1: the file ends within it"),
    "no checksum at the end": (_bytes(lambda data, first: data[:-4]), r"record 19: the file ends within it"),
    "length beyond memory": (_first_length(2**45), r"record 0: the file ends within it"),
    "length beyond any file": (_first_length(2**63), r"record 0: the file ends within it"),
    "nested too deep": (
        _bytes(lambda data, first: data[:first] + make.framed(b"[" * 100_000)),
        r"record 1: maximum recursion depth",
    ),
    "corrupted length": (_bytes(lambda data, first: data[:first] + b"\xff" + data[first + 1 :]), r"record 1: its length"),
    "corrupted length checksum": (_bytes(lambda data, first: data[:8] + b"\0\0" + data[10:]), r"record 0: its length"),
    "empty": (_bytes(lambda data, first: b""), r"no records"),
    "not JSON": (_bytes(lambda data, first: data[:first] + make.framed(b"{")), r"record 1: Expecting"),
    "not text": (_bytes(lambda data, first: data[:first] + make.framed(b"\xff\xfe[")), r"record 1: "),
    "not a list of five": (_content(lambda record: record.pop()), r"record 1 \(module \w{32}\): it is not \[module_hash"),
    "epochs as text": (_set(1, "108"), r"record 1 \(module \w{32}\): it is not \[module_hash"),
    "bad hash": (_set(0, "abc0"), r"record 1: 'abc0' is not a module hash"),
    "hash not hexadecimal": (_set(0, "z" * 32), r"record 1 \(module z+\): non-hexadecimal"),
    "unknown operation": (
        _set(3, "input,conv5x5,maxpool3x3,conv1x1-bn-relu,output"),
        r"record 1 .*operation 'conv5x5' is unknown",
    ),
    "output inside": (
        _set(3, "input,output,maxpool3x3,conv1x1-bn-relu,output"),
        r"record 1 .*operation 'output' is unknown",
    ),
    "no output": (_set(3, "input,maxpool3x3"), r"record 1 .*are not input, up to 5 others, output"),
    "eight vertices": (_set(3, ",".join(["input", *["maxpool3x3"] * 6, "output"])), r"record 1 .*up to 5 others"),
    "cycle": (_set(2, "01001" + "00001" * 3 + "01000"), r"record 1 .*edge 4->1 makes a cycle"),
    "self loop": (_set(2, "11001" + "00001" * 3 + "00000"), r"record 1 .*edge 0->0 makes a cycle"),
    "adjacency too short": (_set(2, "0100100001"), r"record 1 .*is not 5 x 5 digits"),
    "adjacency of other digits": (_set(2, "2" * 25), r"record 1 .*is not 5 x 5 digits"),
    "stray vertex": (_set(2, "01001" + "00001" + "00000" * 3), r"row 1 .*vertex 2 is on no path from the input"),
    "orphan": (_set(2, "01010" + "00001" * 3 + "00000"), r"row 1 .*vertex 2 is on no path from the input"),
    "dead end": (_set(2, "01111" + "00001" + "00000" + "00001" + "00000"), r"row 1 .*vertex 2 is on no path"),
    "not base64": (
        _content(lambda record: record.__setitem__(slice(1, 5), [108, *record[2:4], "!!!"])),
        r"record 1 .*base64",
    ),
    "cut protobuf": (_metrics(lambda data: data[:50]), r"record 1 \(module \w{32}\): "),
    "cut double": (_metrics(lambda data: data[:-1]), r"record 1 \(module \w{32}\): "),
    "cut number": (_metrics(lambda data: data + b"\x88"), r"record 1 .*end within a number"),
    "unknown wire type": (_metrics(lambda data: data + b"\x0b"), r"record 1 .*wire type 3"),
    "two evaluations": (
        _metrics(lambda data: make.metrics(Run(CELLS[0]), evaluations=2)),
        r"record 1 .*lack evaluation_data or trainable",
    ),
    "no parameters": (
        _metrics(lambda data: data[: data.rindex(b"\x10", 0, -9)]),
        r"record 1 .*lack evaluation_data or trainable",
    ),
    "parameters beyond 64 bits": (
        _metrics(lambda data: data[: data.rindex(b"\x10", 0, -9)] + b"\x10" + make.varint(2**70)),
        r"record 1 \(module \w{32}\): int too big",
    ),
    "accuracy in percent": (_metrics(lambda data: make.metrics(Run(CELLS[0], 90.0))), r"record 1 .*not fractions"),
    "accuracy NaN": (_metrics(lambda data: make.metrics(Run(CELLS[0], test=float("nan")))), r"record 1 .*not fractions"),
    "wrong parameters": (
        _metrics(lambda data: make.metrics(Run(CELLS[2]))),
        r"row 1 \(module \w{32}\): \d+ parameters given",
    ),
    "another cell's matrix": (_set(2, "01010" + "00101" + "00001" * 2 + "00000"), r"row 1 .*parameters given where"),
    "module never trained to the end": (_set(0, "f" * 32), r"module f{32} has no record at 108 epochs"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_official_file_is_one_clear_error_and_leaves_nothing(name, tmp_path):
    write, message = BAD_RECORDS[name]
    _refused(tmp_path, "nasbench_only108.tfrecord", write, message)


def _refused(folder, name, write, message):
    write(folder / name)
    with pytest.raises(UserError, match=message) as raised:
        benchmark(folder, folder / "cache").setup()
    text = str(raised.value)
    assert text.startswith(str(folder / name))
    assert "\n" not in text
    assert text.endswith(("get it again", "correct them")) or "make" in text or "needs" in text
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == [folder / name]
    assert not list((folder / "cache").glob("nasbench*"))


def test_the_table_gives_the_same_graphs_as_the_official_file(tmp_path):
    table, manifest = read_table(make.write_table(tmp_path / "nasbench101.parquet", make.table()))
    official, _ = read_tfrecord(make.write_tfrecord(tmp_path / "a.tfrecord", [Run(cell) for cell in CELLS]))
    assert table.keys == official.keys
    assert (table.hashes == official.hashes).all()
    for row in range(len(CELLS)):
        assert plain(table, row) == plain(official, row)
    for name in ("params", "flops"):
        assert table.static[name].tolist() == official.static[name].tolist()
    assert set(manifest.labels) == set(table.labels) == {"test_accuracy", "validation_accuracy_1run"}
    assert table.labels["test_accuracy"] == pytest.approx([0.9, 0.91, 0.92, 0.93, 0.94])
    assert np.isnan(table.labels["validation_accuracy_1run"]).tolist() == [False] * 4 + [True]


def _cell(column, value, row=3):
    def write(path):
        columns = make.table()
        columns[column][row] = value
        make.write_table(path, columns)

    return write


def _whole(change):
    def write(path):
        columns = make.table()
        change(columns)
        make.write_table(path, columns)

    return write


def _edges(bits, count):
    """Other edges for the cell of three vertices."""
    return _whole(lambda columns: (columns["adj_bits"].__setitem__(2, bits), columns["n_edges"].__setitem__(2, count)))


BAD_TABLES = {
    "missing column": (_whole(lambda c: c.pop("adj_bits")), r"column adj_bits is missing; the table needs hash, n_nodes"),
    "wrong type": (_whole(lambda c: c.update(n_nodes=["x"] * 5)), r"column n_nodes: .*make it int64"),
    "fractional count": (_cell("n_nodes", 6.5), r"column n_nodes: .*make it int64"),
    "hash too short": (_cell("hash", b"abc"), r"column hash: .*make it fixed_size_binary\[16\]"),
    "another hash": (_cell("hash", b"0" * 16), r"row 3, column hash: (30){16} is not this cell's, \w{32}; make the table"),
    "null": (_cell("op_labels", None), r"row 3, column op_labels: is empty"),
    "no test accuracy": (_cell("test_accuracy", float("nan")), r"row 3, column test_accuracy: is not in 0-1"),
    "test accuracy in percent": (_cell("test_accuracy", 93.0), r"row 3, column test_accuracy: is not in 0-1"),
    "validation accuracy in percent": (_cell("validation_accuracy_1run", 93.0), r"row 3, column validation_accuracy_1run"),
    "params null": (_cell("params", None), r"row 3, column params: is empty"),
    "params NaN": (_cell("params", float("nan")), r"column params: .*make it int64"),
    "params wrong": (_cell("params", 1), r"row 3 \(module \w{32}\): 1 parameters given where this cell's network has \d+"),
    "operation digit": (_cell("op_labels", "01310"), r"row 3, column op_labels: has a digit outside 0-2"),
    "operation letter": (_cell("op_labels", "01é10"), r"row 3, column op_labels: has a digit outside 0-2"),
    "too few operations": (_cell("op_labels", "0120"), r"row 3, column op_labels: has not one digit"),
    "one vertex": (_cell("n_nodes", 1), r"row 3, column n_nodes: is not in 2-7"),
    "eight vertices": (_cell("n_nodes", 8), r"row 3, column n_nodes: is not in 2-7"),
    "edge count": (_cell("n_edges", 2), r"row 3, column n_edges: is not the number of edges"),
    "edge outside": (_edges(3 + 32, 3), r"row 2 .*an edge leaves the 3 vertices"),
    "stray vertex": (_edges(2, 1), r"row 2 .*vertex 1 is on no path"),
    "not Parquet": (lambda path: path.write_bytes(b"PAR0"), r"not a readable Parquet file"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_one_clear_error_and_leaves_nothing(name, tmp_path):
    _refused(tmp_path, "nasbench101.parquet", *BAD_TABLES[name])


def test_several_bad_rows_are_counted_and_the_first_is_named(tmp_path):
    columns = make.table()
    columns["test_accuracy"][1:3] = [-1.0, 2.0]
    with pytest.raises(UserError, match=r"row 1, column test_accuracy: .*; 2 rows are so"):
        read_table(make.write_table(tmp_path / "t.parquet", columns))


@pytest.mark.parametrize("invented", [1, 0.1])
def test_invented_hashes_of_a_large_table_are_found(tmp_path, invented):
    columns = {name: values * 500 for name, values in make.table().items()}
    count = len(columns["hash"])
    for row in range(count - int(invented * count), count):
        columns["hash"][row] = row.to_bytes(16)
    with pytest.raises(UserError, match=r"t\.parquet: row \d+, column hash: 0{20}"):
        read_table(make.write_table(tmp_path / "t.parquet", columns))


def test_cost_of_the_two_smallest_cells_by_hand():
    direct = np.array([[[0, 1], [0, 0]]], bool)
    projections = 3 * 128**2 * 1024 + (128 * 256 + 2 * 256**2) * 256 + (256 * 512 + 2 * 512**2) * 64
    params, flops = cost(direct, np.array([[0, 0]]))
    assert flops.tolist() == [27 * 128 * 1024 + projections + 5120] == [137_761_792]
    weights = 3 * 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 2 * 512**2
    assert params.tolist() == [27 * 128 + 256 + weights + 2 * 3 * (128 + 256 + 512) + 5130] == [882_570]

    chain = np.array([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]], bool)
    params3, flops3 = cost(chain, np.array([[0, 3, 0]]))
    assert flops3 - flops == 3 * 9 * (128**2 * 1024 + 256**2 * 256 + 512**2 * 64)
    assert params3 - params == 3 * 9 * (128**2 + 256**2 + 512**2) + 2 * 3 * (128 + 256 + 512)


def test_channels_are_shared_with_the_remainder_to_the_first_and_passed_back_as_the_maximum():
    adjacency = np.zeros((1, 6, 6), bool)
    for parent, child in ((0, 1), (1, 2), (1, 4), (0, 3), (2, 5), (3, 5), (4, 5)):
        adjacency[0, parent, child] = True
    assert vertex_channels(adjacency, 128).tolist() == [[0, 43, 43, 43, 42, 0]]
    assert vertex_channels(adjacency, 130).tolist() == [[0, 44, 44, 43, 43, 0]]


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    data = benchmark(shared / "data", tmp_path_factory.mktemp("cache"), train=424, val=1024)
    data.setup()
    return data


@pytest.fixture(scope="module")
def raw(shared):
    return pa.parquet.read_table(shared / "data" / "nasbench101.parquet")


def test_the_real_table_holds_the_known_facts(real, raw):
    store = real.store
    assert len(store) == 423_624
    assert float(store.label("test_accuracy").max()) == pytest.approx(0.943176, abs=1e-6)
    assert len(np.unique(store.hashes.view("V16"))) == len(store)
    assert store.edges.counts.max() == 9
    assert store.ops.counts.max() == 7
    labelled = np.flatnonzero(~np.isnan(store.label("validation_accuracy_1run")))
    assert {0, 20_000, 36_202, 46_201} <= set(labelled.tolist())
    assert (store.static("params") == raw["params"].to_numpy()).all()


def test_real_cells_equal_brute_force_decoding_and_their_official_hash(real, raw):
    rows = np.random.default_rng(0).choice(len(real.store), 200, replace=False)
    flops = real.store.static("flops")
    for row, known in zip(rows.tolist(), raw.take(rows).to_pylist(), strict=True):
        size, bits = known["n_nodes"], known["adj_bits"]
        edges = [(x, y) for x in range(size) for y in range(x + 1, size) if bits >> (x + y * (y - 1) // 2) & 1]
        cell = make.Cell(known["op_labels"], tuple(edges))
        assert plain(real.store, row) == (cell.operations, edges)
        assert (
            graph_hash(edges, [-1, *map(int, known["op_labels"]), -2]) == real.store.hashes[row].tobytes() == known["hash"]
        )
        assert make.cost(cell) == (known["params"], flops[row])
    assert real.store.keys(rows).to_pylist() == [hash.hex() for hash in raw["hash"].take(rows).to_pylist()]


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_the_yaml_alone_trains_on_the_table(real, protocol, tmp_path):
    data = benchmark(Path(real.config.root), Path(real.config.cache), protocol, train=424, val=1024)
    data.setup()
    assert data.labels == LabelConfig("validation_accuracy_1run", "validation_accuracy_1run", "test_accuracy")
    batch = next(iter(data.train_dataloader()))
    expected = real.store.label("validation_accuracy_1run")[batch.row.numpy()].astype(np.float32)
    assert batch.target.tolist() == expected.tolist()
    assert next(iter(data.test_dataloader())).target_name == "test_accuracy"
    assert (len(data.parts.train), len(data.parts.val)) == (424, 1024)


def test_the_official_label_is_preferred_where_the_file_has_it(tmp_path):
    make.write_tfrecord(tmp_path / "nasbench_only108.tfrecord", runs())
    data = benchmark(tmp_path, tmp_path / "cache")
    data.setup()
    assert data.labels == LabelConfig("validation_accuracy", "validation_accuracy", "test_accuracy")
    assert data.store.first_label("test_accuracy") == "test_accuracy"
    assert data.store.first_label("absent|training_seconds|test_accuracy") == "training_seconds"
    with pytest.raises(
        UserError, match=r"nasbench101 has no label 'a\|b'; it has validation_accuracy, test_accuracy, training"
    ):
        data.store.first_label("a|b")


def test_the_official_files_are_checked_against_the_published_checksums(tmp_path):
    make.write_tfrecord(tmp_path / "nasbench_only108.tfrecord", runs())
    data = benchmark(tmp_path, tmp_path / "cache")
    data.config.checksum = True
    with pytest.raises(UserError, match="is not the published 4c39c3936e36a852"):
        data.setup()


def test_a_store_of_an_official_file_says_where_it_comes_from(tmp_path):
    path = make.write_tfrecord(tmp_path / "nasbench_full.tfrecord", runs())
    store = benchmark(tmp_path, tmp_path / "cache").open_store()
    assert store.manifest.source["file"] == path.name
    assert store.manifest.source["bytes"] == path.stat().st_size
    assert store.manifest.static == {"params": "trainable parameters", "flops": "multiply-accumulates of one 32x32 image"}
