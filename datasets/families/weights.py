"""Random weights for networks that are only to be timed."""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper


def with_random_weights(model: ModelProto) -> ModelProto:
    """A copy of a weight-less model whose initializers have values.

    Matrices and kernels are normal with variance 2 / fan-in (He et al., ICCV 2015), vectors uniform in [0.5, 1.5] so that
    they may be variances: activations neither vanish (denormal numbers are slow) nor overflow.

    Args:
        model: a model whose initializers are all single-precision floats.
    """
    rng = np.random.default_rng(0)
    filled = ModelProto()
    filled.CopyFrom(model)
    for tensor in filled.graph.initializer:
        tensor.CopyFrom(_random(tensor, rng))
    return filled


def _random(tensor: TensorProto, rng: np.random.Generator) -> TensorProto:
    dims = tuple(tensor.dims)
    if len(dims) == 1:
        values = rng.random(dims, np.float32) + np.float32(0.5)
    else:
        values = rng.standard_normal(dims, np.float32) * np.float32(math.sqrt(2 / math.prod(dims[1:])))
    return numpy_helper.from_array(values, tensor.name)
