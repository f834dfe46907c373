"""The shape of every tensor of an ONNX graph, at a batch size of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from onnx import GraphProto, ModelProto, ValueInfoProto, shape_inference

from datasets.errors import UserError
from datasets.onnx_file import OnnxFile, OnnxNode
from datasets.onnx_trust import Shape, check_shape
from datasets.onnx_values import INFERENCE_ERRORS, contradiction, following, shape_of, type_of, with_known

MAX_BATCH = 2**20
"""Largest batch size."""

MAX_ROUNDS = 8
"""Most times that values are followed: one is enough but for what the bodies of If, Loop and Scan make of them."""

_PRESERVED: dict[str, Callable[[Shape], object]] = {"Reshape": prod, "Resize": lambda shape: shape[:1]}
"""What operators that may be given constant sizes keep of their input's shape: the number of elements, the batch size."""


def set_batch(file: OnnxFile, batch: int | None) -> int:
    """Overwrite dimension 0 of every data input, and remove the shapes that the file states for its old batch size.

    Only shapes of operators outside ONNX stay (with the new batch size), because they cannot be inferred.

    Args:
        file: changed in place.
        batch: batch size; None keeps that of the file.

    Returns:
        The batch size: dimension 0 of the first data input, 1 if there is none.

    Raises:
        UserError: for an impossible batch size, and for an input that is no tensor of known rank and fixed size.
    """
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise UserError(f"batch={batch}: must be 1-{MAX_BATCH}")
    graph = file.graph
    own = [value for value in graph.input if value.name not in file.weights]
    old = file.batch
    for value in file.data if batch else ():
        _overwrite(value, batch or old)
    for value in own:
        _check_input(value, file.source)
    foreign = {name for node in file.nodes if node.foreign for name in node.outputs}
    kept = [value for value in graph.value_info if value.name in foreign]
    ends = {value.name for value in graph.output}
    weights = [each for each in graph.initializer if each.name in ends]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    given = {value.name: value.type for value in graph.input} | {each.name: type_of(each) for each in weights}
    for value in (*graph.value_info, *graph.output):
        if value.name in given:
            value.type.CopyFrom(given[value.name])
        elif value.name not in foreign:
            value.type.tensor_type.ClearField("shape")
        elif _rank(value) and value.type.tensor_type.shape.dim[0].dim_value == old:
            _overwrite(value, batch or old)
    return batch or old


def infer_shapes(file: OnnxFile) -> dict[str, Shape]:
    """Shapes of every tensor that ONNX shape inference can tell, after ``set_batch``.

    Values of shape arithmetic and untrusted operators are followed only where the shapes are not known without; what they
    tell is given back to the inference, as more may follow from it.

    Raises:
        UserError: naming the file and the operator, if operators and shapes contradict each other, shapes are impossible or
            an operator's constant sizes are those of another batch size.
    """
    wanted = {name for node in file.nodes for name in node.outputs if name}
    stated = _stated(file, file.graph) if file.untrusted else _inferred(file, file.model)
    shapes = _shapes(stated, file)
    for _ in range(MAX_ROUNDS):
        if wanted <= shapes.keys():
            break
        before = shapes.keys()
        types, values = following(file, {value.name: value.type for value in stated})
        stated = _inferred(file, with_known(file, types, values))
        shapes = _shapes(stated, file) | {name: value.shape for name, value in values.items()}
        if before == shapes.keys():
            break
    _check_fixed_sizes(file, shapes)
    if file.overridden:
        _check_fixed_batch(file, shapes)
    return shapes


def unknown_shape(name: str, node: OnnxNode | None, source: str) -> UserError:
    """The error for a tensor of unknown shape, which ``node`` makes if any does."""
    maker = f", made by {node}," if node else ""
    return UserError(
        f"{source}: the shape of {name!r}{maker} cannot be inferred; export the model with fixed sizes "
        "and the values of its shape initializers (or simplify it with onnxsim)"
    )


def _rank(value: ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _overwrite(value: ValueInfoProto, batch: int) -> None:
    if _rank(value):
        value.type.tensor_type.shape.dim[0].dim_value = batch


def _check_input(value: ValueInfoProto, source: str) -> None:
    if not value.type.tensor_type.HasField("shape"):
        raise UserError(f"{source}: input {value.name!r} is no tensor of known rank; export the model with input shapes")
    for place, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.dim_value < 1:
            size = repr(dim.dim_param) if dim.dim_param else str(dim.dim_value)
            remedy = "give a batch size" if place == 0 else "export the model with fixed sizes"
            raise UserError(f"{source}: input {value.name!r} has size {size} in dimension {place}; {remedy}")


def _inferred(file: OnnxFile, model: ModelProto) -> list[ValueInfoProto]:
    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    except INFERENCE_ERRORS as error:
        raise contradiction(str(error), file) from None
    return _stated(file, graph)


def _stated(file: OnnxFile, graph: GraphProto) -> list[ValueInfoProto]:
    return [*(value for value in graph.input if value.name not in file.weights), *graph.value_info, *graph.output]


def _check_fixed_sizes(file: OnnxFile, shapes: dict[str, Shape]) -> None:
    """Refuse constant sizes that do not suit the input: shape inference takes them as they are."""
    for node in (node for node in file.nodes if node.type in _PRESERVED):
        preserved = _PRESERVED[node.type]
        before, after = (shapes.get(next(iter(names), "")) for names in (node.inputs, node.outputs))
        if before is not None and after is not None and preserved(before) != preserved(after):
            raise UserError(
                f"{file.source}: {node} makes {list(after)} of {list(before)}: a batch size is fixed inside it; export the "
                "model with a dynamic batch size, or give the batch size it was exported with"
            )


def _check_fixed_batch(file: OnnxFile, shapes: dict[str, Shape]) -> None:
    """Refuse constant sizes that begin with the file's batch size where another one comes in: -1 would hide it."""
    changed = [
        node
        for node in file.nodes
        if node.type == "Reshape"
        and len(node.inputs) > 1
        and shapes.get(node.inputs[0], ())[:1] == (file.batch,)
        and shapes.get(next(iter(node.outputs), ""), ())[:1] == (file.exported,)
    ]
    if not changed:
        return
    constant, values = following(file, {})
    for node in changed:
        sizes = values.get(node.inputs[1])
        if node.inputs[0] not in constant and sizes is not None and sizes.size and sizes.flat[0] == file.exported:
            before, after = (list(shapes[names[0]]) for names in (node.inputs, node.outputs))
            raise UserError(f"{file.source}: {node} makes {after} of {before}: {file.overridden}")


def _shapes(stated: Iterable[ValueInfoProto], file: OnnxFile) -> dict[str, Shape]:
    """Shapes by name, weights' too; a network has few different ones, so that each is decoded once."""
    decoded: dict[bytes, Shape | None] = {}
    shapes: dict[str, Shape] = {}
    for value in stated:
        content = value.type.SerializeToString()
        if content not in decoded:
            decoded[content] = shape_of(value.type)
        if (shape := decoded[content]) is not None:
            shapes[value.name] = shape
    shapes |= file.weights
    first: dict[Shape, str] = {}
    for name, shape in shapes.items():
        first.setdefault(shape, name)
    for shape, name in first.items():
        check_shape(name, shape, file.source)
    return shapes
