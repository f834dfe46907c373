"""Files that would make ONNX's shape inference take all memory, or end the process."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from onnx import TensorProto, defs, helper, shape_inference
from onnx.checker import ValidationError

from datasets.errors import UserError
from datasets.onnx_file import MAX_TYPE, parse
from datasets.onnx_graph import network_of
from datasets.onnx_trust import MAX_RANK, TRUSTED
from datasets.onnx_values import INFERENCE_ERRORS
from tests.onnx_models import integers, model, node, tensor, weight

ENTRIES = 2**16
"""What the sizes claim to have: enough to be noticed, few enough to survive if nothing stops them."""

ELEMENTS = {
    "tensor(float)": 1,
    "tensor(uint8)": 2,
    "tensor(int8)": 3,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(bool)": 9,
}


def read(built):
    return network_of(parse(built.SerializeToString(), "m.onnx"), None, as_code=False)


def claim(*dims):
    """Integers whose data are not in the file."""
    return TensorProto(name="n", data_type=TensorProto.INT64, dims=dims)


def doubling(kind, count, **attributes):
    names = ["r", *(f"r{step}" for step in range(1, count)), "y"]
    return [
        node("Cast", "x", "r", to=TensorProto.INT64),
        *(node(kind, f"{a} {a}", b, **attributes) for a, b in pairwise(names)),
    ]


@pytest.mark.parametrize("opset", [9, 12, 13, 18, 24])
@pytest.mark.parametrize(
    "nodes",
    [
        [node("Expand", "x n", "y")],
        [node("Relu", "x", "r"), node("Reshape", "r n", "y")],
        [node("ConstantOfShape", "n", "r"), node("Mul", "r x", "y")],
        [node("Unsqueeze", "x n", "y")],
        [
            node("Concat", "n n", "c", axis=0),
            node("Cast", "c", "i", to=7),
            node("Identity", "i", "t"),
            node("Expand", "x t", "y"),
        ],
    ],
    ids=lambda nodes: nodes[-1].op_type + str(len(nodes)),
)
def test_sizes_of_many_entries_make_no_dimensions(nodes, opset):
    with pytest.raises(UserError, match=r"m.onnx: \w+ '\w+' makes a tensor of (65536|131072) dimensions, at most 32"):
        read(model(nodes, [tensor("x", 1, 3)], ["y"], [claim(ENTRIES)], opset))


def test_sizes_in_an_operator_and_in_an_input():
    relu = node("Relu", "x", "r")
    ones = [1] * ENTRIES
    built = model([relu, node("Unsqueeze", "r", "y", axes=list(range(ENTRIES)))], [tensor("x", 1, 3)], ["y"], opset=9)
    with pytest.raises(UserError, match="Unsqueeze 'Unsqueeze_y' makes a tensor of 65538 dimensions"):
        read(built)
    for constant in (node("Constant", "", "n", value_ints=ones), node("Constant", "", "n", value=integers("", *ones))):
        with pytest.raises(UserError, match="Reshape 'Reshape_y' makes a tensor of 65536 dimensions"):
            read(model([relu, constant, node("Reshape", "r n", "y")], [tensor("x", 1, 3)], ["y"]))
    sizes = helper.make_tensor_value_info("n", TensorProto.INT64, [ENTRIES])
    with pytest.raises(UserError, match="Reshape 'Reshape_y' makes a tensor of 65536 dimensions"):
        read(model([relu, node("Reshape", "r n", "y")], [tensor("x", 1, 3), sizes], ["y"]))


def test_constants_of_many_dimensions():
    sparse = helper.make_sparse_tensor(helper.make_tensor("v", 1, [1], [1.0]), integers("i", 0), [1] * 33)
    for settings in ({"value": weight("v", *[1] * 33)}, {"sparse_value": sparse}):
        nodes = [node("Constant", "", "c", **settings), node("Add", "x c", "y")]
        with pytest.raises(UserError, match="Constant 'Constant_c' makes a tensor of 33 dimensions"):
            read(model(nodes, [tensor("x", 1, 3)], ["y"]))


def test_sizes_that_only_inference_of_the_whole_graph_knows(monkeypatch):
    """Which takes a Cast of two inputs, as inference of one operator does not; it is not shown the Expand."""
    ranks = []
    infer = shape_inference.infer_shapes

    def spy(*arguments, **settings):
        made = infer(*arguments, **settings)
        ranks.extend(len(value.type.tensor_type.shape.dim) for value in (*made.graph.value_info, *made.graph.output))
        return made

    monkeypatch.setattr(shape_inference, "infer_shapes", spy)
    nodes = [node("Cast", "n n", "m", to=TensorProto.INT64), node("Expand", "x m", "e"), node("Relu", "e", "y")]
    with pytest.raises(UserError, match="Expand 'Expand_e' makes a tensor of 65536 dimensions"):
        read(model(nodes, [tensor("x", 1, 3)], ["y"], [claim(ENTRIES)], 9))
    assert max(ranks) == 1


def test_dimensions_that_double_are_stopped_at_once():
    """Rank 2r - 1 of rank r: 31 operators would make 2^32 dimensions."""
    for count in (5, 31):
        with pytest.raises(UserError, match=r"Gather 'Gather_r4' makes a tensor of 33 dimensions, at most 32 are read"):
            read(model(doubling("Gather", count), [tensor("x", 1, 1, 1)], ["y"]))
    assert read(model(doubling("Gather", 3), [tensor("x", 1, 1, 1)], ["y"])).names[-1] == "y"


def test_types_with_many_dimensions_or_long_texts():
    relu = [node("Relu", "x", "y")]
    read(model(relu, [tensor("x", *[1] * MAX_RANK)], ["y"]))
    with pytest.raises(UserError, match=r"m.onnx: the type of 'x' takes more than 4096 bytes"):
        read(model(relu, [tensor("x", *[1] * MAX_TYPE)], ["y"]))
    named = tensor("x", 1, 3)
    named.type.tensor_type.shape.dim[0].denotation = "n" * MAX_TYPE
    with pytest.raises(UserError, match="the type of 'x' takes more than"):
        read(model(relu, [named], ["y"]))
    stated = model([node("Odd", "x", "a"), node("Relu", "a", "y")], [tensor("x", 1, 3)], ["y"])
    stated.graph.value_info.append(tensor("a", "n" * MAX_TYPE))
    with pytest.raises(UserError, match="the type of 'a' takes more than"):
        read(stated)
    body = helper.make_graph([node("Relu", "x", "o")], "b", [], [tensor("o", *[1] * MAX_TYPE)])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    with pytest.raises(UserError, match="the type of 'o' takes more than"):
        read(model([choice], [condition, tensor("x", 1, 3)], ["y"]))
    with pytest.raises(UserError, match="initializer 'w' has more than 32 dimensions"):
        read(model([node("Add", "x w", "y")], [tensor("x", 1, 3)], ["y"], [weight("w", *[1] * 33)]))


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 17])
def test_a_slice_of_a_negative_size_is_an_error(opset):
    bounds = {"starts": [0] * 3, "ends": [1] * 3, "axes": [0, 1, 2]} if opset < 10 else {}
    given = (
        []
        if bounds
        else [integers("a", 0, 0, 0), integers("b", 1, 1, 1), integers("c", 0, 1, 2), integers("s", -1, -1, -1)]
    )
    nodes = [
        node("MaxPool", "x", "p", kernel_shape=[9]),
        node("Slice", "p" if bounds else "p a b c s", "y", **bounds),
    ]
    with pytest.raises(UserError, match=r"m.onnx: tensor 'p' would have shape \[1, 1, -5\]"):
        read(model(nodes, [tensor("x", 1, 1, 3)], ["y"], given, opset))


@pytest.mark.parametrize(
    ("operator", "good", "bad"),
    [
        (node("Split", "x", "y z"), {"num_outputs": 2}, [{"num_outputs": 1}, {"num_outputs": 3}]),
        (node("LayerNormalization", "x w", "y"), {"axis": -1}, [{"axis": 2**31}, {"axis": -(2**63)}]),
        (node("GatherND", "x n", "y"), {"batch_dims": 1}, [{"batch_dims": -1}, {"batch_dims": 2**31}]),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)
def test_attributes_that_end_the_process(operator, good, bad):
    def built(attributes, *, within):
        changed = helper.make_node(operator.op_type, operator.input, operator.output, name="n", **attributes)
        nodes = [changed]
        if within:
            body = helper.make_graph([changed], "b", [], [tensor("y", 1, 1)])
            nodes = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
        return model(nodes, [tensor("x", 2, 2), condition], ["y"], [weight("w", 2), claim(2, 1)], opset=18)

    read(built(good, within=False))
    for attributes in bad:
        with pytest.raises(UserError, match=f"m.onnx: {operator.op_type} 'n' has impossible attributes"):
            read(built(attributes, within=False))
        assert read(built(attributes, within=True)).names[-1] == "y"  # of the shape that the file states


def test_bodies_are_inferred_without_the_untrusted():
    """Only the shape that the file states for the body's output is left, and a body that states none has none."""
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])

    def built(stated):
        body = helper.make_graph([node("Expand", "x n", "o")], "b", [], [helper.make_tensor_value_info("o", 1, stated)])
        choice = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
        return model([choice, node("Relu", "z", "y")], [condition, tensor("x", 1, 3)], ["y"], [claim(ENTRIES)], 9)

    graph = read(built([1, 3]))
    assert graph.output_shape[graph.names.index("y")].tolist() == [1, 3, 0, 0]
    with pytest.raises(UserError, match="the shape of 'z', made by If 'z', cannot be inferred"):
        read(built(None))


