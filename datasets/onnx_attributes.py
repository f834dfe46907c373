"""The attribute slots of a node (``networks.ATTRIBUTES``), as NNLQP's code fills them and as they should be.

``as_code`` keeps the first element of kernel, stride, pad, dilation and output padding, so that 1x3 and 1x1 kernels look
alike, and takes stated pads only. ``fixed`` keeps the geometric mean of kernel, stride and dilation (whose product over the
dimensions is what costs time) and the arithmetic mean of all pads and output paddings (which may be 0), with the pads that
``auto_pad`` and ``output_shape`` imply. Both agree wherever all dimensions are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from datasets.graph import ATTRIBUTE_SLOTS
from datasets.networks import ATTRIBUTES
from datasets.onnx_operator import Operator


def attribute_slots(operator: Operator, *, as_code: bool) -> list[float]:
    """The 8 attribute slots of an operator.

    Raises:
        UserError: for attributes that are not possible.
    """
    names = ATTRIBUTES.get(operator.type)
    if names is None:
        return [0.0] * ATTRIBUTE_SLOTS
    if "perm" in names:
        slots = [float(axis) for axis in operator.integers("perm") or reversed(range(len(operator.input)))]
    else:
        slots = [_slot(operator, name, as_code) for name in names]
    return (slots + [0.0] * ATTRIBUTE_SLOTS)[:ATTRIBUTE_SLOTS]


def _slot(operator: Operator, name: str, as_code: bool) -> float:
    match name:
        case "bias":
            return float(operator.bias)
        case "group":
            return float(operator.group)
        case "pad":
            return float((operator.integers("pads") or (0,))[0]) if as_code else _mean_pad(operator)
        case "output_padding":
            return _mean(operator.integers("output_padding"))
        case "kernel":
            values = operator.kernel
        case _:
            values = operator.sizes(f"{name}s")
    if as_code:
        return float(values[0]) if values else 1.0
    return math.pow(math.prod(values), 1 / max(1, len(values)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _mean_pad(operator: Operator) -> float:
    """Mean over the two sides of every dimension."""
    if not operator.text("auto_pad", "NOTSET").startswith("SAME") and not operator.integers("output_shape"):
        return _mean(operator.integers("pads"))
    kernel = operator.kernel
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    extra: Sequence[int] = zeros
    small, large = operator.output[2:], operator.input[2:]
    if operator.type == "ConvTranspose":
        small, large, extra = large, small, operator.integers("output_padding") or zeros
    strides, dilations = operator.sizes("strides") or ones, operator.sizes("dilations") or ones
    dimensions = zip(small, large, kernel, strides, dilations, extra, strict=False)
    return _mean([max(0, (s - 1) * step + (k - 1) * d + 1 + e - n) / 2 for s, n, k, step, d, e in dimensions])
