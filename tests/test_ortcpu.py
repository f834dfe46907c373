"""``dataset=ortcpu``: what ``narbench measure`` leaves behind, as a benchmark."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from nnlqp_folders import chains

import narbench as api
from datasets import digits201, ortcpu
from datasets.errors import UserError
from datasets.onnx_graph import read_network
from datasets.store import MANIFEST, GraphStore
from harness.cli.data import benchmark

FACTS = {"device": "ort-cpu", "cpu": "a CPU", "threads": 1, "cores": [1], "noise": {"reference_iqr": 0.01}, "rules": {}}


@pytest.fixture
def measured(tmp_path):
    """A folder as ``narbench measure`` writes it, of 40 networks."""
    chains(tmp_path / "measured")
    (tmp_path / "measured" / "device.json").write_text(json.dumps(FACTS))
    return tmp_path / "measured"


def test_make_and_run(measured, tmp_path, monkeypatch, narbench):
    out = tmp_path / "store"
    status, text, _ = narbench("data", "make", "ortcpu", "--from", measured, "--out", out)
    assert (status, text) == (0, f"ortcpu: 40 graphs in {out}\n")
    store = GraphStore.open(out)
    assert sorted(path.name for path in out.iterdir()) == ["graphs.parquet", MANIFEST]
    assert store.label("latency_ms")[[0, 20, 21]].tolist() == [0.004, 0.012, 0.015]
    assert store.groups("family")[0] == ("shallow", "deep")
    assert not store.platforms[0]
    graph = read_network(measured / "unseen_structure/onnx/deep/001.onnx", 1)
    assert store.hashes[21].tobytes() == graph.hash
    assert store.static("flops")[21] == graph.static["flops"]
    notes = store.manifest.notes
    assert (notes["cpu"], notes["noise"]) == ("a CPU", {"reference_iqr": 0.01})
    assert "rules" not in notes
    assert str(tmp_path) not in (out / MANIFEST).read_text()
    again = ortcpu.make(measured, tmp_path / "again")
    assert again.manifest == store.manifest
    monkeypatch.setattr(ortcpu, "FOLDER", out)
    record = api.run("dataset=ortcpu", "predictor=flops", "logger=none", f"out={tmp_path / 'run'}").record
    assert record["protocol"]["sizes"]["test"] == 4
    assert record["dataset"]["fingerprint"] == store.manifest.fingerprint
    assert record["metrics"]["test"]["mape_percent"] < 60


def test_mistakes(measured, tmp_path, narbench):
    status, _, err = narbench("data", "make", "ortcpu")
    assert (status, err.startswith("error: ortcpu: made from measurements; give their folder (--from)")) == (2, True)
    status, _, err = narbench("data", "make", "ortcpu", "--from", tmp_path)
    assert status == 2
    assert "gt.txt: no such file; `narbench measure --out" in err
    (measured / "unseen_structure/onnx/deep/001.onnx").unlink()
    with pytest.raises(UserError, match=r"1 of the 40 networks .* cannot be read"):
        ortcpu.make(measured, tmp_path / "out")
    for content, message in (("[1]", "holds no facts"), ("{", "cannot be read")):
        (measured / "device.json").write_text(content)
        with pytest.raises(UserError, match=rf"device\.json: {message}"):
            ortcpu.make(measured, tmp_path / "out")
    (measured / "device.json").unlink()
    with pytest.raises(UserError, match=r"device\.json: no such file"):
        ortcpu.make(measured, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_installation_without_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(ortcpu, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"ortcpu: no store in .*narbench data make ortcpu --from"):
        benchmark("ortcpu").open_store()


@pytest.mark.parametrize("module", [digits201, ortcpu])
def test_a_committed_store_that_was_altered_is_refused(module, tmp_path, monkeypatch):
    folder = shutil.copytree(module.FOLDER, tmp_path / "altered")
    table = pa.parquet.read_table(folder / "graphs.parquet")
    pa.parquet.write_table(table.take(list(range(len(table)))[::-1]), folder / "graphs.parquet")
    monkeypatch.setattr(module, "FOLDER", folder)
    with pytest.raises(UserError, match=r"altered: was altered"):
        benchmark(module.__name__.rpartition(".")[2]).open_store()


def test_committed_store():
    store = benchmark("ortcpu").open_store()
    latency = store.label("latency_ms")
    assert (np.isfinite(latency) & (latency > 0)).all()
    assert len(store.groups("family")[0]) > 1
    assert str(Path.home()) not in (ortcpu.FOLDER / MANIFEST).read_text()
