"""``narbench predict`` and ``narbench.load(run).predict``: trained predictors on ONNX files and PyTorch models."""

import json
import shutil
import warnings

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from nnlqp_folders import chain, chains, write_networks, write_table
from onnx import numpy_helper
from onnx_models import integers, model, node, small_network, tensor, weight
from torch import nn

import narbench as api
from datasets.errors import UserError
from datasets.onnx_file import parse
from datasets.onnx_graph import network_of, read_network
from harness.error_band import ErrorBand
from harness.prediction import Failure
from harness.torch_export import to_onnx

SMALL = ("predictor.hidden=16", "predictor.head=8", "recipe.epochs=3", "logger=none")


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return torch.relu(x + self.body(x))


def resnet():
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    return nn.Sequential(stem, Residual(8), Residual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data, and NNLP trained on it in ``run``."""
    folder = tmp_path_factory.mktemp("home")
    chains(folder / "data")
    data = ("dataset=nnlqp", f"dataset.root={folder / 'data'}", f"dataset.cache={folder / 'cache'}")
    api.run(*data, "predictor=nnlp", *SMALL, f"out={folder / 'run'}")
    return folder


@pytest.fixture(scope="module")
def trained(home):
    return api.load(home / "run")


def recorded(run):
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    return table[table.split == "test"]


def network(home, key):
    number = int(key) - 1
    return home / "data/unseen_structure/onnx" / ("shallow", "deep")[number // 20] / f"{number % 20:03d}.onnx"


def test_a_file_is_predicted_as_the_run_did(home, trained):
    """The test networks' files, read anew, give the recorded predictions."""
    rows = recorded(home / "run")
    assert len(rows) == 4
    for key, value in zip(rows.key, rows.prediction, strict=True):
        answer = trained.predict(network(home, key), batch=1)
        assert answer.latency_ms == pytest.approx(value, rel=1e-5)
        assert (answer.batch, answer.nodes) == (1, 3 if int(key) <= 20 else 7)


def test_the_band_holds_for_80_percent_of_the_test_networks(home, trained, tmp_path):
    rows = recorded(home / "run")
    answer = trained.predict(network(home, rows.key.iloc[0]), batch=1)
    low, high = np.quantile(rows.prediction / rows.label - 1, [0.1, 0.9])
    assert answer.low_ms == pytest.approx(answer.latency_ms / (1 + high), rel=1e-5)
    assert answer.high_ms == pytest.approx(answer.latency_ms / (1 + low), rel=1e-5)
    rng = np.random.default_rng(0)
    label = rng.uniform(1, 9, 1000).astype(np.float32)
    prediction = (label * rng.uniform(0.5, 1.2, 1000)).astype(np.float32)
    table = {"key": ["a"] * 1000, "split": ["test"] * 1000, "label": label, "prediction": prediction}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    band = ErrorBand.read(tmp_path / "p.parquet")
    ends = np.array([band.around(value) for value in prediction])
    assert ((ends[:, 0] <= label) & (label <= ends[:, 1])).mean() == pytest.approx(0.8, abs=0.003)
    pq.write_table(pa.table({**table, "prediction": -prediction}), tmp_path / "p.parquet")
    assert ErrorBand.read(tmp_path / "p.parquet") is None
    with pytest.raises(UserError, match=r"none\.parquet: not readable"):
        ErrorBand.read(tmp_path / "none.parquet")


def test_json(home, narbench):
    rows = recorded(home / "run")
    files = [network(home, key) for key in rows.key]
    status, out, err = narbench("predict", home / "run", *files, "--json", "--batch", 1)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert [each["network"] for each in content["predictions"]] == [str(file) for file in files]
    assert [each["latency_ms"] for each in content["predictions"]] == pytest.approx(list(rows.prediction), rel=1e-5)
    assert (content["predictor"], content["dataset"], content["label"]) == ("nnlp", "nnlqp", "latency_ms")
    assert content["band"]["networks"] == 4
    assert content["band"]["low"] < content["band"]["high"]
    for each in content["predictions"]:
        assert each["low_ms"] < each["high_ms"]
        assert set(each) == {"network", "latency_ms", "low_ms", "high_ms", "batch", "nodes", "warnings"}


def test_folder_and_words(home, narbench):
    status, out, err = narbench("predict", home / "run", home / "data", "--batch", 1)
    assert status == 0
    assert out.count(".onnx") == 40
    assert "80 % of" not in err
    assert "Band: 80% of the run's 4 test networks took between prediction / " in out
    assert out.splitlines()[0] == "latency_ms by nnlp, trained on 32 of nnlqp"


def test_files_of_deep_folders_keep_their_names(home, tmp_path, narbench, monkeypatch):
    """However long the path and narrow the terminal: what the files share is said once."""
    monkeypatch.setenv("COLUMNS", "60")
    deep = tmp_path / ("d" * 100)
    write_networks(deep, {"a/one.onnx": chain(9), "b/two.onnx": chain(9), ("n" * 70) + ".onnx": chain(9)})
    status, out, err = narbench("predict", home / "run", deep, "--batch", 1)
    assert (status, err) == (0, "")
    rows = out[out.index("80 % band") :]
    assert f"files in {deep}" in out.replace("\n", " ")
    assert all(name in rows for name in (" a/one.onnx ", " b/two.onnx "))
    assert rows.count("n") >= 70
    monkeypatch.chdir(deep)
    mixed = narbench("predict", home / "run", "a/one.onnx", deep / "b" / "two.onnx", "--batch", 1)[1]
    assert "files in" not in mixed
    assert "files in a" in narbench("predict", home / "run", "a/one.onnx", "--batch", 1)[1]
    monkeypatch.chdir(deep / "a")
    assert "files in" not in narbench("predict", home / "run", "one.onnx", "--batch", 1)[1]


def test_names_that_look_like_markup_and_folders_that_look_like_files(home, tmp_path, narbench):
    write_networks(tmp_path, {"net[v2].onnx": chain(9), "model.onnx/model.onnx": chain(9), "weights.onnx/w.bin": chain(9)})
    status, out, err = narbench("predict", home / "run", tmp_path, "--batch", 1)
    assert (status, err) == (0, "")
    assert "net[v2].onnx" in "".join(out.split())


def test_warnings_name_what_is_unlike_the_training_networks(home, trained, tmp_path, narbench):
    write_networks(tmp_path, {"odd.onnx": small_network(), "known.onnx": chain(9), "wide.onnx": chain(500)})
    remarks = trained.predict(tmp_path / "odd.onnx", batch=1).warnings
    assert remarks[0] == "operators outside the vocabulary: MatMul (2)"
    assert remarks[1].startswith("operators that no training network has: Add (1), AveragePool (1)")
    assert "Relu" not in remarks[1]
    assert any(remark.startswith("nodes 15 is above the training range, 3 to 7") for remark in remarks)
    assert trained.predict(tmp_path / "known.onnx", batch=1).warnings == ()
    assert (
        trained.predict(tmp_path / "known.onnx", batch=7).warnings[0] == "batch 7 is above the training range, which is 1"
    )
    (wide,) = [w for w in trained.predict(tmp_path / "wide.onnx", batch=1).warnings if w.startswith("params")]
    assert wide.startswith("params 2,263,500 is above the training range, ")
    status, out, err = narbench("predict", home / "run", tmp_path / "odd.onnx", "--batch", 1)
    assert status == 0
    assert "odd.onnx: operators outside the vocabulary: MatMul (2)" in err
    assert " !" in out


def test_ranges_are_those_of_the_training_rows(home):
    record = json.loads((home / "run" / "record.json").read_text())
    assert record["ranges"]["operations"] == ["Conv", "Relu", "Sigmoid", "Input"]
    assert record["ranges"]["features"]["nodes"] == [3, 7]
    assert record["ranges"]["features"]["batch"] == [1, 1]
    assert record["spec"]["unit"] == "ms"


def test_files_that_cannot_be_predicted(home, narbench, tmp_path):
    write_networks(tmp_path, {"good.onnx": chain(9)})
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    status, out, err = narbench("predict", home / "run", tmp_path, tmp_path / "none.onnx", "--batch", 1)
    assert status == 2
    assert "good.onnx" in out
    assert "bad.onnx: not an ONNX model" in err
    assert "none.onnx: no such file" in err
    assert "error: 2 of 3 files cannot be predicted" in err
    status, out, err = narbench(
        "predict", home / "run", tmp_path / "good.onnx", tmp_path / "bad.onnx", "--json", "--batch", 1
    )
    assert status == 2
    first, second = json.loads(out)["predictions"]
    assert first["latency_ms"] > 0
    assert second["error"].startswith("not an ONNX model")
    assert "give a batch size" in narbench("predict", home / "run", tmp_path / "good.onnx")[2]
    (tmp_path / "empty").mkdir()
    status, _, err = narbench("predict", home / "run", tmp_path / "empty")
    assert (status, "no .onnx files in this folder" in err) == (2, True)


@pytest.mark.parametrize("value", [-0.0, -1.0, np.nan, np.inf])
def test_a_prediction_that_is_no_latency_fails(trained, home, monkeypatch, value):
    files = [network(home, key) for key in (1, 2)]
    monkeypatch.setattr(trained, "_predictor", lambda batch: torch.tensor([2.0, value]))
    good, bad = trained.predict_files(files, batch=1)
    assert good.latency_ms == 2
    assert (bad.network, "not a finite number above 0" in bad.error) == (str(files[1]), True)
    monkeypatch.setattr(trained, "_predictor", lambda batch: torch.tensor([value]))
    with pytest.raises(UserError, match=r"001\.onnx: the prediction is not a finite number above 0"):
        trained.predict(files[1], batch=1)


def allocate(error):
    """Fail as PyTorch's CPU allocator does, or with ``error``."""
    if error is None:
        torch.empty(10**15)
    raise error


@pytest.mark.parametrize("error", [None, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=repr)
def test_a_network_too_large_for_memory_leaves_the_others_their_answers(trained, home, monkeypatch, error):
    """The batch that runs out of memory is predicted again one network at a time."""
    folder, predictor, sizes = home / "data", trained._predictor, []
    expected = trained.predict_files(folder, batch=1)

    def small_memory(batch):
        sizes.append(len(batch))
        if len(batch) > 4 or (batch.static["flops"] == largest).any():
            allocate(error)
        return predictor(batch)

    largest = max(read_network(folder / each.network, 1).static["flops"] for each in expected)
    monkeypatch.setattr(trained, "_predictor", small_memory)
    answers = trained.predict_files(folder, batch=1)
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    assert [answer.error for answer in failed] == ["not enough memory for the prediction of its 7 nodes"]
    assert sizes == [40, *[1] * 40]
    for answer, known in zip(answers, expected, strict=True):
        assert answer.network == known.network
        assert answer in failed or answer.latency_ms == pytest.approx(known.latency_ms, rel=1e-5)
    with pytest.raises(UserError, match="onnx: not enough memory"):
        trained.predict(failed[0].network, batch=1)


def test_other_errors_of_a_predictor_are_not_swallowed(trained, home, monkeypatch):
    def broken(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(trained, "_predictor", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trained.predict_files(home / "data", batch=1)


def test_single_prediction_mistakes(trained, tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        trained.predict(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="a folder; predict_files takes folders"):
        trained.predict(tmp_path)
    with pytest.raises(UserError, match=r"platform=cpu"):
        trained.predict(small_network(), batch=1, platform="cpu")
    with pytest.raises(UserError, match="Linear: needs an example input"):
        trained.predict(nn.Linear(2, 2))


def test_runs_that_cannot_predict_networks(home, narbench, tmp_path):
    write_networks(tmp_path, {"a.onnx": chain(9)})
    model = tmp_path / "a.onnx"
    api.run("predictor=flops", "logger=none", "train=20", "val=10", f"out={tmp_path / 'cells'}")
    _, _, err = narbench("predict", tmp_path / "cells", model)
    assert "predicts the accuracy of the cells of digits201, not of ONNX networks; choose a run on whole networks" in err
    assert "no run here" in narbench("predict", tmp_path / "none", model)[2]
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    (run / "record.json").rename(tmp_path / "record.json")
    assert f"not finished; finish it with resume={run}" in narbench("predict", run, model)[2]
    record = json.loads((tmp_path / "record.json").read_text())
    del record["spec"]
    (run / "record.json").write_text(json.dumps(record))
    assert "made by an older narbench" in narbench("predict", run, model)[2]
    shutil.copy(tmp_path / "record.json", run)
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in narbench("predict", run, model)[2]


def test_fitted_predictors_and_averaged_weights(home, tmp_path):
    data = ("dataset=nnlqp", f"dataset.root={home / 'data'}", f"dataset.cache={home / 'cache'}", "logger=none")
    api.run(*data, "predictor=knn", f"out={tmp_path / 'knn'}")
    api.run(*data, "predictor=nnlp", *SMALL, "recipe.ema=0.5", f"out={tmp_path / 'ema'}")
    for name in ("knn", "ema"):
        rows = recorded(tmp_path / name).iloc[::-1]  # large networks first
        answers = api.load(tmp_path / name).predict_files([network(home, key) for key in rows.key], batch=1)
        assert [answer.latency_ms for answer in answers] == pytest.approx(list(rows.prediction), rel=1e-4)


def two_devices(root):
    """NNLQP's ``multi_platform`` with two devices, as settings, and its folder."""
    folder = root / "multi_platform"
    write_networks(folder, {f"onnx/{i}.onnx": chain(4 + i) for i in range(10)})
    rows = [
        f"{p}{i} onnx/{i}.onnx 8 {(1 + i) * p} f {p} {'test' if i > 7 else 'train'}" for p in (2, 23) for i in range(10)
    ]
    write_table(folder / "gt.txt", rows)
    return ("dataset=nnlqp", "dataset.part=multi_platform", f"dataset.root={root}", f"dataset.cache={root}"), folder


def test_several_platforms(tmp_path, narbench):
    data, folder = two_devices(tmp_path)
    run = tmp_path / "run"
    api.run(*data, "predictor=nnlp", *SMALL, "protocol=multi_platform", "val=4", f"out={run}")
    assert api.load(run).record["ranges"]["platforms"] == ["cpu-openppl-fp32", "mul270-neuware-int8"]
    rows, model = recorded(run), folder / "onnx/9.onnx"
    _, _, err = narbench("predict", run, model, "--batch", 8)
    assert "this run predicts 2; choose one of cpu-openppl-fp32, mul270-neuware-int8" in err
    for platform, key in (("cpu-openppl-fp32", "29"), ("mul270-neuware-int8", "239")):
        status, out, _ = narbench("predict", run, model, "--batch", 8, "--platform", platform, "--json")
        assert status == 0
        (value,) = rows.prediction[rows.key == key]
        assert json.loads(out)["predictions"][0]["latency_ms"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("protocol", "device"), [("transfer", "mul270-neuware-int8"), ("multi_platform", "cpu-openppl-fp32")]
)
def test_only_devices_that_trained_are_predicted(tmp_path, narbench, protocol, device):
    """A head of a device that no training label is of holds what it was drawn as."""
    data, folder = two_devices(tmp_path)
    run, model = tmp_path / "run", folder / "onnx/9.onnx"
    one = (f"protocol={protocol}", "protocol.platform=mul270-neuware-int8", "val=2")
    api.run(*data, "predictor=nnlp", *SMALL, *one, f"out={run}")
    (value,) = recorded(run).query("key == '239' or key == '29'").prediction
    for platform in ((), ("--platform", device)):
        status, out, _ = narbench("predict", run, model, "--batch", 8, "--json", *platform)
        assert (status, json.loads(out)["predictions"][0]["latency_ms"]) == (0, pytest.approx(value, rel=1e-5))
    (other,) = {"mul270-neuware-int8", "cpu-openppl-fp32"} - {device}
    _, _, err = narbench("predict", run, model, "--batch", 8, "--platform", other)
    assert f"platform={other}: unknown; choose one of {device}" in err


def test_torch_module_is_exported_as_it_would_be_by_hand(trained, tmp_path):
    module, example = resnet(), torch.zeros(1, 3, 32, 32)
    module.train()
    module[1].eval()
    answer = trained.predict(module, example=example)
    assert [part.training for part in module] == [True, False, True, True, True, True]
    assert answer.network == "Sequential"
    module.eval()
    for parameter in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        parameter.data.uniform_()  # the exporter joins parameters of equal value
    keep = torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), tmp_path / "resnet.onnx", dynamo=False, training=keep)
    by_hand = trained.predict(tmp_path / "resnet.onnx")
    assert answer.latency_ms == by_hand.latency_ms
    assert answer.nodes == by_hand.nodes
    program = torch.export.export(module, (example,))
    assert trained.predict(program).latency_ms == pytest.approx(answer.latency_ms, rel=1e-6)
    assert trained.predict(onnx.load(tmp_path / "resnet.onnx")).latency_ms == answer.latency_ms
    assert trained.predict(program, batch=4).batch == 4


class Transformer(nn.Module):
    """A class token expanded to the batch size before an encoder, whose sizes are computed in the exported graph."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x):
        return self.encoder(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))


def test_a_transformer_is_predicted(trained):
    module, example = Transformer(), torch.zeros(2, 7, 16)
    answer = trained.predict(module, example=example)
    assert (answer.batch, answer.latency_ms > 0) == (2, True)
    assert "LayerNormalization (4)" in answer.warnings[0]


@pytest.mark.parametrize("way", ["no_grad", "inference_mode", "frozen"])
def test_attention_is_exported_as_operators_however_gradients_are_turned_off(trained, way):
    module, example = Transformer(), torch.zeros(2, 7, 16)
    expected = trained.predict(module, example=example)
    if way == "frozen":
        answer = trained.predict(module.requires_grad_(False), example=example)
    else:
        with getattr(torch, way)():
            answer = trained.predict(module, example=example)
    assert answer == expected
    with torch.no_grad():
        onnx.checker.check_model(onnx.load_from_string(to_onnx(nn.MultiheadAttention(16, 2), (torch.zeros(7, 1, 16),) * 3)))


@pytest.mark.parametrize("enabled", [True, False])
def test_export_leaves_the_fused_attention_as_it_was_set(enabled):
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        to_onnx(nn.Linear(2, 2), torch.zeros(1, 2))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        with pytest.raises(UserError, match="cannot be exported"):
            to_onnx(nn.Linear(2, 2), torch.zeros(1, 3))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_export_keeps_batch_normalisation():
    content = to_onnx(resnet(), torch.zeros(2, 3, 32, 32))
    onnx.checker.check_model(onnx.load_from_string(content))
    types = [node.type for node in parse(content, "resnet").nodes]
    assert set(types) == {"Conv", "BatchNormalization", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    assert types.count("Conv") == 5
    assert types.count("BatchNormalization") == 4
    assert types.count("Add") == 2
    assert types[-1] == "Gemm"


def test_parameters_of_equal_value_are_each_counted():
    """The exporter merges the parameters and statistics of batch normalisations that were not trained."""
    module = resnet()
    graph = network_of(parse(to_onnx(module, torch.zeros(2, 3, 32, 32)), "resnet"), None, as_code=False)
    assert not graph.unknown
    assert graph.static["params"] == sum(each.numel() for each in module.state_dict().values() if each.dim())


def test_operators_that_cannot_be_exported():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real.cumprod(0).lgamma()

    with pytest.raises(UserError, match="Odd: cannot be exported to ONNX"):
        to_onnx(Odd(), torch.zeros(2, 2))


def test_modules_that_the_exporter_stumbles_over():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    branching = Branching().eval()
    with pytest.raises(UserError, match=r"Branching: cannot be exported to ONNX \(\w+: .*\); check the example input"):
        to_onnx(branching, torch.zeros(2, 2))
    with pytest.raises(UserError, match="ExportedProgram: cannot be exported to ONNX"):
        to_onnx(torch.export.export(branching, (torch.zeros(2, 2),)), None)
    linear = nn.Linear(3, 1).train()
    with pytest.raises(
        UserError, match=r"Linear: cannot be exported to ONNX \(RuntimeError: mat1 and mat2 shapes"
    ) as caught:
        to_onnx(linear, torch.zeros(2, 2))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert linear.training


def test_many_files_on_several_processes_keep_their_order(trained, home, monkeypatch):
    monkeypatch.setattr("harness.prediction.CHUNK", 7)
    folder = home / "data"
    alone = trained.predict_files(str(folder), batch=1)
    together = trained.predict_files([folder], batch=1, workers=2)
    assert [answer.network for answer in together] == sorted(str(path) for path in folder.rglob("*.onnx"))
    assert together == alone


BEYOND = [  # what NNLQP's code fails on
    ((node("HardSwish", "c", "y"),), 14, "outside the vocabulary: HardSwish (1)"),
    ((node("ReduceMean", "c axes", "y"),), 18, "no training network has: ReduceMean (1)"),
    ((node("ConvTranspose", "c w", "y"),), 17, "no training network has: ConvTranspose (1)"),
    ((node("Upsample", "c scales", "y", mode="linear"),), 9, "no training network has: Upsample (1)"),
    ((node("Mul", "c s", "y"),), 17, "no training network has: Mul (1)"),
]


@pytest.mark.parametrize(("last", "opset", "warning"), BEYOND, ids=[each[0][0].op_type for each in BEYOND])
def test_what_nnlqps_code_cannot_read_is_predicted(home, trained, tmp_path, last, opset, warning):
    convolution = node("Conv", "x w", "c", kernel_shape=[3, 3])
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    built = model(
        [convolution, *last],
        [tensor("x", 1, 3, 8, 8), tensor("s")],
        ["y"],
        [weight("w", 3, 3, 3, 3), scales, integers("axes", 2, 3)],
        opset,
    )
    write_networks(tmp_path, {"new.onnx": built})
    answer = trained.predict(tmp_path / "new.onnx")
    assert warning in " ".join(answer.warnings)
    assert answer == trained.predict_files([tmp_path])[0]
    assert answer.latency_ms == trained.predict(built).latency_ms > 0
