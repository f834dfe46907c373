from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace

import onnx
import pytest

from datasets.errors import UserError
from datasets.families import FAMILIES, build_variant
from datasets.onnx_file import read_file
from harness.measure import Campaign, Rules, Sample, choose_samples, settings, time_runs, with_measured, write_corpus
from harness.measure_journal import REFERENCE, Journal
from harness.ort_cpu import OrtCpu, pinned

QUICK = Rules(warmup_runs=1, warmup_seconds=0, repeats=5, seconds=0, limit_seconds=100, reference_every=4)
SAMPLES = [Sample("nasbench201", index) for index in range(9)]
FACTS = {"device": "fake"}


class FakeDevice:
    """Runs take 1 s of a clock of its own, times the next factor its plan has for a network; counts loads."""

    def __init__(self, plan=None):
        self.now, self.plan, self.loaded = 0.0, plan or {}, []
        self.names = {_identity(build_variant(s.family, s.index)): s.name for s in SAMPLES}

    def clock(self):
        return self.now

    facts = FACTS

    def load(self, model):
        name = self.names.get(_identity(model), REFERENCE)
        self.loaded.append(name)
        rounds = self.plan.get(name, [])
        factors = rounds.pop(0) if rounds and name != REFERENCE else []

        def run():
            plan = rounds if name == REFERENCE else factors
            self.now += plan.pop(0) if plan else 1.0

        return run


class Killed(Exception):
    pass


def _identity(model):
    return str([list(t.dims) for t in model.graph.initializer]) + str([n.op_type for n in model.graph.node])


def campaign(tmp_path, device, rules=QUICK, seed=0, samples=SAMPLES):
    journal = Journal.open(tmp_path / "journal", settings(FACTS, rules, seed))
    return Campaign(samples, device, journal, rules, seed, device.clock)


def ignore(*_):
    pass


def test_timing_takes_the_fewest_runs_and_the_shortest_time():
    device = FakeDevice({"nasbench201_0000": [[9, 9, 1, 2, 3, 4, 10]]})
    rules = Rules(warmup_runs=2, warmup_seconds=0, repeats=5, seconds=0, limit_seconds=100)
    run = device.load(build_variant("nasbench201", 0))
    assert time_runs(run, rules, device.clock) == {
        "median_ms": 3000,
        "iqr_ms": 2000,
        "minimum_ms": 1000,
        "repeats": 5,
    }
    assert time_runs(run, replace(rules, seconds=12), device.clock)["repeats"] == 12
    assert time_runs(run, replace(rules, seconds=12, limit_seconds=3), device.clock)["repeats"] == 3
    before = device.now
    time_runs(run, replace(rules, warmup_seconds=7), device.clock)
    assert device.now - before == 7 + 5


def test_every_sample_is_measured_once_in_random_order_between_references(tmp_path):
    device = FakeDevice()
    measured = campaign(tmp_path, device)
    measured.run(ignore)
    names = [timing.name for timing in measured.journal.timings]
    assert [place for place, name in enumerate(names) if name == REFERENCE] == [0, 5, 10, 12]
    order = [name for name in names if name != REFERENCE]
    assert sorted(order) == [sample.name for sample in SAMPLES]
    assert order != sorted(order)
    (tmp_path / "other").mkdir()
    assert [s.name for s in campaign(tmp_path / "other", device, seed=1).waiting(0)] != order


def test_restless_samples_are_measured_again_and_keep_their_quietest_round(tmp_path):
    """Sample 4 varies in two rounds of three, 6 in one, 7 in all; the first run of each is the warm-up."""
    plan = {
        "nasbench201_0004": [[1, 1, 2, 3, 4, 5], [1, 1, 2, 3, 2, 1], [1, 7, 7, 7, 7, 7]],
        "nasbench201_0006": [[1, 1, 2, 3, 4, 5], [1, 2, 2, 2, 2, 2]],
        "nasbench201_0007": [[1, 2, 2, 2, 3, 3], [1, 9, 9, 10, 11, 11], [1, 1, 2, 3, 4, 5]],
    }
    measured = campaign(tmp_path, FakeDevice(plan))
    measured.run(ignore)
    rounds = {name: len(found) for name, found in measured.journal.restlessness().items() if len(found) > 1}
    assert rounds == {"nasbench201_0004": 3, "nasbench201_0006": 2, "nasbench201_0007": 3}
    final = {name: timing.median_ms for name, (_, timing) in measured.journal.quietest().items()}
    assert final == {sample.name: 1000 for sample in SAMPLES} | {
        "nasbench201_0004": 7000,
        "nasbench201_0006": 2000,
        "nasbench201_0007": 10000,
    }
    noise = measured.noise()
    assert noise["measured_again"] == 3
    assert noise["still_restless"] == ["nasbench201_0007"]


