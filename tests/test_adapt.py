"""``narbench adapt`` and ``init=RUN``: the encoder of a trained predictor carried over to another device."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Callback
from nnlqp_folders import chain, chains, write_networks, write_table
from onnx_models import integers, model, node, weight
from onnx_models import tensor as value

import narbench as api
from datasets.errors import UserError
from datasets.families import build_variant
from datasets.measured import _on_one_device
from datasets.onnx_graph import read_network
from datasets.store import GraphStore
from harness import experiment
from harness.adapt import SIZES, Adaptation, Options, best_factor, choose_sizes, scaled
from harness.assembly import build_data
from harness.config import compose
from harness.show import show_result
from harness.transfer import encoder

SMALL = ("predictor=nnlp", "predictor.hidden=64", "predictor.head=32", "predictor.dropout=0", "logger=none")
HEAD = "network.heads."


def device(folder, first, count, latency):
    """``count`` variants of two families from number ``first`` on, their latency a function of FLOPs."""
    paths = [f"onnx/{family}/{i}.onnx" for family in ("squeezenet", "nasbench201") for i in range(first, first + count)]
    write_networks(folder, {path: build_variant(path.split("/")[1], int(path.split("/")[2][:-5])) for path in paths})
    times = [latency(read_network(folder / path, 1).static["flops"]) for path in paths]
    rows = [
        f"{n:05d} {path} 1 {ms:.6f} {path.split('/')[1]} 0" for n, (path, ms) in enumerate(zip(paths, times, strict=True))
    ]
    return write_table(folder / "gt.txt", rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """NNLP trained on device a in ``run``; ``b/gt.txt`` has other networks on another device."""
    folder = tmp_path_factory.mktemp("home")
    device(folder / "a" / "unseen_structure", 0, 16, lambda flops: flops / 3e8)
    device(folder / "b", 100, 12, lambda flops: (flops / 1e8) ** 0.8)
    data = ("dataset=nnlqp", f"dataset.root={folder / 'a'}", f"dataset.cache={folder / 'cache'}")
    api.run(*data, *SMALL, "recipe.epochs=5", "recipe.lr=3e-3", "val=4", f"out={folder / 'run'}")
    return folder


def options(**changes):
    return replace(Options(sizes=[8], draws=1, steps=2, seed=0, platform=None, out=None), **changes)


def checkpoint(run, name):
    content = torch.load(run / "checkpoints" / name, weights_only=True)
    return content["state_dict"]


def test_command(home, narbench):
    """The command's files agree with each other, and the folder is a run that predicts what was recorded."""
    out = home / "adapted"
    status, text, err = narbench(
        *("adapt", home / "run", "--data", home / "b" / "gt.txt", "--k", "4,8", "--draws", 2, "--steps", 3, "--out", out)
    )
    assert (status, "Traceback" in err) == (0, False)
    content = json.loads((out / "adaptation.json").read_text())
    assert content["source"]["weights"] == api.load(home / "run").record["selected_weights"]
    assert f"weights {content['source']['weights']!r}" in text
    assert (content["networks"], content["evaluated"], content["evaluated_that_trained_the_run"]) == (24, [16, 16], 0)
    assert [(point["k"], point["method"]) for point in content["curve"]] == [
        (k, method) for k in (4, 8) for method in ("adapted", "scratch", "scaled")
    ]
    for point in content["curve"]:
        mape = point["metrics"]["mape_percent"]
        assert len(mape["values"]) == 2
        assert mape["mean"] == pytest.approx(np.mean(mape["values"]))
        assert f"{mape['mean']:.2f} ±" in text
    errors = {point["method"]: point["metrics"]["mape_percent"]["values"] for point in content["curve"][3:]}
    for method in ("scaled", "scratch"):
        assert f"{abs(np.mean(np.subtract(errors[method], errors['adapted']))):.2f} ± " in text.partition("k = 8: ")[2]
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    table = pq.read_table(out / "predictions.parquet").to_pandas()
    error = 100 * np.abs(table.prediction / table.label - 1).mean()
    assert error == pytest.approx(content["curve"][3]["metrics"]["mape_percent"]["values"][0], rel=1e-5)
    predictor, rows = api.load(out), (home / "b" / "gt.txt").read_text().splitlines()
    assert (predictor.record["protocol"]["sizes"]["train"], predictor.band.networks) == (8, 16)
    for key, expected in zip(table.key[:3], table.prediction[:3], strict=True):
        file = home / "b" / rows[int(key)].split()[1]
        assert predictor.predict(file).latency_ms == pytest.approx(expected, rel=1e-5)
    assert "narbench predict" in text
    status, listed, _ = narbench("runs", home, "--protocol", "few_shot")
    assert (status, "failed" in listed) == (0, False)
    status, _, err = narbench("adapt", home / "run", "--data", home / "b" / "gt.txt", "--out", out)
    assert (status, f"{out}: not empty, and holds no adaptation that was interrupted; give another --out" in err) == (
        2,
        True,
    )


