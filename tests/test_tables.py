"""``narbench tables`` on run folders made by hand, and the committed definitions and figures."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from table_records import predicted_run, write_run
from typer.testing import CliRunner

from datasets.errors import UserError
from datasets.store import GraphStore
from harness.cli import app
from harness.config import compose
from harness.metric_facts import COSTS
from harness.tables.build import build
from harness.tables.comparison import difference, p_value
from harness.tables.defaults import composed
from harness.tables.definition import Column, Row, known_tables, read_definition
from harness.tables.formats import markdown
from harness.tables.missing import overrides
from harness.tables.published import find_published, read_published
from harness.tables.recorded import read_records
from harness.tables.seed_variance import seed_variances

DEFINITION = """
title: A & B_1
metric: {metric}
seeds: [0, 1]
rows:
  - {{predictor: nnformer, label: NN-Former}}
  - {{predictor: knn, label: "k% nearest"}}
columns:
  - {{dataset: {dataset}, protocols: [{protocols}], train: {train}, label: "{train}"}}
notes: ["Ceiling: 1."]
"""


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def tables(tmp_path, runs):
    """Run the command on the hand-made runs under a small definition."""

    def call(
        *arguments,
        metric="kendall_tau",
        dataset="digits201",
        protocols="strict",
        train=400,
        columns=100,
        seeds=(0, 1),
        also=(),
    ):
        text = DEFINITION.format(metric=metric, dataset=dataset, protocols=protocols, train=train)
        text = text.replace("[0, 1]", str(list(seeds)))
        rows = "".join(f"  - {{predictor: {name}, label: {name}}}\n" for name in also)
        text = text.replace("columns:\n", f"{rows}columns:\n")
        (tmp_path / "small.yaml").write_text(text)
        words = ["tables", str(tmp_path / "small.yaml"), "--runs", str(runs), *map(str, arguments)]
        return CliRunner().invoke(app, words, env={"COLUMNS": str(columns)}, catch_exceptions=False).output

    return call


def facts(output):
    return {(row["predictor"], row["protocol"]): row for row in csv.DictReader(io.StringIO(output))}


def test_means_intervals_and_missing_runs(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.5)
    write_run(runs, "nnformer", 1, tau=0.7)
    write_run(runs, "nnformer", 2, tau=0.0)  # a seed the definition does not ask for
    output = tables()
    assert "0.600 ± 1.271 (2)" in output  # t(0.975, 1) x 0.1414 / sqrt(2) = 12.706 x 0.1
    assert "python run.py -m predictor=knn dataset=digits201 protocol=strict train=400 seed=0,1" in output
    assert "predictor=nnformer" not in output
    assert "Ceiling: 1." in output


def test_nothing_recorded_names_one_command_for_all(tables):
    output = tables(protocols="strict, paper")
    assert "nothing recorded yet" in output
    for protocol in ("strict", "paper"):
        line = f"python run.py -m predictor=nnformer,knn dataset=digits201 protocol={protocol} train=400 seed=0,1"
        assert line in output


def test_several_configurations_are_not_averaged_but_chosen_by_validation(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.9, val=0.3)
    write_run(runs, "nnformer", 0, tau=0.2, val=0.4, changes={"recipe.epochs": 7})
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["mean"], row["seeds"], row["configurations"]) == ("0.2", "1", "2")
    output = tables(columns=200)
    assert "Of 2 recorded configurations the best by validation, those with all seeds first." in output
    assert "predictor=nnformer dataset=digits201 protocol=strict train=400 recipe.epochs=7 seed=1" in output
    write_run(runs, "nnformer", 1, tau=0.9, val=0.3)
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["mean"], row["seeds"]) == ("0.9", "2"), "the configuration with all seeds comes first"


def test_seeds_that_a_setting_follows_do_not_divide(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.4)
    write_run(runs, "nnformer", 1, tau=0.6)
    assert facts(tables("--format", "csv"))["nnformer", "strict"]["configurations"] == "1"
    write_run(runs, "nnformer", 1, tau=0.6, changes={"protocol.seed": 5})
    assert facts(tables("--format", "csv"))["nnformer", "strict"]["configurations"] == "2"


def test_a_split_that_is_the_same_for_all_seeds_is_one_configuration(tables, runs):
    for seed in (0, 1):
        write_run(runs, "nnformer", seed, tau=0.5, changes={"protocol.seed": 0})
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["seeds"], row["configurations"]) == ("2", "1")


@pytest.mark.parametrize(("group", "key"), [("protocol", "version"), ("dataset", "fingerprint")])
def test_runs_of_an_older_protocol_or_older_data_are_left_out_and_counted(tables, runs, group, key):
    for seed in (0, 1):
        path = write_run(runs, "nnformer", seed, tau=0.9, val=0.9, started="2025-01-01") / "record.json"
        content = json.loads(path.read_text())
        content[group][key] = 0 if key == "version" else "other"
        path.write_text(json.dumps(content))
    write_run(runs, "nnformer", 0, tau=0.2, val=0.2)
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["mean"], row["seeds"], row["configurations"]) == ("0.2", "1", "1")
    assert "Left out: 2 runs under an older version" in tables(columns=200)


def with_data(path, fingerprint):
    content = json.loads((path / "record.json").read_text())
    content["dataset"]["fingerprint"] = fingerprint
    (path / "record.json").write_text(json.dumps(content))


@pytest.mark.parametrize("drop", [(), ("dataset.checksum",)])
def test_older_data_are_left_out_whichever_predictor_and_protocol_the_newest_run_has(tables, runs, drop):
    for protocol in ("strict", "paper"):
        old = write_run(runs, "nnformer", 0, tau=0.9, started="2025-01-01", protocol=protocol, drop=drop)
        with_data(old, "old")
    write_run(runs, "knn", 0, tau=0.6)
    rows = facts(tables("--format", "csv", protocols="strict, paper"))
    assert {key: row["mean"] for key, row in rows.items() if row["mean"]} == {("knn", "strict"): "0.6"}
    output = tables(protocols="strict, paper", columns=200)
    assert "Left out: 1 runs under an older version of the protocol or on older data" in output
    assert "paper" in output.partition("Mean")[0], "a column of runs that are left out is shown"


def test_runs_of_no_protocol_of_benchmarks_outdate_none(tables, runs):
    write_run(runs, "knn", 0, tau=0.6)
    path = write_run(runs, "knn", 0, started="2027-01-01")
    with_data(path, "measured")
    (path / "record.json").write_text((path / "record.json").read_text().replace('"name": "strict"', '"name": "adapt"'))
    assert "0.600 (1)" in tables()


def test_other_settings_of_the_data_are_another_configuration_and_not_older_data(tables, runs):
    path = write_run(runs, "nnformer", 0, tau=0.9, val=0.9, started="2025-01-01", changes={"dataset.checksum": False})
    with_data(path, "other")
    write_run(runs, "nnformer", 0, tau=0.2, val=0.2)
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["mean"], row["configurations"]) == ("0.9", "2")
    assert "Left out" not in tables(columns=200)


def test_runs_on_other_test_labels_do_not_belong_in_a_table_that_does_not_name_them(tables, runs):
    write_run(
        runs,
        "nnformer",
        0,
        tau=0.9,
        val=0.9,
        changes={"dataset.labels": dict.fromkeys(("train", "val", "test"), "validation_accuracy")},
    )
    assert "nothing recorded" in tables()
    write_run(runs, "nnformer", 0, tau=0.2, val=0.2)
    assert facts(tables("--format", "csv"))["nnformer", "strict"]["mean"] == "0.2"


def test_sizes_in_whatever_form_are_one_configuration(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.4, changes={"train": "10%", "protocol.train": "10%"})
    write_run(runs, "nnformer", 1, tau=0.6, changes={"train": 0.1, "protocol.train": 400})
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["mean"], row["seeds"], row["configurations"]) == ("0.5", "2", "1")


def test_the_same_data_are_one_configuration_with_and_without_the_check_of_their_file(tables, runs):
    write_run(runs, "knn", 0, tau=0.4)
    write_run(runs, "knn", 1, tau=0.6, changes={"dataset.checksum": False})
    row = facts(tables("--format", "csv"))["knn", "strict"]
    assert (row["mean"], row["seeds"], row["configurations"]) == ("0.5", "2", "1")


def started(runs, seed, place, tau=0.5, val=0.5, **facts):
    """A hand-made run of NN-Former that started from the encoder of ``place``."""
    path = write_run(runs, "nnformer", seed, tau=tau, val=val, changes={"init": place}) / "record.json"
    init = {"config_hash": "a", "weights": "best", "step": 100, "seen": 0} | facts
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init": init}))


def test_encoders_that_runs_started_from_divide(tables, runs):
    for seed, step in ((0, 100), (1, 9000)):
        started(runs, seed, "there", step=step)
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["seeds"], row["configurations"]) == ("1", "2")
    started(runs, 1, "/from/the/root/there", step=100)
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["seeds"], row["configurations"]) == ("2", "2"), "however the path is written"


def test_an_encoder_that_knows_scored_graphs_is_a_last_resort_and_said(tables, runs):
    started(runs, 0, "there", tau=0.9, val=0.9, seen=7)
    assert "knows labels of graphs that select or are tested" in tables(columns=200)
    started(runs, 0, "elsewhere", tau=0.5, val=0.5, config_hash="b", seen=0)
    output = tables(columns=200)
    assert "0.500 (1)" in output
    assert "knows labels" not in output


def test_older_records_count_as_having_the_defaults_of_new_settings(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.4, drop=["predictor.degree_gate"])
    write_run(runs, "nnformer", 1, tau=0.6)
    assert facts(tables("--format", "csv"))["nnformer", "strict"]["seeds"] == "2"
    assert "Runs older than the settings predictor.degree_gate" in tables(columns=200)
    write_run(runs, "nnformer", 1, tau=0.1, val=0.1, changes={"predictor.degree_gate": True}, started="2027-01-01")
    row = facts(tables("--format", "csv"))["nnformer", "strict"]
    assert (row["seeds"], row["configurations"]) == ("2", "2")


def test_of_equal_runs_the_newest_counts(tables, runs):
    write_run(runs, "knn", 0, tau=0.1, started="2026-02-01")
    write_run(runs, "knn", 0, tau=0.3, started="2026-03-01")
    write_run(runs, "knn", 0, tau=0.2, started="2026-01-01")
    row = facts(tables("--format", "csv"))["knn", "strict"]
    assert (row["mean"], row["configurations"]) == ("0.3", "1")


def test_the_newest_is_so_in_whichever_zone(tables, runs):
    write_run(runs, "knn", 0, tau=0.1, started="2026-01-01T10:00:00+0200")
    write_run(runs, "knn", 0, tau=0.9, started="2026-01-01T09:30:00+0000")
    assert facts(tables("--format", "csv"))["knn", "strict"]["mean"] == "0.9"


def test_selection_on_test_labels_is_a_last_resort_and_said(tables, runs):
    leak = {"leaks": "test contains all", "protocol": "paper"}
    write_run(
        runs,
        "nnformer",
        0,
        tau=0.9,
        val=0.9,
        changes={"dataset.labels": dict.fromkeys(("val", "test"), "test_accuracy")},
        **leak,
    )
    assert "selected on test labels" in tables(protocols="paper")
    write_run(runs, "nnformer", 0, tau=0.1, val=0.1, **leak)
    output = tables(protocols="paper")
    assert "0.100 (1)" in output
    assert "selected on test labels" not in output


def test_row_configuration_selects(tmp_path, runs):
    write_run(runs, "nnformer", 0, tau=0.9, val=0.9, changes={"predictor.masks": "as_code"})
    write_run(runs, "nnformer", 0, tau=0.3, val=0.1, changes={"predictor.masks": "as_paper"})
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    text = text.replace("label: NN-Former", "label: NN-Former, config: {predictor.masks: as_paper}")
    (tmp_path / "t.yaml").write_text(text)
    words = ["tables", str(tmp_path / "t.yaml"), "--runs", str(runs), "--format", "csv"]
    row = facts(CliRunner().invoke(app, words).output)["nnformer", "strict"]
    assert (row["mean"], row["configurations"]) == ("0.3", "1")


@pytest.mark.parametrize("masked", ["row", "column"])
def test_records_older_than_what_a_row_or_column_asks_for_count_as_having_the_default(tmp_path, runs, masked):
    write_run(runs, "nnformer", 0, tau=0.7, drop=["predictor.masks"])
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    place = {"row": "label: NN-Former", "column": 'label: "400"'}[masked]
    shown = {}
    for masks in ("as_code", "as_paper"):
        (tmp_path / "t.yaml").write_text(text.replace(place, f"{place}, config: {{predictor.masks: {masks}}}"))
        words = ["tables", str(tmp_path / "t.yaml"), "--runs", str(runs)]
        shown[masks] = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    assert "0.700 (1)" in shown["as_code"]
    assert "Runs older than the settings predictor.masks count as having today's defaults" in shown["as_code"]
    assert "nothing recorded yet" in shown["as_paper"]


def test_published_figures_and_experiment_files(tables, runs):
    write_run(runs, "knn", 0, dataset="nasbench201", protocol="paper", train=1563, tau=0.5)
    output = tables(protocols="paper, strict", dataset="nasbench201", train=1563)
    assert "0.890" in output
    assert "public benchmark listing + digest (confidence high)" in output
    assert "python run.py -m experiment=nnformer_nasbench201_1563 seed=0,1" in output
    assert "predictor=nnformer,knn dataset=nasbench201 protocol=strict train=1563 seed=0,1" in output
    assert re.search(r"1563\s*\n\s*paper\s*\n", output), "a column with neither runs nor figures is left out"
    write_run(runs, "nnformer", 0, dataset="nasbench201", protocol="paper", train=1563, tau=0.8)
    row = facts(tables("--format", "csv", protocols="paper", dataset="nasbench201", train=1563))["nnformer", "paper"]
    assert float(row["delta"]) == pytest.approx(0.8 - 0.89)


@pytest.fixture
def compared(runs):
    """Two predictors on 100 graphs and five seeds; ``noise`` is that of the second."""

    def write(noise):
        rng = np.random.default_rng(1)
        label = rng.permutation(100) / 100
        for seed in range(5):
            for predictor, scale in (("nnformer", 0.05), ("knn", noise)):
                predicted_run(runs, predictor, seed, range(100), label, label + scale * rng.standard_normal(100))

    return write


def test_ties_are_bold_with_the_best(tables, compared):
    compared(noise=0.06)
    rows = [line for line in tables("--format", "markdown").splitlines() if line.startswith("| NN") or "k%" in line]
    assert all(line.count("**") == 2 for line in rows)


def test_a_clear_loser_is_not_bold(tables, compared):
    compared(noise=1.5)
    output = tables("--format", "markdown", seeds=range(5))
    assert "**" in next(line for line in output.splitlines() if line.startswith("| NN"))
    assert "**" not in next(line for line in output.splitlines() if "k%" in line)
    row = facts(tables("--format", "csv", seeds=range(5)))["knn", "strict"]
    assert (row["standing"], row["common_seeds"]) == ("worse", "5")
    assert float(row["p_holm"]) < 0.05


def test_a_lead_of_one_seed_in_three_is_a_tie(tables, runs):
    """Whatever the test graphs prove of each training: which is better changes with the seed."""
    rng = np.random.default_rng(1)
    label = rng.permutation(400) / 400
    for seed in range(3):
        for predictor, noise in (("nnformer", (0.1, 0.2, 0.1)), ("knn", (0.2, 0.1, 0.2))):
            predictions = label + noise[seed] * rng.standard_normal(400)
            predicted_run(runs, predictor, seed, range(400), label, predictions)
    alone = facts(tables("--format", "csv", seeds=[0]))["knn", "strict"]
    assert (alone["standing"], alone["common_seeds"]) == ("worse", "1")
    assert "a test of these trained models, not of training" in tables("--format", "markdown", seeds=[0])
    assert facts(tables("--format", "csv", seeds=range(3)))["knn", "strict"]["standing"] == "tied"


def test_a_single_training_is_tested_under_the_variance_of_the_others(tables, runs):
    rng = np.random.default_rng(2)
    label = rng.uniform(1, 2, 60)
    for predictor, error, seeds in (("nnformer", 0.05, 3), ("gin", 0.06, 3), ("nnlp", 0.2, 1)):
        for seed in range(seeds):
            prediction = label * (1 + error * rng.standard_normal(60) * rng.uniform(0.7, 1.3))
            mape = 100 * float(np.mean(np.abs(prediction / label - 1)))
            changes = {"values": {"mape_percent": mape}, "test": (range(60), label.astype(np.float32), prediction)}
            write_run(runs, predictor, seed, **changes)
    options = {"metric": "mape_percent", "seeds": range(3), "also": ["gin", "nnlp"]}
    row = facts(tables("--format", "csv", **options))["nnlp", "strict"]
    found = {
        name: {run.seed: run for run in read_records([runs]) if run.content["predictor"] == name}
        for name in ("nnformer", "nnlp", "gin")
    }
    variances = seed_variances(
        [{seed: np.log(run.test("mape_percent")) for seed, run in of.items()} for of in found.values()], [0, 0, 0]
    )
    p = p_value(difference(found["nnformer"], found["nnlp"], "mape_percent"), variances[0], variances[1])
    assert 1e-6 < p < 0.05
    assert (row["common_seeds"], float(row["p_holm"])) == ("1", pytest.approx(3 * p))
    assert "how trainings vary is taken from the rest of the column" in tables("--format", "markdown", **options)


def test_of_a_kind_with_one_seed_each_the_trained_models_are_tested(tables, runs):
    rng = np.random.default_rng(5)
    label = rng.permutation(100) / 100
    for predictor, noise, seeds in (("nnformer", 0.05, 3), ("gin", 0.06, 3), ("knn", 1.5, 1)):
        for seed in range(seeds):
            predicted_run(runs, predictor, seed, range(100), label, label + noise * rng.standard_normal(100))
    output = tables("--format", "markdown", seeds=range(3), also=["gin"])
    assert "a test of these trained models, not of training" in output
    assert "taken from the rest of the column" not in output


def test_a_run_without_error_spoils_no_test_of_others(tables, runs):
    """A MAPE of zero has no logarithm."""
    rng, label = np.random.default_rng(4), np.arange(1.0, 41)
    for seed in range(2):
        for predictor, error in (("nnformer", 0.9 * seed), ("knn", 0.1 + 0.01 * seed), ("gin", 0.2)):
            prediction = label * (1 + error * rng.uniform(0.5, 1.5, 40))
            mape = 100 * float(np.mean(prediction / label - 1))
            write_run(runs, predictor, seed, values={"mape_percent": mape}, test=(range(40), label, prediction))
    rows = facts(tables("--format", "csv", metric="mape_percent", also=["gin"]))
    assert {name: rows[name, "strict"]["standing"] for name in ("knn", "gin")} == {"knn": "best", "gin": "worse"}
    assert 0 < float(rows["gin", "strict"]["p_holm"]) < 0.05
    assert rows["nnformer", "strict"]["reason"] == "mape_percent is undefined on some resamples"


def test_trained_predictors_are_tested_under_their_own_variance(tables, runs):
    """The fitted ones hardly vary, which says nothing about the trained ones."""
    rng, values = np.random.default_rng(3), {}
    label = rng.permutation(300) / 300
    for predictor, level, noise in (("nnformer", 0.25, 0.03), ("gin", 0.4, 0.03)):
        for seed in range(3):
            prediction = label + (level + noise * rng.standard_normal()) * rng.standard_normal(300)
            values.setdefault(predictor, {})[seed] = float(stats.kendalltau(prediction, label).statistic)
            predicted_run(runs, predictor, seed, range(300), label, prediction)
    for predictor, noise in (("nnlp", 0.03), ("knn", 1e-4), ("flops", 1e-4), ("params", 1e-4)):
        for seed in range(3):
            values.setdefault(predictor, {})[seed] = 0.3 + noise * rng.standard_normal()
            write_run(runs, predictor, seed, tau=values[predictor][seed])
    row = facts(tables("--format", "csv", seeds=range(3), also=["gin", "nnlp", "flops", "params"]))["gin", "strict"]
    variances = dict(zip(values, seed_variances(list(values.values()), [0, 0, 0, 1, 1, 1]), strict=True))
    found = [{run.seed: run for run in read_records([runs]) if run.content["predictor"] == name} for name in values]
    p = p_value(difference(*found[:2], "kendall_tau"), variances["nnformer"], variances["gin"])
    assert 1e-9 < p < 0.01
    assert float(row["p_holm"]) == pytest.approx(15 * p, rel=1e-3)


def test_without_predictions_untested(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.8)
    write_run(runs, "knn", 0, tau=0.1)
    row = facts(tables("--format", "csv"))["knn", "strict"]
    assert (row["standing"], row["reason"], row["p_holm"]) == ("untested", "predictions were not kept", "")
    assert "Untested against the best: predictions were not kept." in tables()


def test_lower_mape_is_better(tables, runs):
    for predictor, mape in (("nnformer", 9.0), ("knn", 4.0)):
        write_run(runs, predictor, 0, values={"mape_percent": mape})
    rows = facts(tables("--format", "csv", metric="mape_percent"))
    assert (rows["knn", "strict"]["standing"], rows["nnformer", "strict"]["standing"]) == ("best", "untested")


def test_a_failed_metric_is_counted(tables, runs):
    write_run(runs, "nnformer", 0, tau=0.5)
    write_run(runs, "nnformer", 1, values={})
    assert "The metric failed in 1 of 2 runs" in tables()


MARKDOWN = """\
## A & B\\_1: Kendall's tau ↑

