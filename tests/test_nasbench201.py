"""NAS-Bench-201: official files against hand computation, the table against published facts, graphs against networkx."""

import math
import shutil

import golden
import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from datasets.base import DatasetConfig, LabelConfig, LoadingConfig
from datasets.cells201 import NODE_EDGES, NODE_OPERATIONS, enumerate_cells, node_operations, parse_cell
from datasets.cells201_graphs import HASH_RULE, cell_hashes, graph_columns, used_nodes
from datasets.errors import UserError
from datasets.nasbench201 import NASBench201
from datasets.nasbench201_cost import cell_costs
from datasets.nasbench201_official import read_nats, read_pth
from datasets.protocol_types import ProtocolConfig
from tests.data.nasbench201 import make

NONE, OUTPUT = NODE_OPERATIONS.index("none"), NODE_OPERATIONS.index("output")


def pruned(nodes):
    """The DAG of ``used_nodes``, by its definition: nodes on a path from input to output that avoids ``none``."""
    graph = nx.DiGraph(NODE_EDGES)
    graph.remove_nodes_from([v for v in range(8) if nodes[v] == NONE])
    keep = {0, 7} | ((nx.descendants(graph, 0) & nx.ancestors(graph, 7)) if nx.has_path(graph, 0, 7) else set())
    kept = graph.subgraph(keep).copy()
    nx.set_node_attributes(kept, {v: int(nodes[v]) for v in keep}, "op")
    return kept


def same(a, b):
    return nx.is_isomorphic(a, b, node_match=lambda x, y: x["op"] == y["op"])


def test_graph_columns_are_the_fixed_dag():
    cell = "|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
    ops, edges, hashes = graph_columns([cell, cell])
    assert ops.values.reshape(2, 8).tolist() == [[0, 1, 5, 3, 4, 2, 5, 6]] * 2
    pairs = [(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)]
    assert [tuple(pair) for pair in edges.values[edges.offsets[1] : edges.offsets[2]]] == pairs
    assert hashes.shape == (2, 16)
    assert graph_columns([])[2].shape == (0, 16)


def test_dag_follows_from_the_four_feature_maps():
    """An operation's node precedes another's exactly where its target feature map is the other's source."""
    ends = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    want = {(0, 1 + i) for i, (source, _) in enumerate(ends) if source == 0}
    want |= {(1 + i, 1 + j) for i, a in enumerate(ends) for j, b in enumerate(ends) if a[1] == b[0]}
    want |= {(1 + i, 7) for i, (_, target) in enumerate(ends) if target == 3}
    assert set(NODE_EDGES) == want


def test_pruning_and_hash_against_networkx():
    nodes = node_operations(enumerate_cells())
    rng = np.random.default_rng(0)
    sample = nodes[rng.choice(len(nodes), 500, replace=False)]
    used, hashes = used_nodes(sample), [h.tobytes() for h in cell_hashes(sample)]
    graphs = [pruned(row) for row in sample]
    assert [set(np.flatnonzero(mask)) for mask in used] == [set(graph) for graph in graphs]
    kinds = {}
    for graph, key in zip(graphs, hashes, strict=True):
        signature = (graph.number_of_edges(), *sorted(op for _, op in graph.nodes(data="op")))
        kinds.setdefault(signature, []).append((graph, key))
    equal = 0
    for alike in kinds.values():
        for i, (graph, key) in enumerate(alike):
            for other, other_key in alike[i + 1 :]:
                assert same(graph, other) == (key == other_key)
                equal += key == other_key
    assert equal > 20
    assert len({key for alike in kinds.values() for _, key in alike}) == len(set(hashes))


def test_different_cells_of_one_hash_are_isomorphic():
    nodes = node_operations(enumerate_cells())
    distinct = np.unique(np.where(used_nodes(nodes), nodes, NONE), axis=0)
    assert len(distinct) == 9445
    groups = {}
    for row, key in zip(distinct, cell_hashes(distinct), strict=True):
        groups.setdefault(key.tobytes(), []).append(row)
    assert len(groups) == 8765
    several = [[pruned(row) for row in rows] for rows in groups.values() if len(rows) > 1]
    assert all(same(first, other) for first, *others in several for other in others)


