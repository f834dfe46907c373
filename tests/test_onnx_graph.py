"""ONNX files as graphs of operations: the official extractor's facts, and rules worked out by hand."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import golden
import networkx as nx
import numpy as np
import onnx
import pytest
import torch
from onnx import StringStringEntryProto, TensorProto, external_data_helper, helper, numpy_helper

from datasets import onnx_dag
from datasets.errors import UserError
from datasets.network_graph import batch, join
from datasets.networks import ATTRIBUTES, OPERATIONS, STATIC
from datasets.onnx_cost import flops_as_code, memory, params_as_code
from datasets.onnx_file import parse
from datasets.onnx_graph import network_of, read_network
from datasets.onnx_operator import operators_of
from datasets.onnx_shapes import infer_shapes, set_batch
from datasets.store import Manifest, write_store
from tests.onnx_models import branches, class_token, integers, model, node, small_network, tensor, weight
from tests.test_network_features import VIEWS

OUTSIDE = TensorProto(
    name="t",
    data_type=TensorProto.INT64,
    dims=[2],
    data_location=TensorProto.EXTERNAL,
    external_data=[StringStringEntryProto(key="location", value="outside")],
)
"""A tensor kept in another file."""


def read(built, batch=None, *, as_code=False):
    return network_of(parse(built.SerializeToString(), "m.onnx"), batch, as_code=as_code)


def row(graph, name):
    """Operation, attributes and output shape of a node."""
    place = graph.names.index(name)
    return OPERATIONS[graph.ops[place]], graph.attributes[place].tolist(), graph.output_shape[place].tolist()


def edges(graph):
    return {(graph.names[a], graph.names[b]) for a, b in graph.edges.tolist()}


# --- the official extractor ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_onnx(golden_folder):
    return golden_folder / "onnx"


@pytest.mark.parametrize("view", VIEWS)
def test_graphs_equal_the_official_ones(golden_onnx, view):
    facts = golden.facts(golden_onnx, f"extract_{view}.json")["graphs"]
    expected = golden.tensors(golden_onnx, f"extract_{view}.safetensors")
    if not facts:
        pytest.skip("no graphs")
    nodes, static = VIEWS[view]
    for key, fact in facts.items():
        graph = read_network(golden_onnx / fact["file"], fact["batch"])
        assert list(graph.names) == [each["name"] for each in fact["nodes"]], key
        for op, each in zip(graph.ops, fact["nodes"], strict=True):
            known = each["in_vocabulary"] or each["op"] == "Input"
            assert OPERATIONS[op] == (each["op"] if known else "Unknown"), (key, each)
        assert graph.edges.tolist() == sorted(fact["directed_edges"]), key
        assert graph.static == {
            "batch": fact["batch"],
            "flops": fact["flops"],
            "params": fact["params"],
            "memory": fact["mem"],
        }, key
        columns = batch([graph])
        limit = 1e-5 if view == "nnlp" else golden.code_limit(columns)
        torch.testing.assert_close(nodes(columns), expected[f"{key}/x"], atol=limit, rtol=1e-6, equal_nan=True)
        torch.testing.assert_close(static(columns.static)[0], expected[f"{key}/static"].flatten(), atol=1e-5, rtol=1e-6)
        adjacency = columns.dense.adjacency[0]
        adjacency = adjacency if view == "lat" else adjacency | adjacency.T
        assert torch.equal(adjacency, expected[f"{key}/adj"].bool()), key


def test_costs_of_every_node_equal_the_official_ones(golden_onnx):
    facts = golden.facts(golden_onnx, "extract_nnlp.json")["graphs"]
    compared = 0
    for key, fact in facts.items():
        file = parse((golden_onnx / fact["file"]).read_bytes(), key)
        size = set_batch(file, fact["batch"])
        made = {name: each for each in operators_of(file, infer_shapes(file), as_code=True) for name in each.node.outputs}
        for each in fact["nodes"]:
            if each["flops_params_mem"] is not None:
                operator = made[each["name"]]
                params = params_as_code(operator)
                cost = [flops_as_code(operator, size), params, memory(operator) + params]
                assert cost == each["flops_params_mem"], (key, each["name"])
                compared += 1
    if not compared:
        pytest.skip("no graphs")


def test_what_the_official_code_refuses(golden_onnx):
    failures = golden.facts(golden_onnx, "extract_nnlp.json").get("expected_failures")
    if not failures:
        pytest.skip("no files that the official code refuses")
    for name in failures:
        with pytest.raises(UserError, match=r"NNLQP's code does not read .*features=fixed"):
            read_network(golden_onnx / name)
        graph = read_network(golden_onnx / name, 2, "fixed")
        assert np.isfinite(graph.output_shape).all()
        assert graph.static["batch"] == 2


def test_fixed_differs_from_the_official_graph_in_values_only(golden_onnx):
    """FLOPs are at least the official ones and rise evenly with the batch size, unless the file allows only one."""
    for fact in golden.facts(golden_onnx, "extract_nnlp.json")["graphs"].values():
        file, size = golden_onnx / fact["file"], fact["batch"]
        old, new = read_network(file, size), read_network(file, size, "fixed")
        assert old.names == new.names
        assert np.array_equal(old.edges, new.edges)
        assert new.static["flops"] >= old.static["flops"]
        try:
            double, triple = (read_network(file, k * size, "fixed").static["flops"] for k in (2, 3))
        except UserError:
            continue
        assert triple - double == double - new.static["flops"] > 0


# --- nodes and edges -------------------------------------------------------------------------------------------------


def test_order_is_that_of_networkx_and_edges_follow_tensors():
    built = small_network()
    graph = read(built, 2)
    expected = nx.DiGraph()
    expected.add_nodes_from(name for each in built.graph.node for name in each.output)
    for each in built.graph.node:
        data = each.input if each.op_type not in ("Conv", "BatchNormalization", "Gemm", "Reshape") else each.input[:1]
        expected.add_edges_from((name, each.output[0]) for name in data)
    expected.remove_node("shape")
    assert list(graph.names) == list(nx.topological_sort(expected))
    assert edges(graph) == set(expected.edges)
    assert row(graph, "k") == ("Input", [0.0] * 8, [8, 4, 0, 0])
    assert row(graph, "x") == ("Input", [0.0] * 8, [2, 3, 8, 8])


def test_multiple_outputs_and_repeated_inputs():
    nodes = [
        node("Split", "x", "a b dead", axis=1, num_outputs=3),
        node("Mul", "a a", "s"),
        node("Dropout", "b", "d mask"),
        node("Add", "s d", "y"),
    ]
    graph = read(model(nodes, [tensor("x", 1, 6, 2, 2)], ["y"], opset=18))
    assert set(graph.names) == {"x", "a", "b", "s", "d", "y"}
    assert edges(graph) == {("x", "a"), ("x", "b"), ("a", "s"), ("s", "y"), ("b", "d"), ("d", "y")}
    assert graph.unknown == Counter(Dropout=1)


def test_computed_parameters_are_edges_and_constants_are_not():
    nodes = [
        node("Constant", "", "w", value=helper.make_tensor("", TensorProto.FLOAT, [4, 3, 1, 1], [0.0] * 12)),
        node("Conv", "x w", "c"),
        node("Sigmoid", "raw", "gate"),
        node("Conv", "c gate", "y"),
    ]
    graph = read(model(nodes, [tensor("x", 1, 3, 5, 5)], ["y"], [weight("raw", 2, 4, 3, 3)]))
    assert edges(graph) == {("x", "c"), ("c", "y"), ("gate", "y"), ("raw", "gate")}
    assert row(graph, "y")[1] == [3, 1, 0, 1, 1, 0, 0, 0]
    assert graph.static["params"] == 12 + 72


def test_weights_declared_as_inputs_only_keep_their_size():
    nodes = [node("Conv", "x w b", "c"), node("Relu", "c", "y")]
    graph = read(model(nodes, [tensor("x", 1, 3, 5, 5), tensor("w", 4, 3, 1, 1), tensor("b", 4)], ["y"]), 8)
    assert graph.names == ("x", "c", "y")
    assert row(graph, "c") == ("Conv", [1, 1, 0, 1, 1, 1, 0, 0], [8, 4, 5, 5])
    assert graph.static["params"] == 16


def test_copies_of_parameters_are_parameters():
    """An Identity of an initializer or Constant, as exporters make for parameters of equal value."""
    bias = helper.make_tensor("", TensorProto.FLOAT, [8], [0.0] * 8)

    def built(nodes, weights):
        nodes = [*nodes, node("BatchNormalization", "x g b m v", "n"), node("Add", "n k", "y")]
        return model(nodes, [tensor("x", 1, 8, 4, 4)], ["y"], weights)

    own = [weight("g", 8), weight("v", 8), weight("k", 1, 8, 1, 1)]
    shared = [weight("g", 8), weight("k0", 1, 8, 1, 1)]
    copies = [node("Constant", "", "b", value=bias), node("Identity", "b", "m"), node("Identity", "g", "i")]
    copies += [node("Identity", "i", "v"), node("Identity", "k0", "k")]
    constants = [node("Constant", "", name, value=bias) for name in "bm"]
    for as_code in (True, False):
        graph, expected = read(built(copies, shared), as_code=as_code), read(built(constants, own), as_code=as_code)
        assert graph.names == expected.names == ("x", "k", "n", "y")
        assert graph.hash == expected.hash
        assert graph.static == expected.static
        assert graph.unknown == Counter()
    assert graph.static["params"] == 5 * 8


def test_a_copied_shape_keeps_its_values():
    nodes = [node("Identity", "n", "m"), node("Reshape", "x m", "y")]
    assert row(read(model(nodes, [tensor("x", 2, 6)], ["y"], [integers("n", 3, 4)])), "y")[2] == [3, 4, 0, 0]


def test_tensors_read_only_in_bodies_stay():
    graph = read(branches(2))
    assert graph.names == ("c", "out2", "y")
    assert graph.unknown == Counter(If=1)
    nodes = [node("Relu", "x", "out9"), *branches(1).graph.node]
    nodes[1].attribute[0].g.node[0].input[0] = "out9"
    nodes[1].attribute[1].g.node[0].input[0] = "out9"
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    assert "out9" in read(model(nodes, [condition, tensor("x", 2, 3)], ["y"])).names


def test_too_many_nodes(monkeypatch):
    """An operator has as many nodes as outputs."""
    built = model([node("Split", "x", "a b c d"), node("Sum", "a b c d", "y")], [tensor("x", 4, 3)], ["y"])
    monkeypatch.setattr(onnx_dag, "MAX_NODES", 6)
    assert len(read(built).names) == 6
    monkeypatch.setattr(onnx_dag, "MAX_NODES", 5)
    with pytest.raises(UserError, match=r"m.onnx: its graph has 6 nodes, one for each tensor that is read; at most 5"):
        read(built)


def test_unknown_and_foreign_operators():
    nodes = [node("Erf", "x", "e"), node("Foo", "e", "f", domain="org.custom"), node("Relu", "f", "y")]
    built = model(nodes, [tensor("x", 1, 4)], ["y"], domains=["org.custom"])
    with pytest.raises(UserError, match=r"'f', made by org.custom.Foo 'Foo_f', cannot be inferred"):
        read(built, 3)
    built.graph.value_info.append(tensor("f", 1, 7))
    built.graph.value_info.append(tensor("e", 1, 999))  # of the old batch size, or wrong: not believed
    graph = read(built, 3)
    assert graph.unknown == Counter({"Erf": 1, "org.custom.Foo": 1})
    assert row(graph, "f") == ("Unknown", [0.0] * 8, [3, 7, 0, 0])
    assert row(graph, "e")[2] == row(graph, "x")[2] == [3, 4, 0, 0]
    built.graph.node[1].domain = ""  # neither is every operator without a domain one of ONNX's
    graph = read(built, 3)
    assert graph.unknown == Counter({"Erf": 1, "Foo": 1})
    assert row(graph, "f")[2] == [3, 7, 0, 0]


def test_declared_scalar_has_no_shape_as_code():
    scalar = helper.make_tensor("s", TensorProto.FLOAT, [], [2.0])
    built = model([node("Mul", "x s", "y")], [tensor("x", 1, 4), tensor("s")], ["y"], [scalar])
    assert np.isnan(row(read(built, as_code=True), "s")[2]).tolist() == [True, False, False, False]
    assert row(read(built), "s")[2] == [0, 0, 0, 0]
    built.graph.input.pop()
    assert row(read(built, as_code=True), "s")[2] == [0, 0, 0, 0]


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_batch_overrides_inputs_and_stale_shapes():
    built = small_network()
    with pytest.raises(UserError, match=r"input 'x' has size 'batch' in dimension 0; give a batch size"):
        read(built)
    built.graph.output[0].CopyFrom(tensor("y", 1, 5))
    graph = read(built, 7, as_code=True)
    assert graph.static["batch"] == 7
    assert row(graph, "y")[2] == [7, 5, 0, 0]
    built.graph.input[0].CopyFrom(tensor("x", 4, 3, 8, 8))
    assert read(built).static["batch"] == 4
    with pytest.raises(UserError, match="batch=0: must be 1-"):
        read(built, 0)


@pytest.mark.parametrize("batch", [None, 5])
def test_outputs_that_are_also_inputs_or_initializers(batch):
    runtime = pytest.importorskip("onnxruntime")
    nodes = [node("Relu", "x", "r"), node("Expand", "r n", "e"), node("Add", "e w", "y")]
    tensors = [integers("n", 1, 3), numpy_helper.from_array(np.ones((1, 3), np.float32), "w")]
    built = model(nodes, [tensor("x", 2, 3)], ["y", "x", "e", "w"], tensors)
    data = np.ones((2, 3), np.float32)
    results = runtime.InferenceSession(built.SerializeToString()).run(None, {"x": data})
    assert [result.shape for result in results] == [(2, 3)] * 3 + [(1, 3)]
    graph = read(built, batch)
    for name in ("x", "r", "e", "y"):
        assert row(graph, name)[2] == [batch or 2, 3, 0, 0]
    assert row(graph, "w")[2] == [1, 3, 0, 0]


def test_shape_arithmetic_is_followed():
    nodes = [
        node("Shape", "x", "n"),
        node("Constant", "", "zero", value=helper.make_tensor("", TensorProto.INT64, [1], [0])),
        node("Gather", "n zero", "first"),
        node("Constant", "", "rest", value=helper.make_tensor("", TensorProto.INT64, [1], [-1])),
        node("Concat", "first rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    graph = read(model(nodes, [tensor("x", "n", 3, 4)], ["y"]), 5)
    assert row(graph, "y")[2] == [5, 12, 0, 0]
    assert ("target", "y") in edges(graph)


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_shape_arithmetic_is_followed_where_onnx_does_not(opset):
    built = class_token(opset)
    for size in (1, 5):
        assert row(read(built, size), "y")[2] == [size, 2, 4, 0]
    zero = next(tensor for tensor in built.graph.initializer if tensor.name == "zero")
    zero.ClearField("int64_data")
    with pytest.raises(UserError, match="the shape of 'tokens', made by Expand 'Expand_tokens', cannot be inferred"):
        read(built, 5)


@pytest.mark.parametrize(
    ("kind", "opset", "parameters"),
    [
        *(("GroupNormalization", opset, 4 if opset < 21 else 8) for opset in (18, 20, 21, 24)),
        *(("MeanVarianceNormalization", opset, 0) for opset in (9, 13, 24)),
    ],
)
def test_normalisations_that_onnx_does_not_infer(kind, opset, parameters):
    runtime = pytest.importorskip("onnxruntime")
    tensors = [numpy_helper.from_array(np.ones(parameters, np.float32), name) for name in "sb"] if parameters else []
    operator = node(kind, "r s b" if parameters else "r", "n", **({"num_groups": 4} if parameters else {}))
    nodes = [node("Relu", "x", "r"), operator, node("MaxPool", "n", "y", kernel_shape=[2, 3])]
    built = model(nodes, [tensor("x", 2, 8, 4, 5)], ["y"], tensors, opset)
    (result,) = runtime.InferenceSession(built.SerializeToString()).run(None, {"x": np.ones((2, 8, 4, 5), np.float32)})
    graph = read(built, 2)
    assert row(graph, "n")[2] == [2, 8, 4, 5]
    assert row(graph, "y")[2] == list(result.shape)


@pytest.mark.parametrize(
    "attribute",
    [
        helper.make_sparse_tensor(OUTSIDE, integers("", 0, 1), [2]),
        [OUTSIDE],
        helper.make_graph([], "g", [], [], [OUTSIDE]),
    ],
    ids=("sparse", "list", "graph"),
)
def test_no_other_file_is_read_for_a_value(attribute, monkeypatch):
    """onnx looks at where a tensor is kept right before it opens the file."""
    read_outside = []
    monkeypatch.setattr(external_data_helper, "uses_external_data", lambda each: read_outside.extend(each.external_data))
    more = helper.make_node("Identity", ["m"], ["n"], more=attribute)
    built = model([node("Shape", "x", "m"), more, node("Expand", "x n", "y")], [tensor("x", 1, 3)], ["y"])
    with pytest.raises(UserError, match="the shape of 'y', made by Expand 'Expand_y', cannot be inferred"):
        read(built)
    assert not read_outside


def test_only_small_values_are_followed():
    """Neither a tensor of 2^40 elements nor a constant in another file is made or opened."""
    for first in (
        [
            node("ConstantOfShape", "huge", "a", value=helper.make_tensor("", TensorProto.INT64, [1], [1])),
            node("ReduceSum", "a", "s"),
            node("Concat", "s s", "n", axis=0),
        ],
        [node("Constant", "", "a", value=OUTSIDE), node("Identity", "a", "n")],
    ):
        nodes = [*first, node("Expand", "x n", "y")]
        with pytest.raises(UserError, match="the shape of 'y', made by Expand 'Expand_y', cannot be inferred"):
            read(model(nodes, [tensor("x", 1, 3)], ["y"], [integers("huge", 2**40)]))


def test_a_size_as_large_as_a_disk_takes_no_time():
    """Following values, ONNX's own inference would count to 2^38 here."""
    nodes = [
        node("Shape", "x", "n"),
        node("Gather", "n first", "a"),
        node("Reshape", "a huge", "r"),
        node("Slice", "x r r", "y"),
    ]
    built = model(nodes, [tensor("x", 1, 3)], ["y"], [integers("first", 0), integers("huge", 2**38)])
    with pytest.raises(UserError, match=r"Reshape 'Reshape_r' makes \[274877906944\] of \[1\]"):
        read(built)