def test_samples_beside_a_slow_reference_are_measured_again(tmp_path):
    """The second of four references is slow: the four samples before and the four after it are in doubt."""
    plan = {REFERENCE: [1] * 6 + [1.2] * 6}
    measured = campaign(tmp_path, FakeDevice(plan))
    measured.run(ignore)
    first = [t.name for t in measured.journal.timings if t.round == 0 and t.name != REFERENCE]
    again = [t.name for t in measured.journal.timings if t.round == 1 and t.name != REFERENCE]
    assert sorted(again) == sorted(first[:8])
    assert again != first[:8]
    assert not [t for t in measured.journal.timings if t.round == 2]
    assert measured.noise()["still_restless"] == []


def test_a_killed_campaign_continues_where_it_stopped(tmp_path):
    whole = campaign(tmp_path, FakeDevice())
    whole.run(ignore)
    folder = tmp_path / "killed"
    folder.mkdir()

    def kill(round_, done, total):
        if done == 6:
            raise Killed

    killed = campaign(folder, FakeDevice())
    with pytest.raises(Killed):
        killed.run(kill)
    with (folder / "journal").open("a") as file:
        file.write('{"name": "nasbench201_00')  # cut short
    device = FakeDevice()
    resumed = campaign(folder, device)
    assert resumed.journal.timings == killed.journal.timings
    resumed.run(ignore)
    assert len(device.loaded) == 1 + 3
    order = [[t.name for t in c.journal.timings if t.name != REFERENCE] for c in (whole, resumed)]
    assert order[0] == order[1]
    assert campaign(folder, FakeDevice()).journal.timings == resumed.journal.timings


def test_a_finished_campaign_can_be_extended(tmp_path):
    campaign(tmp_path, FakeDevice(), samples=SAMPLES[:5]).run(ignore)
    device = FakeDevice()
    campaign(tmp_path, device).run(ignore)
    assert sorted(device.loaded) == sorted([REFERENCE, *(sample.name for sample in SAMPLES[5:])])


def test_a_journal_of_another_machine_or_version_is_refused(tmp_path):
    path = tmp_path / "journal"
    Journal.open(path, {"threads": 1, "cpu": "x"})
    with pytest.raises(UserError, match=r"journal: made with cpu x, now y; .* another --out"):
        Journal.open(path, {"threads": 1, "cpu": "y"})
    path.write_text('{"threads": 1}\n{"name"\n')
    with pytest.raises(UserError, match="journal, line 2: not JSON"):
        Journal.open(path, {"threads": 1})
    path.write_text('["threads"]\n')
    with pytest.raises(UserError, match="journal, line 1: no JSON object"):
        Journal.open(path, {"threads": 1})
    path.write_text('{"threads": 1}\n{"name": "a"}\n')
    with pytest.raises(UserError, match="not a journal of this version"):
        Journal.open(path, {"threads": 1})


def test_the_corpus_has_the_format_of_nnlqp(tmp_path):
    samples = [Sample("squeezenet", 0), *SAMPLES[:2], Sample("mobilenetv2", 0)]
    device = FakeDevice({"nasbench201_0001": [[1, 2.5, 2.5, 2.5, 2.5, 2.5]]})
    measured = campaign(tmp_path, device, samples=samples)
    measured.run(ignore)
    write_corpus(tmp_path, measured, {**FACTS, "cores": [1]})
    rows = [line.split(" ") for line in (tmp_path / "unseen_structure/gt.txt").read_text().splitlines()]
    assert rows == [
        ["00001", "onnx/squeezenet/squeezenet_0000.onnx", "1", "1000.00000", "squeezenet", "0"],
        ["00002", "onnx/nasbench201/nasbench201_0000.onnx", "1", "1000.00000", "nasbench201", "0"],
        ["00003", "onnx/nasbench201/nasbench201_0001.onnx", "1", "2500.00000", "nasbench201", "0"],
        ["00004", "onnx/mobilenetv2/mobilenetv2_0000.onnx", "1", "1000.00000", "mobilenetv2", "0"],
    ]
    for row, sample in zip(rows, samples, strict=True):
        file = read_file(tmp_path / "unseen_structure" / row[1])
        assert _identity(file.model) == _identity(build_variant(sample.family, sample.index))
    description = json.loads((tmp_path / "device.json").read_text())
    assert description["cores"] == [1]
    assert description["rules"] == asdict(QUICK)
    assert description["noise"]["reference_iqr"] == description["noise"]["reference_slowdown"] == 0
    assert description["noise"]["references"] == 2


