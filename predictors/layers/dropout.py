"""Dropout whose random numbers cost a tenth of the library's on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

_LEVELS = 1 << 16


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero each element with probability ``rate`` and scale the others so that the mean stays.

    On a CPU the mask comes from 16 random bits an element (a counter-free generator seeded from torch's, so
    ``torch.manual_seed`` and a restored random state determine it); ``rate`` is rounded there to a multiple of 2**-16 that
    is neither 0 nor 1, and the scale is that of the rounded rate. Elsewhere it is torch's own dropout.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return x * keep_mask(x, rate)


def keep_mask(like: Tensor, rate: float) -> Tensor:
    """A dropout mask of the shape and type of ``like``: 0 or 1 / (1 - rate).

    Torch function modes can override it, as they can torch's own random functions.
    """
    if has_torch_function_unary(like):
        overridden: Tensor = handle_torch_function(keep_mask, (like,), like, rate)
        return overridden
    dropped = min(max(round(rate * _LEVELS), 1), _LEVELS - 1)
    seed = int(torch.randint(2**62, ()))
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    last = dropped - _LEVELS // 2
    return bits.clamp_(last - 1, last).sub_(last - 1).to(like.dtype).mul_(_LEVELS / (_LEVELS - dropped))
