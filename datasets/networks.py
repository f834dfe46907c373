"""Whole networks as graphs of ONNX operations, in the vocabulary of NNLQP (Liu et al., ICPP 2022)."""

from __future__ import annotations

KNOWN = (
    "Conv",
    "Relu",
    "Add",
    "Sigmoid",
    "Reshape",
    "MaxPool",
    "Split",
    "GlobalAveragePool",
    "Gemm",
    "Transpose",
    "Upsample",
    "BatchNormalization",
    "Mul",
    "Concat",
    "Flatten",
    "AveragePool",
    "Cast",
    "MatMul",
    "ReduceMean",
    "Pow",
    "Slice",
    "Div",
    "Sub",
    "Sqrt",
    "Clip",
    "Softmax",
    "Tanh",
    "ConvTranspose",
)
"""NNLQP's operations in the order of its one-hot codes."""

INPUT = "Input"
UNKNOWN = "Unknown"

OPERATIONS = (*KNOWN, INPUT, UNKNOWN)
"""The vocabulary of whole networks; the official predictors see ``Input`` and ``Unknown`` alike as no operation at all."""

_POOL = ("kernel", "stride", "pad")
_CONV = (*_POOL, "dilation", "group", "bias")

ATTRIBUTES = {
    "Conv": _CONV,
    "ConvTranspose": (*_CONV, "output_padding"),
    "MaxPool": _POOL,
    "AveragePool": _POOL,
    "Gemm": ("bias",),
    "Transpose": ("perm",) * 8,
}
"""Meaning of the leading attribute slots of each operation that has any; the others are 0."""

STATIC = {"batch": "graphs", "flops": "operations", "params": "parameters", "memory": "elements"}
"""Units of the per-graph features of whole networks."""
