"""How a predictor is trained: optimiser, schedule and batch, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from datasets.errors import UserError, require_choice


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


def check(recipe: Recipe, *, fitted: bool = False) -> None:
    """Check what the types cannot.

    Args:
        recipe: the recipe.
        fitted: whether the predictor takes no gradient steps, whose learning rate may be 0.

    Raises:
        UserError: for an unknown choice, or a number out of range.
    """
    require_choice("recipe.optimizer", recipe.optimizer, ("adamw", "adam"))
    require_choice("recipe.schedule", recipe.schedule, ("constant", "linear", "cosine"))
    require_choice("recipe.batching", recipe.batching, ("shuffled", "by_size"))
    ranges = {
        "lr": (0 < recipe.lr < math.inf or (fitted and recipe.lr == 0), "a number above 0"),
        "weight_decay": (0 <= recipe.weight_decay < math.inf, "0 or more"),
        "warmup": (0 <= recipe.warmup <= 1, "a fraction from 0 to 1"),
        "final": (0 <= recipe.final <= 1, "a fraction from 0 to 1"),
        "ema": (0 <= recipe.ema < 1, "0 or a decay below 1"),
        "clip": (0 <= recipe.clip < math.inf, "0 or more"),
        "epochs": (recipe.epochs >= 1, "1 or more"),
        "batch_size": (recipe.batch_size >= 1, "1 or more"),
        "eval_every": (recipe.eval_every >= 1, "1 or more"),
    }
    for name, (inside, remedy) in ranges.items():
        if not inside:
            raise UserError(f"recipe.{name}={getattr(recipe, name)}: give {remedy}")


def multiplier(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate at ``step`` (0-based) of ``steps``, as a fraction of the peak; warm-up may end between two steps."""
    warm = round(recipe.warmup * steps, 9)
    if step < warm:
        return step / max(1.0, warm)
    done = min(1.0, (step - warm) / max(1.0, steps - warm))
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "linear":
        return 1 - (1 - recipe.final) * done
    return recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * done)) / 2


def is_decayed(name: str, weight: Tensor) -> bool:
    """Whether ``adamw`` decays a parameter: biases of groups of channels have several dimensions, and are biases still."""
    return weight.ndim > 1 and not name.endswith("bias")


def build_optimizer(
    recipe: Recipe, named: Iterable[tuple[str, nn.Parameter]], steps: int
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """The optimiser of ``named`` parameters and its per-step schedule over ``steps`` steps.

    The update is fused into one pass over the weights, but not with clipping, which Lightning refuses in mixed precision.
    """
    trained = {name: p for name, p in named if p.requires_grad}
    fused = not recipe.clip
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        groups = [
            {"params": [p for name, p in trained.items() if is_decayed(name, p)], "weight_decay": recipe.weight_decay},
            {"params": [p for name, p in trained.items() if not is_decayed(name, p)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr, fused=fused)
    else:
        optimizer = torch.optim.Adam(trained.values(), lr=recipe.lr, fused=fused)
    return optimizer, LambdaLR(optimizer, lambda step: multiplier(recipe, step, steps))
