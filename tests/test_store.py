from __future__ import annotations

import errno
import json
import resource
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
import torch
from stores import OPERATIONS, manifest, random_columns, random_dag
from torch_geometric.nn import SAGEConv, global_mean_pool
from torch_geometric.utils import to_dense_adj

from datasets.embedded import open_embedded, read_columns
from datasets.errors import UserError
from datasets.hashing import graph_hash
from datasets.ragged import Ragged
from datasets.store import Columns, GraphStore, fingerprint, write_store


@pytest.fixture
def columns():
    return random_columns(np.random.default_rng(5), 60)[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("width", [None, 3])
def test_ragged_take_equals_a_loop(dtype, width):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, 30)
    shape = (counts.sum(),) if width is None else (counts.sum(), width)
    ragged = Ragged.from_counts(rng.integers(0, 200, shape).astype(dtype), counts)
    lists = np.split(ragged.values, np.cumsum(counts)[:-1])
    for rows in (np.array([4, 4, 0, 29]), np.arange(30), rng.integers(0, 30, 100), np.array([], np.int64)):
        values, offsets = ragged.take(rows)
        assert values.dtype == dtype
        assert offsets.tolist() == [0, *np.cumsum([len(lists[r]) for r in rows]).tolist()]
        assert values.tolist() == [v for r in rows for v in lists[r].tolist()]


@pytest.mark.parametrize("container", ["arrow", "parquet"])
def test_a_batch_holds_the_graphs_of_its_rows(tmp_path, container):
    rng = np.random.default_rng(1)
    columns, plain = random_columns(rng, 80)
    store = write_store(tmp_path / "s", columns, manifest(), container)
    rows = rng.permutation(80)[:33]
    batch = store.batch(rows, "b")
    assert len(batch) == 33
    assert batch.row.tolist() == rows.tolist()
    assert batch.op.dtype == batch.edge_index.dtype == batch.ptr.dtype == torch.int64
    assert batch.target.dtype == torch.float32
    np.testing.assert_allclose(batch.target, columns.labels["b"][rows], rtol=1e-6)
    assert batch.static["params"].tolist() == columns.static["params"][rows].tolist()
    for i, row in enumerate(rows):
        ops, edges = plain[row]
        first, end = batch.ptr[i], batch.ptr[i + 1]
        assert batch.op[first:end].tolist() == ops
        assert batch.batch[first:end].tolist() == [i] * len(ops)
        assert batch.position[first:end].tolist() == list(range(len(ops)))
        mine = batch.batch[batch.edge_index[0]] == i
        assert (batch.edge_index[:, mine] - first).T.tolist() == [list(edge) for edge in edges]
    assert store.keys(rows).to_pylist() == [f"g{row}" for row in rows]


def test_the_dense_view_equals_networkx_and_pyg_adjacency(tmp_path):
    rng = np.random.default_rng(2)
    columns, plain = random_columns(rng, 40)
    batch = write_store(tmp_path / "s", columns, manifest()).batch(np.arange(40), "a")
    dense = batch.dense
    size = max(len(ops) for ops, _ in plain)
    assert dense.adjacency.shape == (40, size, size)
    for i, (ops, edges) in enumerate(plain):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(ops)))
        graph.add_edges_from(edges)
        expected = np.zeros((size, size), bool)
        expected[: len(ops), : len(ops)] = nx.to_numpy_array(graph, nodelist=range(len(ops))) > 0
        assert np.array_equal(dense.adjacency[i].numpy(), expected)
        assert dense.mask[i].tolist() == [j < len(ops) for j in range(size)]
        assert dense.op[i].tolist() == ops + [0] * (size - len(ops))
    assert dense.count.tolist() == batch.count.tolist() == [len(ops) for ops, _ in plain]
    assert torch.equal(to_dense_adj(batch.edge_index, batch.batch, batch_size=40).bool(), dense.adjacency)


