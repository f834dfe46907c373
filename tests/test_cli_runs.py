"""``narbench runs`` and ``narbench bench``."""

import json
import shutil

import pytest
from table_records import write_run
from typer.testing import CliRunner

import narbench
from harness import bench
from harness.cli import app
from harness.records import list_runs
from harness.show import show_result


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for predictor, seed in (("params", 0), ("params", 1), ("knn", 0)):
        narbench.run(f"predictor={predictor}", f"seed={seed}", "logger=none", f"runs={folder}")
    return folder


def listed(*arguments):
    result = CliRunner().invoke(app, ["runs", *map(str, arguments)], env={"COLUMNS": "240"})
    assert result.exit_code == 0, result.output
    return [line for line in result.output.splitlines() if "digits201" in line]


def test_runs_lists_and_filters(runs):
    assert len(listed(runs)) == 3
    assert len(listed(runs, "--predictor", "params")) == 2
    assert len(listed(runs, "--seed", 0)) == 2
    only = listed(runs, "--predictor", "params", "--seed", 1)
    assert len(only) == 1
    record = next(r for r in map(json.loads, (p.read_text() for p in runs.glob("*/record.json"))) if r["seed"] == 1)
    assert f"{record['metrics']['test']['kendall_tau']:.4f}" in only[0]


def test_runs_are_listed_by_time_in_whichever_zone(tmp_path):
    second = write_run(tmp_path, "knn", started="2026-01-01T09:30:00+0000")
    first = write_run(tmp_path, "params", started="2026-01-01T10:00:00+0200")
    found, _ = list_runs(tmp_path)
    assert [path for path, _ in found] == [first, second]


def test_the_family_held_out_is_named(tmp_path, capsys):
    held_out = ("protocol=ood", "protocol.family=vgg", "protocol.select=validation")
    result = narbench.run("predictor=params", "dataset=ortcpu", *held_out, "logger=none", f"runs={tmp_path}")
    show_result(result)
    assert "params on ortcpu, protocol ood v1, vgg: 432 train" in capsys.readouterr().out
    (row,) = CliRunner().invoke(app, ["runs", str(tmp_path), "--protocol", "ood"]).output.splitlines()[3:-1]
    assert row.split()[2:5] == ["ood", "vgg", "432"]


def test_the_folder_of_a_result_is_shown_whatever_its_name(tmp_path, capsys):
    show_result(narbench.run("predictor=params", "logger=none", f"out='{tmp_path / 'runs[a]' / ':eye:'}'"))
    assert f"results in {tmp_path / 'runs[a]' / ':eye:'}\n" in capsys.readouterr().out


def test_no_digit_of_a_result_is_cut_off(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    result = narbench.run("predictor=params", "dataset=ortcpu", "logger=none", f"runs={tmp_path}")
    for scores in result.record["weights"].values():
        scores["val"]["mape_percent"] = 123_456.789_01
    show_result(result)
    shown = capsys.readouterr().out
    assert "123456.7890" in shown
    assert "…" not in shown


def test_yardsticks_of_other_labels_are_not_shown(tmp_path, capsys):
    result = narbench.run("predictor=flops", "logger=none", f"runs={tmp_path}")
    yardstick = narbench.run("predictor=params", "logger=none", f"runs={tmp_path}")
    show_result(result)
    assert "params" in capsys.readouterr().out
    yardstick.record["dataset"]["labels"]["test"] = "another device's"
    yardstick.folder.write_record(yardstick.record)
    show_result(result)
    assert "params" not in capsys.readouterr().out


def test_a_diverged_training_says_so(tmp_path, capsys):
    small = ("train=40", "val=30", "protocol.test=50", "logger=none", f"runs={tmp_path}")
    show_result(narbench.run("predictor=gcn", "predictor.hidden=8", "recipe.lr=1e10", "recipe.epochs=1", *small))
    shown = capsys.readouterr().out
    assert shown.count("gcn failed on val: 30 of 30 predictions are not finite\n") == 1
    assert "gcn failed on test: 50 of 50 predictions are not finite\n" in shown
    assert "training diverged; lower recipe.lr or set recipe.clip\n" in shown
    assert "selected by" not in shown


def test_why_metrics_failed_is_shown_for_yardsticks_too(tmp_path, capsys):
    small = ("train=2", "val=30", "protocol.test=50", "logger=none", f"runs={tmp_path}")
    reason = "boosting failed on val, test: all predictions are equal\n"
    for predictor in ("boosting", "flops"):
        show_result(narbench.run(f"predictor={predictor}", *small))
        shown = capsys.readouterr().out
        assert reason in shown
        assert ("selected by" in shown) == (predictor == "flops")
        assert "diverged" not in shown


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(started="yesterday"), "started 'yesterday': no time"),
        (lambda record: record.pop("config_hash"), "no record of a run, it lacks config_hash;"),
    ],
)
def test_a_damaged_record_does_not_hide_the_others(runs, tmp_path, change, problem):
    for name in ("whole", "damaged"):
        shutil.copytree(next(runs.glob("*knn*")), tmp_path / name)
    path = tmp_path / "damaged" / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["runs", str(tmp_path)], env={"COLUMNS": "240"})
    assert f"{path}: {problem}" in result.output
    assert [line.split()[-1] for line in listed(tmp_path)] == ["whole"]