def test_an_interrupted_adaptation_goes_on(home, tmp_path, narbench):
    """Points that were made are kept, a line that a kill cut short is made again: the result is that of one go."""
    out, arguments = tmp_path / "out", ("adapt", home / "run", "--data", home / "b" / "gt.txt", "--k", "4,8", "--draws", 1)
    assert narbench(*arguments, "--steps", 3, "--out", out)[0] == 0
    whole, points = (out / "adaptation.json").read_text(), (out / "points.jsonl").read_bytes()
    predictions = (out / "predictions.parquet").read_bytes()
    lines = points.splitlines(keepends=True)
    assert len(lines) == 7
    for name in ("adaptation.json", "curve.png", "record.json", "predictions.parquet"):
        (out / name).unlink()
    kept = lines[1].replace(b'"failed": {}', b'"failed": {"rmse": "kept"}')
    (out / "points.jsonl").write_bytes(lines[0] + kept + lines[2] + lines[3][:20])
    status, _, err = narbench(*arguments, "--steps", 4, "--out", out)
    assert (status, "points.jsonl: made with steps 3, now 4; give another --out" in err) == (2, True)
    with pytest.raises(UserError, match="made by `narbench adapt`, which continues it with --out"):
        api.run(f"resume={out}")
    assert narbench(*arguments, "--steps", 3, "--out", out)[0] == 0
    assert (out / "points.jsonl").read_bytes() == lines[0] + kept + b"".join(lines[2:])
    again, first = json.loads((out / "adaptation.json").read_text()), json.loads(whole)
    assert again["failed"] == [{"k": 4, "method": "adapted", "draw": 0, "rmse": "kept"}]
    assert again["curve"] == first["curve"]
    assert (out / "predictions.parquet").read_bytes() == predictions
    assert (out / "record.json").exists()