def test_pyg_layers_run_on_a_batch_as_on_its_graphs_one_by_one(tmp_path):
    columns, _ = random_columns(np.random.default_rng(3), 12)
    store = write_store(tmp_path / "s", columns, manifest())
    torch.manual_seed(0)
    layer = SAGEConv(len(OPERATIONS), 5)

    def embed(rows):
        batch = store.batch(np.array(rows), "a")
        nodes = torch.nn.functional.one_hot(batch.op, len(OPERATIONS)).float()
        return global_mean_pool(layer(nodes, batch.edge_index), batch.batch, size=len(batch))

    together = embed(range(12))
    assert together.shape == (12, 5)
    torch.testing.assert_close(together, torch.cat([embed([row]) for row in range(12)]))


def test_to_moves_every_tensor(tmp_path, columns):
    batch = write_store(tmp_path / "s", columns, manifest()).batch(np.arange(4), "a")
    batch = replace(batch, attributes=torch.zeros(len(batch.op), 8))
    moved = batch.to("meta")
    tensors = [moved.op, moved.edge_index, moved.ptr, moved.row, moved.attributes, moved.static["params"], moved.target]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.output_shape is None
    assert moved.target_name == "a"


def test_the_fingerprint_does_not_depend_on_the_container(tmp_path, columns):
    columns.labels["a"][3] = np.nan
    stores = [write_store(tmp_path / kind, columns, manifest(), kind) for kind in ("arrow", "parquet")]
    assert (tmp_path / "arrow" / "graphs.arrow").exists()
    assert (tmp_path / "parquet" / "graphs.parquet").exists()
    assert stores[0].manifest.fingerprint == stores[1].manifest.fingerprint == fingerprint(columns)
    assert {fingerprint(read_columns(store)) for store in stores} == {fingerprint(columns)}


@pytest.mark.parametrize("column", ["label.a", "static.params", "key", "extra"])
def test_an_embedded_store_that_was_altered_is_refused(tmp_path, columns, column):
    fresh = write_store(tmp_path / "s", columns, manifest(), "parquet")
    assert open_embedded(tmp_path / "s").manifest == fresh.manifest
    altered = {name: fresh.table[name] for name in fresh.table.column_names}
    altered["static.extra" if column == "extra" else column] = pa.array(
        altered.get(column, altered["label.b"]).to_pylist()[::-1]
    )
    pa.parquet.write_table(pa.table(altered), tmp_path / "s" / "graphs.parquet")
    with pytest.raises(UserError, match=r"s: was altered: .* install narbench again"):
        open_embedded(tmp_path / "s")


def _bump(array, index=0):
    changed = array.copy()
    changed.reshape(-1)[index] += 1
    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, keys=["other", *c.keys[1:]]),
        lambda c: replace(c, hashes=_bump(c.hashes, -1)),
        lambda c: replace(c, ops=replace(c.ops, values=_bump(c.ops.values))),
        lambda c: replace(c, ops=replace(c.ops, offsets=_bump(c.ops.offsets, 1))),
        lambda c: replace(c, edges=replace(c.edges, values=_bump(c.edges.values, -1))),
        lambda c: replace(c, edges=replace(c.edges, offsets=_bump(c.edges.offsets, 1))),
        lambda c: replace(c, static={"params": _bump(c.static["params"], 7)}),
        lambda c: replace(c, labels={**c.labels, "b": _bump(c.labels["b"], 59)}),
        lambda c: replace(c, labels={"b": c.labels["a"], "a": c.labels["b"]}),
        lambda c: replace(c, labels={**c.labels, "a": c.labels["a"].astype(np.float32)}),
    ],
)
def test_the_fingerprint_changes_with_any_value(columns, change):
    assert fingerprint(change(columns)) != fingerprint(columns)


