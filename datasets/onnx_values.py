"""Values of the shape arithmetic in an ONNX graph, and the shapes that only they tell."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, numpy_helper, shape_inference
from onnx.checker import ValidationError
from onnx.defs import SchemaError
from onnx.reference import ReferenceEvaluator

from datasets.onnx_file import OnnxFile

Shape = tuple[int, ...]
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

_ANYTHING: NDArray[np.generic] = np.zeros((), np.bool_)


def shape_of(kind: TypeProto) -> Shape | None:
    """The shape of a tensor, None if it is not known whole."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    shape = tuple([dim.dim_value for dim in dims])
    known = 0 not in shape or all(dim.HasField("dim_value") for dim in dims)  # 0 may stand for unknown
    return shape if known else None


def following(file: OnnxFile, types: Mapping[str, TypeProto]) -> Values:
    """Every small tensor whose value is in the file, or follows from such and from the shapes of others.

    Args:
        file: its operators are followed one by one, each with the values before it.
        types: of tensors, as far as they are known.
    """
    values = _stored(file)
    known = dict(types) | {tensor.name: _type(tensor) for tensor in file.graph.initializer}
    for node, content in zip(file.nodes, file.graph.node, strict=True):
        if node.foreign or not known.keys() >= set(filter(None, node.inputs)):
            continue
        if any(name not in known or shape_of(known[name]) is None for name in node.outputs):
            known |= _inferred(content, file.opset, known, values)
        shapes = [shape_of(known[name]) if name in known else None for name in node.outputs]
        if node.type in FOLLOWED and all(shape is not None and prod(shape) <= MAX_ELEMENTS for shape in shapes):
            values |= _evaluated(content, file.opset, known, values)
    return values


def with_values(file: OnnxFile, values: Values) -> ModelProto:
    """A copy of the model in which the tensors of known value are initializers."""
    changed = ModelProto()
    changed.CopyFrom(file.model)
    graph = changed.graph
    del graph.node[:]
    graph.node.extend(node for node in file.graph.node if values.keys().isdisjoint(node.output))
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name not in file.weights
    )
    return changed


def _type(tensor: TensorProto) -> TypeProto:
    kind: TypeProto = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return kind


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
        found: Types = shape_inference.infer_node_outputs(
            schema, content, inputs, data, opset_imports=[helper.make_opsetid("", opset)]
        )
    except (*INFERENCE_ERRORS, SchemaError, ValidationError):  # inference of the whole graph will name what is wrong
        return {}
    return found


def _evaluated(content: NodeProto, opset: int, types: Types, values: Values) -> Values:
    """Values of an operator's outputs, if those of its inputs are known."""
    feeds = _feeds(content, types, values)
    outside = any(attribute.t.data_location == TensorProto.EXTERNAL for attribute in content.attribute)
    if feeds is None or outside:
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
