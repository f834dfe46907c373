"""``narbench report`` on run folders made by hand."""

import html
import json
import re
from functools import partial
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pytest
from scipy import stats
from table_records import predicted_run, write_run
from typer.testing import CliRunner

from datasets.errors import UserError
from harness.cli import app
from harness.registry import names
from harness.report import panels
from harness.report.panels import curves, families
from harness.report.ranking import critical_difference, mean_ranks, results, win_rates
from harness.tables.build import build
from harness.tables.costs import cost
from harness.tables.definition import read_definition
from harness.tables.page import NOTHING, lay_out
from harness.tables.recorded import read_records

DEFINITION = """
title: "{title}"
metric: {metric}
seeds: [0, 1]
rows:
  - {{predictor: nnformer, label: NN-Former}}
  - {{predictor: knn, label: "<script>alert(1)</script> & $x$"}}
  - {{predictor: flops, label: FLOPs}}
columns:
{columns}
"""
SIZES = """
  - {dataset: digits201, protocols: [paper, strict], train: 100, label: small}
  - {dataset: digits201, protocols: [paper, strict], train: 400, label: large}
"""
VOID = {"meta", "br", "link", "img", "input", "hr"}
DEMSAR = np.array(
    [
        [4, 1, 4, 4, 4, 1, 3, 2.5, 4, 2.5, 4, 3, 4, 3],
        [3, 2, 1, 1, 2, 2.5, 2, 2.5, 3, 2.5, 2.5, 2, 1, 1],
        [2, 3, 2, 3, 3, 4, 4, 4, 2, 2.5, 1, 4, 2, 4],
        [1, 4, 3, 2, 1, 2.5, 1, 1, 1, 2.5, 2.5, 1, 3, 2],
    ]
)
"""Ranks of four classifiers on 14 data sets: table 6 of Demsar, JMLR 2006."""


class Parsed(HTMLParser):
    """Balanced tags, all attributes and the text of every table row."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def write_report(folder, runs, columns=SIZES, metric="kendall_tau", title="A & <b>"):
    """The page that the command makes of the runs under a small definition in ``folder``."""
    (folder / "small.yaml").write_text(DEFINITION.format(title=title, metric=metric, columns=columns))
    words = ["report", str(folder / "small.yaml"), "--runs", str(runs), "--out", str(folder / "new" / "report.html")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).output.strip() == words[-1]
    return (folder / "new" / "report.html").read_text()


@pytest.fixture
def report(tmp_path, runs):
    return partial(write_report, tmp_path, runs)


def extend(run, **facts):
    path = run / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A folder with runs of three predictors under two protocols, sizes and seeds, with predictions and timings."""
    folder = tmp_path_factory.mktemp("full")
    (runs := folder / "runs").mkdir()
    rng = np.random.default_rng(0)
    label = rng.permutation(60) / 60 + 0.1
    for predictor, noise in (("nnformer", 0.05), ("knn", 0.2), ("flops", 0.5)):
        for protocol, train, seed in np.ndindex(2, 2, 2):
            prediction = label + noise * rng.standard_normal(60)
            name, size = ("paper", "strict")[protocol], (100, 400)[train]
            run = predicted_run(runs, predictor, int(seed), range(60), label, prediction, protocol=name, train=size)
            timings = {"train_seconds": 12.0, "evaluate_seconds": 3.0, "evaluated_graphs": 1000}
            extend(run, timings=timings, parameters=1234, peak_memory_mb=77.0, environment={"gpu": None, "threads": 2})
    return folder


@pytest.fixture(scope="module")
def full_text(full):
    return write_report(full, full / "runs")


def test_page_is_whole_escaped_and_loads_nothing(full_text):
    text, page = full_text, Parsed(full_text)
    assert page.tags.count("script") == 0
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $x$" in text
    assert "A &amp; &lt;b&gt;" in text
    assert re.search(r"<text[^>]*>[^<]*&lt;/script&gt; &amp; \$x\$", text), "labels in figures are no formulae"
    loading = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert loading
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loading)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("svg") == 3 + 2 + 3 + 1  # swatches, learning curves, scatters, critical difference
    assert "Left out: by family (no column that holds out a family has runs)." in text


def test_same_runs_same_page(full, full_text):
    assert write_report(full, full / "runs") == full_text


