"""The table of time and memory by graph size and layout."""

import pytest

from harness import bench_attention
from predictors.layers.pairs import ListedPairs, PaddedPairs
from predictors.layers.relations import Relations
from tests.graphs import force_layout


def test_chain_is_one_valid_graph():
    graph = bench_attention.chain(100)
    parent, child = graph.edge_index
    assert graph.count.tolist() == [100]
    assert (parent < child).all()
    assert 99 < len(parent) < 130


@pytest.mark.parametrize(("layout", "kind"), [("listed", ListedPairs), ("padded", PaddedPairs)])
def test_measures_the_layout_asked_for(monkeypatch, layout, kind):
    used = []
    force_layout(monkeypatch, {"listed": "padded", "padded": "listed"}[layout])
    monkeypatch.setattr(bench_attention, "median_seconds", lambda run, _: (run(), 0.25)[1])
    create = Relations.__init__
    monkeypatch.setattr(Relations, "__init__", lambda self, *a: create(self, *a) or used.append(type(self.pairs)))
    predicted, trained, peak = bench_attention.measure("nnformer", 40, layout)
    assert (predicted, trained) == (250, 250)
    assert peak >= 0
    assert used == [kind] * 2


def test_padding_that_does_not_fit_is_not_run(monkeypatch):
    """Ten times the nodes need a hundred times what padding takes beyond the list."""
    calls = []

    def alone(name, nodes, layout):
        calls.append((name, nodes, layout))
        return 1.0, 3.0, nodes / 10 + (1e4 * (nodes / 100) ** 2 if layout == "padded" else 0)

    monkeypatch.setattr(bench_attention, "_alone", alone)
    monkeypatch.setattr(bench_attention.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 16e6, "SC_PAGE_SIZE": 4000}[name])
    figures = dict(bench_attention.bench_attention((100, 1000)))
    assert figures["nnformer.100_nodes.padded.peak_mb"] == 10_010
    assert figures["nnformer.1000_nodes.padded.needs_mb"] == pytest.approx(1_000_100)
    assert figures["narformer2.1000_nodes.listed.gradients_ms"] == 3
    assert ("nnformer", 1000, "padded") not in calls
