"""NN-Former's relations and the two layouts of attention against definitions, graph by graph."""

import networkx
import pytest
import torch

from predictors.layers import pairs, relation_attention
from predictors.layers.pairs import ListedPairs, PaddedPairs, lay_out
from predictors.layers.relation_attention import RaggedFeedForward, RelationAttention
from predictors.layers.relations import Relations, related, siblings
from tests.graphs import force_layout, random_cells


@pytest.fixture(params=["padded", "listed"])
def layout(request, monkeypatch):
    """Both layouts of the pairs, whatever the size of the graphs."""
    force_layout(monkeypatch, request.param)
    return {"padded": PaddedPairs, "listed": ListedPairs}[request.param]


def networks(seed):
    """Twelve random graphs of 2 to 40 nodes, one of them without edges at its last node."""
    batch = random_cells(12, seed, sizes=(2, 40))
    last = int(batch.ptr[1]) - 1
    return batch.edge_index[:, batch.edge_index[1] != last], batch.ptr


def masks(edge_index, ptr, index):
    """The four boolean matrices of one graph, from products of its adjacency, every node with itself."""
    first, last = int(ptr[index]), int(ptr[index + 1])
    inside = (edge_index[0] >= first) & (edge_index[0] < last)
    adjacency = torch.zeros(last - first, last - first)
    adjacency[tuple(edge_index[:, inside] - first)] = 1
    own = torch.eye(last - first)
    products = (adjacency, adjacency.T, adjacency.T @ adjacency, adjacency @ adjacency.T)
    return adjacency, torch.stack([matrix + own > 0 for matrix in products])


def test_related_nodes_of_random_graphs():
    edge_index, ptr = networks(0)
    head, (query, key) = related(edge_index, int(ptr[-1]))
    found = set(zip(head.tolist(), query.tolist(), key.tolist(), strict=True))
    assert len(found) == len(head)
    expected = {
        (h, first + q, first + k)
        for index, first in enumerate(ptr[:-1].tolist())
        for h, q, k in masks(edge_index, ptr, index)[1].nonzero().tolist()
    }
    assert found == expected


def test_siblings_are_those_of_the_graph():
    """Against networkx: successors of each node's predecessors, and one pair a common parent."""
    graph = networkx.gnp_random_graph(30, 0.15, seed=1, directed=True)
    parent, child = torch.tensor(list(graph.edges)).T
    expected = sorted((a, b) for node in graph for a in graph.successors(node) for b in graph.successors(node))
    assert sorted(map(tuple, siblings(parent, child).T.tolist())) == expected


def test_children_of_one_node_are_all_siblings():
    star = torch.stack([torch.zeros(300, dtype=torch.long), torch.arange(1, 301)])
    head, _ = related(star, 301)
    assert torch.bincount(head).tolist() == [601, 601, 300**2 + 1, 301]


def test_without_edges_every_node_is_alone():
    head, (query, key) = related(torch.empty(2, 0, dtype=torch.long), 3)
    assert head.tolist() == [0, 1, 2, 3] * 3
    assert torch.equal(query, key)


def test_pairs_of_a_long_chain_grow_with_its_length():
    counts = []
    for nodes in (1000, 10_000):
        chain = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
        relations = Relations(chain, torch.tensor([0, nodes]), nodes, 1)
        assert isinstance(relations.pairs, ListedPairs)
        counts.append(len(relations.pairs.query))
    assert counts == [4 * n + 2 * (n - 1) for n in (1000, 10_000)]


def chains(sizes):
    """Chains of ``sizes`` nodes one after the other, and the first node of each and the number of all."""
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    nodes = torch.arange(int(ptr[-1]) - 1)
    inside = ~torch.isin(nodes + 1, ptr)
    return torch.stack([nodes, nodes + 1])[:, inside], ptr


def test_small_graphs_are_padded_and_large_ones_are_not():
    for size, kind in ((pairs.DENSE_NODES, PaddedPairs), (400, ListedPairs)):
        edge_index, ptr = chains([size] * 3)
        assert isinstance(Relations(edge_index, ptr, int(ptr[-1]), 2).pairs, kind)


def test_large_graphs_with_many_pairs_are_padded():
    """A constant that k of 400 operations read adds k^2 pairs to one head; two copies change nothing."""
    edge_index, ptr = chains([400, 100])
    few, many = (int((4 * 2 * pairs.DENSE_SHARE) ** 0.5 * 400 * factor) for factor in (0.8, 1.1))
    for readers, kind in ((few, ListedPairs), (many, PaddedPairs)):
        read = torch.stack([torch.zeros(readers, dtype=torch.long), torch.arange(2, readers + 2)])
        for copies in (1, 2):
            relations = Relations(torch.cat([edge_index, read], 1), ptr, 500, copies)
            assert isinstance(relations.pairs, kind)


