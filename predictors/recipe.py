"""How a predictor is trained: optimiser, schedule and batch, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class Recipe:
    """Training hyper-parameters.

    Attributes:
        optimizer: ``adamw`` (decoupled decay; 1-D parameters and biases are not decayed) or ``adam`` (no decay).
        lr: peak learning rate.
        weight_decay: of ``adamw``.
        schedule: per-step learning rate after warm-up: ``constant``, ``linear`` or ``cosine``.
        warmup: fraction of all steps over which the learning rate rises linearly from 0.
        final: learning rate at the last step, as a fraction of ``lr``.
        epochs: passes over the training graphs.
        batch_size: graphs of a batch.
        batching: ``shuffled``, or ``by_size`` for batches of graphs with equally many tokens (the official samplers).
        ema: decay per step of the exponential moving average of the weights; 0 keeps none.
        clip: largest gradient norm; 0 does not clip.
        eval_every: epochs between validations.
    """

    optimizer: str
    lr: float
    weight_decay: float
    schedule: str
    warmup: float
    final: float
    epochs: int
    batch_size: int
    batching: str
    ema: float
    clip: float
    eval_every: int


def multiplier(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate at ``step`` (0-based) of ``steps``, as a fraction of the peak.

    Raises:
        ValueError: for an unknown schedule.
    """
    warm = int(recipe.warmup * steps)
    if step < warm:
        return step / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - (1 - recipe.final) * done
    if recipe.schedule == "cosine":
        return recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * done)) / 2
    raise ValueError(f"recipe.schedule={recipe.schedule}: choose constant, linear or cosine")


def build_optimizer(
    recipe: Recipe, parameters: Iterable[nn.Parameter], steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The optimiser and its per-step schedule over ``steps`` steps.

    Raises:
        ValueError: for an unknown optimiser.
    """
    trained = [p for p in parameters if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr)
    elif recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(trained, lr=recipe.lr)
    else:
        raise ValueError(f"recipe.optimizer={recipe.optimizer}: choose adamw or adam")
    return optimizer, LambdaLR(optimizer, lambda step: multiplier(recipe, step, steps))
