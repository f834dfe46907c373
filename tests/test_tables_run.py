"""``narbench tables run``: what is run, in which order and where; jobs are executed in this process."""

import json

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from table_records import write_run
from typer.testing import CliRunner

from datasets.errors import UserError
from harness import experiment, grid
from harness.cli import app
from harness.config import compose, typed
from harness.tables import source_digest as code
from harness.tables.definition import read_definition
from harness.tables.recorded import read_records
from harness.tables.run import name, plan

DEFINITION = """
title: A
metric: kendall_tau
seeds: [0, 1]
rows:
  - {predictor: nnformer, label: NN-Former}
  - {predictor: gin, label: GIN}
  - {predictor: flops, label: FLOPs}
columns:
  - {dataset: digits201, protocols: [strict], train: 400, label: "400"}
"""


class Here:
    """Runs jobs one after the other in this process."""

    def outcomes(self, jobs):
        for number, job in enumerate(jobs):
            yield number, grid.execute(job)


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def definition(tmp_path):
    """Write the definition, with the rows named."""

    def write(*rows):
        lines = [
            line for line in DEFINITION.splitlines() if "predictor" not in line or any(f": {row}," in line for row in rows)
        ]
        (tmp_path / "t.yaml").write_text("\n".join(lines))
        return tmp_path / "t.yaml"

    return write


@pytest.fixture
def tables_run(monkeypatch, runs):
    monkeypatch.setattr(grid, "named_executor", lambda name, overrides: Here())

    def call(table, *arguments):
        words = ["tables", "run", str(table), "--runs", str(runs), f"runs={runs}", "logger=none", *map(str, arguments)]
        return CliRunner().invoke(app, words, catch_exceptions=False).output

    return call


def records(runs):
    return {path: json.loads(path.read_text()) for path in runs.glob("*/record.json")}


def test_a_table_is_run_once(tables_run, definition, runs):
    table = definition("flops")
    output = tables_run(table)
    assert "t: 2 runs to make" in output
    assert {record["seed"] for record in records(runs).values()} == {0, 1}
    assert all(record["config"]["logger"]["group"] == "table-t" for record in records(runs).values())
    assert "t: 0 runs to make" in tables_run(table)
    shown = CliRunner().invoke(app, ["tables", str(table), "--runs", str(runs)], catch_exceptions=False).output
    assert "(2)" in shown
    assert "missing" not in shown
    assert shown == CliRunner().invoke(app, ["tables", "show", str(table), "--runs", str(runs)]).output


def test_only_missing_takes_any_record_that_fills_a_cell(tables_run, definition, runs):
    write_run(runs, "flops", 0)
    assert "t: 1 runs to make" in tables_run(definition("flops"), "--only-missing")
    assert "t: 1 runs to make" in tables_run(definition("flops")), "the record of another run has no folder of its key"
    assert sorted(record["seed"] for record in records(runs).values()) == [0, 0, 1]


def test_no_run_starts_after_the_time(tables_run, definition, runs):
    output = tables_run(definition("flops"), "--max-hours", 0)
    assert "2 of 2 runs were not started" in output
    assert not records(runs)


def test_an_interrupted_run_is_continued_in_its_folder(tables_run, definition, runs, monkeypatch):
    table, resumed, run = definition("gin"), [], experiment.run

    def interrupted(config):
        folder = grid.RunFolder.create(typed(config))
        raise RuntimeError(f"killed in {folder.path}")

    small = ("recipe.epochs=1", "predictor.hidden=8")
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", interrupted)
        with pytest.raises(grid.UserError, match="2 of 2 runs failed"):
            tables_run(table, *small)
    folders = sorted(path.name for path in runs.iterdir() if path.is_dir())
    monkeypatch.setattr(experiment, "run", lambda config: resumed.append(config.resume) or run(config))
    tables_run(table, *small)
    assert sorted(path.parent.name for path in records(runs)) == folders
    assert sorted(resumed) == [str(runs / folder) for folder in folders]


def test_two_that_run_the_same_table_do_not_run_the_same_job(tables_run, definition, runs):
    planned = plan(read_definition(str(definition("flops"))), [], [f"runs={runs}", "logger=none"], only_missing=True)
    with FileLock(runs / f".{planned[0].job.name}.lock"):
        output = tables_run(definition("flops"))
    assert "1 of 2 runs were not started" in output
    assert len(records(runs)) == 1
    assert grid.execute(planned[1].job).results[0].record == next(iter(records(runs).values())), (
        "what is finished is not run again"
    )


def order(definition, runs, *changes):
    planned = plan(read_definition(str(definition)), read_records([runs]), changes, only_missing=True)
    assert [one.seconds for one in planned] == sorted(one.seconds for one in planned)
    return list(dict.fromkeys(one.job.config["predictor"]["name"] for one in planned))


def test_the_cheapest_come_first(definition, runs):
    table = definition("nnformer", "gin", "flops")
    assert order(table, runs) == ["flops", "gin", "nnformer"]
    assert order(table, runs, "recipe.epochs=1", "predictor=nnformer", "predictor.dim=16") == ["nnformer"]