@pytest.mark.parametrize("operation", [4, 100, -1])
def test_an_unknown_operation_names_file_and_key(tmp_path, columns, operation):
    values = columns.ops.values.astype(np.int8)
    values[columns.ops.offsets[7]] = operation
    with pytest.raises(UserError, match=rf"toy.bin: row g7: operation id {operation} is unknown; ids 0-3 mean input, conv"):
        write_store(tmp_path / "s", replace(columns, ops=replace(columns.ops, values=values)), manifest())
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_occurs_twice_names_file_row_and_key(tmp_path, columns):
    columns.keys[3] = columns.keys[1]
    with pytest.raises(UserError, match=rf"row 3: key {columns.keys[1]} occurs before"):
        write_store(tmp_path / "s", columns, manifest())


@pytest.mark.parametrize(("edge", "count"), [((1, 0), 2), ((1, 1), 2), ((0, 2), 2), ((-1, 1), 2)])
def test_a_cycle_or_an_edge_out_of_the_graph_names_file_and_key(tmp_path, edge, count):
    columns = Columns(
        keys=["good", "bad"],
        hashes=np.zeros((2, 16), np.uint8),
        ops=Ragged.from_counts(np.zeros(2 + count, np.int8), np.array([2, count])),
        edges=Ragged.from_counts(np.array([(0, 1), edge], np.int8), np.array([1, 1])),
        static={},
        labels={},
    )
    with pytest.raises(UserError, match=rf"toy.bin: row bad: edge {edge[0]}->{edge[1]} makes a cycle or leaves the graph"):
        write_store(tmp_path / "s", columns, manifest(labels={}, static={}))


def _disk_full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("container", ["arrow", "parquet"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_disk_that_fills_up_leaves_things_as_they_were(tmp_path, monkeypatch, columns, container, existing):
    folder = tmp_path / "cache" / "s"
    if existing:
        write_store(folder, columns, manifest(notes={"which": "first"}))
    before = {path.name: path.read_bytes() for path in folder.glob("*")}
    monkeypatch.setattr(pa.RecordBatchFileWriter, "write_table", _disk_full)
    monkeypatch.setattr(pa.parquet, "write_table", _disk_full)
    with pytest.raises(UserError, match=r"s: could not be written .No space left on device.; free some space"):
        write_store(folder, columns, manifest(), container)
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
    assert [path.name for path in folder.parent.iterdir()] == (["s"] if existing else [])
    if existing:
        assert GraphStore.open(folder).manifest.notes == {"which": "first"}


@pytest.mark.parametrize("container", ["arrow", "parquet"])
def test_the_real_writer_that_may_write_no_more_leaves_nothing(tmp_path, columns, container):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"could not be written"):
            write_store(tmp_path / "s", columns, manifest(), container)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path, columns):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"cache/s: could not be written .*choose another folder"):
        write_store(tmp_path / "cache" / "s", columns, manifest())


def test_only_a_store_is_replaced(tmp_path, columns):
    work, file = tmp_path / "work", tmp_path / "file"
    work.mkdir()
    write_store(work, columns, manifest())
    (work / "thesis.tex").write_text("years")
    file.write_text("years")
    with pytest.raises(UserError, match=r"work: holds thesis.tex, which is no part of a store; choose another folder"):
        write_store(work, columns, manifest())
    with pytest.raises(UserError, match=r"file: could not be written .Not a directory"):
        write_store(file, columns, manifest())
    assert (work / "thesis.tex").read_text() == file.read_text() == "years"