def test_the_published_transfer(tmp_path):
    """The two experiment files: eight platforms without the ninth, then its few networks from their encoder."""
    folder = tmp_path / "multi_platform"
    write_networks(folder, {f"onnx/{i}.onnx": chain(3 + i) for i in range(12)})
    rows = [
        f"{number}{i:02d} onnx/{i}.onnx 8 {scale * (1 + i)} f {number} {'test' if i >= 8 else 'train'}"
        for number, scale in ((2, 1), (9, 3), (10, 0.5))
        for i in range(12)
    ]
    write_table(folder / "gt.txt", rows)
    data = (f"dataset.root={tmp_path}", f"dataset.cache={tmp_path / 'cache'}", "val=2", "recipe.epochs=1", *SMALL[1:])
    eight = api.run("experiment=nnlp_nnlqp_pretraining", *data, f"out={tmp_path / 'eight'}").record
    assert eight["protocol"]["sizes"]["test"] == 8
    ninth = api.run(
        "experiment=nnlp_nnlqp_transfer",
        *data,
        "train=4",
        "recipe.lr=1e-30",
        f"init={tmp_path / 'eight'}",
        f"out={tmp_path / 'n'}",
    ).record
    assert (ninth["protocol"]["sizes"]["train"], ninth["protocol"]["sizes"]["test"]) == (4, 4)
    assert ninth["init"]["id"] == eight["id"]
    assert ninth["init"]["seen"] == 0, "its networks are known, their latencies on this device are not"
    source, ours = (
        checkpoint(tmp_path / "eight", f"{eight['selected_weights']}.ckpt"),
        checkpoint(tmp_path / "n", "last.ckpt"),
    )
    carried = [name for name in ours if not name.startswith(HEAD)]
    assert carried
    for name in carried:
        torch.testing.assert_close(ours[name], source[name], rtol=0, atol=0)
    store = next((tmp_path / "cache").glob("nnlqp-*"))
    for run, devices in (("eight", [0, 1]), ("n", [0])):
        adaptation = Adaptation(tmp_path / run, store, options(sizes=[4], platform="gpu-T4-trt7.1-fp32"))
        data = adaptation.draws[0]
        everything = next(iter(data.eval_dataloader(np.arange(len(data.store)), "latency_ms")))
        with torch.inference_mode():
            expected = [
                adaptation.source.predictor(replace(everything, platform=torch.full((len(everything),), device)))
                for device in devices
            ]
        np.testing.assert_allclose(adaptation._own_predictions(data), torch.stack(expected), rtol=1e-5)


def test_init_carries_the_encoder_bit_for_bit(home):
    """Steps too small for float32 leave a run what it started from: the encoder of ``init``, a fresh predictor's head."""
    data = ("dataset=nnlqp", f"dataset.root={home / 'a'}", f"dataset.cache={home / 'cache'}", "val=4", *SMALL)
    still = ("recipe.epochs=1", "recipe.lr=1e-30", "seed=7")
    started = api.run(*data, *still, f"init={home / 'run'}", f"out={home / 'started'}").record
    fresh = api.run(*data, *still, f"out={home / 'fresh'}").record
    source = checkpoint(home / "run", f"{started['init']['weights']}.ckpt")
    ours, drawn = checkpoint(home / "started", "last.ckpt"), checkpoint(home / "fresh", "last.ckpt")
    assert sum(name.startswith(HEAD) for name in ours) == 6
    for name, tensor in ours.items():
        assert torch.equal(tensor, (drawn if name.startswith(HEAD) else source)[name]), name
        assert not torch.equal(tensor, (source if name.startswith(HEAD) else drawn)[name]), name
    assert started["init"]["id"] == "run"
    assert started["init"]["selection"] == "mape_percent min"
    assert fresh["init"] is None
    assert started["config_hash"] != fresh["config_hash"]


def test_graphs_that_an_encoder_knows_are_counted_and_said(home, capsys):
    """The test set of ``in_domain`` is the same for every seed; what validates under one seed trained under another."""
    data = ("dataset=nnlqp", f"dataset.root={home / 'a'}", f"dataset.cache={home / 'cache'}", "val=4", *SMALL)
    run = (*data, "recipe.epochs=1")
    result = api.run(*run, "seed=7", f"init={home / 'run'}", f"out={home / 'same'}")
    table = pq.read_table(home / "same" / "predictions.parquet").to_pandas()
    validating = (table.split == "val").sum()
    assert result.record["init"]["seen"] == validating > 0
    show_result(result)
    assert f"init: {validating} of the {len(table)} val and test graphs trained or selected the encoder" in (
        capsys.readouterr().out
    )
    again = api.run(*run, f"init={home / 'same'}", "protocol=strict", "train=20", "seed=8", f"out={home / 'again'}").record
    tested = set(table.key[table.split == "test"])
    scored = pq.read_table(home / "again" / "predictions.parquet").to_pandas().key
    assert again["init"]["seen"] == len(set(scored) - tested) > 0


