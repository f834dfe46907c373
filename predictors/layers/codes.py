"""Sinusoidal codes of scalars, two numbers a frequency (NeRF, arXiv 2003.08934; transformer, arXiv 1706.03762)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

KINDS = ("nerf", "trans")
SPACINGS = ("as_code", "as_paper")


def frequencies(count: int, kind: str, spacing: str) -> Tensor:
    """Angular frequencies over pi (``nerf``) or angular frequencies (``trans``), (count,) float32.

    ``nerf`` spaces them linearly from 1 to 2^(count - 1) (``as_code``, what NAR-Former's code does) or takes the powers of
    two in that range (``as_paper``); ``trans`` has 10000^(-j / count) either way.
    """
    if kind == "trans":
        return torch.tensor([10000.0 ** (-j / count) for j in range(count)])
    if spacing == "as_paper":
        return torch.tensor([2.0**j for j in range(count)])
    return torch.linspace(1, 2.0 ** (count - 1), count)


def sinusoids(values: Sequence[float], width: int, kind: str, spacing: str = "as_code") -> Tensor:
    """Codes (len(values), width) float32: sine and cosine of each frequency in turn.

    The arguments are rounded to float32 after each multiplication, because NAR-Former's high frequencies make a code depend
    on that rounding; sine and cosine are then taken in float64, so that codes are the same on every machine.

    Args:
        values: the scalars.
        width: even length of a code, twice the number of frequencies.
        kind: ``nerf`` or ``trans``.
        spacing: of the frequencies of ``nerf``: ``as_code`` or ``as_paper``.
    """
    scalars = torch.tensor(values, dtype=torch.float32)[:, None]
    if kind == "nerf":
        scalars = scalars * math.pi
    angles = (scalars * frequencies(width // 2, kind, spacing)).double()
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()
