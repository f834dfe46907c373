"""Whole NAS-Bench-201 networks against the published network built of torch modules and traced."""

import operator
import warnings
from functools import reduce

import networkx as nx
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from datasets.cells201 import CELL_EDGES, cell_string, enumerate_cells, node_operations, parse_cell
from datasets.nasbench201_cost import cell_costs
from datasets.networks import OPERATIONS
from datasets.networks201 import Setting, expand
from datasets.networks201_hash import layer_graph, network_hashes
from datasets.onnx_graph import read_network

CELLS = (
    cell_string(("none",) * 6),
    cell_string(("skip_connect",) * 6),
    cell_string(("nor_conv_3x3", "none", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")),
    cell_string(("skip_connect", "nor_conv_1x1", "nor_conv_1x1", "avg_pool_3x3", "none", "skip_connect")),
)
OVERLAP = cell_string(("skip_connect", "skip_connect", "skip_connect", "nor_conv_3x3", "avg_pool_3x3", "none"))
SETTINGS = (Setting(), Setting(batch=2, side=16, classes=120))


class Zero(nn.Module):
    def forward(self, x):
        return x.mul(0.0)


def relu_conv_norm(inputs, outputs, kernel, stride=1):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs))


class Cell(nn.Module):
    def __init__(self, cell, width):
        super().__init__()
        make = {
            "none": Zero,
            "skip_connect": nn.Identity,
            "nor_conv_1x1": lambda: relu_conv_norm(width, width, 1),
            "nor_conv_3x3": lambda: relu_conv_norm(width, width, 3),
            "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        }
        self.operations = nn.ModuleList(make[name]() for name in parse_cell(cell))

    def forward(self, x):
        maps = [x]
        for target in (1, 2, 3):
            inputs = [k for k, edge in enumerate(CELL_EDGES) if edge[1] == target]
            maps.append(reduce(operator.add, (self.operations[k](maps[CELL_EDGES[k][0]]) for k in inputs)))
        return maps[3]


class Reduction(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.main = nn.Sequential(relu_conv_norm(width // 2, width, 3, 2), relu_conv_norm(width, width, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2, 0), nn.Conv2d(width // 2, width, 1, bias=False))

    def forward(self, x):
        main = self.main(x)
        return self.shortcut(x) + main


def network(cell, classes):
    """The published network, N = 5 and C = 16."""
    parts = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), *(Cell(cell, 16) for _ in range(5))]
    for width in (32, 64):
        parts += [Reduction(width), *(Cell(cell, width) for _ in range(5))]
    head = (nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    return nn.Sequential(*parts, *head).eval()


NAMES = {
    nn.Conv2d: "Conv",
    nn.BatchNorm2d: "BatchNormalization",
    nn.ReLU: "Relu",
    nn.AvgPool2d: "AveragePool",
    nn.AdaptiveAvgPool2d: "GlobalAveragePool",
    nn.Flatten: "Flatten",
    nn.Linear: "Gemm",
    operator.add: "Add",
    "mul": "Mul",
}


def square(value):
    return value[0] if isinstance(value, tuple) else value


def attributes(module):
    if isinstance(module, nn.Conv2d):
        values = [*map(square, (module.kernel_size, module.stride, module.padding, module.dilation)), module.groups, 0]
    elif isinstance(module, nn.AvgPool2d):
        values = [module.kernel_size, module.stride, module.padding]
    else:
        values = [1] if isinstance(module, nn.Linear) else []
    return values + [0] * (8 - len(values))


def cost(name, module, inputs, output):
    """FLOPs and parameters by the rules of the official extractor, from a traced layer's tensors."""
    batch, channels = output[:2]
    size = int(np.prod(output))
    if name == "Conv":
        weights = module.weight[0].numel()
        return size // batch * (2 * weights - 1), channels * weights
    if name == "Gemm":
        return channels * 2 * inputs[1], channels * (inputs[1] + 1)
    if name == "GlobalAveragePool":
        return channels * inputs[2], 0
    if name == "AveragePool":
        return size // batch * module.kernel_size**2, 0
    if name == "BatchNormalization":
        return 4 * size, 4 * channels
    return (size if name in ("Add", "Mul") else 0), 0


def traced(cell, setting):
    """Nodes (operation, attributes, shape), edges, FLOPs, parameters and memory of the traced network."""
    model = fx.symbolic_trace(network(cell, setting.classes))
    modules = dict(model.named_modules())
    ShapeProp(model).propagate(torch.zeros(setting.batch, 3, setting.side, setting.side))
    place, nodes, edges, totals = {}, [], set(), np.zeros(3, int)
    for node in model.graph.nodes:
        if node.op == "output":
            continue
        module = modules.get(node.target)
        if isinstance(module, nn.Identity):
            place[node] = place[node.args[0]]
            continue
        name = "Input" if node.op == "placeholder" else NAMES[type(module) if module is not None else node.target]
        shape = tuple(node.meta["tensor_meta"].shape)
        if name == "Mul":
            edges.add((len(nodes), len(nodes) + 1))
            nodes.append(("Input", [0] * 8, [0] * 4))
        edges |= {(place[parent], len(nodes)) for parent in node.all_input_nodes}
        if name != "Input":
            flops, params = cost(name, module, tuple(node.all_input_nodes[0].meta["tensor_meta"].shape), shape)
            totals += flops, params, int(np.prod(shape)) + params
        place[node] = len(nodes)
        nodes.append((name, attributes(module), [*shape, *[0] * (4 - len(shape))]))
    return nodes, edges, totals.tolist()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_networks_are_those_of_the_traced_modules(setting):
    networks = expand(CELLS, setting)
    for row, cell in enumerate(CELLS):
        nodes, edges, totals = traced(cell, setting)
        here = slice(networks.ops.offsets[row], networks.ops.offsets[row + 1])
        assert [OPERATIONS[op] for op in networks.ops.values[here]] == [name for name, _, _ in nodes]
        assert networks.attributes.values[here].tolist() == [values for _, values, _ in nodes]
        assert networks.output_shape.values[here].tolist() == [shape for _, _, shape in nodes]
        pairs = networks.edges.take(np.array([row]))[0].tolist()
        assert sorted(map(tuple, pairs)) == sorted(edges)
        assert [int(networks.static[name][row]) for name in ("flops", "params", "memory")] == totals
    assert networks.static["batch"].tolist() == [setting.batch] * len(CELLS)


@pytest.mark.parametrize("cell", [CELLS[2], OVERLAP])
def test_networks_are_those_of_an_exported_file(tmp_path, cell):
    """The ONNX file that torch exports, read as any other model is; tensors stand in the order of the file.

    In neither cell are there two equal layers on one tensor, which torch would merge.
    """
    model, path = network(cell, 10), tmp_path / "network.onnx"
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        torch.onnx.export(model, torch.zeros(1, 3, 32, 32), path, dynamo=False, **keep)
    read = read_network(path, batch=2)
    tensors = [onnx_input.name for onnx_input in onnx.load(path).graph.input]
    tensors += [name for node in onnx.load(path).graph.node for name in node.output]
    order = [read.names.index(name) for name in tensors]
    place = np.argsort(order)
    networks = expand([cell], Setting(batch=2))
    assert networks.ops.values.tolist() == read.ops[order].tolist()
    assert networks.attributes.values.tolist() == read.attributes[order].tolist()
    assert networks.output_shape.values.tolist() == read.output_shape[order].tolist()
    assert sorted(networks.edges.values.tolist()) == sorted(place[read.edges].tolist())
    assert {name: float(values[0]) for name, values in networks.static.items()} == read.static


def trainable(networks):
    """Parameters as torch counts them: two a normalised channel, where NNLQP counts four."""
    norm = networks.ops.values == OPERATIONS.index("BatchNormalization")
    channels = np.where(norm, networks.output_shape.values[:, 1], 0).astype(int)
    return networks.static["params"] - 2 * np.add.reduceat(channels, networks.ops.offsets[:-1])


def test_trainable_parameters_are_the_official_ones(shared):
    table = pq.read_table(shared / "data/nasbench201.parquet", columns=["arch_str", "params_M_nats"])
    networks = expand(table["arch_str"].to_pylist(), Setting())
    official = np.rint(table["params_M_nats"].to_numpy() * 1e6).astype(int)
    np.testing.assert_array_equal(trainable(networks), official)
    assert (networks.ops.counts.min(), networks.ops.counts.max(), networks.ops.counts.mean()) == (71, 341, 233)


def test_costs_agree_with_those_of_the_cells():
    cells = enumerate_cells()[::50]
    networks = expand(cells, Setting())
    params, macs = cell_costs(node_operations(cells))
    np.testing.assert_array_equal(trainable(networks), params)
    layer = networks.ops.values
    size = networks.output_shape.values[:, 1:].prod(1)
    kernel = networks.attributes.values[:, 0]
    pooled = (size * kernel**2) * (layer == OPERATIONS.index("AveragePool"))
    summed = size * np.isin(layer, [OPERATIONS.index("Add"), OPERATIONS.index("Mul")])
    normalised = 4 * size * (layer == OPERATIONS.index("BatchNormalization"))
    biasless = -size * (layer == OPERATIONS.index("Conv"))
    other = np.add.reduceat(pooled + summed + normalised + biasless, networks.ops.offsets[:-1])
    np.testing.assert_array_equal(networks.static["flops"], 2 * macs + other + 64 * 8)


def test_hash_is_equal_for_isomorphic_networks_only():
    """A sum is one node here whatever its order, so that equal hashes mean equal sums of equal layers."""
    rng = np.random.default_rng(0)
    names = ("none", "skip_connect", "nor_conv_3x3")
    cells = [cell_string(list(rng.choice(names, 6))) for _ in range(300)]
    cells = list(dict.fromkeys(cells))
    hashes = [h.tobytes() for h in network_hashes(cells)]
    graphs = [flattened(parse_cell(cell)) for cell in cells]
    equal = 0
    for i, first in enumerate(graphs):
        for j in range(i):
            if sorted(n for _, n in first.nodes(data="op")) != sorted(n for _, n in graphs[j].nodes(data="op")):
                assert hashes[i] != hashes[j]
                continue
            same = nx.is_isomorphic(
                first,
                graphs[j],
                node_match=lambda a, b: a["op"] == b["op"],
                edge_match=lambda a, b: a["count"] == b["count"],
            )
            assert same == (hashes[i] == hashes[j])
            equal += same
    assert equal > 20


def flattened(operations):
    """The layers of a cell and its sums, every sum that only feeds another one merged into it."""
    graph = nx.DiGraph()
    graph.add_node("map0", op="input")

    def feed(parent, child):
        count = graph.edges[parent, child]["count"] if graph.has_edge(parent, child) else 0
        graph.add_edge(parent, child, count=count + 1)

    for target in (1, 2, 3):
        graph.add_node(f"map{target}", op="sum")
    graph.nodes["map3"]["op"] = "output"
    for k, ((source, target), operation) in enumerate(zip(CELL_EDGES, operations, strict=True)):
        if operation == "skip_connect":
            feed(f"map{source}", f"map{target}")
        else:
            graph.add_node(k, op=operation)
            feed(f"map{source}", k)
            feed(k, f"map{target}")
    (parent,) = graph.predecessors("map1")
    for child in list(graph.successors("map1")):
        feed(parent, child)
    graph.remove_node("map1")
    if graph.has_edge("map2", "map3"):
        for parent in list(graph.predecessors("map2")):
            for _ in range(graph.edges[parent, "map2"]["count"]):
                feed(parent, "map3")
        graph.remove_node("map2")
    return graph


def test_layer_graph_of_a_known_cell():
    """Map 1 is the input itself, and the sum of map 2 belongs to the last one."""
    operations = ("skip_connect", "none", "skip_connect", "skip_connect", "nor_conv_1x1", "skip_connect")
    edges, labels = layer_graph(operations)
    assert labels == ["input", "output", "none", "nor_conv_1x1"]
    assert sorted(edges) == [(0, 1), (0, 1), (0, 2), (0, 3), (2, 1), (3, 1)]


def test_equal_hashes_are_equal_latencies(shared):
    """The Eyeriss model adds up layers, so networks of the same layers take the same time to the last digit."""
    table = pq.read_table(shared / "data/nasbench201.parquet", columns=["arch_str", "help_lat_eyeriss"])
    cells, latency = table["arch_str"].to_pylist()[:3000], table["help_lat_eyeriss"].to_numpy()[:3000]
    _, group = np.unique(network_hashes(cells), axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    repeated = np.flatnonzero(np.diff(group[order]) == 0)
    assert len(repeated) > 100
    np.testing.assert_allclose(latency[order[repeated]], latency[order[repeated + 1]], rtol=1e-12)