class StopAfterTwo(Callback):
    """Ends training after two epochs, as Ctrl-C does."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_a_run_from_an_encoder_is_resumed_without_it(home, tmp_path):
    data = ("dataset=nnlqp", f"dataset.root={home / 'a'}", f"dataset.cache={home / 'cache'}", "val=4", *SMALL)
    run = (*data, "recipe.epochs=4", "seed=7", "trainer.checkpoint_minutes=0")
    encoder_run = tmp_path / "encoder"
    shutil.copytree(home / "run", encoder_run)
    whole = api.run(*run, f"init={encoder_run}", f"out={tmp_path / 'whole'}").record
    config = compose([*run, f"init={encoder_run}", f"out={tmp_path / 'broken'}"])
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, [StopAfterTwo()])
    shutil.rmtree(encoder_run)
    overrides = [f"resume={tmp_path / 'broken'}"]
    resumed = experiment.run(experiment.resumed(compose(overrides), overrides)).record
    assert resumed["init"] == whole["init"]
    assert resumed["metrics"] == whole["metrics"]


def test_adapted_and_scratch_differ_in_the_encoder_only(home, monkeypatch):
    """Before their first step both have the head of a fresh predictor under the draw's seed."""
    monkeypatch.setattr("harness.adapt.fit", lambda *_: None)
    adaptation = Adaptation(home / "run", home / "b" / "gt.txt", options(seed=3))
    states = {point.method: made.state_dict() for point, made, _ in adaptation.points() if made}
    source = encoder(adaptation.source.predictor)
    for name, tensor in states["adapted"].items():
        assert torch.equal(tensor, source[name] if name in source else states["scratch"][name])
    assert {name for name in states["adapted"] if name.startswith(HEAD)} == set(states["adapted"]) - set(source)


