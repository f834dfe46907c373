"""Relabelled graphs against brute force."""

from collections import Counter
from itertools import permutations

import pytest
import torch
from scipy.stats import chisquare

from datasets.errors import UserError
from predictors.layers.relabel import first, relabel, swap_last, uniform
from tests.graphs import cells, pick, random_cells

DIAMOND = ([0, 1, 2, 3, 2, 6], [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 5), (4, 5)])
CHAIN = ([0, 1, 2, 6], [(0, 1), (1, 2), (2, 3)])
EDGELESS = ([0, 1, 2, 3, 4, 5, 1, 6], [])


def orders(graph):
    """Brute force: every order of a graph that keeps both ends and puts no child before its parent."""
    op, edges = graph
    for inner in permutations(range(1, len(op) - 1)):
        order = [0, *inner, len(op) - 1]
        place = {node: i for i, node in enumerate(order)}
        if all(place[a] < place[b] for a, b in edges):
            yield order


def rearranged(graph, order):
    """Operations and edges of a graph whose node ``order[i]`` is put in place i."""
    op, edges = graph
    place = {node: i for i, node in enumerate(order)}
    return tuple(op[node] for node in order), frozenset((place[a], place[b]) for a, b in edges)


def lists(batch):
    """The graphs of a batch, as ``tests.graphs`` describes them."""
    dense = batch.dense
    return [(dense.op[i, :n].tolist(), dense.adjacency[i].nonzero().tolist()) for i, n in enumerate(batch.count.tolist())]


def seen(dense, row, size):
    return tuple(dense.op[row, :size].tolist()), frozenset(map(tuple, dense.adjacency[row].nonzero().tolist()))


@pytest.mark.parametrize("sizes", [(2, 8), (5, 5), (2, 2), (2, 4)])
def test_uniform_draws_valid_orders_of_the_same_graphs(sizes):
    batch = random_cells(60, 1, sizes)
    torch.manual_seed(0)
    drawn = uniform(batch.dense)
    assert torch.equal(drawn.mask, batch.dense.mask)
    for row, graph in enumerate(lists(batch)):
        assert seen(drawn, row, len(graph[0])) in {rearranged(graph, order) for order in orders(graph)}


def test_every_order_is_equally_likely_in_a_padded_batch():
    """Distinct operations tell orders apart, so each of them is counted; graphs of other sizes are in the same batch."""
    names = [[0, 1, 2, 3, 4, 6], [0, 1, 2, 6], [0, 1, 2, 3, 4, 5, 6]]
    graphs = [(op, [(0, 1), (0, 2), (len(op) - 2, len(op) - 1)]) for op in names] + [EDGELESS]
    draws = 4000
    batch = cells(graphs * draws, [1e5] * len(graphs) * draws)
    torch.manual_seed(7)
    drawn = uniform(batch.dense)
    for kind, graph in enumerate(graphs[:3]):
        counts = Counter(seen(drawn, row, len(graph[0])) for row in range(kind, len(graphs) * draws, len(graphs)))
        valid = Counter(rearranged(graph, order) for order in orders(graph))
        assert counts.keys() == valid.keys()
        assert set(valid.values()) == {1}
        if len(valid) > 1:
            assert chisquare([counts[key] for key in valid]).pvalue > 0.01
    assert len({seen(drawn, row, 8) for row in range(3, len(graphs) * draws, len(graphs))}) > 300


def test_a_chain_and_the_smallest_graphs_stay():
    smallest = [([0], []), ([0, 6], [(0, 1)]), ([0, 1, 6], [(0, 1), (1, 2)]), ([0, 6], [])]
    for graphs in ([CHAIN, *smallest], *([graph] for graph in smallest)):
        dense = cells(graphs, [1e5] * len(graphs)).dense
        for change in (uniform, swap_last, first):
            changed = change(dense)
            assert torch.equal(changed.op, dense.op)
            assert torch.equal(changed.adjacency, dense.adjacency)


def test_swap_last_exchanges_the_last_two_inner_nodes_unless_joined():
    batch = random_cells(80, 2)
    swapped, changed = swap_last(batch.dense), 0
    for row, graph in enumerate(lists(batch)):
        n = len(graph[0])
        free = n >= 4 and [n - 3, n - 2] not in graph[1]
        order = [*range(n - 3), n - 2, n - 3, n - 1] if free else list(range(n))
        assert seen(swapped, row, n) == rearranged(graph, order)
        changed += free
    assert 10 < changed < 70


def test_first_takes_the_lexicographically_first_order_that_changes_the_graph():
    """Of few operations, so that some orders change nothing; graphs of all sizes are in one batch."""
    batch = random_cells(150, 4, (2, 8), operations=4)
    found, changed = first(batch.dense), []
    for row, (op, edges) in enumerate(lists(batch)):
        given = tuple(op), frozenset(map(tuple, edges))
        others = [new for order in orders((op, edges)) if (new := rearranged((op, edges), order)) != given]
        assert seen(found, row, len(op)) == (others[0] if others else given)
        changed.append(len(others))
    assert min(changed) == 0
    assert max(changed) > 10


def test_first_passes_over_orders_that_change_nothing():
    """Twins 1 and 2 are alike: the first order after theirs is the one that swaps 3 with 2."""
    graph = ([0, 1, 1, 2, 6], [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)])
    changed = first(cells([graph], [1e5]).dense)
    assert seen(changed, 0, 5) == rearranged(graph, [0, 1, 3, 2, 4])
    twins = ([0, 1, 1, 6], [(0, 1), (0, 2), (1, 3), (2, 3)])
    assert seen(first(cells([twins], [1e5]).dense), 0, 4) == rearranged(twins, [0, 1, 2, 3])


def test_relabel_is_undone_by_the_inverse_order():
    batch = cells([DIAMOND], [1e5])
    order = torch.tensor([[0, 2, 1, 3, 4, 5]])
    changed = relabel(batch.dense, order)
    assert seen(changed, 0, 6) == rearranged(DIAMOND, order[0].tolist())
    assert torch.equal(relabel(changed, order.argsort(1)).adjacency, batch.dense.adjacency)


def test_uniform_is_reproducible_and_differs_between_draws():
    batch = pick(random_cells(40, 3, (6, 8)), range(40))
    first, second, again = [], [], []
    for seed, into in ((1, first), (2, second), (1, again)):
        torch.manual_seed(seed)
        into.append(uniform(batch.dense).adjacency)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("change", [uniform, first])
def test_large_graphs_are_refused_with_the_remedy(change):
    with pytest.raises(UserError, match=rf"augmentation={change.__name__} .* at most 8 nodes, a graph has 9: choose"):
        change(random_cells(3, 0, (9, 9)).dense)