def test_variants_are_run_with_the_settings_of_the_one_that_has_runs(definition, runs):
    write_run(runs, "nnformer", 0, changes={"recipe.epochs": 7})
    table = definition("nnformer", "flops")
    variant = "  - {predictor: nnformer, label: masks, config: {predictor.masks: as_paper}}\ncolumns:"
    pinned = table.read_text().replace("label: NN-Former", "label: NN-Former, config: {predictor.masks: as_code}")
    table.write_text(pinned.replace("columns:", variant))
    planned = plan(read_definition(str(table)), read_records([runs]), [f"runs={runs}"], only_missing=True)
    configs = [one.job.config for one in planned if one.job.config["predictor"]["name"] == "nnformer"]
    found = sorted((config["predictor"]["masks"], config["seed"], config["recipe"]["epochs"]) for config in configs)
    assert found == [("as_code", 1, 7), ("as_paper", 0, 7), ("as_paper", 1, 7)]


def test_an_interrupted_run_is_continued_with_the_data_where_they_are_now(definition, runs, tmp_path):
    def job(root):
        changes = [f"runs={runs}", "logger=none", f"dataset.root={tmp_path / root}"]
        return plan(read_definition(str(definition("flops"))), [], changes, only_missing=True)[0].job

    config = OmegaConf.create(job("before").config)
    grid.RunFolder.create(typed(config))
    (result,) = grid.execute(job("after")).results
    assert str(result.folder.path) == config.out
    assert result.record["config"]["dataset"]["root"] == str(tmp_path / "after")


def test_the_launcher_is_no_override(definition, runs):
    with pytest.raises(UserError, match="give --launcher submitit"):
        order(definition("flops"), runs, "hydra/launcher=submitit")


@pytest.mark.parametrize("change", ["seed=5", "seeds=[0,1]", "out=mine", "+resume=mine"])
def test_what_the_table_sets_is_refused(definition, runs, change):
    with pytest.raises(UserError, match="the table sets that of every run"):
        order(definition("flops"), runs, change)


def test_earlier_runs_tell_the_cost(definition, runs):
    path = write_run(runs, "gin", 7, train=100) / "record.json"
    content = json.loads(path.read_text())
    content["config"]["recipe"]["batch_size"] = 50
    content["timings"] = {"train_seconds": 1000.0, "train_steps": 10, "evaluate_seconds": 7.0}
    path.write_text(json.dumps(content))
    table = definition("nnformer", "gin", "flops")
    assert order(table, runs) == ["flops", "nnformer", "gin"]
    planned = plan(read_definition(str(definition("gin"))), read_records([runs]), ["recipe.epochs=3"], only_missing=True)
    assert planned[0].seconds == pytest.approx(3 * 400 * 1000 / (10 * 50) + 7)


def test_the_key_is_of_configuration_data_and_code(monkeypatch):
    first = typed(compose(["predictor=flops", "runs=a", "logger=none"]))
    same = typed(compose(["predictor=flops", "runs=b", "logger=csv"]))
    other = typed(compose(["predictor=flops", "predictor.fit=linear"]))
    assert name(first, "f") == name(same, "f")
    assert len({name(first, "f"), name(other, "f"), name(first, "g")}) == 3
    before = name(first, "f")
    monkeypatch.setattr("harness.tables.run.source_digest", lambda *targets: "changed")
    assert name(first, "f") != before


def test_the_key_is_also_of_the_encoder_to_start_from(tmp_path):
    path = write_run(tmp_path, "gin")
    config = typed(compose(["predictor=gin", f"init={path}"]))
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").unlink()
    keys = [name(config, "f")]
    for tau in (0.5, 0.6):
        found = {"selected_weights": "best", "metrics": {"test": {"kendall_tau": tau}}}
        (path / "record.json").write_text(json.dumps(record | found))
        keys.append(name(config, "f"))
    assert len(set(keys)) == 3


def test_the_source_digest_is_of_what_every_run_goes_through():
    sources = {}

    def digest():
        code._digest.cache_clear()
        return code.source_digest("predictors.flops:Flops", "datasets.digits201:Digits201")

    with pytest.MonkeyPatch.context() as patch:
        read = code._source
        patch.setattr(code, "_source", lambda module: read(module) + sources.get(module, b""))
        before = digest()
        for module in ("harness.training", "harness.transfer", "harness.evaluation", "harness.distributed"):
            sources = {module: b"x"}
            assert digest() != before, module
        sources = {"harness.show": b"x"}
        assert digest() == before
    code._digest.cache_clear()


def test_the_source_digest_follows_imports_within_packages(tmp_path, monkeypatch):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("def late():\n    from mine import block\n")
    (package / "block.py").write_text("import mine.deep as deep\nimport numpy\n")
    (package / "deep.py").write_text("")
    (package / "unused.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    def version():
        for cached in (code._digest, code._imported, code._is_module, code._source):
            cached.cache_clear()
        return code.source_digest("mine.model:Model", "datasets.digits201:Digits201")

    first = version()
    assert version() == first
    (package / "unused.py").write_text("x = 1")
    assert version() == first
    (package / "deep.py").write_text("x = 1")
    assert version() != first


def test_a_predictor_depends_on_its_layers_and_not_on_other_predictors():
    found = code._closure(["predictors.nnformer", "datasets.digits201"], {"predictors", "datasets"})
    assert {"predictors.nnformer", "predictors.base", "datasets.graph", "datasets.protocols"} <= found
    assert any(module.startswith("predictors.layers.") for module in found)
    assert not {"predictors.gin", "predictors.boosting", "datasets.nasbench201"} & found
