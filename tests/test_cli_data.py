from __future__ import annotations

import re

import numpy as np
import pytest
from stores import manifest, random_columns

from datasets import digits201
from datasets.base import Benchmark
from datasets.digits201_training import Recipe
from datasets.sources import Source
from datasets.store import GraphStore
from harness import registry
from harness.cli.describe import histogram

TOY = """
train: 4
val: 2
dataset:
  target: test_cli_data:Toy
  name: toy
  root: data
  cache: cache
  checksum: true
  labels: {train: a, val: a, test: absent|b}
"""


class Toy(Benchmark):
    """Sixty random graphs whatever the file holds."""

    task = "accuracy"
    unit = "fraction"

    @property
    def sources(self):
        return (Source("toy.bin", "the toy file", "https://example.org/toy", self.read, sha256="0" * 64),)

    def read(self, path):
        columns, _ = random_columns(np.random.default_rng(0), 60)
        columns.labels["a"][:5] = np.nan
        return columns, manifest(notes={"noise_ceiling_tau_b": {"seed_vs_seed": 0.81}, "by": "hand"})


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    """Tests run in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A benchmark that is registered by its YAML alone, and its official file."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "toy.yaml").write_text(TOY)
    monkeypatch.setattr(registry, "CONF", tmp_path / "conf")
    root = tmp_path / "my [official] files"
    root.mkdir()
    (root / "toy.bin").write_bytes(b"content")
    return root


def test_an_unknown_name_is_one_line_with_a_suggestion_and_status_2(narbench):
    for command in ("prepare", "describe"):
        status, out, err = narbench("data", command, "digits20")
        assert (status, out) == (2, "")
        assert err == "error: dataset=digits20: unknown; did you mean digits201?\n"


def test_the_error_is_red_on_a_terminal_only(narbench, monkeypatch):
    assert "\x1b" not in narbench("data", "prepare", "x")[2]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert narbench("data", "prepare", "x")[2].startswith("\x1b[1;31merror: \x1b[0m")


def test_a_missing_official_file_says_what_to_put_where(narbench, toy, tmp_path):
    status, out, err = narbench("data", "prepare", "toy", "--root", "nowhere")
    assert (status, out) == (2, "")
    assert err.splitlines()[0].startswith("error: toy: no data in nowhere. Put one of these there")
    assert err.splitlines()[1:] == ["  nowhere/toy.bin", "      the toy file; linked from https://example.org/toy"]


def test_prepare_converts_once_and_says_where_the_store_is(narbench, toy, tmp_path):
    arguments = ("data", "prepare", "toy", "--root", str(toy), "--cache", "my cache", "--no-checksum")
    status, out, err = narbench(*arguments)
    folder = next((tmp_path / "my cache").glob("toy*"))
    assert (status, out) == (0, f"toy: 60 graphs in my cache/{folder.name}\n")
    assert f"toy: converted {toy}/toy.bin\n" in err
    assert len(GraphStore.open(folder)) == 60
    assert narbench(*arguments) == (0, out, "")


def test_prepare_refuses_an_altered_file(narbench, toy, tmp_path):
    status, _, err = narbench("data", "prepare", "toy", "--root", str(toy))
    assert status == 2
    assert "is not the published 0000000000000000" in err
    assert not list((tmp_path / "cache").glob("toy*"))


def test_describe_shows_what_the_store_holds_in_80_columns(narbench, toy, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    narbench("data", "prepare", "toy", "--root", str(toy), "--no-checksum")
    status, out, _ = narbench("data", "describe", "toy", "--root", str(toy))
    columns, plain = random_columns(np.random.default_rng(0), 60)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^rows +60 *$", out, re.M)
    assert re.search(rf"^unique graphs +{len({h.tobytes() for h in columns.hashes})} \(", out, re.M)
    low, high = (f(len(ops) for ops, _ in plain) for f in (min, max))
    assert re.search(rf"^nodes +{low} to {high} per graph", out, re.M)
    assert re.search(r"^operations +input, conv, pool, output", out, re.M)
    a, b = columns.labels["a"][5:], columns.labels["b"]
    for name, values in (("a", a), ("b", b)):
        figures = " +".join(f"{f(values):.4g}" for f in (np.min, np.median, np.max))
        assert re.search(rf"^{name} +fraction +{len(values)} +{figures}", out, re.M)
    assert re.search(r"^params +count +60 ", out, re.M)
    assert re.search(r"^noise ceiling tau b +seed_vs_seed 0.81", out, re.M)
    assert re.search(r"^paper +toy: 4 of the 4 rows have no a", re.sub(r"\s*\n\s+", " ", out), re.M)
    assert re.search(r"^strict +4 +2 +\d+ ", out, re.M)
    assert "b, fraction" in out
    assert sum(int(n) for n in re.findall(r"^ +(?:<|≥|[\d.]+ -) [\d.]+ \S* ?(\d+)$", out, re.M)) == 60


def test_describe_of_the_embedded_benchmark_needs_no_file(narbench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = narbench("data", "describe", "digits201")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^rows +2,000 *$", out, re.M)
    assert re.search(r"^test_accuracy +fraction +2,000 ", out, re.M)
    assert "noise ceiling tau b" in out


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ([0.0] * 10 + [13.999] * 5, [(0, 10), (13, 5)]),
        ([5.0] * 7, [(0, 7)]),
        ([], []),
        ([*np.linspace(0, 1, 101), 1e6, np.nan], [(0, 17), (13, 1)]),
    ],
)
def test_the_histogram_counts_every_finite_value_once(values, shares):
    lines = histogram(np.array(values)).plain.splitlines()
    counts = [int(line.split()[-1].replace(",", "")) for line in lines]
    assert len(counts) == 14
    assert sum(counts) == int(np.isfinite(values).sum())
    for bin_, count in shares:
        assert counts[bin_] == count


def test_histogram_bars_are_proportional():
    values = np.repeat(np.arange(14) + 0.5, [8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16])
    lines = histogram(values).plain.splitlines()
    assert [lines[i].count("█") for i in (13, 0, 1, 2, 3, 4)] == [48, 24, 12, 6, 3, 0]


def test_make_continues_a_journal_and_says_where_the_store_is(narbench, monkeypatch, tmp_path):
    calls = []

    def make(journal, folder, workers):
        calls.append((str(journal), str(folder), workers))
        return make_store(journal, folder, workers, Recipe(cells=2, epochs=1, channels=2, train_images=64))

    make_store = digits201.make
    monkeypatch.setattr(digits201, "make", make)
    monkeypatch.setattr("datasets.digits201_training._results", _finished)
    command = ("data", "make", "digits201", "--journal", "j.jsonl")
    status, out, err = narbench(*command, "--out", "here/store", "--workers", "3")
    assert (status, out) == (0, "digits201: 2 graphs in here/store; journal j.jsonl\n")
    assert calls == [("j.jsonl", "here/store", 3)]
    assert "training cells" in err
    assert "2/2" in err
    assert len(GraphStore.open(tmp_path / "here" / "store")) == 2
    (tmp_path / "j.jsonl").write_text('{"epochs": 7}\n')
    status, _, err = narbench(*command)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: j.jsonl: made with another recipe")


def _finished(missing, recipe, workers):
    for index, arch in missing:
        row = {"index": index, "arch": arch, "params": 1, "flops": 2}
        yield row | {"validation": [0.1 * index, 0.2, 0.3], "test": [0.1, 0.2 * index, 0.3], "seconds": [1.0] * 3}


def test_make_makes_nothing_else(narbench):
    status, _, err = narbench("data", "make", "nasbench201")
    assert status == 2
    assert err.startswith("error: nasbench201: only digits201 is made here")
    assert narbench("data", "make", "digits201", "--workers", "0")[0] == 2


def test_users_errors_only_are_caught(narbench, monkeypatch):
    def defect(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(digits201, "make", defect)
    with pytest.raises(RuntimeError, match="a defect"):
        narbench("data", "make", "digits201")
