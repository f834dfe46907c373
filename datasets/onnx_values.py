"""Values of the shape arithmetic in an ONNX graph, and the shapes that only they tell."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference
from onnx.checker import ValidationError
from onnx.defs import SchemaError
from onnx.reference import ReferenceEvaluator

from datasets.errors import UserError
from datasets.onnx_file import OnnxFile, OnnxNode
from datasets.onnx_trust import HIDDEN, MAX_RANK, SIZES, Shape, check_shape

Types = dict[str, TypeProto]
Values = dict[str, NDArray[np.generic]]

INFERENCE_ERRORS = (shape_inference.InferenceError, ValueError, IndexError, OverflowError, MemoryError, RuntimeError)
"""What the C++ code of shape inference raises: contradictions, and the standard library's errors for absurd sizes."""

MAX_ELEMENTS = 1024
"""Elements of the largest tensor whose values are followed."""

FOLLOWED = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Sqrt", "Floor", "Ceil", "Max", "Min"),
        *("And", "Or", "Not", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
        *("Cast", "Constant", "ConstantOfShape", "Identity", "Range", "Shape", "Size"),
        *("Concat", "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
        *("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
    )
)
"""Operators that exporters compute sizes with; each has one output and takes time and memory by the size of its tensors."""

_LIKE_INPUT = frozenset(("GroupNormalization", "MeanVarianceNormalization"))
"""Operators whose output is of the type of their first input, which onnx does not infer."""

_PLAIN = frozenset(
    getattr(AttributeProto, kind) for kind in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS", "TENSOR")
)
"""Kinds of attributes that hold no graphs and at most one tensor."""

_ANYTHING: NDArray[np.generic] = np.zeros((), np.bool_)


def shape_of(kind: TypeProto) -> Shape | None:
    """The shape of a tensor, None if it is not known whole."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    shape = tuple([dim.dim_value for dim in dims])
    known = 0 not in shape or all(dim.HasField("dim_value") for dim in dims)  # 0 may stand for unknown
    return shape if known else None


def type_of(tensor: TensorProto) -> TypeProto:
    """The type of a stored tensor."""
    kind: TypeProto = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return kind


def following(file: OnnxFile, types: Mapping[str, TypeProto]) -> tuple[Types, Values]:
    """The type of every tensor that follows from the others', and the value of every small one that follows from the file.

    Args:
        file: its operators are followed one by one, each with the types and values before it.
        types: of tensors, as far as they are known.

    Raises:
        UserError: naming the file and the operator, if one of ``file.untrusted`` contradicts its inputs, has one of an
            impossible shape or makes more than ``MAX_RANK`` dimensions.
    """
    values = _stored(file)
    known = dict(types) | {tensor.name: type_of(tensor) for tensor in file.graph.initializer}
    for place, (node, content) in enumerate(zip(file.nodes, file.graph.node, strict=True)):
        if node.foreign or not known.keys() >= set(filter(None, node.inputs)):
            continue
        untrusted = place in file.untrusted
        if untrusted:
            _check_inputs(node, known, file.source)
        if any(name not in known or shape_of(known[name]) is None for name in node.outputs):
            try:
                known |= _inferred(content, file.opset, known, values)
            except INFERENCE_ERRORS as error:
                if untrusted:  # inference of the whole graph will name what is wrong with the others
                    raise contradiction(f"{node}: {error}", file) from None
            for name in node.outputs if untrusted else ():
                _check_rank(len(_dims(known, name)), node, file.source)
        shapes = [shape_of(known[name]) if name in known else None for name in node.outputs]
        if node.type in FOLLOWED and all(shape is not None and prod(shape) <= MAX_ELEMENTS for shape in shapes):
            values |= _evaluated(content, file.opset, known, values)
    return known, values


def contradiction(reason: str, file: OnnxFile) -> UserError:
    """The error for what shape inference refuses, in its words."""
    reason = " ".join(reason.replace("[ShapeInferenceError]", "").split())
    return UserError(
        f"{file.source}: shapes contradict each other: {reason}; {file.overridden or 'export the model again'}"
    )


def with_known(file: OnnxFile, types: Types, values: Values) -> ModelProto:
    """A copy of the model whose tensors of known value are initializers and what untrusted operators make, inputs.

    An untrusted operator whose outputs are not known has another name there, that of no operator.
    """
    changed = ModelProto()
    changed.CopyFrom(file.model)
    graph = changed.graph
    for value in graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    del graph.node[:]
    for place, node in enumerate(file.graph.node):
        outputs = [name for name in node.output if name and name not in values]
        if place not in file.untrusted:
            graph.node.extend([node] if outputs else [])
        elif types.keys() >= set(outputs):
            graph.input.extend(helper.make_value_info(name, types[name]) for name in outputs)
        else:
            graph.node.append(node)
            graph.node[-1].op_type = HIDDEN
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name not in file.weights
    )
    return changed


def _check_inputs(node: OnnxNode, types: Types, source: str) -> None:
    """Refuse impossible sizes, and sizes of too many entries before as many dimensions are made."""
    for place, name in enumerate(node.inputs):
        dims = _dims(types, name)
        check_shape(name, dims, source)
        if SIZES.get(node.type) == place:
            _check_rank(prod(dims), node, source)


def _dims(types: Types, name: str) -> Shape:
    """Sizes of a tensor, 0 where unknown."""
    return tuple([dim.dim_value for dim in types[name].tensor_type.shape.dim]) if name in types else ()


def _check_rank(rank: int, node: OnnxNode, source: str) -> None:
    if rank > MAX_RANK:
        raise UserError(
            f"{source}: {node} makes a tensor of {rank} dimensions, at most {MAX_RANK} are read; check its inputs"
        )


def _stored(file: OnnxFile) -> Values:
    values: Values = {}
    for tensor in file.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and prod(tensor.dims) <= MAX_ELEMENTS:
            try:
                values[tensor.name] = numpy_helper.to_array(tensor)
            except (ValueError, TypeError, KeyError):  # it has no values, or others than it states
                continue
    return values


def _inferred(content: NodeProto, opset: int, types: Types, values: Values) -> Types:
    """Types of an operator's outputs, as far as those of its inputs tell them."""
    inputs = {name: types[name] for name in content.input if name}
    data = {name: numpy_helper.from_array(values[name]) for name in inputs if name in values}
    try:
        schema = defs.get_schema(content.op_type, opset)
        if content.op_type in _LIKE_INPUT:
            return dict(zip(content.output[:1], inputs.values(), strict=False))
        found: Types = shape_inference.infer_node_outputs(
            schema, content, inputs, data, opset_imports=[helper.make_opsetid("", opset)]
        )
    except (SchemaError, ValidationError):  # this version of the operator is not known, or its attributes are not
        return {}
    return found


def _evaluated(content: NodeProto, opset: int, types: Types, values: Values) -> Values:
    """Values of an operator's outputs, if those of its inputs are known and its attributes read no other file."""
    feeds = _feeds(content, types, values)
    if feeds is None or not all(
        attribute.type in _PLAIN and attribute.t.data_location != TensorProto.EXTERNAL for attribute in content.attribute
    ):
        return {}
    inputs, outputs = (
        [helper.make_empty_tensor_value_info(name) for name in names] for names in (feeds, filter(None, content.output))
    )
    graph = helper.make_graph([content], "one operator", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever its attributes and inputs lead to
        return {}
    return {value.name: np.asarray(result) for value, result in zip(outputs, results, strict=True)}


def _feeds(content: NodeProto, types: Types, values: Values) -> Values | None:
    names = dict.fromkeys(filter(None, content.input))
    if content.op_type not in ("Shape", "Size"):
        return {name: values[name] for name in names} if names.keys() <= values.keys() else None
    shapes = {name: shape_of(types[name]) for name in names}
    try:
        return {name: np.broadcast_to(_ANYTHING, shape) for name, shape in shapes.items() if shape is not None}
    except ValueError:  # no tensor has such a shape
        return None
