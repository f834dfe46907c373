"""``dataset=nnlqp``: official folders to stores, missing and damaged files, interruption, and runs from end to end."""

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nnlqp_folders import chain, chains, write_networks, write_table
from onnx_models import model, node, small_network, tensor

import narbench as api
from datasets import nnlqp_chunks
from datasets.errors import UserError
from datasets.network_reading import NetworkFile, read_networks, spread
from datasets.nnlqp_corpus import Corpus
from datasets.nnlqp_table import keys, read_table
from datasets.onnx_graph import read_network
from datasets.store import GraphStore
from harness.config import compose

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    """Tests run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def prepare(narbench, *options):
    return narbench("data", "prepare", "nnlqp", "--root", "data", "--cache", "cache", *options)


def stores(folder=Path("cache")):
    return [GraphStore.open(path) for path in sorted(folder.glob("nnlqp-*"))]


def table(tmp_path, *rows):
    return read_table(write_table(tmp_path / "gt.txt", rows))


def test_rows_of_the_table(tmp_path):
    first, second = table(tmp_path, "00001 onnx/a.onnx 8 2.5 vgg16 10 train", "", "00002  onnx/b.onnx\t1 1e-3 x 77 test ")
    assert (first.id, first.path, first.batch, first.latency) == ("00001", "onnx/a.onnx", 8, 2.5)
    assert (first.family, first.platform, first.stage) == ("vgg16", "gpu-T4-trt7.1-fp32", "train")
    assert (second.latency, second.platform, second.stage) == (0.001, "77", "test")
    assert table(tmp_path, "1 a.onnx 1 1 f 1")[0].stage is None


def test_ids_that_occur_on_several_platforms_are_told_apart(tmp_path):
    assert keys(table(tmp_path, "7 a.onnx 1 1 f 1", "8 a.onnx 1 1 f 2")) == ["7", "8"]
    assert keys(table(tmp_path, "7 a.onnx 1 1 f 99", "7 a.onnx 1 1 f 2")) == ["7@99", "7@cpu-openppl-fp32"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 a.onnx 1 1 f", "row 2: 5 columns; there must be id, ONNX path"),
        ("2 a.onnx 1 1 f 1 train", "row 2: 7 columns"),
        ("2 a.onnx 1 fast f 1", "row 2: 'fast' is no latency in ms"),
        ("2 a.onnx 1 0 f 1", "row 2: '0' is no latency"),
        ("2 a.onnx 1 -3 f 1", "row 2: '-3' is no latency"),
        ("2 a.onnx 1 nan f 1", "row 2: 'nan' is no latency"),
        ("2 a.onnx 1 inf f 1", "row 2: 'inf' is no latency"),
        ("2 a.onnx 1 1e300 f 1", "row 2: '1e300' is no latency"),
        ("2 a.onnx 1 1e-300 f 1", "row 2: '1e-300' is no latency"),
        ("2 a.onnx 0 1 f 1", "row 2: batch size '0' is no whole number"),
        ("2 a.onnx 1.5 1 f 1", "row 2: batch size '1.5'"),
        (f"2 a.onnx {'9' * 5000} 1 f 1", f"row 2: batch size '{'9' * 19}' is no whole number"),
        ("2 a.onnx 1 1 f gpu", "row 2: platform id 'gpu'"),
        ("1 b.onnx 1 1 f 1", "row 2: id 1 is that of row 1"),
        ("2 ../a.onnx 1 1 f 1", "row 2: path '../a.onnx' leaves the folder"),
        ("2 onnx/../../a.onnx 1 1 f 1", "row 2: path 'onnx/../../a.onnx' leaves"),
        ("2 /etc/a.onnx 1 1 f 1", "row 2: path '/etc/a.onnx' leaves"),
    ],
)
def test_bad_rows(tmp_path, row, message):
    with pytest.raises(UserError) as error:
        table(tmp_path, "1 a.onnx 1 1 f 1", row)
    assert f"gt.txt: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_stage_and_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"gt\.txt: row 1: stage 'valid' is unknown; write train or test"):
        table(tmp_path, "1 a.onnx 1 1 f 1 valid")
    with pytest.raises(UserError, match=r"gt\.txt: no rows"):
        table(tmp_path, "", "")
    (tmp_path / "gt.txt").write_bytes(b"1 a.onnx 1 1 f\xff 1")
    with pytest.raises(UserError, match=r"gt\.txt: not a text file"):
        read_table(tmp_path / "gt.txt")
    (tmp_path / "gt.txt").unlink()
    with pytest.raises(UserError, match=r"gt\.txt: cannot be read"):
        read_table(tmp_path / "gt.txt")


def test_real_table(shared, tmp_path):
    path = tmp_path / "gt_stage.txt"
    path.write_bytes(gzip.decompress((shared / "data" / "nnlqp_gt_stage.txt.gz").read_bytes()))
    rows = read_table(path)
    assert len(rows) == 20000
    assert {row.platform for row in rows} == {"gpu-gtx1660-trt7.1-fp32"}
    latency = np.array([row.latency for row in rows])
    assert (latency.mean().round(3), latency.std().round(3)) == (7.886, 6.943)
    assert sum(row.stage == "test" for row in rows) == 2000
    assert keys(rows)[-1] == "20000"


def test_prepared_columns(narbench):
    chains(Path("data"), 3)
    folder = Path("data/unseen_structure")
    write_networks(folder, {"onnx/small.onnx": small_network()})
    rows = [*(folder / "gt.txt").read_text().splitlines(), "90 onnx/small.onnx 4 9.5 attention 1"]
    write_table(folder / "gt.txt", rows)
    status, out, err = prepare(narbench)
    assert not status, err
    (store,) = stores()
    assert out == f"nnlqp: 7 graphs in {store.folder}\n"
    assert store.keys(np.arange(7)).to_pylist() == [f"{i:05d}" for i in range(1, 7)] + ["90"]
    assert store.label("latency_ms").tolist() == [0.004, 0.005, 0.006, 0.012, 0.015, 0.018, 9.5]
    assert store.groups("family")[0] == ("shallow", "deep", "attention")
    assert not store.groups("stage")[0]
    assert not store.platforms[0]
    assert store.manifest.notes == {"features": "as_code", "unknown operators": {"MatMul": 2}}
    graph = read_network(folder / "onnx/small.onnx", 4)
    assert store.ops.take(np.array([6]))[0].tolist() == graph.ops.tolist()
    assert store.edges.take(np.array([6]))[0].tolist() == graph.edges.tolist()
    assert store.attributes.take(np.array([6]))[0].tolist() == graph.attributes.tolist()
    assert store.output_shape.take(np.array([6]))[0].tolist() == graph.output_shape.tolist()
    assert {name: store.static(name)[6] for name in graph.static} == graph.static
    assert store.hashes[6].tobytes() == graph.hash
    assert {path.suffix for path in Path("cache").glob(".*")} == {".lock"}, "nothing of the preparation is left"
    status, out, err = prepare(narbench)
    assert (status, err) == (0, ""), "a second call converts nothing"
    status, out, _ = narbench("data", "describe", "nnlqp", "--root", "data", "--cache", "cache")
    assert not status
    assert "MatMul 2" in out
    assert "latency_ms" in out


def test_stages_and_features(tmp_path):
    chains(tmp_path, 10)
    folder = tmp_path / "unseen_structure"
    rows = (folder / "gt.txt").read_text().splitlines()
    write_table(folder / "gt_stage.txt", [f"{row} {'test' if i % 5 == 1 else 'train'}" for i, row in enumerate(rows)])
    small = ("predictor=nnlp", "predictor.hidden=8", "predictor.head=8", "recipe.epochs=1", "logger=none")
    folders = (f"dataset.root={tmp_path}", f"dataset.cache={tmp_path / 'cache'}", f"runs={tmp_path / 'runs'}")
    record = api.run("dataset=nnlqp", *small, *folders, "dataset.features=fixed").record
    assert record["protocol"]["name"] == "in_domain"
    assert record["protocol"]["sizes"]["test"] == 4
    assert record["metrics"]["test"]["mape_percent"] > 0
    (store,) = stores(tmp_path / "cache")
    assert store.manifest.source["file"] == "gt_stage.txt"
    assert store.manifest.notes == {"features": "fixed"}
    record = api.run("dataset=nnlqp", *small, *folders, "protocol=ood", "protocol.family=deep").record
    assert record["protocol"]["sizes"]["test"] == 10
    assert len(stores(tmp_path / "cache")) == 2
    with pytest.raises(UserError, match=r"dataset\.part=all: unknown"):
        api.run("dataset=nnlqp", *small, *folders, "dataset.part=all")
    with pytest.raises(UserError, match=r"dataset\.features=best: unknown"):
        api.run("dataset=nnlqp", *small, *folders, "dataset.features=best")


def test_a_network_on_several_platforms_is_read_once(tmp_path, monkeypatch):
    folder = tmp_path / "multi_platform"
    write_networks(folder, {f"onnx/{i}.onnx": chain(4 + i) for i in range(8)})
    rows = [
        f"{100 * platform + i} onnx/{i}.onnx 8 {1 + i + platform} f {platform} {'test' if i > 5 else 'train'}"
        for platform in (2, 23, 5)
        for i in range(8)
    ]
    write_table(folder / "gt.txt", rows)
    seen = []
    monkeypatch.setattr(nnlqp_chunks, "read_networks", lambda files, *how: seen.extend(files) or read(files, *how))
    read = read_networks
    data = (
        "dataset=nnlqp",
        "dataset.part=multi_platform",
        f"dataset.root={tmp_path}",
        f"dataset.cache={tmp_path / 'cache'}",
    )
    small = ("predictor=nnlp", "predictor.hidden=8", "predictor.head=8", "recipe.epochs=1", "logger=none")
    record = api.run(*data, *small, "protocol=multi_platform", "val=6", f"runs={tmp_path / 'runs'}").record
    assert sorted(str(file.path.relative_to(folder)) for file in seen) == [f"onnx/{i}.onnx" for i in range(8)]
    assert {file.batch for file in seen} == {8}
    assert record["protocol"]["sizes"] == {"train": 12, "val": 6, "test": 6}
    (store,) = stores(tmp_path / "cache")
    names, platform = store.platforms
    assert names == ("cpu-openppl-fp32", "mul270-neuware-int8", "5")
    assert platform.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert store.label("latency_ms").tolist() == [1 + i + p for p in (2, 23, 5) for i in range(8)]
    first, again = store.ops.take(np.array([3])), store.ops.take(np.array([11]))
    assert first[0].tolist() == again[0].tolist()
    assert record["spec"]["platforms"] == names


def three_devices(root):
    """NNLQP's ``multi_platform`` with 12 networks on three devices, as settings."""
    folder = root / "multi_platform"
    write_networks(folder, {f"onnx/{i}.onnx": chain(4 + i) for i in range(12)})
    numbers = [(platform, i) for platform in (2, 23, 5) for i in range(12)]
    rows = [f"{p}{i} onnx/{i}.onnx 8 {(1 + i) * p} f {p} {'train' if i < 9 else 'test'}" for p, i in numbers]
    write_table(folder / "gt.txt", rows)
    data = ("dataset=nnlqp", "dataset.part=multi_platform", f"dataset.root={root}", f"dataset.cache={root}")
    return (*data, "val=2", "logger=none")