def test_figures_are_those_of_the_tables(full, full_text):
    page = Parsed(full_text)
    table = build(read_definition(str(full / "small.yaml")), read_records([full / "runs"]), [])
    laid = lay_out(table)
    for label, fields in zip(laid.labels, laid.fields, strict=True):
        cells = ["".join(line.text + ",".join(map(str, line.marks)) for line in field.lines) for field in fields]
        assert [label, *cells] in page.rows


def test_costs(full_text):
    row = next(row for row in Parsed(full_text).rows if row[:2] == ["NN-Former", "CPU, 2 threads"])
    assert row[2:] == ["8", "1,234", "12.0", "12.0", "12.0", "3.00", "77.0"]


def test_scoring_time_is_divided_by_the_distinct_sets_of_weights():
    weights = {"best": {"test": {"a": 1}}, "last": {"test": {"a": 1}}, "best_ema": {"test": {"a": 2}}}
    content = {"timings": {"evaluate_seconds": 4.0, "evaluated_graphs": 100}, "weights": weights}
    assert cost(content, "ms_per_architecture") == pytest.approx(20.0)


@pytest.mark.parametrize(("recorded", "milliseconds"), [({"evaluations": 4}, 10.0), ({}, None)])
def test_scoring_time_of_a_diverged_training_is_divided_by_its_evaluations_if_recorded(recorded, milliseconds):
    weights = {name: {"val": {}, "test": {}} for name in ("best", "last", "best_ema", "last_ema")}
    content = {"timings": {"evaluate_seconds": 4.0, "evaluated_graphs": 100, **recorded}, "weights": weights}
    assert cost(content, "ms_per_architecture") == milliseconds


def test_the_newest_run_is_so_in_whichever_zone(report, runs):
    write_run(runs, "knn", 0, started="2026-01-02T00:30:00+0200")
    write_run(runs, "knn", 1, started="2026-01-01T22:10:00+0000")
    assert "newest of 2026-01-01" in " ".join(report().split())


def test_missing_ingredients_are_named(report, runs):
    write_run(runs, "knn", 0, tau=0.5, protocol="strict", train=400)
    text = report()
    Parsed(text)
    assert "learning curves (no predictor has runs at two training sizes)" in text
    assert "predicted against true (no run kept its predictions)" in text
    assert "costs (no record has timings)" in text
    assert "Mean ranks left out" in text
    assert "no recorded run under a rule that leaks has one to be compared with" in text


def test_nothing_that_fits_the_table(report, runs):
    write_run(runs, "knn", 0, train=7)
    text = report()
    assert "Nothing recorded yet." in text
    assert "no recorded run is in a table that compares predictors" in text


def test_code_versions_are_named_or_counted(report, runs):
    for seed in range(3):
        extend(write_run(runs, "knn", seed), code_version=f"c{seed}")
    assert "code c0, c1, c2." in report()
    extend(write_run(runs, "knn", 3), code_version="c3")
    assert "code of 4 versions." in report()


def test_failed_metrics(report, runs):
    for train in (100, 400):
        write_run(runs, "knn", 0, train=train, values={}, protocol="paper")
    assert "The metric failed in 1 of 1 runs" in report()


def test_no_runs_and_wrong_output(tmp_path, runs):
    words = ["report", "digits201", "--runs", str(runs), "--out"]
    with pytest.raises(UserError, match="no recorded runs"):
        CliRunner().invoke(app, [*words, str(tmp_path / "r.html")], catch_exceptions=False)
    with pytest.raises(UserError, match="a folder"):
        CliRunner().invoke(app, [*words, str(tmp_path)], catch_exceptions=False)


def leak_row(text, label, columns):
    return next(
        row for row in Parsed(text).rows if row[0] == label and row[1].startswith("digits201,") and len(row) == columns
    )


def test_leaks_of_the_paper_protocol(report, runs):
    strict, paper = [0.50, 0.60], [0.70, 0.74]
    for seed in (0, 1):
        write_run(runs, "nnformer", seed, tau=strict[seed], train=400)
        run = write_run(runs, "nnformer", seed, tau=paper[seed], train=400, protocol="paper", leaks="test contains all")
        metrics = {"val": {"kendall_tau": 0.5}, "test": {"kendall_tau": paper[seed]}}
        weights = {"best": metrics, "last": {"val": {}, "test": {"kendall_tau": paper[seed] + 0.01}}}
        extend(run, metrics={**metrics, "rest": {"kendall_tau": paper[seed] - 0.02}}, weights=weights)
    row = leak_row(report("  - {dataset: digits201, protocols: [paper], train: 400, label: large}"), "NN-Former", 8)
    interval = stats.ttest_ind(paper, strict, equal_var=False).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    assert row[1:5] == ["digits201, large", "0.550 ± 0.635", "0.720 ± 0.254", f"+0.170 ± {half:.3f}"]
    assert row[5:] == ["0.700 ± 0.254", "+0.020 ± 0.000", "+0.010 ± 0.000"]


