"""What a stack of seeds saves: the time of an optimiser step of ten seeds over that of one, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from datasets.graph import GraphBatch
from harness.bench import default_predictor, median_seconds, optimizer_step, trained_predictors
from harness.bench_inputs import random_cells
from harness.stacked import Layout
from harness.stacked_draws import MemberDraws
from harness.stacked_weights import WeightStack, used_weights
from predictors.recipe import build_optimizer

SEEDS = 10


def bench_seeds() -> Iterator[tuple[str, float]]:
    """Ratio for every predictor that takes gradient steps, with the batch of its default recipe of cells."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in trained_predictors("cells"):
        size = default_predictor(name, "cells").recipe.batch_size
        alone = optimizer_step(default_predictor(name, "cells").train().to(device), random_cells(size).to(device))
        together = stacked_step(name, random_cells(SEEDS * size).to(device))
        one, ten = (median_seconds(_synchronised(step), 5) for step in (alone, together))
        yield f"{name}.seeds1_step_ms", 1000 * one
        yield f"{name}.seeds10_step_ms", 1000 * ten
        yield f"{name}.seeds10_over_1", ten / one


def stacked_step(name: str, batch: GraphBatch) -> Callable[[], None]:
    """One optimiser step of ten seeds, each on a tenth of ``batch``."""
    device, graphs = batch.op.device, len(batch) // SEEDS
    predictors = [default_predictor(name, "cells") for _ in range(SEEDS)]
    stack = WeightStack(predictors, used_weights(predictors[0], random_cells(2)))
    stack.to(device)
    joined = Layout([graphs] * SEEDS, [len(batch.op) // SEEDS] * SEEDS, device)
    matrices, vectors = stack.leaves
    parameters = {"matrices": nn.Parameter(matrices.detach()), "vectors": nn.Parameter(vectors.detach().view(-1))}
    optimizer, _ = build_optimizer(predictors[0].recipe, parameters.items(), 100)

    def step() -> None:
        for leaf, parameter in zip(stack.leaves, parameters.values(), strict=True):
            leaf.grad = torch.zeros_like(leaf)
            parameter.grad = leaf.grad.view(parameter.shape)
        with MemberDraws(joined, [torch.get_rng_state()] * SEEDS):
            terms = stack.call(stack.leaves, range(SEEDS), batch, joined, training=True)
            loss = torch.stack(list(terms.values())).sum() * SEEDS
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _synchronised(step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run