def test_golden_cells(golden_folder):
    cells = golden.facts(golden_folder, "cells", "nb201.json")["cells"]
    ops, edges, _ = graph_columns([cell["raw"]["arch_str"] for cell in cells])
    nodes, count = ops.values.reshape(-1, 8), len(cells)
    adjacency = np.zeros((count, 8, 8), int)
    adjacency[np.repeat(np.arange(count), edges.counts), edges.values[:, 0], edges.values[:, 1]] = 1
    assert nodes.tolist() == [cell["v1"]["ops"] for cell in cells]
    assert adjacency.tolist() == [cell["v1"]["adj"] for cell in cells]
    used = used_nodes(nodes)
    assert used.sum(1).tolist() == [cell["nnformer"]["n"] for cell in cells]
    assert [row[mask].tolist() for row, mask in zip(nodes, used, strict=True)] == [c["nnformer"]["ops"] for c in cells]
    assert [a[m][:, m].tolist() for a, m in zip(adjacency, used, strict=True)] == [c["nnformer"]["adj"] for c in cells]


def network(cell):
    """The layers of the published network that cost anything, each with the side of its output."""

    def convolution(a, b, kernel, side):
        return [(nn.Conv2d(a, b, kernel, bias=False), side)]

    layers = [*convolution(3, 16, 3, 32), (nn.BatchNorm2d(16), 0)]
    for channels, side in ((16, 32), (32, 16), (64, 8)):
        if channels > 16:
            half = channels // 2
            layers += convolution(half, channels, 3, side) + convolution(channels, channels, 3, side)
            layers += [*convolution(half, channels, 1, side), (nn.BatchNorm2d(channels), 0), (nn.BatchNorm2d(channels), 0)]
        for _ in range(5):
            for op in parse_cell(cell):
                if op.startswith("nor_conv"):
                    layers += [*convolution(channels, channels, int(op[-1]), side), (nn.BatchNorm2d(channels), 0)]
    return [*layers, (nn.BatchNorm2d(64), 0), (nn.Linear(64, 10), 1)]


@pytest.mark.parametrize("cell", make.CELLS)
def test_costs_against_the_layers_themselves(cell):
    layers = network(cell)
    params, flops = cell_costs(node_operations([cell]))
    assert params[0] == sum(p.numel() for layer, _ in layers for p in layer.parameters())
    assert flops[0] == sum(layer.weight.numel() * side**2 for layer, side in layers)


def by_hand(index, name, epochs):
    """A label of the miniature files, written out."""
    dataset, split = {
        "cifar10valid_validation": ("cifar10-valid", "x-valid"),
        "cifar10valid_test": ("cifar10-valid", "ori-test"),
        "cifar10_test": ("cifar10", "ori-test"),
        "cifar100_validation": ("cifar100", "x-valid"),
        "cifar100_test": ("cifar100", "x-test"),
        "imagenet16_validation": ("ImageNet16-120", "x-valid"),
        "imagenet16_test": ("ImageNet16-120", "x-test"),
    }[name]
    seeds = make.SEEDS[epochs][dataset]
    return math.fsum(make.accuracy(index, dataset, split, epochs - 1, epochs, s) for s in seeds) / len(seeds) / 100


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    make.make_nats(root / "nats")
    make.make_pth(root / "new.pth")
    make.make_pth(root / "legacy.pth", legacy=True)
    return root


@pytest.mark.parametrize("form", ["nats", "new.pth", "legacy.pth"])
def test_official_labels_equal_hand_computation(official, form):
    columns, manifest = (read_nats if form == "nats" else read_pth)(official / form)
    assert list(columns.keys) == list(make.CELLS)
    assert len(columns.labels) == 14
    assert dict(manifest.labels) == dict.fromkeys(columns.labels, "fraction")
    for label, values in columns.labels.items():
        dataset, split, epochs = label.removesuffix("ep").split("_")
        want = [by_hand(i, f"{dataset}_{split}", int(epochs)) for i in range(3)]
        np.testing.assert_allclose(values, want, rtol=1e-14, err_msg=label)
    assert columns.static["params"].tolist() == [129_306, 1_129_306, 2_129_306]
    assert columns.static["flops"].tolist() == [15_647_360, 16_647_360, 17_647_360]
    assert manifest.hash_rule == HASH_RULE


