"""Loss terms of the published predictors; predictions and targets are (B,) in label units."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


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


def pair_terms(
    prediction: Tensor, target: Tensor, error: tuple[str, float, Loss], ranking: float, consistency: float
) -> dict[str, Tensor]:
    """The three weighted terms of the NAR-Former line, over graphs and their second versions.

    Args:
        prediction: (2B,), the graphs, then a second pass or an augmentation of each.
        target: (B,) labels of the graphs.
        error: name, weight and function of the error term.
        ranking: weight of ``sequence_ranking`` over a random permutation of all 2B.
        consistency: weight of ``architecture_consistency``.
    """
    name, weight, function = error
    labels = target.repeat(2)
    return {
        name: weight * function(prediction, labels),
        "ranking": ranking * sequence_ranking(prediction, labels, random_permutation(prediction)),
        "consistency": consistency * architecture_consistency(*prediction.chunk(2)),
    }
