"""Parameters and multiply-accumulates of a NAS-Bench-201 network, from the operations of its cell.

Source: "NAS-Bench-201" (Dong and Yang, ICLR 2020, section 2.1): a 3x3 convolution stem with batch normalisation, three
stages of five cells with 16, 32 and 64 channels, a stride-2 residual block (two 3x3 convolutions with batch normalisation,
and a 2x2 pool with a 1x1 convolution as shortcut) before the second and the third stage, batch normalisation, global
pooling and a linear classifier. Only a cell's convolutions cost anything, so both counts are linear in their number.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from datasets.cells201 import NODE_OPERATIONS

_STAGES = ((16, 32), (32, 16), (64, 8))
"""(channels, side of the square feature map) of each stage."""

_CELLS = 5
_CLASSES = 10


def cell_costs(nodes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cost of networks on one 32x32 CIFAR-10 image.

    Args:
        nodes: node-operation ids (B, 8).

    Returns:
        Trainable parameters (B,) and multiply-accumulates of the convolutions and the classifier (B,).
    """
    fixed = np.array(_fixed_cost(), np.int64)
    total = np.tile(fixed, (len(nodes), 1))
    for name, kernel in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
        count = (nodes == NODE_OPERATIONS.index(name)).sum(1)
        total += count[:, None] * np.array(_convolution_cost(kernel), np.int64)
    return total[:, 0], total[:, 1]


def _convolution_cost(kernel: int) -> tuple[int, int]:
    weights = [(kernel * c) ** 2 for c, _ in _STAGES]
    params = sum(w + 2 * c for w, (c, _) in zip(weights, _STAGES, strict=True))
    macs = sum(w * side**2 for w, (_, side) in zip(weights, _STAGES, strict=True))
    return _CELLS * params, _CELLS * macs


def _fixed_cost() -> tuple[int, int]:
    (first, side), (last, _) = _STAGES[0], _STAGES[-1]
    stem, linear = 3 * 9 * first, last * _CLASSES
    params, macs = stem + 2 * first + 2 * last + linear + _CLASSES, stem * side**2 + linear
    for (before, _), (after, small) in pairwise(_STAGES):
        weights = 9 * before * after + 9 * after * after + before * after
        params += weights + 4 * after
        macs += weights * small**2
    return params, macs
