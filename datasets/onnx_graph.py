"""ONNX files as graphs of operations, in the vocabulary and with the columns of NNLQP (Liu et al., ICPP 2022)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import require_choice
from datasets.graph import ATTRIBUTE_SLOTS, SHAPE_DIMENSIONS
from datasets.network_graph import NetworkGraph
from datasets.networks import ATTRIBUTES, INPUT, OPERATIONS, UNKNOWN
from datasets.onnx_attributes import attribute_slots
from datasets.onnx_cost import flops_as_code, flops_fixed, memory, params_as_code, stored_parameters
from datasets.onnx_dag import build_dag
from datasets.onnx_file import OnnxFile, read_file
from datasets.onnx_operator import Operator, operators_of
from datasets.onnx_shapes import infer_shapes, set_batch, unknown_shape
from datasets.onnx_trust import Shape

FEATURES = ("as_code", "fixed")

_IDS = {name: place for place, name in enumerate(OPERATIONS)}
_REFUSED = {
    "ConvTranspose": "ConvTranspose",
    "HardSwish": "HardSwish",
    "Upsample": "an interpolating Upsample",
    "ReduceMean": "ReduceMean with an axes input",
}


def read_network(path: Path, batch: int | None = None, features: str = "as_code", *, lenient: bool = False) -> NetworkGraph:
    """Read an ONNX file as a graph of operations.

    Args:
        path: an ``.onnx`` file, with or without weights; other files it refers to are not read.
        batch: batch size, dimension 0 of every input; None keeps that of the file.
        features: ``as_code`` follows NNLQP's code, its mistakes included (``onnx_cost``, ``onnx_attributes``): MatMul is
            unknown, ConvTranspose, HardSwish, interpolating Upsample and ReduceMean with an axes input are refused, and a
            declared input of rank 0 has a shape that is not a number. ``fixed`` has none of these.
        lenient: whether ``as_code`` reads these too: HardSwish as an unknown operator, ConvTranspose as one without costs,
            the others as their forms that are read, an input of rank 0 as one without dimensions.

    Raises:
        UserError: naming the file and, where it applies, the operator: for a file that cannot be read, exceeds a limit, has
            sizes that are not fixed or cannot be inferred, or, unless ``lenient``, holds what the official code refuses.
    """
    require_choice("features", features, FEATURES)
    return network_of(read_file(path), batch, as_code=features == "as_code", lenient=lenient)


def network_of(file: OnnxFile, batch: int | None, *, as_code: bool, lenient: bool = False) -> NetworkGraph:
    """The graph of a file that was read, whose shapes are changed in place; otherwise as ``read_network``."""
    size = set_batch(file, batch)
    shapes = infer_shapes(file)
    operators = operators_of(file, shapes, as_code=as_code)
    if as_code and not lenient:
        for operator in operators:
            _refuse(operator)
    return _columns(file, operators, shapes, size, as_code, lenient)


def _columns(
    file: OnnxFile, operators: list[Operator], shapes: dict[str, Shape], batch: int, as_code: bool, lenient: bool
) -> NetworkGraph:
    dag = build_dag(file)
    makers = [operators[place] if place >= 0 else None for place in dag.makers]
    for name, operator in zip(dag.names, makers, strict=True):
        if name not in shapes:
            raise unknown_shape(name, operator.node if operator else None, file.source)
    declared = {value.name for value in file.graph.input} if as_code and not lenient else set()
    static = _static_as_code(operators, batch) if as_code else _static_fixed(operators, batch, file, shapes)
    return NetworkGraph(
        ops=np.array([_IDS[operator.type if operator else INPUT] for operator in makers], np.int16),
        edges=dag.edges,
        attributes=_attributes(makers, as_code),
        output_shape=_output_shapes(dag.names, shapes, declared),
        static=static,
        unknown=_unknown(operators),
        names=dag.names,
    )


def _refuse(operator: Operator) -> None:
    """Refuse what the official extractor fails on."""
    what = _REFUSED.get(operator.node.type)
    if operator.node.type == "Upsample" and operator.text("mode", "nearest") == "nearest":
        return
    if operator.node.type == "ReduceMean" and len(operator.node.inputs) == 1:
        return
    if what:
        raise operator.error(f"NNLQP's code does not read {what}; dataset.features=fixed reads it")


def _unknown(operators: list[Operator]) -> Counter[str]:
    """Names of the operators outside the vocabulary, but for constants."""
    return Counter(o.node.type for o in operators if o.type == UNKNOWN and any(o.node.inputs))


def _attributes(makers: Sequence[Operator | None], as_code: bool) -> NDArray[np.float32]:
    """Attribute slots of every node (n, 8)."""
    slots = np.zeros((len(makers), ATTRIBUTE_SLOTS), np.float32)
    for row, operator in enumerate(makers):
        if operator and operator.type in ATTRIBUTES:
            slots[row] = attribute_slots(operator, as_code=as_code)
    return slots


def _output_shapes(names: Sequence[str], shapes: Mapping[str, Shape], declared: set[str]) -> NDArray[np.float32]:
    """Leading dimensions of every node (n, 4); not a number for a ``declared`` input of rank 0, as in the official code."""
    padding = (0,) * SHAPE_DIMENSIONS
    result = np.array([(shapes[name] + padding)[:SHAPE_DIMENSIONS] for name in names], np.float32)
    for row, name in enumerate(names):
        if name in declared and not shapes[name]:
            result[row, 0] = nan
    return result


def _static_as_code(operators: list[Operator], batch: int) -> dict[str, float]:
    known = [operator for operator in operators if operator.type != UNKNOWN]
    params = sum(params_as_code(operator) for operator in known)
    return {
        "batch": float(batch),
        "flops": float(sum(flops_as_code(operator, batch) for operator in known)),
        "params": float(params),
        "memory": float(sum(memory(operator) for operator in known) + params),
    }


def _static_fixed(operators: list[Operator], batch: int, file: OnnxFile, shapes: dict[str, Shape]) -> dict[str, float]:
    params = stored_parameters(file, shapes)
    return {
        "batch": float(batch),
        "flops": float(sum(flops_fixed(operator) for operator in operators)),
        "params": float(params),
        "memory": float(sum(memory(operator) for operator in operators if any(operator.node.inputs)) + params),
    }
