"""The registry reads names and targets without importing, and says what is wrong in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.errors import UserError
from harness import registry

ROOT = Path(__file__).parents[1]


def python(code: str, *first: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (*first, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def conf(tmp_path, monkeypatch):
    (tmp_path / "predictor").mkdir()
    monkeypatch.setattr(registry, "CONF", tmp_path)

    def write(name, text):
        (tmp_path / "predictor" / f"{name}.yaml").write_text(text)

    return write


def test_a_new_yaml_is_registered(conf):
    conf("zeta", "predictor: {target: 'a.b:C', seed: '${seed}'}")
    conf("alpha", "predictor: {target: 'x:Y'}")
    assert registry.names("predictor") == ["alpha", "zeta"]
    assert registry.target("predictor", "zeta") == "a.b:C"


@pytest.mark.parametrize("text", ["predictor: {name: broken}", "other: 1", "predictor: {target: 3}"])
def test_yaml_without_target(conf, text):
    conf("broken", text)
    with pytest.raises(UserError, match=r"broken\.yaml: predictor\.target is missing"):
        registry.target("predictor", "broken")


def test_every_registered_predictor_and_dataset_loads():
    assert {"params", "flops", "knn", "boosting"} <= set(registry.names("predictor"))
    for group in ("predictor", "dataset"):
        for name in registry.names(group):
            target = registry.target(group, name)
            assert registry.load(target).__name__ == target.split(":")[1]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match=r"^predictor=bosting: unknown; did you mean boosting\?$"):
        registry.target("predictor", "bosting")


def test_suggest():
    assert registry.suggest("nformer", ["nnformer", "knn"]) == "did you mean nnformer?"
    assert registry.suggest("zzz", ["nnformer", "knn"]) == "choose one of nnformer, knn"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("predictors.knn", "write it as module:Class"),
        (":KNN", "write it as module:Class"),
        ("predictors.absent:KNN", "No module named 'predictors.absent'"),
        ("predictors.knn:Absent", "module predictors.knn has no Absent"),
        ("predictors.base:annotations", "annotations is not a class"),
    ],
)
def test_bad_target_is_named(target, message):
    with pytest.raises(UserError) as caught:
        registry.load(target)
    assert repr(target) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_listing_imports_no_predictor_and_loading_one_no_scikit_learn():
    code = """
import sys
from harness import registry
targets = [registry.target("predictor", name) for name in registry.names("predictor")]
assert not any(m.startswith("predictors") for m in sys.modules), "listing imported a predictor"
for name in ("params", "flops", "knn", "boosting"):
    registry.load(registry.target("predictor", name))
assert "sklearn" not in sys.modules, "importing a predictor imported scikit-learn"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_command_starts_and_lists_runs_without_torch():
    code = f"""
import sys
from typer.testing import CliRunner
from harness.cli import app
done = CliRunner().invoke(app, ["runs", {str(ROOT / "results" / "records" / "digits201")!r}, "--predictor", "knn"])
assert "knn" in done.output, done.output
heavy = {"torch", "lightning", "scipy", "hydra"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_another_package_called_datasets_is_reported(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("def load_dataset(): ...")
    done = python("import harness.registry", tmp_path)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: narbench needs its own package `datasets`")
    assert str(tmp_path / "datasets") in last