def test_absent_trainings_are_nan_and_absent_labels_are_left_out(tmp_path):
    content = make.pth_content()
    for info in content["arch2infos"].values():
        info["less"]["dataset_seed"] = {"cifar10-valid": [777]}
    content["arch2infos"][1]["full"]["dataset_seed"].pop("cifar100")
    del content["arch2infos"][2]["full"]["all_results"]["cifar10", 888]["eval_acc1es"]["ori-test@199"]
    columns, manifest = read_pth(make.make_pth(tmp_path / "v1_0.pth", content))
    twelve = [name for name in columns.labels if name.endswith("_12ep")]
    assert twelve == ["cifar10valid_validation_12ep", "cifar10valid_test_12ep"]
    expected = make.accuracy(0, "cifar10-valid", "x-valid", 11, 12, 777) / 100
    assert columns.labels["cifar10valid_validation_12ep"][0] == pytest.approx(expected, rel=1e-14)
    assert np.isnan(columns.labels["cifar100_test_200ep"]).tolist() == [False, True, False]
    assert np.isnan(columns.labels["cifar10_test_200ep"]).tolist() == [False, False, True]
    gaps = {"cifar10_test_200ep": 1, "cifar100_validation_200ep": 1, "cifar100_test_200ep": 1}
    assert manifest.notes == {"cells without a label": gaps}


def damage_of_content():
    def other_cell(content):
        content["arch2infos"][1]["less"]["arch_str"] = make.CELLS[0]

    def no_record(content):
        del content["arch2infos"][2]

    def no_less(content):
        del content["arch2infos"][2]["less"]

    def no_cells(content):
        del content["meta_archs"]

    def no_architectures(content):
        content["meta_archs"] = []

    def no_records(content):
        content["arch2infos"] = None

    def bad_cell(content):
        content["meta_archs"][1] = "|conv~0|"
        for epochs in ("full", "less"):
            content["arch2infos"][1][epochs]["arch_str"] = "|conv~0|"

    def no_trial(content):
        del content["arch2infos"][0]["full"]["all_results"]["cifar10", 888]

    def other_epochs(content):
        content["arch2infos"][0]["full"]["all_results"]["cifar10", 888]["epochs"] = 90

    def no_number(content):
        content["arch2infos"][1]["full"]["all_results"]["cifar10", 888]["eval_acc1es"]["ori-test@199"] = "high"

    def no_percent(content):
        content["arch2infos"][1]["full"]["all_results"]["cifar10", 888]["eval_acc1es"]["ori-test@199"] = 950.0

    def no_costs(content):
        content["arch2infos"][0]["full"]["dataset_seed"] = {}

    def cost(value):
        def damage(content):
            content["arch2infos"][1]["full"]["all_results"]["cifar10-valid", 777]["params"] = value

        return damage

    def tensor(content):
        content["arch2infos"][0]["full"]["all_results"]["cifar10-valid", 777]["params"] = torch.ones(1)

    return {
        other_cell: "architecture 1: the record is not of",
        no_record: "architecture 2: no full and less",
        no_less: "architecture 2: no full and less",
        no_cells: "no meta_archs",
        no_architectures: "no architectures inside",
        no_records: "no arch2infos",
        bad_cell: r"row 1, arch_str: '\|conv~0\|' is not",
        no_trial: r"architecture 0: not of the official layout \(KeyError\(\('cifar10', 888\)",
        other_epochs: "architecture 0: .*cifar10 was not trained for 200 epochs",
        no_number: "architecture 1: .*'high'",
        no_percent: "architecture 1: .*no accuracy in percent",
        no_costs: "architecture 0: .*no CIFAR-10 training of 200 epochs",
        **{cost(value): "architecture 1: .*params is" for value in (math.inf, -math.inf, 1e300, -1e3, math.nan)},
        cost(10**400): "architecture 1: .*OverflowError",
        tensor: "architecture 0: not of the official layout",
    }