def test_init_refuses_what_does_not_fit(home):
    def run(*overrides, init=home / "run"):
        data = ("dataset=nnlqp", f"dataset.root={home / 'a'}", f"dataset.cache={home / 'cache'}", "val=4", "logger=none")
        api.run(*data, f"init={init}", f"out={home / 'refused'}", *overrides)

    fitting = (
        r"network\.graph_layers\.0\.lin_l\.weight is 64x44 there and 16x44 here; give predictor\.hidden=64 .*, as there"
    )
    with pytest.raises(UserError, match=fitting):
        run("predictor=nnlp", "predictor.hidden=16")
    with pytest.raises(UserError, match=r"run: of predictor=nnlp, whose encoder is no other's"):
        run("predictor=gcn")
    with pytest.raises(UserError, match=r"boosting: a predictor that is fitted in one go has no encoder"):
        run("predictor=boosting")
    with pytest.raises(UserError, match="no run here"):
        run("predictor=nnlp", init=home)
    with pytest.raises(UserError, match=r"run: reads operations Conv, .* and these graphs have input, "):
        api.run(*SMALL, "dataset=digits201", "val=50", "train=50", f"init={home / 'run'}", f"out={home / 'refused'}")
    assert not (home / "refused").exists()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Forty small networks, the first of each family once more under another id."""
    folder = tmp_path_factory.mktemp("small")
    path = chains(folder, 20)
    rows = path.read_text().splitlines()
    copies = [f"{i:05d} {row.split(' ', 1)[1]}" for i, row in ((41, rows[0]), (42, rows[20]))]
    return write_table(path.parent / "gt.txt", rows + copies)


def test_evaluated_networks_never_train(home, table):
    """No graph of the rest is that of a k sample of the draw, whatever k; smaller k are parts of larger ones."""
    adaptation = Adaptation(home / "run", table, options(sizes=[4, 20], draws=6))
    tested, shared = set(), 0
    for data in adaptation.draws:
        train, test = data.parts.train, data.parts.test
        graphs = [set(map(bytes, data.store.hashes[rows])) for rows in (train, test)]
        assert len(train) == 20
        assert not graphs[0] & graphs[1]
        assert len(train) + len(test) + data.parts.excluded["same graph as one that trains"] == 42
        shared += data.parts.excluded["same graph as one that trains"]
        tested.add(tuple(test))
    assert shared > 0
    assert len(tested) == 6


def test_one_rest_for_every_k(home, table, monkeypatch):
    """Each training gets the first k rows of the draw, and all are scored on the same rest."""
    given = []
    monkeypatch.setattr("harness.adapt.fit", lambda predictor, data, rows, *_: given.append(list(rows)))
    adaptation = Adaptation(home / "run", table, options(sizes=[4, 20], draws=2))
    rests = {(point.draw, tuple(predictions.rows)) for point, _, predictions in adaptation.points()}
    assert [len(rows) for rows in given] == [4, 4, 20, 20] * 2
    for small, large in ((given[0], given[2]), (given[4], given[6])):
        assert large[:4] == small
    assert rests == {(draw, tuple(data.parts.test)) for draw, data in enumerate(adaptation.draws)}


def test_labels_of_the_rest_change_nothing(home, table):
    """Ten times the latency of every evaluated network leaves predictions of all methods as they were."""
    first = Adaptation(home / "run", table, options(sizes=[8], steps=3))
    store, tested = first.draws[0].store, first.draws[0].parts.test
    keys = set(store.keys(tested).to_pylist())
    rows = [row.split() for row in table.read_text().splitlines()]
    changed = [[*row[:3], str(10 * float(row[3])), *row[4:]] if row[0] in keys else row for row in rows]
    other = write_table(table.with_name("other.txt"), [" ".join(row) for row in changed])
    second = Adaptation(home / "run", other, options(sizes=[8], steps=3))
    for (point, _, ours), (_, _, theirs) in zip(first.points(), second.points(), strict=True):
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_allclose(theirs.label, 10 * ours.label)
        np.testing.assert_array_equal(ours.prediction, theirs.prediction, err_msg=point.method)


def test_the_factor_is_the_best(home, table):
    """No factor of a fine grid has a smaller percentage error, and a run on several devices is scaled from the nearest."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        prediction, label = rng.lognormal(size=(2, size))
        prediction *= rng.choice([1, 1, -1], size)
        factors = np.linspace(-30, 30, 60_001)
        errors = np.abs(factors[:, None] * prediction / label - 1).mean(1)
        ours = np.abs(best_factor(prediction, label) * prediction / label - 1).mean()
        assert ours <= errors.min() + 1e-9
    data = Adaptation(home / "run", table, options()).draws[0]
    label = data.store.label("latency_ms")
    own = np.stack([rng.lognormal(size=len(label)), label / 5])
    predictions = scaled(own, data, data.parts.train)
    np.testing.assert_allclose(predictions.prediction, label[data.parts.test])


def test_sizes():
    assert choose_sizes(None, 1000) == list(SIZES)
    assert choose_sizes(None, 70) == [8, 16, 32]
    assert choose_sizes([20, 4, 4], 28) == [4, 20]
    for given, total, message in (
        (None, 15, r"15 networks: too few for a curve, which needs 16"),
        ([21], 28, r"k=21: choose 1 to 20; 8 of the 28 networks"),
        ([0], 28, r"k=0: choose 1 to 20"),
        ([1], 8, r"8 networks: too few; 8 must be left"),
    ):
        with pytest.raises(UserError, match=message):
            choose_sizes(given, total)