@pytest.mark.parametrize("choice", [["boosting"], ["knn"], ["flops"], ["gin", "recipe.epochs=1"]])
def test_predictors_of_one_device_are_transferred_to(tmp_path, choice):
    """Under ``transfer`` all labels are of one device, whose networks train and are scored."""
    run = (*three_devices(tmp_path), f"predictor={choice[0]}", *choice[1:])
    with pytest.raises(UserError, match="predicts one device, and these labels are of 3"):
        api.run(*run, "protocol=multi_platform", f"out={tmp_path / 'three'}")
    result = api.run(*run, "protocol=transfer", "protocol.platform=mul270-neuware-int8", f"out={tmp_path / 'one'}")
    assert result.record["spec"]["platforms"] == ("mul270-neuware-int8",)
    scored = pd.read_parquet(tmp_path / "one/predictions.parquet").query("split == 'test'").sort_values("key")
    assert (scored.key.tolist(), scored.label.tolist()) == (["2310", "2311", "239"], [253.0, 276.0, 230.0])


def test_a_device_that_is_left_out_has_no_head(tmp_path):
    left_out = ("protocol=multi_platform", "protocol.platform=mul270-neuware-int8")
    result = api.run(*three_devices(tmp_path), "predictor=nnlp", "recipe.epochs=1", *left_out, f"out={tmp_path / 'two'}")
    assert result.record["spec"]["platforms"] == ("cpu-openppl-fp32", "5")
    weights = torch.load(tmp_path / "two/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[2] for name in weights if name.startswith("network.heads")} == {"0", "1"}


def test_files_that_cannot_be_read_are_named(narbench):
    chains(Path("data"), 10)
    folder = Path("data/unseen_structure/onnx")
    (folder / "deep/003.onnx").unlink()
    (folder / "shallow/001.onnx").write_bytes(b"no model")
    status, out, err = prepare(narbench)
    assert (status, out) == (2, "")
    assert err.startswith("error: nnlqp: 2 of the 20 networks in data/unseen_structure/gt.txt cannot be read")
    assert "\n  onnx/deep/003.onnx: no such file" in err
    assert "\n  onnx/shallow/001.onnx: not an ONNX model" in err
    assert "--allow-missing" in err
    assert not stores()
    status, out, err = prepare(narbench, "--allow-missing")
    assert status == 0
    assert "nnlqp: 2 of 20 rows left out" in err
    assert "onnx/deep/003.onnx: no such file" in err
    (store,) = stores()
    assert len(store) == 18
    assert "00002" not in store.keys(np.arange(18)).to_pylist()
    assert store.label("latency_ms")[1] == 0.006
    assert store.manifest.notes["rows left out"] == 2
    assert list(store.manifest.notes["why (the first ones)"]) == ["onnx/shallow/001.onnx", "onnx/deep/003.onnx"]
    status, out, _ = narbench("data", "describe", "nnlqp", "--root", "data", "--cache", "cache", "--allow-missing")
    assert (status, "onnx/deep/003.onnx no such file" in out) == (0, True)
    write_networks(folder, {"deep/003.onnx": chain(7, 3, "Sigmoid")})
    assert prepare(narbench, "--allow-missing")[1].startswith("nnlqp: 19 graphs"), "files added later are read"
    write_networks(folder, {"shallow/001.onnx": chain(5, 1)})
    assert prepare(narbench, "--allow-missing")[1].startswith("nnlqp: 20 graphs"), "files mended in place are read"
    assert prepare(narbench)[1].startswith("nnlqp: 20 graphs")
    (whole,) = (store for store in stores() if "partial" not in store.folder.name)
    write_networks(folder, {"shallow/001.onnx": chain(5, 3)})
    assert prepare(narbench)[1].startswith("nnlqp: 20 graphs")
    (changed,) = (store for store in stores() if "partial" not in store.folder.name and store.folder != whole.folder)
    assert sum(changed.ops.counts) == sum(whole.ops.counts) + 4


def test_networks_whose_features_are_not_finite_cannot_be_used(narbench):
    chains(Path("data"), 3)
    built = model([node("Mul", "x s", "y")], [tensor("x", 1, 4), tensor("s")], ["y"])
    write_networks(Path("data/unseen_structure"), {"onnx/deep/001.onnx": built})
    status, _, err = prepare(narbench)
    reason = "onnx/deep/001.onnx: the features of 's' are not finite numbers"
    assert (status, reason in err, "dataset.features=fixed" in err, stores()) == (2, True, True, [])
    status, _, err = prepare(narbench, "--allow-missing")
    assert (status, "1 of 6 rows left out" in err, reason in err) == (0, True, True)
    (store,) = stores()
    assert len(store) == 5
    assert np.isfinite(store.output_shape.values).all()
    assert len(Corpus("nnlqp", "fixed").read(Path("data/unseen_structure/gt.txt"))[0].keys) == 6


def test_a_damaged_file_is_refused_at_every_call(narbench):
    chains(Path("data"), 3)
    Path("data/unseen_structure/onnx/deep/001.onnx").write_bytes(b"no model")
    for _ in range(2):
        status, _, err = prepare(narbench)
        assert (status, "onnx/deep/001.onnx: not an ONNX model" in err) == (2, True)


def test_long_lists_of_missing_files_are_cut(narbench):
    chains(Path("data"), 10)
    for path in Path("data/unseen_structure/onnx/deep").iterdir():
        path.unlink()
    (Path("data/unseen_structure/onnx/shallow/004.onnx")).unlink()
    _, _, err = prepare(narbench)
    assert err.count("no such file") == 10
    assert "... and 1 more" in err


def test_labels_without_networks(narbench):
    chains(Path("data"), 2)
    for path in Path("data/unseen_structure/onnx").rglob("*.onnx"):
        path.unlink()
    for options in ((), ("--allow-missing",)):
        status, _, err = prepare(narbench, *options)
        assert status == 2
        assert "4 of the 4 networks" in err
        assert "put the folder onnx of the same download beside gt.txt" in err


def test_missing_data_says_what_to_get_and_where_to_put_it(narbench):
    status, _, err = prepare(narbench)
    assert status == 2
    assert err.startswith("error: nnlqp: no data in data.")
    for part in ("data/unseen_structure/gt.txt", "data/unseen_structure/gt_stage.txt", "dataset.tar.gz", "ModelTC/NNLQP"):
        assert part in err
    assert prepare(narbench, "--no-checksum")[0] == 2
    status, _, err = narbench("data", "prepare", "digits201", "--allow-missing")
    assert (status, err) == (2, "error: --allow-missing: digits201 has no files of single networks; leave it out\n")


def test_part_on_the_command_line(narbench):
    folder = Path("data/multi_platform")
    write_networks(folder, {f"onnx/{i}.onnx": chain(4 + i) for i in range(4)})
    stages = ("train", "train", "train", "test")
    rows = [f"{p}{i} onnx/{i}.onnx 8 {1 + i} f {p} {stages[i]}" for p in (2, 23) for i in range(4)]
    write_table(folder / "gt.txt", rows)
    status, out, err = prepare(narbench, "--part", "multi_platform")
    assert (status, out.split(" in ")[0]) == (0, "nnlqp: 8 graphs"), err
    where = ("--root", "data", "--cache", "cache", "--part")
    status, out, _ = narbench("data", "describe", "nnlqp", *where, "multi_platform")
    assert (status, "cache/nnlqp-multi_platform-as_code" in "".join(out.split())) == (0, True)
    status, _, err = narbench("data", "describe", "nnlqp", *where, "single_platform")
    assert (status, "dataset.part=single_platform: unknown" in err) == (2, True)
    status, _, err = narbench("data", "prepare", "digits201", "--part", "train")
    assert (status, err) == (2, "error: --part: digits201 has no parts; leave it out\n")


def test_an_interrupted_preparation_continues(tmp_path, monkeypatch):
    """Chunks of two; the third fails like a kill. Of the finished ones, that of a file changed meanwhile is read again."""
    path = chains(tmp_path, 4)
    monkeypatch.setattr(nnlqp_chunks, "CHUNK", 2)
    read, seen = nnlqp_chunks._read_chunk, []

    def stop_at(limit):
        def chunk(networks, **options):
            if len(seen) == limit:
                raise KeyboardInterrupt
            seen.append(networks[0][0])
            return read(networks, **options)

        return chunk

    corpus = Corpus("nnlqp", "as_code", scratch=tmp_path / "scratch", workers=1)
    monkeypatch.setattr(nnlqp_chunks, "_read_chunk", stop_at(2))
    with pytest.raises(KeyboardInterrupt):
        corpus.read(path)
    assert seen == ["onnx/shallow/000.onnx", "onnx/shallow/002.onnx"]
    assert len(list((tmp_path / "scratch").iterdir())) == 2
    write_networks(path.parent, {"onnx/shallow/003.onnx": chain(90)})
    seen.clear()
    monkeypatch.setattr(nnlqp_chunks, "_read_chunk", stop_at(99))
    columns, _ = corpus.read(path)
    assert seen == ["onnx/shallow/002.onnx", "onnx/deep/000.onnx", "onnx/deep/002.onnx"]
    fresh, _ = Corpus("nnlqp", "as_code", workers=1).read(path)
    assert columns.table().equals(fresh.table())
    for cache in (tmp_path / "scratch").iterdir():
        cache.write_bytes(b"damaged")
    assert corpus.read(path)[0].table().equals(fresh.table())


def test_a_killed_preparation_continues(tmp_path, monkeypatch):
    path = chains(tmp_path / "data", 40)
    code = (
        "import sys, time; from datasets import nnlqp_chunks; from harness.cli import main; nnlqp_chunks.CHUNK = 1; "
        "read = nnlqp_chunks.read_networks; nnlqp_chunks.read_networks = lambda *a: (time.sleep(0.05), read(*a))[1]; "
        "from datasets import network_reading; network_reading.cores = lambda: 1; "
        f"sys.argv = ['narbench', 'data', 'prepare', 'nnlqp', '--root', r'{tmp_path / 'data'}', '--cache', r'{tmp_path}']; "
        "main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    scratch, patience = tmp_path / ".nnlqp-unseen_structure-as_code.unfinished", time.monotonic() + 120
    while len(list(scratch.glob("*.arrow"))) < 3 and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(list(scratch.glob("*.arrow")))
    assert 3 <= finished < 80
    assert not list(tmp_path.glob("nnlqp-*"))
    monkeypatch.setattr(nnlqp_chunks, "CHUNK", 1)
    seen = []
    monkeypatch.setattr(nnlqp_chunks, "read_networks", lambda files, *how: seen.append(1) or read_networks(files, *how))
    columns, _ = Corpus("nnlqp", "as_code", scratch=scratch, workers=1).read(path)
    assert len(seen) == 80 - finished
    assert columns.table().equals(Corpus("nnlqp", "as_code", workers=1).read(path)[0].table())


def test_processes_read_the_same(tmp_path, monkeypatch):
    """On two processes, with a damaged file, started by a script that has no guard against being imported again."""
    path = chains(tmp_path / "data", 4)
    (path.parent / "onnx/deep/001.onnx").write_bytes(b"no model")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom datasets import nnlqp_chunks\nfrom datasets.nnlqp_corpus import Corpus\n"
        "nnlqp_chunks.CHUNK = 2\nprint('once')\n"
        f"columns, manifest = Corpus('n', 'as_code', True, workers=2).read(Path(r'{path}'))\n"
        "print(len(columns.keys), manifest.notes['rows left out'], columns.hashes.sum())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    alone = Corpus("n", "as_code", True, workers=1).read(path)[0]
    assert done.stdout.splitlines() == ["once", f"7 1 {alone.hashes.sum()}"], done.stderr


def test_a_dead_process_is_one_line():
    with pytest.raises(UserError, match="a process reading ONNX files died"):
        list(spread(os._exit, [1, 2], workers=2))


def test_reading_keeps_the_order_and_the_reasons(tmp_path):
    write_networks(tmp_path, {"a.onnx": chain(4), "b.onnx": chain(5)})
    files = [NetworkFile(tmp_path / name, 2) for name in ("a.onnx", "none.onnx", "b.onnx")]
    first, second, third = read_networks(files, "fixed")
    assert (first.static["batch"], first.output_shape[1, 1], third.output_shape[1, 1]) == (2, 4, 5)
    assert isinstance(second, UserError)


@pytest.mark.parametrize(
    ("overrides", "dim", "protocol"),
    [
        (["dataset=nnlqp"], 512, "in_domain"),
        (["dataset=ortcpu"], 512, "in_domain"),
        (["dataset=nb201_latency"], 512, "strict"),
        (["dataset=nasbench201"], 160, "strict"),
        (["experiment=nnformer_nasbench201_781"], 160, "paper"),
        (["dataset=nnlqp", "protocol=ood"], 512, "ood"),
        (["dataset=nnlqp", "networks=none"], 160, "in_domain"),
    ],
)
def test_predictors_get_their_values_for_whole_networks(overrides, dim, protocol):
    config = compose([*overrides, *(["predictor=nnformer"] if "experiment" not in overrides[0] else [])])
    assert (config.predictor.dim, config.protocol.name) == (dim, protocol)