@pytest.mark.parametrize(("damage", "message"), damage_of_content().items(), ids=lambda x: getattr(x, "__name__", ""))
def test_damaged_pth_content(tmp_path, damage, message):
    content = make.pth_content()
    damage(content)
    with pytest.raises(UserError, match=rf"x\.pth: {message}"):
        read_pth(make.make_pth(tmp_path / "x.pth", content))


@pytest.fixture
def nats(official, tmp_path):
    return shutil.copytree(official / "nats", tmp_path / "nats")


@pytest.mark.parametrize("name", ["meta.pickle.pbz2", "000001.pickle.pbz2"])
def test_damaged_nats_series(nats, name):
    path, whole = nats / name, (nats / name).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        read_nats(nats)
    path.write_bytes(b"no bz2")
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        read_nats(nats)
    path.unlink()
    with pytest.raises(UserError, match=rf"{name}: missing from the series"):
        read_nats(nats)
    make.write_packed(path, ["other"])
    with pytest.raises(UserError, match=rf"{name}: no "):
        read_nats(nats)
    make.write_packed(path, eval)
    with pytest.raises(UserError, match=rf"{name}: refused builtins\.eval"):
        read_nats(nats)


def test_nats_file_of_another_architecture(nats):
    shutil.copy(nats / "000000.pickle.pbz2", nats / "000001.pickle.pbz2")
    with pytest.raises(UserError, match=r"000001\.pickle\.pbz2: the record is not of"):
        read_nats(nats)


def test_nats_decompression_bomb(nats, monkeypatch):
    monkeypatch.setattr("datasets.nasbench201_official._LARGEST", 1 << 20)
    make.write_packed(nats / "000000.pickle.pbz2", bytes(1 << 21))
    with pytest.raises(UserError, match=r"000000\.pickle\.pbz2: unpacks to more than 1 MiB"):
        read_nats(nats)


def benchmark(root, cache, test):
    config = DatasetConfig(
        "datasets.nasbench201:NASBench201",
        "nasbench201",
        str(root),
        str(cache),
        True,
        LabelConfig("cifar10valid_validation_200ep", "cifar10valid_validation_200ep", test),
    )
    return NASBench201(config, ProtocolConfig("paper", 1, 1, "all", 0), LoadingConfig(batch_size=4, eval_nodes=64), seed=0)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (make.make_nats, "NATS-tss-v1_0-3ffb9-simple"),
        (make.make_pth, "NAS-Bench-201-v1_1-096897.pth"),
        (make.make_pth, "NAS-Bench-201-v1_0-e61699.pth"),
        (lambda path: make.make_table(path, hp200_c10_test=[84.0, 92.0]), "nasbench201.parquet"),
    ],
)
def test_benchmark_from_every_source(tmp_path, made, name):
    (tmp_path / "root").mkdir()
    made(tmp_path / "root" / name)
    data = benchmark(tmp_path / "root", tmp_path / "cache", "cifar10_test_200ep")
    data.prepare_data()
    data.setup()
    assert data.spec.task == "accuracy"
    assert data.spec.unit == "fraction"
    assert data.spec.operations == NODE_OPERATIONS
    assert data.store.manifest.source["file"] == name
    batch = next(iter(data.test_dataloader()))
    assert batch.dense.op.shape == (len(data.store), 8)
    assert (batch.dense.op[:, -1] == OUTPUT).all()
    assert batch.target.tolist() == pytest.approx(data.store.label("cifar10_test_200ep").tolist())
    assert data.store.keys(np.arange(2)).to_pylist() == list(make.CELLS[:2])


def test_benchmark_without_files(tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)NATS-tss-v1_0-3ffb9-simple.*NAS-Bench-201-v1_1-096897.pth.*nasbench201.parquet"
    ):
        benchmark(tmp_path, tmp_path / "cache", "cifar10_test_200ep").prepare_data()
