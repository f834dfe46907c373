"""Small ONNX models built in memory, and damaged copies of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
OPERATORS = ("Conv", "Relu", "Gemm", "MatMul", "Softmax", "Concat", "Constant", "If", "Loop", "Slice", "Foo", "AveragePool")
EXTREMES = (0, 1, -1, 2, 3, 7, 255, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63))


def tensor(name: str, *dims: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, list(dims))


def weight(name: str, *dims: int) -> TensorProto:
    """An initializer without data."""
    return TensorProto(name=name, data_type=FLOAT, dims=list(dims))


def integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[str],
    initializers: Sequence[TensorProto] = (),
    opset: int = 17,
    domains: Sequence[str] = (),
) -> ModelProto:
    """A model whose outputs have no stated shape."""
    made = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", list(inputs), made, list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """An operator; tensors are separated by spaces, ``-`` leaves one out."""
    read, made = ([name.replace("-", "") for name in names.split()] for names in (inputs, outputs))
    return helper.make_node(kind, read, made, name=f"{kind}_{made[0]}" if made else kind, **attributes)


def small_network(opset: int = 17) -> ModelProto:
    """Convolution, branch, shape arithmetic, attention-like products and a classifier."""
    nodes = [
        node("Conv", "x w b", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c g1 g2 g3 g4", "n"),
        node("Relu", "n", "r"),
        node("AveragePool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxPool", "r", "q", kernel_shape=[2, 2], strides=[2, 2]),
        node("Add", "p q", "s"),
        node("Constant", "", "shape", value=integers("", 0, 8, -1)),
        node("Reshape", "s shape", "t"),
        node("Transpose", "t", "u", perm=[0, 2, 1]),
        node("MatMul", "t u", "m"),
        node("Softmax", "m", "o"),
        node("MatMul", "o k", "v"),
        node("Flatten", "v", "f"),
        node("Gemm", "f gw gb", "y", transB=1),
    ]
    weights = [weight("w", 8, 3, 3, 3), weight("b", 8), *(weight(f"g{i}", 8) for i in range(1, 5))]
    weights += [weight("k", 8, 4), weight("gw", 5, 32), weight("gb", 5)]
    return model(nodes, [tensor("x", "batch", 3, 8, 8)], ["y"], weights, opset)


def branches(depth: int) -> ModelProto:
    """An If within an If, ``depth`` deep; the innermost reads ``x``."""
    body = helper.make_graph([node("Relu", "x", "out0")], "b0", [], [tensor("out0", 2, 3)])
    for level in range(1, depth + 1):
        choice = helper.make_node("If", ["c"], [f"out{level}"], then_branch=body, else_branch=body)
        body = helper.make_graph([choice], f"b{level}", [], [tensor(f"out{level}", 2, 3)])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [1])
    last = f"out{depth}"
    return model([*body.node, node("Relu", last, "y")], [condition, tensor("x", 2, 3)], ["y"])


def class_token(opset: int = 17) -> ModelProto:
    """The sizes that PyTorch's exporter gives a class token (1, 1, 4) expanded to the batch size and (2, -1)."""
    axes = {"axes": [0]} if opset < 13 else {}
    nodes = [
        node("Shape", "x", "n"),
        node("Gather", "n zero", "first"),
        node("Unsqueeze", "first" if axes else "first axis", "batch", **axes),
        node("Concat", "batch rest", "sizes", axis=0),
        node("ConstantOfShape", "three", "ones", value=helper.make_tensor("", TensorProto.INT64, [1], [1])),
        node("Mul", "ones minus", "kept"),
        node("Equal", "sizes kept", "is_kept"),
        node("Where", "is_kept ones sizes", "target"),
        node("Expand", "token target", "tokens"),
        node("Relu", "tokens", "y"),
    ]
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    given = [integers("rest", 2, -1), integers("three", 3), integers("minus", -1), integers("axis", 0), zero]
    return model(nodes, [tensor("x", "n", 3)], ["y"], [*given, weight("token", 1, 1, 4)], opset)


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Overwrite, flip, delete, repeat, cut off or insert a few bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = rng.randint(1, 20)
        kind = rng.randrange(6)
        if kind == 0:
            data[place : place + 1] = rng.randbytes(1)
        elif kind == 1 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[rng.randrange(len(data) + 1) :][:length]
        elif kind == 4:
            del data[place:]
        else:
            data[place:place] = rng.randbytes(length)
    return bytes(data)