def test_the_trusted_add_no_dimensions():
    """ONNX's own inference, asked with random inputs: the outputs have at most as many dimensions as these, or four."""
    rng = random.Random(0)
    answered = set()
    versions = [each for each in defs.get_all_schemas_with_history() if each.domain == "" and each.name in TRUSTED]
    for schema in versions:
        for _ in range(100):
            inputs, made = answer(schema, rng)
            answered |= {schema.name} if made else set()
            assert max(made, default=0) <= max(4, *inputs), (schema.name, schema.since_version)
    assert len(answered) > 0.9 * len(TRUSTED), TRUSTED - answered


def answer(schema, rng):
    """Numbers of dimensions of an operator's random inputs, and of what ONNX infers for its outputs; none if it refuses."""
    allowed = {each.type_param_str: set(each.allowed_type_strs) & ELEMENTS.keys() for each in schema.type_constraints}
    chosen = {name: rng.choice(sorted(kinds)) for name, kinds in allowed.items() if kinds}
    common = rng.randrange(7)
    types = {}
    for place, parameter in enumerate(schema.inputs):
        rank = rng.choice((common, common, common, 1))
        element = ELEMENTS[chosen.get(parameter.type_str, parameter.type_str)]
        types[f"i{place}"] = helper.make_tensor_type_proto(element, [rng.choice((1, 1, 2, common)) for _ in range(rank)])
    drawn = {defs.OpSchema.AttrType.INT: rng.choice((1, 1, 2, 7)), defs.OpSchema.AttrType.INTS: [1] * rng.choice((1, 2, 4))}
    attributes = {
        name: drawn[each.type] for name, each in schema.attributes.items() if each.type in drawn and rng.random() < 0.5
    }
    try:
        operator = helper.make_node(schema.name, list(types), ["o"], **attributes)
        found = shape_inference.infer_node_outputs(
            schema, operator, types, opset_imports=[helper.make_opsetid("", schema.since_version)]
        )
    except (*INFERENCE_ERRORS, ValidationError):
        return [0], []
    return [len(kind.tensor_type.shape.dim) for kind in types.values()], [
        len(kind.tensor_type.shape.dim) for kind in found.values()
    ]