def test_data_of_several_devices_and_prepared_stores(home, table):
    """``platform`` picks its rows; a store gives the same data as the table it was made of."""
    rows = [row.split() for row in table.read_text().splitlines()[:40]]
    scales = (("2", 1), ("9", 7))
    both = [" ".join([*row[:3], str(scale * float(row[3])), row[4], number]) for number, scale in scales for row in rows]
    path = write_table(table.with_name("both.txt"), both)
    with pytest.raises(
        UserError, match=r"latencies of 2 devices; choose a platform: cpu-openppl-fp32, hi3559A-nnie11-int8"
    ):
        Adaptation(home / "run", path, options())
    with pytest.raises(UserError, match=r"platform=cpu: unknown; choose one of cpu-openppl"):
        Adaptation(home / "run", path, options(platform="cpu"))
    with pytest.raises(UserError, match="platform=cpu: these latencies are of one device; leave it out"):
        Adaptation(home / "run", table, options(platform="cpu"))
    data = Adaptation(home / "run", path, options(platform="hi3559A-nnie11-int8")).draws[0]
    assert not data.spec.platforms
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(data.store.label("latency_ms"), [7 * float(row[3]) for row in rows])
    assert data.store.keys(data.parts.train).to_pylist() == [f"{rows[i][0]}@hi3559A-nnie11-int8" for i in order[:8]]
    batch, graph = data.store.batch(np.array([31, 5]), "latency_ms"), read_network(table.parent / rows[31][1], 1)
    assert batch.platform is None
    assert batch.op[: len(graph.ops)].tolist() == list(graph.ops)
    prepared = Adaptation(home / "run", data.store.folder, options(platform="hi3559A-nnie11-int8")).draws[0]
    assert prepared.parts.sha256 == data.parts.sha256


def test_networks_that_nnlqps_code_cannot_read(home, tmp_path):
    nodes = [node("Conv", "x w", "c"), node("HardSwish", "c", "h"), node("ReduceMean", "h axes", "y")]
    files = {
        f"{i}.onnx": model(nodes, [value("x", 1, 3, 8, 8)], ["y"], [weight("w", i, 3, 3, 3), integers("axes", 2, 3)], 18)
        for i in range(1, 13)
    }
    write_networks(tmp_path, files)
    table = write_table(tmp_path / "gt.txt", [f"{i} {path} 1 {i} f 0" for i, path in enumerate(files, 1)])
    adaptation = Adaptation(home / "run", table, options(sizes=[4]))
    assert len(adaptation.draws[0].parts.test) == 8
    assert adaptation.draws[0].store.manifest.notes["unknown operators"] == {"HardSwish": 12}


def test_a_store_with_a_label_for_each_device(table, home):
    """The device's label becomes the only one; networks that were not measured on it are left out."""
    store = Adaptation(home / "run", table, options()).draws[0].store
    second = 3 * store.label("latency_ms")
    second[4] = np.nan
    columns = store.table.rename_columns({"label.latency_ms": "label.latency_ms.a"})
    columns = columns.append_column("label.latency_ms.b", pa.array(second))
    several = GraphStore(
        columns, replace(store.manifest, labels={"latency_ms.a": "ms", "latency_ms.b": "ms"}), store.folder
    )
    with pytest.raises(UserError, match="latencies of 2 devices; choose a platform: a, b"):
        _on_one_device(several, None)
    found = _on_one_device(several, "b")
    np.testing.assert_array_equal(found.label("latency_ms"), np.delete(second, 4))
    assert found.keys(np.arange(len(found))).to_pylist() == np.delete(store.keys(np.arange(len(store))), 4).tolist()
    assert (list(found.manifest.labels), len(found)) == (["latency_ms"], len(store) - 1)
    alone = GraphStore(
        columns.drop_columns("label.latency_ms.b"), replace(several.manifest, labels={"latency_ms.a": "ms"}), store.folder
    )
    np.testing.assert_array_equal(_on_one_device(alone, None).label("latency_ms"), store.label("latency_ms"))