def test_the_rows_agree_in_form_with_official_ones(shared, tmp_path):
    import gzip

    official = gzip.decompress((shared / "data/nnlqp_gt_stage.txt.gz").read_bytes()).decode().split("\n")[0].split(" ")
    measured = campaign(tmp_path, FakeDevice(), samples=SAMPLES[:1])
    measured.run(ignore)
    write_corpus(tmp_path, measured, FACTS)
    ours = (tmp_path / "unseen_structure/gt.txt").read_text().rstrip("\n").split(" ")
    assert len(ours) == len(official) - 1  # without the stage
    for mine, theirs in zip(ours, official, strict=False):
        assert mine.replace(".", "").isdigit() == theirs.replace(".", "").isdigit()
    assert len(ours[0]) == len(official[0])
    assert ours[1].split("/")[0] == official[1].split("/")[0]


def test_what_was_measured_before_stays(tmp_path):
    measured = campaign(tmp_path, FakeDevice(), samples=[Sample("vgg", 0), Sample("alexnet", 10), Sample("alexnet", 9)])
    measured.run(ignore)
    asked = [Sample("resnet", 0), Sample("vgg", 0)]
    expected = [Sample("alexnet", 9), Sample("alexnet", 10), Sample("resnet", 0), Sample("vgg", 0)]
    assert with_measured(asked, measured.journal) == sorted(expected, key=lambda s: list(FAMILIES).index(s.family))


def test_choosing_families():
    assert len(choose_samples("all", 3)) == 3 * len(FAMILIES)
    assert choose_samples("vgg, resnet,vgg", 1) == [Sample("vgg", 0), Sample("resnet", 0)]
    with pytest.raises(UserError, match="--families vgg16: unknown; choose all or some of alexnet,"):
        choose_samples("vgg16", 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_the_process_is_pinned_to_its_last_cores_only_while_measuring():
    allowed = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert cores == [max(allowed)]
        assert os.sched_getaffinity(0) == {max(allowed)}
    assert os.sched_getaffinity(0) == allowed
    with pytest.raises(UserError, match="cores may be used here"), pinned(len(allowed) + 1):
        pass


def test_without_onnx_runtime_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[measure\]' in the checkout"):
        OrtCpu(1)


def test_the_command_measures_and_says_where_the_result_is(tmp_path, monkeypatch, narbench):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("harness.measure.Rules", lambda: Rules(repeats=3, seconds=0, warmup_seconds=0, rounds=1))
    command = ("measure", "--families", "nasbench201", "--per-family", 2, "--out", tmp_path / "o")
    status, printed, _ = narbench(*command)
    assert not status
    assert str(tmp_path / "o/unseen_structure/gt.txt") in printed
    assert "nasbench201" in printed
    lines = (tmp_path / "o/measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines[1:]].count(REFERENCE) == 2
    table = (tmp_path / "o/unseen_structure/gt.txt").read_text()
    assert 0.01 < float(table.split()[3]) < 1000
    assert not narbench("measure", "--families", "alexnet", "--per-family", 1, "--out", tmp_path / "o")[0]
    more = [line.split() for line in (tmp_path / "o/unseen_structure/gt.txt").read_text().splitlines()]
    assert [row[1:] for row in more[1:]] == [line.split()[1:] for line in table.splitlines()], "none is lost"
    assert [row[0] for row in more] == ["00001", "00002", "00003"]
    assert more[0][4] == "alexnet"
    for path in (tmp_path / "o").rglob("*.onnx"):
        onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
