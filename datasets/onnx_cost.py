"""FLOPs, parameters and memory of an ONNX operator, as NNLQP's code counts them and as they should be counted.

A multiplication and an addition are one FLOP each. ``as_code`` counts convolutions, Gemm and pooling for one sample but
element-wise operators for the batch, one spatial dimension of a global pooling, the rank of a softmax in place of its
elements, the outputs of a mean in place of its inputs, and nothing for MatMul; memory leaves operators outside the
vocabulary out. ``fixed`` counts every element of the batch and the outputs of every operator. Both count comparisons (Relu,
Clip, MaxPool), resampling, data movement and the FLOPs of operators outside the vocabulary as nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from onnx import TensorProto

from datasets.onnx_file import OnnxFile, OnnxNode
from datasets.onnx_operator import Operator
from datasets.onnx_trust import Shape

_SETTINGS = (TensorProto.UNDEFINED, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)

ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Sigmoid", "Tanh")

Flops = Callable[[Operator], float]


def flops_as_code(operator: Operator, batch: int) -> float:
    """FLOPs of an operator by NNLQP's rules, in operations.

    Raises:
        UserError: for an unknown shape or attributes that are not possible.
    """
    if operator.type == "Softmax":
        return 3 * (len(operator.input) // batch) - 1
    rule = _AS_CODE.get(operator.type)
    return rule(operator) if rule else 0


def flops_fixed(operator: Operator) -> float:
    """FLOPs of an operator on the whole batch, in operations.

    Raises:
        UserError: for an unknown shape or attributes that are not possible.
    """
    rule = _FIXED.get(operator.type)
    return rule(operator) if rule else 0


def params_as_code(operator: Operator) -> int:
    """Parameters of a convolution, Gemm or batch normalisation (running mean and variance included); 0 of any other."""
    match operator.type:
        case "Conv":
            channels = operator.input[1] // operator.group
            return operator.output[1] * (channels * prod(operator.kernel) + operator.bias)
        case "Gemm":
            return operator.output[-1] * (operator.input[-1] + operator.bias)
        case "BatchNormalization":
            return 4 * prod(operator.input[1:2])
    return 0


def memory(operator: Operator) -> int:
    """Elements of all outputs."""
    return sum(map(prod, operator.outputs))


def stored_parameters(file: OnnxFile, shapes: dict[str, Shape]) -> int:
    """Elements of all initializers, constants and parameters declared as inputs, each counted once.

    Scalars, tensors of int64 (shapes, axes, indices), text or truth values, and constants not given as a tensor are
    settings, not parameters; other whole numbers, such as quantised weights, are parameters. Sparse ones count as dense.
    """
    read, parameters = {name for node in file.nodes for name in node.inputs}, file.parameters
    kinds = {value.name: value.type.tensor_type.elem_type for value in file.graph.input if value.name in parameters}
    kinds |= {tensor.name: tensor.data_type for tensor in file.graph.initializer}
    kinds |= {name: _constant_kind(node) for node in file.nodes if node.type == "Constant" for name in node.outputs}
    kept = (name for name, kind in kinds.items() if name in read and kind not in _SETTINGS)
    return sum(prod(shapes[name]) for name in kept if shapes.get(name))


def _constant_kind(node: OnnxNode) -> int:
    """Element type of a constant; undefined for those that are not stored as a tensor."""
    kinds = (attribute.t.data_type or attribute.sparse_tensor.values.data_type for attribute in node.attributes)
    return next(kinds, TensorProto.UNDEFINED)


def _elements(operator: Operator) -> int:
    return prod(operator.output)


def _conv_as_code(operator: Operator) -> float:
    products = operator.input[1] / operator.group * prod(operator.kernel)
    return prod(operator.output[1:]) * (2 * products - 1 + operator.bias)


def _gemm_as_code(operator: Operator) -> float:
    return operator.output[-1] * (2 * operator.input[-1] - 1 + operator.bias)


def _pool_as_code(operator: Operator) -> float:
    return prod(operator.output[1:]) * prod(operator.kernel)


def _global_pool_as_code(operator: Operator) -> float:
    return prod(operator.output[1:]) * operator.input[-1] / max(1, operator.output[-1])


def _batch_norm(operator: Operator) -> float:
    return 4 * prod(operator.input)


def _sums(operator: Operator, products: int) -> float:
    """Sums over ``products`` products, one sum for each output element, and a bias."""
    elements = _elements(operator)
    return max(0, 2 * products - elements) + operator.bias * elements


def _conv(operator: Operator) -> float:
    return _sums(operator, _elements(operator) * prod(operator.weight[1:]))


def _conv_transpose(operator: Operator) -> float:
    return _sums(operator, prod(operator.input) * prod(operator.weight[1:]))


def _gemm(operator: Operator) -> float:
    inner = operator.input[0 if operator.integer("transA", 0) else -1]
    return _sums(operator, _elements(operator) * inner)


def _matmul(operator: Operator) -> float:
    return _sums(operator, _elements(operator) * operator.input[-1])


def _pool(operator: Operator) -> float:
    return _elements(operator) * prod(operator.kernel)


def _softmax(operator: Operator) -> float:
    """An exponential, an addition and a division for each element; one addition less for each row."""
    shape = operator.output
    axis = operator.integer("axis", 1 if operator.opset < 13 else -1)
    row = prod(shape[axis:]) if operator.opset < 13 else shape[axis]
    return 3 * prod(shape) - prod(shape) // max(1, row)


def _inputs(operator: Operator) -> float:
    return prod(operator.input)


_AS_CODE: dict[str, Flops] = {
    "Conv": _conv_as_code,
    "Gemm": _gemm_as_code,
    "AveragePool": _pool_as_code,
    "GlobalAveragePool": _global_pool_as_code,
    "BatchNormalization": _batch_norm,
    "ReduceMean": _elements,
    **dict.fromkeys(ELEMENTWISE, _elements),
}

_FIXED: dict[str, Flops] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "AveragePool": _pool,
    "GlobalAveragePool": _inputs,
    "BatchNormalization": _batch_norm,
    "ReduceMean": _inputs,
    "Softmax": _softmax,
    **dict.fromkeys(ELEMENTWISE, _elements),
}
