"""Loss terms of the published predictors; predictions and targets are (B,) in label units."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of (p - g)^2."""
    return (prediction - target).square().mean()


def relative_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of (p / g - 1)^2, the latency loss of NNLP, NAR-Former V2 and NN-Former."""
    return (prediction / target - 1).square().mean()


def sequence_ranking(prediction: Tensor, target: Tensor, permutation: Tensor) -> Tensor:
    """Mean of |(p_i - p_k(i)) - (g_i - g_k(i))| for a permutation k of the batch (NAR-Former, eq. 8)."""
    return ((prediction - prediction[permutation]) - (target - target[permutation])).abs().mean()


def architecture_consistency(first: Tensor, second: Tensor) -> Tensor:
    """Mean of |p - p'| over two predictions of the same architectures (NAR-Former, eq. 9)."""
    return (first - second).abs().mean()


def random_permutation(like: Tensor) -> Tensor:
    """A uniform permutation of the batch ``like`` (B,), on its device."""
    return torch.randperm(like.shape[0], device=like.device)
