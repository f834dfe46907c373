"""Values of the shape arithmetic in an ONNX graph, for what shape inference cannot tell without them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from datasets.onnx_file import OnnxFile

Values = dict[str, NDArray[np.generic]]

_ANYTHING: NDArray[np.generic] = np.zeros((), np.bool_)

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


def stored_values(file: OnnxFile) -> Values:
    """The small initializers whose values are in the file."""
    values = {tensor.name: _stored(tensor) for tensor in file.graph.initializer}
    return {name: value for name, value in values.items() if value is not None}


def following(file: OnnxFile, shapes: Mapping[str, tuple[int, ...]], values: Values) -> Values:
    """``values`` and those that follow from them and from ``shapes``, each of a tensor of known, small shape."""
    found = dict(values)
    for node, content in zip(file.nodes, file.graph.node, strict=True):
        small = all(prod(shapes.get(name, (MAX_ELEMENTS + 1,))) <= MAX_ELEMENTS for name in node.outputs)
        if node.type not in FOLLOWED or not small or not found.keys().isdisjoint(node.outputs):
            continue
        if node.type in ("Shape", "Size"):
            known = {name: np.broadcast_to(_ANYTHING, shapes[name]) for name in node.inputs if name in shapes}
        else:
            known = {name: found[name] for name in node.inputs if name in found}
        if known.keys() == set(filter(None, node.inputs)):
            found |= _evaluated(content, file.opset, known)
    return found


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


def _stored(tensor: TensorProto) -> NDArray[np.generic] | None:
    if tensor.data_location == TensorProto.EXTERNAL or prod(tensor.dims) > MAX_ELEMENTS:
        return None
    try:
        value: NDArray[np.generic] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):  # it has no values, or others than it states
        return None
    return value


def _evaluated(content: NodeProto, opset: int, known: Values) -> Values:
    if any(attribute.t.data_location == TensorProto.EXTERNAL for attribute in content.attribute):
        return {}
    inputs, outputs = (
        [helper.make_empty_tensor_value_info(name) for name in names] for names in (known, filter(None, content.output))
    )
    graph = helper.make_graph([content], "one operator", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, known)
    except Exception:  # whatever the operator's attributes and inputs lead to
        return {}
    return {value.name: np.asarray(result) for value, result in zip(outputs, results, strict=True)}