def test_the_share_of_pairs_is_of_those_that_padding_makes():
    """Two graphs and three heads: two matrices of the larger size each."""
    ptr, size = torch.tensor([0, 300, 400]), 300
    most = int(pairs.DENSE_SHARE * 3 * 2 * size**2)
    for count, kind in ((most, ListedPairs), (most + 1, PaddedPairs)):
        number = torch.arange(count)
        listed = torch.stack([number // size % size, number % size])
        assert isinstance(lay_out(listed, number // size**2, 3, ptr, 400), kind)


def by_graph(attention, x, edge_index, ptr):
    """Masked softmax attention of every graph on its own."""
    results = []
    for index, (first, last) in enumerate(ptr.unfold(0, 2, 1).tolist()):
        nodes, (adjacency, allowed) = x[first:last], masks(edge_index, ptr, index)
        nodes = nodes * attention.degree(adjacency.sum(1, keepdim=True).to(x.dtype)).sigmoid()
        q, k, v = (part.unflatten(1, (4, -1)).transpose(0, 1) for part in attention.qkv(nodes).chunk(3, 1))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        results.append(attention.proj(mixed.transpose(0, 1).flatten(1)))
    return torch.cat(results)


def test_attention_equals_masked_softmax_graph_by_graph(layout):
    """Outputs and all gradients, of one copy of the batch and of three."""
    torch.manual_seed(0)
    edge_index, ptr = networks(2)
    attention = RelationAttention(16, 0.0, degree_gate=True).double()
    x = torch.randn(int(ptr[-1]), 16, dtype=torch.float64, requires_grad=True)
    expected = by_graph(attention, x, edge_index, ptr)
    weights = [x, *attention.parameters()]
    for copies in (1, 3):
        relations = Relations(edge_index, ptr, len(x), copies)
        assert isinstance(relations.pairs, layout)
        seed = torch.randn(copies, *expected.shape, dtype=torch.float64)
        actual = attention(x, relations)
        torch.testing.assert_close(actual, expected.repeat(copies, 1))
        torch.testing.assert_close(attention(x.repeat(copies, 1), relations), actual)
        gradients = torch.autograd.grad(actual, weights, seed.flatten(0, 1))
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, weights, seed.sum(0), retain_graph=True))


def test_dropout_is_on_the_weights_and_on_the_result(layout, monkeypatch):
    seen = []
    monkeypatch.setattr(relation_attention, "dropout", lambda x, rate, training: seen.append((rate, training)) or 0 * x)
    edge_index, ptr = networks(4)
    attention = RelationAttention(8, 0.3, degree_gate=False)
    result = attention(torch.randn(int(ptr[-1]), 8), Relations(edge_index, ptr, int(ptr[-1]), 1))
    assert seen == [(0.3, True)] * 2
    assert not result.any()


def test_attention_bears_large_scores(layout):
    """Softmax of scores whose exponentials overflow: all weight on the node with the largest."""
    chain, ptr = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 3])
    relations = Relations(chain, ptr, 3, 1)
    q = torch.full((3, 4, 1), 1000.0)
    k = torch.arange(3.0)[:, None, None].expand(3, 4, 1)
    weights = relations.pairs.softmax(relations.pairs.dot(q, k))
    mixed = relations.pairs.mix(weights, k)[..., 0]
    assert mixed[:, 0].tolist() == [1, 2, 2]
    assert mixed[:, 1].tolist() == [0, 1, 2]


def test_feed_forward_equals_products_with_the_adjacency():
    torch.manual_seed(0)
    edge_index, ptr = networks(3)
    layer = RaggedFeedForward(8, 2, "relu", 0.0, bias=True).double()
    x = torch.randn(int(ptr[-1]), 8, dtype=torch.float64)
    expected = []
    for index, (first, last) in enumerate(ptr.unfold(0, 2, 1).tolist()):
        adjacency = masks(edge_index, ptr, index)[0].double()
        down, up = layer.gcn(x[first:last]).chunk(2, 1)
        expected.append(layer.fc2((layer.fc1(x[first:last]) + torch.cat([adjacency @ down, adjacency.T @ up], 1)).relu()))
    relations = Relations(edge_index, ptr, len(x), 2)
    torch.testing.assert_close(layer(x.repeat(2, 1), relations), torch.cat(expected).repeat(2, 1))