def test_mistakes(home, table, tmp_path, narbench):
    def refused(*arguments, run=home / "run", data=table):
        status, _, err = narbench("adapt", run, "--data", data, *arguments)
        assert status == 2
        assert err.count("error: ") == 1
        return err[err.index("error: ") :]

    assert "no latencies here; give a table" in refused(data=tmp_path)
    assert "no latencies here" in refused(data=tmp_path / "absent.txt")
    assert "4 columns; there must be id, ONNX path" in refused(data=write_table(tmp_path / "short.txt", ["1 a.onnx 1 2"]))
    missing = write_table(tmp_path / "missing.txt", [f"{i} onnx/{i}.onnx 1 2.0 f 0" for i in range(20)])
    assert "20 of the 20 networks" in refused(data=missing)
    rows = [*table.read_text().splitlines(), "x1 onnx/absent.onnx 1 2.0 f 12"]
    absent = refused(data=write_table(table.parent / "absent.txt", rows))
    assert "mend or download them again, or remove their rows:\n  onnx/absent.onnx: no such file" in absent
    assert "k=8,x: give whole numbers" in refused("--k", "8,x")
    assert "k=40: choose 1 to 34" in refused("--k", "40")
    assert "no run here" in refused(run=tmp_path)
    cells = api.run("predictor=params", "logger=none", f"out={tmp_path / 'cells'}").folder.path
    assert "predicts the accuracy of the cells of digits201" in refused(run=cells)
    data = ("dataset=nnlqp", f"dataset.root={home / 'a'}", f"dataset.cache={home / 'cache'}")
    fitted = api.run(*data, "predictor=flops", "logger=none", f"out={tmp_path / 'fitted'}").folder.path
    assert "fitted in one go has no encoder" in refused(run=fitted)


def test_networks_that_trained_the_run_are_counted(home):
    adaptation = Adaptation(home / "run", home / "a" / "unseen_structure" / "gt.txt", options())
    source = build_data(adaptation.source.config)
    source.setup()
    trained = set(source.store.keys(source.parts.train).to_pylist())
    data = adaptation.draws[0]
    assert adaptation.seen == len(trained & set(data.store.keys(data.parts.test).to_pylist())) > 0


def test_networks_that_trained_what_the_run_started_from_are_counted(home, tmp_path, narbench):
    """A run on device c started from the one on a, and was then adapted to b: the networks of all three are known."""
    other = device(tmp_path / "c/unseen_structure", 50, 10, lambda flops: flops / 1e8)
    tables = {"a": home / "a/unseen_structure/gt.txt", "b": home / "b/gt.txt", "c": other}
    data = ("dataset=nnlqp", f"dataset.root={tmp_path / 'c'}", f"dataset.cache={home / 'cache'}", *SMALL, "val=4")
    started, adapted = tmp_path / "started", tmp_path / "adapted"
    api.run(*data, "recipe.epochs=1", f"init={home / 'run'}", f"out={started}")
    arguments = ("--data", tables["b"], "--k", 8, "--draws", 1, "--steps", 1)
    assert narbench("adapt", started, *arguments, "--out", adapted)[0] == 0

    def seen(run, table, seed=0):
        return Adaptation(run, tables[table], options(seed=seed)).seen

    for table, run in (("a", home / "run"), ("c", started)):
        assert seen(adapted, table) == seen(run, table) > 0
    assert seen(adapted, "b", seed=1) > seen(started, "b", seed=1) == 0
    started.rename(tmp_path / "gone")
    assert seen(adapted, "a") is None
    shutil.copytree(home / "run", started)
    assert seen(adapted, "a") is None


def test_exact_steps_and_the_runs_recipe(home, table):
    adaptation = Adaptation(home / "run", table, options(sizes=[20], steps=5))
    recipe = adaptation.recipe(20)
    assert (recipe.lr, recipe.optimizer, recipe.batch_size, recipe.epochs) == (3e-3, "adam", 16, 3)
    counts = [made.trainer.global_step for _, made, _ in adaptation.points() if made]
    assert counts == [5, 5]