|  | 400<br>strict |
| --- | ---: |
| NN-Former | **0.600 ± 1.271 (2)** |
| k% nearest | 0.500 (1)<sup>1</sup> |

Mean ± half of the 95 % confidence interval over seeds (number of seeds).

Bold: the best of the column; no difference was tested.

Ceiling: 1.

1. Untested against the best: predictions were not kept.

Missing:

```
python run.py predictor=knn dataset=digits201 protocol=strict train=400 seed=1
```
"""

LATEX = r"""% missing: python run.py predictor=knn dataset=digits201 protocol=strict train=400 seed=1
\begin{table}
\centering
\caption{A \& B\_1: Kendall's tau $\uparrow$}
\label{tab:small}
\begin{tabular}{lr}
\toprule
 & \shortstack{400\\strict} \\
\midrule
NN-Former & \textbf{0.600 $\pm$ 1.271 (2)} \\
k\% nearest & 0.500 (1)\textsuperscript{1} \\
\bottomrule
\end{tabular}
\par\footnotesize Mean $\pm$ half of the 95 \% confidence interval over seeds (number of seeds).
\par\footnotesize Bold: the best of the column; no difference was tested.
\par\footnotesize Ceiling: 1.
\par\footnotesize \textsuperscript{1} Untested against the best: predictions were not kept.
\end{table}
"""


@pytest.fixture
def three(runs):
    write_run(runs, "nnformer", 0, tau=0.5)
    write_run(runs, "nnformer", 1, tau=0.7)
    write_run(runs, "knn", 0, tau=0.5)


@pytest.mark.parametrize(("name", "suffix", "text"), [("markdown", "md", MARKDOWN), ("latex", "tex", LATEX)])
def test_formats(tables, three, tmp_path, name, suffix, text):
    assert tables("--format", name) == text
    tables("--format", name, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"small.{suffix}"]
    assert (tmp_path / "out" / f"small.{suffix}").read_text() == text


def test_html_is_escaped_and_well_formed(tables, three):
    from html.parser import HTMLParser

    opened = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            opened.extend([tag] if tag not in ("meta", "br") else [])

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    output = tables("--format", "html")
    Parser().feed(output)
    assert opened == []
    assert "A &amp; B_1" in output
    assert "<td><b>0.600 ± 1.271 (2)</b></td>" in output


def test_a_narrow_terminal_cuts_columns_into_blocks(tables, runs):
    for protocol in ("strict", "paper"):
        for seed in (0, 1):
            write_run(runs, "knn", seed, protocol=protocol, tau=0.5 + seed / 10)
    wide, narrow = (tables(protocols="strict, paper", columns=width) for width in (100, 40))
    assert wide.count("k% nearest") == 1
    assert narrow.count("k% nearest") == 2
    assert all(len(line) <= 40 for line in narrow.splitlines() if "python run.py" not in line)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("{oops", "not valid JSON"),
        ("[]", "schema version None"),
        (json.dumps({"schema_version": 1, "seed": 0}), "lacks id, started"),
    ],
)
def test_a_damaged_record_is_named(tables, runs, text, remedy):
    path = write_run(runs, "knn", 0)
    (path / "record.json").write_text(text)
    with pytest.raises(UserError, match=remedy) as error:
        tables()
    assert str(path / "record.json") in str(error.value)


def test_a_record_without_a_time_is_named(tables, runs):
    path = write_run(runs, "knn", 0, started="yesterday")
    with pytest.raises(UserError, match="started 'yesterday': no time") as error:
        tables()
    assert str(path / "record.json") in str(error.value)


def test_another_schema_version_is_named(tables, runs):
    path = write_run(runs, "knn", 0) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        tables()


def test_damaged_predictions_are_named(tables, runs, compared):
    compared(noise=0.1)
    path = next(runs.glob("knn*")) / "predictions.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not readable as predictions") as error:
        tables()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("predictor: knn", "predictor: knm"), "knm"),
        (("metric: kendall_tau", "metric: tau"), "choose one of kendall_tau"),
        (("strict", "lax"), "lax"),
        (("digits201", "digits202"), "digits202"),
        (("seeds: [0, 1]", "seeds: []"), "seeds is empty"),
        (("seeds: [0, 1]", "seeds: [0, 0]"), r"seeds=\[0, 0\]: give different whole numbers"),
        (("seeds: [0, 1]", "seeds: [-1]"), r"seeds=\[-1\]: give different whole numbers"),
        (("[strict]", "[]"), "protocols of the column 400 is empty; give at least one"),
        (("title: A", "titel: A"), "titel"),
        (("seeds: [0, 1]", ""), "seeds"),
        (("train: 400", "config: {recipe.epoch: 3}"), "config recipe.epoch: no such setting; did you mean recipe.epochs"),
        (("predictor: knn", "predictor: knn, config: {predictor.dim: 3}"), "config predictor.dim: no such setting"),
        (("train: 400", "config: {trainer.accelerator: auto}"), "config trainer.accelerator: no such setting"),
    ],
)
def test_a_wrong_definition_is_named(tmp_path, change, message):
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    path = tmp_path / "t.yaml"
    path.write_text(text.replace(*change))
    with pytest.raises(UserError, match=message) as error:
        read_definition(str(path))
    assert str(path) in str(error.value)


def test_a_definition_may_end_in_yml(tmp_path):
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    (tmp_path / "mine.yml").write_text(text)
    assert read_definition(str(tmp_path / "mine.yml")).name == "mine"


def test_the_definition_on_the_page_is_valid(tmp_path):
    page = Path(__file__).parents[1] / "docs" / "tables.md"
    text = re.search(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL).group(1)
    (tmp_path / "t.yaml").write_text(text)
    assert read_definition(str(tmp_path / "t.yaml")).rows[1].config == {"predictor.masks": "as_paper"}


def test_unknown_names_are_mistakes(tmp_path):
    with pytest.raises(UserError, match="did you mean nasbench201"):
        read_definition("nasbench20")
    result = CliRunner().invoke(app, ["tables", "digits201", "--runs", str(tmp_path / "absent")])
    assert "no such folder" in str(result.exception)
    with pytest.raises(UserError, match="for the runs in this folder give --runs "):
        read_definition(str(tmp_path))


def representative(entries):
    """Of a table's entries one for each setting of its columns, and one for each row with a configuration."""
    settings, found = set(), []
    for row in entries:
        for entry in row:
            column = entry.column
            setting = (column.dataset, column.protocol, *map(str, column.config.items()))
            if setting not in settings or (entry.row.config and column is row[0].column):
                settings.add(setting)
                found.append(entry)
    return found


@pytest.mark.parametrize("name", known_tables())
def test_runs_of_committed_definitions_compose(name):
    for entry in representative(build(read_definition(name), [], []).entries):
        row, column = entry.row, entry.column
        settings = composed(*overrides(entry, []))
        assert (settings["predictor.name"], settings["dataset.name"]) == (row.predictor, column.dataset)
        assert (settings["protocol.name"], settings["protocol.family"]) == (column.protocol, column.family)
        assert settings["protocol.platform"] == column.platform
        assert column.train in (None, settings["protocol.train"])
        for key, value in (row.config | column.config).items():
            assert settings[key] == value


@pytest.mark.parametrize("name", ["narformer_ablation", "nnformer_ablation"])
@pytest.mark.parametrize("recorded", [0, 1])
def test_variants_of_a_predictor_are_run_with_the_settings_of_the_one_that_has_runs(runs, name, recorded):
    definition = read_definition(name)
    row, (column,) = definition.rows[recorded], definition.single_columns()
    changes = {"recipe.epochs": 7, "protocol.test": 20000, **row.config}
    write_run(runs, row.predictor, dataset=column.dataset, protocol=column.protocol, train=column.train, changes=changes)
    (run,) = read_records([runs])
    entries = [entry for (entry,) in build(definition, [run], []).entries]
    assert entries[recorded].cell.runs
    for entry in entries:
        settings = composed(*overrides(entry, entries))
        assert {key: settings[key] for key in run.settings} == {**run.settings, **entry.row.config}


def shown(folder, runs, text, predictor, variants):
    """What is printed of a table whose rows are variants of a predictor, given as label and configuration."""
    rows = "".join(f"  - {{predictor: {predictor}, label: {label}, config: {{{config}}}}}\n" for label, config in variants)
    (folder / "t.yaml").write_text(re.sub(r"(?s)(rows:\n).*(columns:)", rf"\1{rows}\2", text))
    words = ["tables", str(folder / "t.yaml"), "--runs", str(runs)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=False).output


def test_a_variant_takes_nothing_of_the_configuration_of_another(tmp_path, runs):
    write_run(runs, "nnformer", changes={"predictor.masks": "as_paper", "recipe.epochs": 7})
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    variants = ("masks", "predictor.masks: as_paper"), ("depth", "predictor.depth: 1")
    output = shown(tmp_path, runs, text, "nnformer", variants)
    assert re.findall("protocol=strict train=400 (.*)", output) == [
        "predictor.masks=as_paper recipe.epochs=7 seed=1",
        "predictor.depth=1 recipe.epochs=7 seed=0,1",
    ]


def test_what_a_variant_has_not_from_the_runs_it_has_from_the_experiment_file(tmp_path, runs):
    write_run(runs, "narformer", protocol="paper", train=424, dataset="nasbench101", changes={"recipe.epochs": 100})
    text = DEFINITION.format(metric="kendall_tau", dataset="nasbench101", protocols="paper", train=424)
    variants = ("short", "recipe.epochs: 100"), ("no ranking", "predictor.loss_ranking: 0.0")
    output = shown(tmp_path, runs, text, "narformer", variants)
    (command,) = re.findall("experiment=narformer_nasbench101_424 (.*)", output)
    assert {"predictor.loss_ranking=0.0", "seed=0,1"} <= set(command.split())
    assert "recipe.epochs" not in command, "those of the experiment file, 6,000, not the 4,000 of the recipe"


@pytest.mark.parametrize(
    ("table", "label", "experiment"),
    [
        ("nnlqp_in_domain", "NN-Former", ["nnformer_nnlqp_in_domain"]),
        ("nnlqp_out_of_domain", "NAR-Former V2", ["narformer2_nnlqp_ood", "protocol.family=alexnet"]),
        ("nnlqp_multi_platform", "NNLP, one head a platform", ["nnlp_nnlqp_multi_platform"]),
        ("nnlqp_transfer", "NNLP, pre-trained on eight platforms", ["nnlp_nnlqp_transfer"]),
        ("nnlqp_transfer", "NNLP, from scratch", ["nnlp_nnlqp_transfer", "init=null"]),
    ],
)
def test_a_latency_experiment_is_the_run_of_its_table(table, label, experiment):
    entry = next(row[0] for row in build(read_definition(table), [], []).entries if row[0].row.label == label)
    assert composed(f"experiment={experiment[0]}", *experiment[1:]) == composed(*overrides(entry, []))


def test_an_unknown_setting_is_named():
    with pytest.raises(UserError, match=r"dataset\.devise: unknown key; did you mean device"):
        composed("predictor=knn", "dataset=nb201_latency", "dataset.devise=x")


def test_the_transfer_experiment_starts_where_pretraining_ends():
    pretraining, transfer = (composed(f"experiment=nnlp_nnlqp_{name}") for name in ("pretraining", "transfer"))
    assert compose(["experiment=nnlp_nnlqp_pretraining"]).out == transfer["init"]
    assert pretraining["protocol.platform"] == transfer["protocol.platform"] == "gpu-T4-trt7.1-fp32"
    differ = {key for key in pretraining if pretraining[key] != transfer[key]}
    assert differ == {"train", "init", "protocol.name", "protocol.train"}


def test_published_latencies_stand_beside_the_published_protocol():
    values = {}
    for name in ("nnlqp_in_domain", "nnlqp_out_of_domain"):
        entries = [entry for row in build(read_definition(name), [], read_published()).entries for entry in row]
        values[name] = {(e.row.label, e.column.label): e.published.value for e in entries if e.published}
    assert values["nnlqp_in_domain"] == {("NN-Former", "as published"): 1.11, ("NAR-Former V2", "as published"): 1.18}
    shown = values["nnlqp_out_of_domain"]
    assert shown["NN-Former", "EfficientNet"] == 5.13
    assert shown["NAR-Former V2", "ResNet"] == 6.80
    assert len(shown) == 11


def test_column_configuration_selects(tmp_path, runs):
    write_run(runs, "nnformer", 0, tau=0.9, val=0.9)
    write_run(runs, "nnformer", 0, tau=0.3, val=0.1, changes={"recipe.epochs": 7})
    text = DEFINITION.format(metric="kendall_tau", dataset="digits201", protocols="strict", train=400)
    text = text.replace('label: "400"', 'label: "400", config: {recipe.epochs: 7}')
    (tmp_path / "t.yaml").write_text(text)
    words = ["tables", str(tmp_path / "t.yaml"), "--runs", str(runs)]
    row = facts(CliRunner().invoke(app, [*words, "--format", "csv"]).output)["nnformer", "strict"]
    assert (row["mean"], row["configurations"]) == ("0.3", "1")
    output = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    assert "predictor=nnformer dataset=digits201 protocol=strict train=400 recipe.epochs=7 seed=1" in output
    assert "predictor=knn dataset=digits201 protocol=strict train=400 recipe.epochs=7 seed=0,1" in output


def test_the_ceiling_of_digits201_is_that_of_its_store():
    from datasets.digits201 import FOLDER

    taus = GraphStore.open(FOLDER).manifest.notes["noise_ceiling_tau_b"]
    (note,) = read_definition("digits201").notes
    quoted = re.findall(r"0\.\d\d", note)
    assert quoted == [
        f"{taus[key]:.2f}" for key in ("test_single_seed_vs_single_seed", "test_mean_vs_expectation_estimated")
    ]


def test_published_figures_are_those_of_the_collection(shared):
    with (shared / "spec" / "paper_results.csv").open() as lines:
        collected = [(row["paper"], row["table"], row["dataset"], float(row["value"])) for row in csv.DictReader(lines)]
    figures = read_published()
    assert sorted((f.paper, f.table, f.dataset, f.value) for f in figures) == sorted(collected)
    assert {figure.predictor for figure in figures} == {"nnformer", "narformer", "narformer2"}


def test_the_best_of_several_published_runs_is_not_shown():
    column = Column("nnlqp", "ood", "", None, "efficientb0", None, {}, "mape_percent")
    found = find_published(read_published(), Row("nnformer", ""), column, "mape_percent")
    assert (found.value, found.statistic) == (5.13, "mean")


@pytest.mark.parametrize(("line", "message"), [("a,b\n1,2\n", "its columns must be"), (None, "is no number")])
def test_wrong_published_figures_are_named(tmp_path, line, message):
    from harness.tables.published import FIELDS

    path = tmp_path / "figures.csv"
    path.write_text(line or ",".join(FIELDS) + "\n" + ",".join("x" for _ in FIELDS) + "\n")
    with pytest.raises(UserError, match=message) as error:
        read_published(tmp_path)
    assert str(path) in str(error.value)


def test_what_a_predictor_cannot_read_is_not_missing(tmp_path, runs):
    text = DEFINITION.format(metric="mape_percent", dataset="ortcpu", protocols="in_domain", train="null")
    (tmp_path / "t.yaml").write_text(text.replace("nnformer", "narformer"))
    words = ["tables", str(tmp_path / "t.yaml"), "--runs", str(runs)]
    output = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    assert "predictor=knn dataset=ortcpu protocol=in_domain" in output
    assert "narformer" not in output


def test_costs_of_several_kinds_in_one_table(runs, tmp_path):
    """Means over seeds of what records say, without ranks; a cost that no record says is no failure."""
    for seed, seconds in ((0, 10.0), (1, 30.0)):
        path = write_run(runs, "nnlp", seed)
        content = json.loads((path / "record.json").read_text())
        timings = {"train_seconds": seconds, "evaluate_seconds": 4.0, "evaluated_graphs": 1000}
        content |= {"parameters": 1_234_567, "timings": timings, "environment": {"threads": 2}}
        (path / "record.json").write_text(json.dumps(content))
    write_run(runs, "knn", 0)
    columns = [
        {"dataset": "digits201", "protocols": ["strict"], "label": "d", "metric": metric}
        for metric in (None, *list(COSTS)[1:])
    ]
    rows = [{"predictor": name, "label": name} for name in ("nnlp", "knn")]
    content = {"title": "Costs", "metric": "params_million", "seeds": [0, 1], "rows": rows, "columns": columns}
    (tmp_path / "cost.yaml").write_text(yaml.safe_dump(content))
    table = build(read_definition(str(tmp_path / "cost.yaml")), read_records([runs]), [])
    assert [entry.summary and round(entry.summary.mean, 6) for entry in table.entries[0]] == [1.234567, 20.0, 4.0, None]
    assert not any(entry.summary or entry.standing.place for entry in table.entries[1])
    text = markdown(table)
    assert "Measured on: CPU, 2 threads." in text
    assert "failed" not in text
    columns[0]["metric"] = "kendall_tau"
    (tmp_path / "cost.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="metric of a column"):
        read_definition(str(tmp_path / "cost.yaml"))