@pytest.mark.parametrize(
    ("operator", "sizes"), [(node("Reshape", "p s", "r"), (1, 12)), (node("Resize", "p - - s", "r"), (1, 3, 4, 4))]
)
def test_a_batch_size_fixed_in_an_operator_is_refused(operator, sizes):
    nodes = [node("Relu", "x", "p"), operator, node("Tanh", "r", "y")]
    built = model(nodes, [tensor("x", 1, 3, 2, 2)], ["y"], [integers("s", *sizes)])
    message = f"m.onnx: {operator.op_type} '{operator.name}' makes {list(sizes)} of [8, 3, 2, 2]: a batch size is fixed"
    for as_code in (True, False):
        assert row(read(built, as_code=as_code), "y")[2] == [*sizes, 0, 0][:4]
        with pytest.raises(UserError, match=re.escape(message)):
            read(built, 8, as_code=as_code)


@pytest.mark.parametrize("as_constant", [False, True])
def test_a_batch_size_fixed_in_a_reshape_that_keeps_the_elements_is_refused(as_constant):
    sizes = integers("s", 1, 3, -1)
    nodes = [
        *([node("Constant", "", "s", value=sizes)] if as_constant else []),
        node("Reshape", "b rank", "c"),
        node("Add", "x c", "p"),
    ]
    tensors = [weight("b", 8, 3), integers("rank", 1, -1, 1, 1), *([] if as_constant else [sizes])]

    def built(reshaped, batch):
        made = [*nodes, node("Reshape", f"p {reshaped}", "y")]
        return model(made, [tensor("x", batch, 24, 2, 2)], ["y"], [*tensors, integers("dynamic", -1, 3, 32)])

    assert row(read(built("s", 1)), "y")[2] == [1, 3, 32, 0]
    message = (
        "m.onnx: Reshape 'Reshape_y' makes [1, 3, 256] of [8, 24, 2, 2]: the file was exported with batch 1; give that"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        read(built("s", 1), 8)
    assert row(read(built("dynamic", 1), 8), "y")[2] == [8, 3, 32, 0]
    assert row(read(built("s", "n"), 8), "y")[2] == [1, 3, 256, 0]


def test_contradictions_of_another_batch_size_say_so():
    nodes = [node("Concat", "x b", "y", axis=1)]
    built = model(nodes, [tensor("x", 2, 3)], ["y"], [weight("b", 2, 3)])
    assert row(read(built), "y")[2] == [2, 6, 0, 0]
    with pytest.raises(UserError, match=r"shapes contradict each other: .*; the file was exported with batch 2; give that"):
        read(built, 8)


@pytest.mark.parametrize(
    ("nodes", "inputs", "reason"),
    [
        ([node("Relu", "x", "y")], [tensor("x", 1, "height")], r"input 'x' has size 'height' in dimension 1"),
        ([node("Relu", "x", "y")], [helper.make_tensor_value_info("x", 1, None)], r"input 'x' is no tensor of known rank"),
        ([node("MatMul", "x x", "y")], [tensor("x", 2, 3)], r"MatMul_y.*Incompatible dimensions"),
        ([node("Reshape", "x n", "y")], [tensor("x", 2, 3), tensor("n", 2)], r"m.onnx: .*Reshape"),
        ([node("MaxPool", "x", "y", kernel_shape=[9])], [tensor("x", 1, 1, 3)], r"would have shape \[1, 1, -5\]"),
        ([node("Relu", "x", "y")], [tensor("x", 1, 2**41)], r"would have shape"),
        (
            [node("MaxPool", "x", "y", kernel_shape=[2**20] * 2, pads=[2**19] * 4)],
            [tensor("x", 1, 1, 1, 1)],
            r"is not possible",
        ),
        ([node("SequenceConstruct", "x", "y")], [tensor("x", 1)], r"m.onnx: .*SequenceConstruct_y"),
        ([node("Conv", "x w", "y", group=-1)], [tensor("x", 1, 1, 3), tensor("w", 1, 1, 1)], r"Conv"),
        ([node("Constant", "", "y", value_float=1.0)], [], r"holds no operator that reads an input"),
    ],
)
def test_shapes_that_cannot_be_known_name_their_operator(nodes, inputs, reason):
    for as_code in (True, False):
        with pytest.raises(UserError, match=reason) as caught:
            read(model(nodes, inputs, ["y"]), as_code=as_code)
        assert "\n" not in str(caught.value)


# --- attributes and costs ----------------------------------------------------------------------------------------------


def convolution(kind="Conv", shape=(1, 6, 9, 9), weights=(8, 3, 3, 5), bias=True, **attributes):
    tensors = [weight("w", *weights), weight("b", 8)]
    built = model([node(kind, "x w b" if bias else "x w", "y", **attributes)], [tensor("x", *shape)], ["y"], tensors)
    return lambda batch=None, as_code=False: read(built, batch, as_code=as_code)


def test_attributes_keep_the_first_element_as_code_and_means_fixed():
    graph = convolution(group=2, strides=[1, 4], dilations=[1, 2], pads=[0, 1, 2, 3])
    assert row(graph(as_code=True), "y")[1] == [3, 1, 0, 1, 2, 1, 0, 0]
    expected = [15**0.5, 2, 1.5, 2**0.5, 2, 1, 0, 0]
    assert row(graph(), "y")[1] == pytest.approx(expected)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
def test_automatic_padding_is_worked_out(auto_pad):
    # 9 wide, kernel 3, stride 2: 5 outputs cover 2 * 4 + 3 = 11, that is 2 more; kernel 5: 4 more
    pad = {"SAME_UPPER": 1.5, "SAME_LOWER": 1.5}.get(auto_pad, 0)
    graph = convolution(group=2, strides=[2, 2], auto_pad=auto_pad)
    assert row(graph(), "y")[1][2] == pad
    assert row(graph(as_code=True), "y")[1][2] == 0


def test_transposed_convolution():
    # 4 wide, stride 2, kernel 3: 2 * 3 + 3 = 9 wide, with one more of output padding 10, of which 8 are asked for: 2 pads
    attributes = {"strides": [2, 2], "output_padding": [1, 1], "output_shape": [8, 8]}
    graph = convolution("ConvTranspose", (2, 6, 4, 4), (6, 8, 3, 3), **attributes)()
    assert row(graph, "y") == ("ConvTranspose", [3, 2, 1, 1, 1, 1, 1, 0], [2, 8, 8, 8])
    outputs, products = 2 * 8 * 8 * 8, 2 * 6 * 4 * 4 * 8 * 9
    assert graph.static["flops"] == 2 * products - outputs + outputs
    assert graph.static["params"] == 6 * 8 * 9 + 8


def brute_force_convolution(batch, outputs, height, width, taps, bias):
    """FLOPs counted one multiplication and one addition at a time."""
    flops = 0
    for _ in range(batch * outputs * height * width):
        for tap in range(taps):
            flops += 1 + (tap > 0)
        flops += bias
    return flops


@pytest.mark.parametrize("bias", [False, True])
def test_convolution_cost(bias):
    graph = convolution(group=2, bias=bias)
    assert graph(2).static["flops"] == brute_force_convolution(2, 8, 7, 5, 3 * 3 * 5, bias)
    assert graph(2, as_code=True).static["flops"] == brute_force_convolution(1, 8, 7, 5, 3 * 3 * 5, bias)
    assert graph(2).static["params"] == graph(2, as_code=True).static["params"] == 8 * 45 + 8 * bias
    assert graph(2).static["memory"] == 2 * 8 * 7 * 5 + 8 * 45 + 8 * bias


COSTS = [  # operator, input shape, weights, FLOPs fixed, FLOPs as code, parameters (fixed)
    (node("Gemm", "x w b", "y", transB=1), (3, 4), [(5, 4), (5,)], 3 * 5 * 8, 5 * 8, 25),
    (node("Gemm", "x w", "y", transA=1), (3, 4), [(3, 5)], 4 * 5 * 5, 5 * 7, 15),
    (node("MatMul", "x w", "y"), (2, 3, 4), [(4, 5)], 2 * 3 * 5 * 7, 0, 20),
    (node("AveragePool", "x", "y", kernel_shape=[2, 3]), (2, 3, 4, 5), [], 2 * 3 * 3 * 3 * 6, 3 * 3 * 3 * 6, 0),
    (node("GlobalAveragePool", "x", "y"), (2, 3, 4, 5), [], 2 * 3 * 20, 3 * 5, 0),
    (node("ReduceMean", "x", "y", axes=[1]), (2, 3, 4), [], 24, 8, 0),
    (node("Softmax", "x", "y"), (2, 3, 4), [], 3 * 24 - 6, 3 * (3 // 2) - 1, 0),
    (node("Softmax", "x", "y", axis=1), (2, 3, 4), [], 3 * 24 - 8, 3 * (3 // 2) - 1, 0),
    (node("Add", "x w", "y"), (2, 3, 4), [(4,)], 24, 24, 4),
    (node("Sigmoid", "x", "y"), (2, 3), [], 6, 6, 0),
    (node("BatchNormalization", "x a b c d", "y"), (2, 3, 4), [(3,)] * 4, 96, 96, 12),
    (node("Relu", "x", "y"), (2, 3), [], 0, 0, 0),
]


@pytest.mark.parametrize(("operator", "shape", "weights", "fixed", "as_code", "params"), COSTS)
def test_costs_by_hand(operator, shape, weights, fixed, as_code, params):
    tensors = [weight(name, *dims) for name, dims in zip(operator.input[1:], weights, strict=True)]
    built = model([operator], [tensor("x", *shape)], ["y"], tensors, opset=13)
    assert read(built).static["flops"] == fixed
    assert read(built, as_code=True).static["flops"] == as_code
    assert read(built).static["params"] == params


def test_softmax_rows_before_operator_set_13():
    built = model([node("Softmax", "x", "y", axis=1)], [tensor("x", 2, 3, 4)], ["y"], opset=11)
    assert read(built).static["flops"] == 3 * 24 - 2


def test_shared_parameters_count_once_and_settings_never():
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("Reshape", "b n", "c"), node("Mul", "c s", "y")]
    scalar = helper.make_tensor("s", TensorProto.FLOAT, [], [2.0])
    graph = read(model(nodes, [tensor("x", 2, 4)], ["y"], [weight("w", 4, 4), integers("n", -1), scalar]))
    assert graph.static["params"] == 16
    assert graph.static["memory"] == 4 * 8 + 16


@pytest.mark.parametrize("constant", [False, True])
def test_sparse_parameters_are_dense(constant):
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    sparse = helper.make_sparse_tensor(values, integers("", 0, 70), [8, 3, 3, 3])
    nodes = [node("Constant", "", "w", sparse_value=sparse)] if constant else []
    built = model([*nodes, node("Conv", "x w", "y")], [tensor("x", 1, 3, 8, 8)], ["y"])
    built.graph.sparse_initializer.extend([] if constant else [sparse])
    graph = read(built)
    assert graph.names == ("x", "y")
    assert row(graph, "y")[2] == [1, 8, 6, 6]
    assert graph.static["params"] == 8 * 27


def test_constants_that_are_settings_by_their_type():
    nodes = [
        node("Constant", "", "n", value_ints=[-1, 4]),
        node("Reshape", "x n", "r"),
        node("Where", "mask r r", "a"),
        node("Shape", "text", "size"),
        node("Cast", "quantised", "w", to=TensorProto.FLOAT),
        node("MatMul", "a w", "y"),
    ]
    kinds = {"mask": (TensorProto.BOOL, [2, 4]), "text": (TensorProto.STRING, [3]), "quantised": (TensorProto.INT8, [4, 5])}
    tensors = [TensorProto(name=name, data_type=kind, dims=dims) for name, (kind, dims) in kinds.items()]
    assert read(model(nodes, [tensor("x", 2, 4)], ["y"], tensors)).static["params"] == 4 * 5


def test_matmul_is_known_only_when_fixed():
    graph = read(small_network(), 2, as_code=True)
    assert graph.unknown == Counter(MatMul=2)
    assert row(graph, "m")[0] == "Unknown"
    graph = read(small_network(), 2)
    assert graph.unknown == Counter()
    assert row(graph, "m")[0] == "MatMul"


def test_permutation_and_its_default():
    built = model([node("Transpose", "x", "t", perm=[1, 0, 2]), node("Transpose", "t", "y")], [tensor("x", 1, 2, 3)], ["y"])
    graph = read(built)
    assert row(graph, "t")[1] == [1, 0, 2, 0, 0, 0, 0, 0]
    assert row(graph, "y")[1] == [2, 1, 0, 0, 0, 0, 0, 0]


# --- many graphs, hashes ---------------------------------------------------------------------------------------------


def test_joined_graphs_survive_a_store_and_batch_alike(tmp_path):
    graphs = [read(small_network(), 2), read(branches(1)), convolution(group=2)(3)]
    labels = {"latency_ms": np.array([1.0, 2.0, 3.0])}
    columns = replace(join(graphs, ["a", "b", "c"]), labels=labels)
    manifest = Manifest("n", "latency", OPERATIONS, {"latency_ms": "ms"}, STATIC, "x", {"file": "f"}, attributes=ATTRIBUTES)
    stored = write_store(tmp_path / "s", columns, manifest).batch(np.arange(3), "latency_ms")
    direct = batch(graphs)
    for name in ("op", "edge_index", "ptr", "row", "attributes", "output_shape"):
        torch.testing.assert_close(getattr(stored, name), getattr(direct, name))
    for name in STATIC:
        torch.testing.assert_close(stored.static[name], direct.static[name])
    assert bytes(columns.hashes[1]) == graphs[1].hash


def shuffled(built, seed):
    """The same network with operators in another topological order."""
    order = nx.DiGraph()
    made = {name: place for place, each in enumerate(built.graph.node) for name in each.output}
    order.add_nodes_from(range(len(built.graph.node)))
    order.add_edges_from((made[n], place) for place, each in enumerate(built.graph.node) for n in each.input if n in made)
    priority = np.random.default_rng(seed).permutation(len(built.graph.node))
    other = onnx.ModelProto.FromString(built.SerializeToString())
    del other.graph.node[:]
    other.graph.node.extend(built.graph.node[v] for v in nx.lexicographical_topological_sort(order, lambda v: priority[v]))
    return other


def test_hash_ignores_the_order_of_nodes_and_nothing_else():
    built = small_network()
    graph = read(built, 2, as_code=True)
    orders = {(other := read(shuffled(built, seed), 2, as_code=True)).names: other.hash for seed in range(10)}
    assert len(orders) > 1
    assert set(orders.values()) == {graph.hash}
    padded, rewired = small_network(), small_network()
    padded.graph.node[0].attribute[1].ints[:] = [0, 0, 2, 2]
    rewired.graph.node[4].input[:] = ["n"]
    different = [read(built, 3, as_code=True), read(padded, 2, as_code=True), read(rewired, 2, as_code=True)]
    assert len({graph.hash, *(each.hash for each in different)}) == 4


def test_hash_sees_directions_and_distant_differences():
    def chain(kinds):
        names = ["x", *(f"t{i}" for i in range(len(kinds)))]
        nodes = [node(kind, a, b) for kind, a, b in zip(kinds, names, names[1:], strict=False)]
        return read(model(nodes, [tensor("x", 1, 2)], [names[-1]])).hash

    assert chain(["Relu", "Tanh"]) != chain(["Tanh", "Relu"])
    long = ["Relu"] * 40
    assert len({chain([*long[:k], "Tanh", *long[k:]]) for k in range(41)}) == 41


def test_hash_sees_which_operators_share_a_parent():
    def pairs(*kinds):
        nodes = [node("Relu", "x", "a"), node("Relu", "x", "b")]
        nodes += [node(kind, parent, f"y{place}") for place, (kind, parent) in enumerate(zip(kinds, "aabb", strict=True))]
        return read(model(nodes, [tensor("x", 1, 2)], ["y0", "y1", "y2", "y3"])).hash

    assert pairs("Tanh", "Sqrt", "Sigmoid", "Softmax") != pairs("Tanh", "Sigmoid", "Sqrt", "Softmax")
    assert pairs("Tanh", "Sqrt", "Sigmoid", "Softmax") == pairs("Softmax", "Sigmoid", "Sqrt", "Tanh")