def test_leaks_are_measured_between_runs_of_one_recipe(report, runs):
    """The best recipe of either rule, by validation, was not run under the other."""
    recipes = {
        "paper": [(100, 0.9, 0.80), (50, 0.7, 0.60), (7, 0.6, 0.55)],
        "strict": [(20, 0.9, 0.10), (50, 0.4, 0.58), (7, 0.5, 0.50)],
    }
    for protocol, found in recipes.items():
        for epochs, val, tau in found:
            changes = {"recipe.epochs": epochs, "protocol.test": {"paper": 1000, "strict": "all"}[protocol]}
            changes |= {"val": {"paper": 1024, "strict": "20%"}[protocol], "protocol.val": "as val"}
            run = write_run(runs, "nnformer", tau=tau, val=val, protocol=protocol, changes=changes)
            metrics = json.loads((run / "record.json").read_text())["metrics"]
            extend(run, metrics={**metrics, "rest": {"kendall_tau": tau - 0.01}})
    text = report("\n  - {dataset: digits201, protocols: [paper], train: 400, label: large}")
    assert leak_row(text, "NN-Former", 8)[1:] == [
        "digits201, large",
        "0.580",
        "0.600",
        "+0.020",
        "0.590",
        "+0.010",
        NOTHING,
    ]


def test_rules_that_no_recipe_was_run_under_both_of_are_not_compared(report, runs):
    for select, error, epochs in (("validation", 5.0, 7), ("test", 4.0, 8)):
        write_selected(runs, select, error, {"recipe.epochs": epochs})
    assert "has one to be compared with" in report(f"{OOD}}}", metric="mape_percent")
    run = write_run(runs, "nnformer", tau=0.6, protocol="paper")
    write_run(runs, "nnformer", tau=0.5, changes={"recipe.epochs": 7})
    paper = "\n  - {dataset: digits201, protocols: [paper], train: 400, label: large}"
    assert "has one to be compared with" in report(paper)
    extend(run, metrics={"test": {"kendall_tau": 0.6}, "rest": {"kendall_tau": 0.5}})
    assert leak_row(report(paper), "NN-Former", 8)[2:] == [NOTHING, "0.600", NOTHING, "0.500", "+0.100", NOTHING]


def test_records_of_one_rule_that_are_older_than_a_setting_are_compared_by_its_default(report, runs):
    write_run(runs, "nnformer", tau=0.6, protocol="paper", drop=["predictor.degree_gate"])
    write_run(runs, "nnformer", tau=0.5)
    text = report("\n  - {dataset: digits201, protocols: [paper], train: 400, label: large}")
    assert leak_row(text, "NN-Former", 8)[2:5] == ["0.500", "0.600", "+0.100"]


def write_selected(runs, select, error, changes=None):
    """A run under ``ood`` whose checkpoint was selected on ``select``."""
    changes = {"protocol.select": select, "protocol.family": "mixed", **(changes or {})}
    return write_run(runs, "knn", 0, protocol="ood", train=400, values={"mape_percent": error}, changes=changes)


PINS = ("", ", config: {protocol.select: validation}", ", config: {protocol.select: test}")
OOD = "\n  - {dataset: digits201, protocols: [ood], family: mixed, label: mixed"


@pytest.mark.parametrize("pin", PINS)
def test_leak_of_selection_on_test_is_a_gain_where_the_error_falls(report, runs, pin):
    for select, error in (("validation", 5.0), ("test", 4.0)):
        write_selected(runs, select, error)
    text = report(f"{OOD}{pin}}}", metric="mape_percent")
    row = leak_row(text, "<script>alert(1)</script> & $x$", 5)
    assert row[1:] == ["digits201, mixed, mixed", "5.00", "4.00", "+1.00"]
    assert "By family" in html.unescape(text)


@pytest.mark.parametrize("pin", PINS)
def test_runs_selected_on_validation_alone_show_no_leak(report, runs, pin):
    write_selected(runs, "validation", 5.0)
    assert "no recorded run under a rule that leaks has one to be compared with" in report(
        f"{OOD}{pin}}}", metric="mape_percent"
    )


