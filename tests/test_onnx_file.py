"""Reading ONNX files that are damaged, hostile or incomplete."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from datasets import onnx_file
from datasets.errors import UserError
from datasets.onnx_file import MAX_DEPTH, parse, read_file
from datasets.onnx_graph import network_of, read_network
from tests.onnx_models import branches, class_token, damage_bytes, damage_fields, model, node, small_network, tensor, weight


def refused(content, reason):
    with pytest.raises(UserError, match=reason) as caught:
        parse(content if isinstance(content, bytes) else content.SerializeToString(), "m.onnx")
    assert str(caught.value).startswith("m.onnx: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        read_network(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="no such file"):
        read_network(tmp_path)
    with pytest.raises(UserError, match=r"no such file|cannot be read"):
        read_network(tmp_path / "a\0b")
    path = tmp_path / "m.onnx"
    path.write_bytes(small_network().SerializeToString())
    with pytest.raises(UserError, match="features=paper: unknown; choose one of as_code, fixed"):
        read_network(path, 1, "paper")
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="at most 10 are read"):
        read_file(path)


def test_content_that_is_no_model():
    refused(b"PK\x03\x04 not a model", "not an ONNX model")
    refused(b"", "holds no ONNX graph")
    whole = small_network().SerializeToString()
    refused(whole[: len(whole) // 2], "not an ONNX model")


@pytest.mark.parametrize("opset", [6, 25, 0, -1])
def test_operator_sets_outside_the_range(opset):
    refused(small_network(opset), rf"operator set {opset}, this narbench reads 7-24")


def test_operator_set_is_stated_once():
    built = small_network()
    built.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    refused(built, "operator set 17, 18")
    del built.opset_import[:]
    refused(built, "operator set none")


def test_operator_sets_within_the_range():
    for opset in range(7, 25):
        built = model([node("Relu", "x", "r"), node("Add", "r x", "y")], [tensor("x", 1, 3)], ["y"], opset=opset)
        assert network_of(parse(built.SerializeToString(), "m"), 4, as_code=True).names == ("x", "r", "y")


def test_too_many_operators_edges_or_bodies(monkeypatch):
    parse(branches(MAX_DEPTH).SerializeToString(), "m.onnx")
    refused(branches(MAX_DEPTH + 1), "nested more than 8 deep")
    monkeypatch.setattr(onnx_file, "MAX_NODES", 8)
    refused(branches(3), "more than 8 operators")  # 1 + (1 + 2 + 4 + 8) operators
    parse(branches(1).SerializeToString(), "m.onnx")
    monkeypatch.setattr(onnx_file, "MAX_EDGES", 3)
    refused(branches(1), "more than 3 edges")  # the If, the Relu behind it and one in each branch


def test_deep_nesting_ends_in_an_error_not_in_a_crash():
    body = helper.make_graph([node("Relu", "x", "y")], "b", [], [tensor("y", 1)]).SerializeToString()
    for _ in range(2000):  # by hand: building it with protobuf objects would recurse itself
        attribute = b"\x32" + varint(len(body)) + body
        operator = b"\x2a" + varint(len(attribute)) + attribute
        body = b"\x0a" + varint(len(operator)) + operator
    refused(b"\x3a" + varint(len(body)) + body, "not an ONNX model|nested|operator set")


def varint(value):
    result = b""
    while value > 127:
        result += bytes([value & 127 | 128])
        value >>= 7
    return result + bytes([value])


def test_local_functions_are_refused():
    built = small_network()
    opsets = [helper.make_opsetid("", 17)]
    built.functions.append(helper.make_function("f", "F", ["x"], ["y"], [node("Relu", "x", "y")], opsets))
    refused(built, "model-local functions; inline them first")


def test_cycles_missing_and_repeated_tensors():
    inputs = [tensor("x", 1, 3)]
    refused(model([node("Add", "x b", "a"), node("Relu", "a", "b")], inputs, ["b"]), "Add 'Add_a' reads 'b'.*cycle")
    refused(model([node("Conv", "x w", "y")], inputs, ["y"]), "reads 'w', which no input.*lost its initializers")
    refused(model([node("Relu", "x", "y"), node("Tanh", "x", "y")], inputs, ["y"]), "Tanh 'Tanh_y' makes 'y'")
    refused(model([node("Relu", "x", "x")], inputs, ["x"]), "makes 'x', which exists already")
    refused(model([node("Relu", "x", "y")], [*inputs, *inputs], ["y"]), "two graph inputs")
    refused(model([node("Relu", "x", "y")], inputs, ["y"], [weight("w", 1), weight("w", 1)]), "two initializers")
    refused(model([node("Relu", "x", "y")], inputs, ["y"], [weight("w", -1)]), "initializer 'w' has a negative")
    refused(model([node("Relu", "x", "y")], inputs, ["z"]), "nothing makes the graph's output 'z'")


def test_names_that_are_not_text():
    whole = small_network().SerializeToString()
    refused(whole.replace(b"Relu_r", b"\xff\xfelu_r"), "names .* are not text")


def test_weights_may_be_absent_or_elsewhere(tmp_path):
    path = tmp_path / "m.onnx"
    built = small_network()
    path.write_bytes(built.SerializeToString())
    bare = read_network(path, 2)
    rng = np.random.default_rng(0)
    stored = [numpy_helper.from_array(rng.random(list(t.dims), np.float32), t.name) for t in built.graph.initializer]
    del built.graph.initializer[:]
    built.graph.initializer.extend(stored)
    path.write_bytes(built.SerializeToString())
    with_data = read_network(path, 2)
    for each in built.graph.initializer:
        each.ClearField("raw_data")
        each.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "../../etc/passwd"), ("offset", "0"), ("length", "9999999")):
            entry = each.external_data.add()
            entry.key, entry.value = key, value
    path.write_bytes(built.SerializeToString())
    elsewhere = read_network(path, 2)
    for other in (with_data, elsewhere):
        assert other.static == bare.static
        assert other.hash == bare.hash


def test_a_shape_kept_elsewhere_is_an_error(tmp_path):
    outside = tmp_path / "shape.bin"
    outside.write_bytes(np.array([3, 2], np.int64).tobytes())
    shape = TensorProto(name="n", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    entry = shape.external_data.add()
    entry.key, entry.value = "location", "shape.bin"
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Reshape", "x n", "y")], [tensor("x", 2, 3)], ["y"], [shape]).SerializeToString())
    with pytest.raises(UserError, match="Reshape"):
        read_network(path)


def test_data_of_large_initializers_is_dropped_on_reading():
    large = numpy_helper.from_array(np.zeros((4, 3, 100, 100), np.float32), "w")
    file = parse(model([node("Conv", "x w", "y")], [tensor("x", 1, 3, 200, 200)], ["y"], [large]).SerializeToString(), "m")
    assert file.model.ByteSize() < 1000
    assert file.weights == {"w": (4, 3, 100, 100)}
    assert network_of(file, None, as_code=True).output_shape[-1].tolist() == [1, 4, 101, 101]


def test_data_of_large_copies_is_dropped():
    """Many copies of one parameter take little more memory than it."""
    large = numpy_helper.from_array(np.zeros(10_000, np.float32), "w")
    nodes = [node("Identity", "w", f"w{copy}") for copy in range(100)]
    nodes += [node("Constant", "", "c", value=large), *(node("Identity", "c", f"c{copy}") for copy in range(100))]
    names = " ".join(each.output[0] for each in nodes)
    built = model([*nodes, node("Sum", f"x {names}", "y")], [tensor("x", 1)], ["y"], [large])
    file = parse(built.SerializeToString(), "m")
    assert set(file.weights) == {"w", *(f"w{copy}" for copy in range(100))}
    assert file.model.ByteSize() < 10 * large.ByteSize()


def sources(folder):
    built = [small_network(), small_network(9), branches(2), class_token(9), class_token()]
    found = sorted((folder / "onnx").glob("*.onnx")) if folder.is_dir() else []
    return [each.SerializeToString() for each in built] + [path.read_bytes() for path in found]


def outcome(content, batch, as_code):
    """The graph, or why there is none."""
    try:
        return network_of(parse(content, "m.onnx"), batch, as_code=as_code), ""
    except UserError as error:
        return None, str(error)


def test_damaged_files_give_graphs_or_user_errors(request, capsys):
    """Run more with ``--mutations 10000``."""
    files = sources(request.config.getoption("--golden"))
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=request.config.getoption("--mutations"),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(files), st.integers(0, 2**64 - 1), st.sampled_from((damage_bytes, damage_fields)), st.booleans())
    def check(content, seed, damage, as_code):
        damaged = damage(content, random.Random(seed))
        graph, message = outcome(damaged, (None, 1, 4)[seed % 3], as_code)
        outcomes[damage.__name__, "graph" if graph else "UserError"] += 1
        assert "\n" not in message
        if graph is None:
            return
        assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
        assert np.isfinite(graph.attributes).all()
        assert np.isfinite(list(graph.static.values())).all()
        assert as_code or (np.isfinite(graph.output_shape).all() and min(graph.static.values()) >= 0)

    check()
    with capsys.disabled():
        if sum(outcomes.values()) > 1000:
            print(f"\n{dict(outcomes)}")
    assert outcomes["damage_fields", "graph"]
    assert outcomes["damage_bytes", "UserError"]


def test_the_models_of_these_tests_are_valid():
    for built in (small_network(), branches(2)):
        assert network_of(parse(built.SerializeToString(), "m"), 2, as_code=False).ops.size
        assert ModelProto.FromString(built.SerializeToString()) == built
