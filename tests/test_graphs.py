"""The synthetic cells are what the conformance suite takes them for."""

from __future__ import annotations

import networkx as nx
import torch

from tests.graphs import cells, pick, random_cells, relabelled


def as_networkx(batch):
    found = []
    for graph in range(len(batch)):
        nodes = torch.nonzero(batch.batch == graph)[:, 0].tolist()
        net = nx.DiGraph()
        net.add_nodes_from((v, {"op": int(batch.op[v]), "attribute": float(batch.attributes[v, 0])}) for v in nodes)
        net.add_edges_from((a, b) for a, b in batch.edge_index.T.tolist() if a in net)
        found.append(net)
    return found


def same(first, second):
    return nx.is_isomorphic(first, second, node_match=lambda a, b: a == b)


def test_random_cells_are_cells_of_every_size():
    batch = random_cells(60, 0)
    assert set(batch.count.tolist()) == set(range(2, 9))
    assert (batch.edge_index[0] < batch.edge_index[1]).all()
    for net in as_networkx(batch):
        assert [v for v in net if net.in_degree(v) == 0] == [min(net)]
        assert [v for v in net if net.out_degree(v) == 0] == [max(net)]
    assert torch.equal(batch.target.argsort(), batch.static["params"].argsort())


def test_relabelling_keeps_the_graphs_and_changes_their_order():
    batch = random_cells(30, 1)
    other = relabelled(batch, 0)
    assert (other.edge_index[0] < other.edge_index[1]).all()
    assert all(same(a, b) for a, b in zip(as_networkx(batch), as_networkx(other), strict=True))
    moved = ~(batch.dense.op == other.dense.op).all(1)
    assert moved.sum() >= 5


def test_picking_keeps_graph_and_columns():
    batch = random_cells(10, 2)
    some = pick(batch, [7, 2])
    assert some.row.tolist() == [7, 2]
    assert some.target.tolist() == batch.target[[7, 2]].tolist()
    nets = as_networkx(batch)
    assert all(same(a, b) for a, b in zip(as_networkx(some), [nets[7], nets[2]], strict=True))


def test_a_graph_without_edges():
    batch = pick(cells([([0, 1, 6], [(0, 1), (1, 2)]), ([0, 6], [])], [1e6, 2e6]), [1])
    assert batch.edge_index.shape == (2, 0)
    assert batch.op.tolist() == [0, 6]
