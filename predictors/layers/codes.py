"""Sinusoidal codes of scalars, two numbers a frequency (NeRF, arXiv 2003.08934; transformer, arXiv 1706.03762)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("nerf", "trans")
SPACINGS = ("as_code", "as_paper")


def nerf_frequencies(count: int, spacing: str, computed_in: torch.dtype = torch.float32) -> Tensor:
    """Angular frequencies (count,) over pi, float32: ``as_paper`` 1, 2, 4 ..., ``as_code`` linear from 1 to 2^(count - 1).

    Both NAR-Formers space them linearly. These frequencies are so high that a code depends on their last bit: NAR-Former
    computes them in float32, NAR-Former V2 (under NumPy 1) in float64 and rounds them then.
    """
    if spacing == "as_paper":
        return torch.tensor([2.0**j for j in range(count)])
    return torch.linspace(1, 2.0 ** (count - 1), count, dtype=computed_in).float()


def transformer_frequencies(count: int) -> Tensor:
    """Angular frequencies 10000^(-j / count) (count,) float32."""
    return torch.tensor([10000.0 ** (-j / count) for j in range(count)])


def sinusoids(values: Tensor, frequencies: Tensor) -> Tensor:
    """Sine and cosine (..., F, 2) of ``values`` (...) times each of ``frequencies`` (F,), in the type of ``values``.

    The products are rounded to that type, as the official code's are; sine and cosine are then taken in float64, so that
    codes are the same on every machine.
    """
    angles = (values[..., None] * frequencies).double()
    return torch.stack([angles.sin(), angles.cos()], -1).to(values.dtype)


def code_table(values: Tensor, width: int, kind: str, spacing: str, computed_in: torch.dtype = torch.float32) -> Tensor:
    """Codes (rows, width) of ``values`` (rows,).

    Args:
        values: the scalars, float32.
        width: even length of a code, twice the number of frequencies.
        kind: ``nerf`` or ``trans``.
        spacing: of the frequencies of ``nerf``: ``as_code`` or ``as_paper``.
        computed_in: type in which the frequencies of ``nerf`` are computed.
    """
    if kind == "trans":
        return sinusoids(values, transformer_frequencies(width // 2)).flatten(1)
    return sinusoids(values * math.pi, nerf_frequencies(width // 2, spacing, computed_in)).flatten(1)