def test_columns_that_differ_in_selection_alone_are_one_leak(report, runs):
    for select, error in (("validation", 5.0), ("test", 4.0)):
        write_selected(runs, select, error)
    rows = Parsed(report("".join(f"{OOD}{pin}}}" for pin in PINS), metric="mape_percent")).rows
    assert sum(row[1:] == ["digits201, mixed, mixed", "5.00", "4.00", "+1.00"] for row in rows) == 1


def test_columns_that_differ_in_a_setting_alone_stay_apart(tmp_path, runs):
    """As the devices of one benchmark do: each counts in the leaderboard and has its own learning curve."""
    columns = "".join(
        f"\n  - {{dataset: digits201, protocols: [strict], train: {train}, label: {train}, config: {{recipe.epochs: {n}}}}}"
        for n in (7, 8)
        for train in (100, 400)
    )
    for number, (epochs, train, predictor) in enumerate(product((7, 8), (100, 400), ("nnformer", "knn"))):
        write_run(runs, predictor, 0, tau=0.1 + 0.1 * number, train=train, changes={"recipe.epochs": epochs})
    (tmp_path / "t.yaml").write_text(DEFINITION.format(title="t", metric="kendall_tau", columns=columns))
    table = build(read_definition(str(tmp_path / "t.yaml")), read_records([runs]), [])
    (found,) = results([table])
    assert found.values.shape == (2, 4)
    np.testing.assert_allclose(found.values[0], [0.1, 0.3, 0.5, 0.7])
    assert [heading for heading, _ in curves(table).figures] == [
        "digits201, strict, epochs 7",
        "digits201, strict, epochs 8",
    ]


@pytest.fixture
def families_and_sizes(tmp_path, runs):
    """A table of two families, each held out at two training sizes."""
    columns = "".join(
        f"\n  - {{dataset: digits201, protocols: [ood], family: {family}, train: {train}, label: {family}}}"
        for family, train in product(("alexnet", "vgg"), (100, 300))
    )
    for number, (family, train) in enumerate(product(("alexnet", "vgg"), (100, 300))):
        changes, values = {"protocol.family": family}, {"mape_percent": 11.0 + number}
        write_run(runs, "flops", protocol="ood", train=train, values=values, changes=changes)
    (tmp_path / "t.yaml").write_text(DEFINITION.format(title="t", metric="mape_percent", columns=columns))
    return build(read_definition(str(tmp_path / "t.yaml")), read_records([runs]), [])


def drawn_points(monkeypatch, name):
    """What the figures drawn by a function of the report show, mean by training size or family, in order."""
    found, draw = [], getattr(panels, name)

    def record(*args, series, **more):
        found.append([{place: point.mean for place, point in one.points.items()} for one in series])
        draw(*args, series=series, **more)

    monkeypatch.setattr(panels, name, record)
    return found


def test_families_have_a_learning_curve_each(families_and_sizes, monkeypatch):
    drawn = drawn_points(monkeypatch, "learning_curves")
    headings = [heading for heading, _ in curves(families_and_sizes).figures]
    assert headings == ["digits201, ood, without alexnet", "digits201, ood, without vgg"]
    assert drawn == [[{100: 11.0, 300: 12.0}], [{100: 13.0, 300: 14.0}]]


def test_training_sizes_have_bars_of_families_each(families_and_sizes, monkeypatch):
    drawn = drawn_points(monkeypatch, "family_bars")
    headings = [heading for heading, _ in families(families_and_sizes).figures]
    assert headings == ["digits201, ood, 100 training architectures", "digits201, ood, 300 training architectures"]
    assert drawn == [[{"alexnet": 11.0, "vgg": 13.0}], [{"alexnet": 12.0, "vgg": 14.0}]]


def test_a_learning_curve_is_of_one_cost(tmp_path, runs, monkeypatch):
    for train in (100, 400):
        extend(write_run(runs, "knn", train=train), parameters=train * 10**6, peak_memory_mb=7.0)
    columns = "".join(
        f"\n  - {{dataset: digits201, protocols: [strict], train: {train}, label: l, metric: {metric}}}"
        for train, metric in product((100, 400), ("params_million", "peak_memory_mb"))
    )
    (tmp_path / "t.yaml").write_text(DEFINITION.format(title="t", metric="params_million", columns=columns))
    drawn = drawn_points(monkeypatch, "learning_curves")
    curves(build(read_definition(str(tmp_path / "t.yaml")), read_records([runs]), []))
    assert drawn == [[{100: 100.0, 400: 400.0}]]