def test_a_name_that_looks_like_markup(runs, tmp_path):
    shutil.copytree(next(runs.glob("*knn*")), tmp_path / "knn[v2]")
    assert listed(tmp_path)[0].rstrip().endswith("knn[v2]")


def test_no_match_is_a_mistake(runs, tmp_path):
    result = CliRunner().invoke(app, ["runs", str(runs), "--predictor", "nnformer"])
    assert isinstance(result.exception, narbench.UserError)
    assert "no run matches; `python run.py` makes one" in str(result.exception)
    shutil.copytree(runs, tmp_path / "below")
    result = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert str(result.exception) == f"{tmp_path}: no run matches; there are some in {tmp_path / 'below'}"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(runs, tmp_path):
    (tmp_path / "file").write_text("")
    for command, out in (("tables", tmp_path / "file"), ("report", tmp_path / "file" / "r.html")):
        result = CliRunner().invoke(app, [command, "digits201", "--runs", str(runs), "--out", str(out)])
        assert isinstance(result.exception, narbench.UserError), result.output
        assert str(result.exception).startswith(f"--out {out}: cannot be written (")
        assert "comparing" not in result.output


def test_bench_prints_flat_json(monkeypatch, tmp_path):
    original, sizes = (
        bench.compose,
        {"nnformer": ["dim=16", "depth=1"], "nnlp": ["hidden=16"], "narformer": ["depths=[1,1,1,1]"]},
    )

    def small(overrides):
        (name,) = [text.removeprefix("predictor=") for text in overrides if text.startswith("predictor=")]
        return original([*overrides, *(f"predictor.{size}" for size in sizes[name])])

    monkeypatch.setattr(bench, "compose", small)
    monkeypatch.setattr(bench, "trained_predictors", lambda kind: ["nnformer", "nnlp"])
    monkeypatch.setattr(bench, "PREDICT_NETWORKS", 1)
    file = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "predict", "--json", str(file)])
    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert json.loads(result.stdout) == figures
    assert set(figures) >= {
        "gemm_gflops",
        "nnformer.cells.per_second",
        "nnlp.cells.predict_gemm_fraction",
        "nnformer.networks.per_second",
        "nnlp.networks.predict_gemm_fraction",
        "tokenize.cells_per_second",
    }

    assert all(value > 0 for value in figures.values())


def test_bench_counts_the_products_of_a_forward_pass(monkeypatch):
    """Operations counted by the profiler equal those of the layers, counted here."""
    import torch

    layer = torch.nn.Linear(30, 20, bias=False)
    assert bench._flops(lambda: layer(torch.ones(7, 30))) == 2 * 7 * 30 * 20


def test_bench_data_without_data_is_a_mistake(tmp_path):
    result = CliRunner().invoke(app, ["bench", "data", "--root", str(tmp_path)])
    assert isinstance(result.exception, narbench.UserError)


def test_random_cells_are_valid_graphs():
    batch = bench.random_cells(50)
    parent, child = batch.edge_index
    assert (parent < child).all()
    assert (batch.batch[parent] == batch.batch[child]).all()
    assert batch.count.tolist() == [7] * 50


def test_bench_times_every_trained_predictor_on_batches_of_the_papers_sizes():
    cells, networks = (bench.trained_predictors(kind) for kind in ("cells", "networks"))
    assert {"narformer", "nnformer", "gin"} <= set(cells)
    assert set(networks) == set(cells) - {"narformer"}
    assert not {"flops", "boosting"} & set(cells)
    batch = bench.random_networks()
    assert (len(batch), len(batch.op), int(batch.count.min()), int(batch.count.max())) == (16, 1782, 21, 250)