def damage_fields(content: bytes, rng: random.Random) -> bytes:
    """Change a few fields of a valid file, so that it still is valid protobuf."""
    changed = ModelProto.FromString(content)
    for _ in range(rng.randint(1, 3)):
        rng.choice(_DAMAGES)(changed.graph, rng)
    return changed.SerializeToString()


def _dimension(graph: GraphProto, rng: random.Random) -> None:
    values = [*graph.input, *graph.output]
    if values and (dims := rng.choice(values).type.tensor_type.shape.dim):
        rng.choice(dims).dim_value = rng.choice(EXTREMES)


def _weight(graph: GraphProto, rng: random.Random) -> None:
    if graph.initializer:
        chosen = rng.choice(graph.initializer)
        if chosen.dims and rng.random() < 0.5:
            chosen.dims[rng.randrange(len(chosen.dims))] = rng.choice(EXTREMES)
        elif rng.random() < 0.5:
            chosen.data_type = rng.randrange(25)
        elif rng.random() < 0.5:
            chosen.dims.extend([rng.choice(EXTREMES)] * rng.choice((1, 20)))
        else:
            chosen.CopyFrom(integers(chosen.name, *rng.choices(EXTREMES, k=3)))


def _attribute(graph: GraphProto, rng: random.Random) -> None:
    if attributes := rng.choice(graph.node).attribute:
        chosen = rng.choice(attributes)
        if rng.random() < 0.6 and chosen.ints:
            chosen.ints[rng.randrange(len(chosen.ints))] = rng.choice(EXTREMES)
        elif rng.random() < 0.5:
            chosen.i = rng.choice(EXTREMES)
        elif rng.random() < 0.5:
            chosen.ints.extend([rng.choice(EXTREMES)] * rng.choice((1, 20)))
        else:
            chosen.type = rng.choice(AttributeProto.AttributeType.values())


def _constant(graph: GraphProto, rng: random.Random) -> None:
    constants = [each for each in graph.node if each.op_type == "Constant" and each.attribute]
    if constants:
        rng.choice(constants).attribute[0].t.CopyFrom(integers("", *rng.choices(EXTREMES, k=rng.randint(0, 4))))


def _operator(graph: GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).op_type = rng.choice((*OPERATORS, *{each.op_type for each in graph.node}))


def _names(graph: GraphProto, rng: random.Random) -> None:
    chosen = rng.choice(graph.node)
    names = rng.choice((chosen.input, chosen.output))
    known = ["", "nowhere", *(name for each in graph.node for name in (*each.input, *each.output))]
    if names and rng.random() < 0.5:
        names[rng.randrange(len(names))] = rng.choice(known)
    elif names and rng.random() < 0.5:
        del names[-1]
    else:
        names.append(rng.choice(known))


def _drop(graph: GraphProto, rng: random.Random) -> None:
    part = rng.choice((graph.node, graph.initializer, graph.input, graph.output))
    if part and len(graph.node) > 1:
        del part[rng.randrange(len(part))]


def _repeat(graph: GraphProto, rng: random.Random) -> None:
    part: Any = rng.choice((graph.node, graph.initializer, graph.input, graph.output))
    if part:
        part.append(rng.choice(part))


_DAMAGES: tuple[Callable[[GraphProto, random.Random], None], ...] = (
    _dimension,
    _weight,
    _attribute,
    _attribute,
    _constant,
    _operator,
    _names,
    _drop,
    _repeat,
)