def test_a_store_needs_a_folder_of_its_own(tmp_path, columns, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a store needs a folder of its own"):
        write_store(Path(), columns, manifest())


def test_writing_again_replaces_the_store(tmp_path, columns):
    write_store(tmp_path / "s", columns, manifest(notes={"which": 1}), "arrow")
    store = write_store(tmp_path / "s", columns, manifest(notes={"which": 2}), "parquet")
    assert store.manifest.notes == {"which": 2}
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["graphs.parquet", "manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("container", ["arrow", "parquet"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_store_file_is_refused(tmp_path, columns, container, keep):
    write_store(tmp_path / "s", columns, manifest(), container)
    path = tmp_path / "s" / f"graphs.{container}"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=r"s: the graph table is unreadable .*delete the folder and prepare again"):
        GraphStore.open(tmp_path / "s")


def test_a_missing_table_and_a_missing_store_are_refused(tmp_path, columns):
    write_store(tmp_path / "s", columns, manifest())
    (tmp_path / "s" / "graphs.arrow").unlink()
    with pytest.raises(UserError, match=r"s: the graph table is unreadable"):
        GraphStore.open(tmp_path / "s")
    with pytest.raises(UserError, match=r"nowhere: no store here"):
        GraphStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this narbench reads 1; delete the folder"),
        ({"schema_version": None}, "schema version None"),
        ({"rows": 59}, "60 rows where the manifest says 59"),
        ({"rows": "60"}, "manifest.json: rows: missing, of the wrong type or unknown"),
        (
            {"labels": ["a", "b"], "operations": 4},
            "manifest.json: labels, operations: missing, of the wrong type or unknown",
        ),
        ({"colour": "red"}, "manifest.json: colour: missing, of the wrong type or unknown; delete the folder"),
        ({"labels": {"a": "fraction", "c": "fraction"}}, r"s: the graph table has no column label.c; delete the folder"),
        ({"static": {"flops": "count"}}, r"s: the graph table has no column static.flops"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, columns, change, message):
    write_store(tmp_path / "s", columns, manifest())
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        GraphStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "t', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not the manifest of a store"),
        (
            b'{"schema_version": 1, "rows": 60}',
            "fingerprint, hash_rule, labels, name, operations, source, static, task: missing",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, columns, content, message):
    write_store(tmp_path / "s", columns, manifest())
    (tmp_path / "s" / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=f"manifest.json: {message}"):
        GraphStore.open(tmp_path / "s")


def test_a_table_without_a_column_is_refused(tmp_path, columns):
    write_store(tmp_path / "s", columns, manifest(), "parquet")
    path = tmp_path / "s" / "graphs.parquet"
    pa.parquet.write_table(pa.parquet.read_table(path).drop_columns(["edges", "hash"]), path)
    with pytest.raises(UserError, match=r"s: the graph table has no column edges, hash; delete the folder"):
        GraphStore.open(tmp_path / "s")


def test_an_unknown_label_lists_those_that_exist(tmp_path, columns):
    store = write_store(tmp_path / "s", columns, manifest())
    with pytest.raises(UserError, match=r"toy has no label 'c'; it has a, b"):
        store.label("c")


def _digraph(edges, labels):
    graph = nx.DiGraph()
    graph.add_nodes_from((i, {"label": label}) for i, label in enumerate(labels))
    graph.add_edges_from(edges)
    return graph


def test_hashes_are_equal_exactly_for_isomorphic_random_dags():
    rng = np.random.default_rng(4)
    graphs = []
    for _ in range(120):
        nodes = int(rng.integers(4, 6))
        graphs.append((random_dag(rng, nodes, 0.4), rng.choice(["conv", "pool"], nodes, p=[0.95, 0.05]).tolist()))
    hashes = [graph_hash(*graph) for graph in graphs]
    isomorphic = alike = 0
    for i in range(len(graphs)):
        for j in range(i):
            one, two = _digraph(*graphs[i]), _digraph(*graphs[j])
            match = nx.is_isomorphic(one, two, node_match=lambda a, b: a["label"] == b["label"])
            assert (hashes[i] == hashes[j]) == match
            isomorphic += match
            alike += not match and _degrees(one) == _degrees(two)
    assert isomorphic > 10
    assert alike > 0


def _degrees(graph):
    return sorted((graph.in_degree(v), graph.out_degree(v), label) for v, label in graph.nodes(data="label"))


def test_a_hash_does_not_depend_on_the_order_of_nodes():
    edges, labels = [(0, 1), (0, 2), (1, 3), (2, 3)], ["input", "conv", "pool", "output"]
    hashes = set()
    for order in permutations(range(4)):
        renumbered = [(order[a], order[b]) for a, b in edges]
        hashes.add(graph_hash(renumbered, [labels[order.index(i)] for i in range(4)]))
    assert len(hashes) == 1
    assert graph_hash(edges[:3], labels) not in hashes