def test_twelve_bars_and_their_swatches_differ(tmp_path, runs):
    """There are ten colours."""
    predictors = names("predictor")[:12]
    for number, predictor in enumerate(predictors):
        values = {"mape_percent": 5.0 + number}
        write_run(runs, predictor, protocol="ood", values=values, changes={"protocol.family": "mixed"})
    text = DEFINITION.format(title="t", metric="mape_percent", columns=f"{OOD}}}")
    rows = "".join(f"  - {{predictor: {predictor}, label: {predictor}}}\n" for predictor in predictors)
    (tmp_path / "t.yaml").write_text(re.sub(r"(?s)(rows:\n).*(columns:)", rf"\1{rows}\2", text))
    panel = families(build(read_definition(str(tmp_path / "t.yaml")), read_records([runs]), []))
    ((_, figure),) = panel.figures
    bars, *swatches = (
        re.findall(r'style="fill: (#\w+|url\(#h\w+\))', svg) for svg in (figure, *map(panel.swatch, panel.legend))
    )
    assert len(set(bars)) == 12
    assert swatches == [[fill] for fill in bars]


@pytest.mark.parametrize(("noise", "standing"), [(0.01, "1 of 1"), (1.0, "0 of 1")])
def test_only_tested_columns_count_as_led_or_lost(report, runs, noise, standing):
    """Small: NN-Former ahead of FLOPs, knn without predictions. Large: knn ahead, no predictions."""
    label = np.arange(60) / 60
    other = label + noise * np.random.default_rng(0).standard_normal(60)
    predicted_run(runs, "nnformer", 0, range(60), label, label, train=100)
    predicted_run(runs, "flops", 0, range(60), label, other, train=100)
    for predictor, train, tau in (("knn", 100, 0.1), ("nnformer", 400, 0.7), ("flops", 400, 0.6), ("knn", 400, 0.8)):
        write_run(runs, predictor, 0, tau=tau, train=train)
    rows = [row for row in Parsed(report()).rows if row[-1:] == ["2"]]
    assert {row[0]: row[3] for row in rows} == {
        "NN-Former": "1 of 1",
        "FLOPs": standing,
        "<script>alert(1)</script> & $x$": NOTHING,
    }


def test_mean_ranks_and_critical_difference_of_demsar():
    found = mean_ranks(-DEMSAR)
    assert found.predictors == [3, 1, 2, 0]
    assert found.means == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)  # as printed there, with q = 2.569
    assert critical_difference(4, 14, level=0.10) == pytest.approx(1.12, abs=5e-3)
    assert found.groups() == [(0, 3)]  # 3.143 - 1.964 = 1.18


def test_groups_are_the_longest_runs_below_the_difference():
    values = np.repeat([[4.0], [3.0], [2.0], [1.0]], 40, axis=1)
    found = mean_ranks(values)
    assert found.critical_difference < 1
    assert found.groups() == []
    assert mean_ranks(values[:, :3]).groups() == [(0, 2), (1, 3)]  # 4.690 / sqrt(3) = 2.708


def test_largest_block_without_gaps():
    values = np.ones((5, 6)) * np.arange(5, 0, -1)[:, None]
    values[0, 2:] = np.nan  # two results only
    values[4, :3] = np.nan  # three results: 5 columns x 3 rows of the others exceed 3 x 4
    values[3, 0] = np.nan
    found = mean_ranks(values)
    assert sorted(found.predictors) == [1, 2, 3]
    assert found.columns == 5
    assert mean_ranks(values[:, :2]) is None


def test_win_rates_by_brute_force():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (5, 9)).astype(float)
    values[rng.random(values.shape) < 0.4] = np.nan
    rates = win_rates(values)
    for a in range(5):
        for b in range(5):
            both = [(x, y) for x, y in zip(values[a], values[b], strict=True) if x == x and y == y]
            expected = np.mean([(x > y) + (x == y) / 2 for x, y in both]) if both and a != b else np.nan
            assert rates[a, b] == pytest.approx(expected, nan_ok=True)


def test_a_report_of_costs_alone_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["report", "cost", "--out", str(tmp_path / "r.html")])
    assert isinstance(result.exception, UserError)
    assert "cost: shows costs, which every section of a report has" in str(result.exception)
    assert not (tmp_path / "r.html").exists()
