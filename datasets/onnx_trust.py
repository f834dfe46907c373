"""What ONNX's shape inference of a whole graph can be trusted with, and what has to be checked before.

It has no limits: an Expand makes as many dimensions as its sizes claim to have entries, and a chain of Gather doubles them
each time, so that a small file could take all memory. A Slice of a negative size ends the process (onnx 1.21 to 1.23, its
issue 8481), and so do impossible attributes of three operators. Operators that are not trusted are inferred one at a time,
once their inputs have been checked.
"""

from __future__ import annotations

from collections.abc import Container
from math import prod

from onnx import NodeProto

from datasets.errors import UserError

Shape = tuple[int, ...]

MAX_ELEMENTS = 2**40
"""Elements of the largest tensor that is believed."""

MAX_RANK = 32
"""Most dimensions of a tensor."""

TRUSTED = frozenset(
    (
        *("Abs", "Add", "And", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"),
        *("GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min"),
        *("Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
        *("Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor"),
        *("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Dropout", "Gemm", "GlobalAveragePool"),
        *("GlobalMaxPool", "GRU", "Hardmax", "InstanceNormalization", "LayerNormalization"),
        *("LogSoftmax", "LRN", "LSTM", "MatMul", "MaxPool", "RNN", "Softmax"),
        *("ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"),
        *("Cast", "Concat", "DepthToSpace", "Flatten", "Identity", "Pad", "Resize", "Shape", "Size", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "TopK", "Transpose", "Upsample"),
        *("If", "Loop", "Scan"),
    )
)
"""Operators whose outputs have no more dimensions than their inputs or than four; Loop and Scan, one more than a body's."""

FRAGILE = frozenset(("GatherND", "LayerNormalization", "Split"))
"""Operators with attributes that end the process."""

HIDDEN = "Hidden"
"""Name given to an operator that shape inference is not to see: it follows those alone that it knows."""

SIZES = {"Col2Im": 1, "ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Unsqueeze": 1}
"""Position of the input whose every entry makes a dimension."""


def trusted(content: NodeProto, short: Container[str] = ()) -> bool:
    """Whether shape inference can be given an operator without a look at its inputs.

    Args:
        content: the operator as in the file.
        short: tensors in the file of at most ``MAX_RANK`` entries.
    """
    kind = content.op_type
    if kind == "Reshape":
        return all(name in short for name in content.input[1:])
    if kind == "Constant":
        return all(len(tensor.dims) <= MAX_RANK for a in content.attribute for tensor in (a.t, a.sparse_tensor))
    return kind in TRUSTED


def harmless(content: NodeProto) -> bool:
    """Whether an operator's attributes are not among those that end the process."""
    if content.op_type not in FRAGILE:
        return True
    allowed = {
        "num_outputs": (len(content.output),),
        "batch_dims": range(MAX_RANK),
        "axis": range(-MAX_RANK, MAX_RANK),
    }
    return all(attribute.i in allowed.get(attribute.name, (attribute.i,)) for attribute in content.attribute)


def check_shape(name: str, shape: Shape, source: str) -> None:
    """Refuse a shape that no tensor has.

    Raises:
        UserError: naming the file and the tensor, for negative sizes and more than ``MAX_ELEMENTS`` elements.
    """
    if min(shape, default=0) < 0 or prod(shape) > MAX_ELEMENTS:
        raise UserError(f"{source}: tensor {name!r} would have shape {list(shape)}; check the model and its inputs")
