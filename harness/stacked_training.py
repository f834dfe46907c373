"""Training several seeds of one configuration as a stack: what each of them would do alone, in the same order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from datasets.base import Benchmark, Rows
from datasets.errors import UserError
from harness.checkpoints import write_checkpoint
from harness.config import ExperimentConfig
from harness.evaluation import Predictions, token_counts
from harness.metric_facts import METRICS, selection_metric
from harness.progress import bar
from harness.stacked import StackingError
from harness.stacked_weights import JoinedBatches, Leaves, WeightStack, prove, used_weights
from harness.training import Validation, quiet_trainer, read_last, step_seed
from predictors.base import Predictor
from predictors.fitted import FittedPredictor
from predictors.recipe import build_optimizer

PROOF_GRAPHS = 4
"""Graphs of the first member's batch on which a stack is compared with its members alone; the others have one more each."""


@dataclass
class Best:
    """The weights of every member with the best validation metric so far."""

    leaves: Leaves
    value: Tensor
    step: list[int]


@dataclass
class Group:
    """Members ``first`` to ``last`` (exclusive), which take equally many steps an epoch and share one optimiser."""

    first: int
    last: int
    steps: int
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    averaged: bool = False


@dataclass
class State:
    """What changes during training.

    Attributes:
        epoch: epochs done.
        seconds: time that they took, also before an interruption.
        averages: moving averages of the weights, if any are kept.
        best: by validation prefix.
        curves: of each member: step and metrics of each validation.
    """

    epoch: int
    seconds: float
    averages: Leaves
    best: dict[str, Best]
    curves: list[list[tuple[int, dict[str, float]]]]


class StackedTraining:
    """The training of S seeds, those with the most steps an epoch first.

    Args:
        predictors: with their initial weights.
        data: of each, set up.
        configs: of each, equal but for the seed.

    Raises:
        UserError: if the predictor cannot be stacked, or for a device setting that stacks do not have.
    """

    def __init__(
        self, predictors: Sequence[Predictor], data: Sequence[Benchmark], configs: Sequence[ExperimentConfig]
    ) -> None:
        self.config, self.recipe = configs[0], configs[0].recipe
        device = _device(self.config)
        check(predictors[0])
        tokens = [token_counts(predictors[0], part, part.parts.train, part.labels.train) for part in data]
        loaders = [
            part.train_dataloader(t if self.recipe.batching == "by_size" else None)
            for part, t in zip(data, tokens, strict=True)
        ]
        self.order = sorted(range(len(configs)), key=lambda i: -len(loaders[i]))
        self.samplers: list[Any] = [loaders[i].sampler for i in self.order]
        self.data, self.seeds = [data[i] for i in self.order], [configs[i].seed for i in self.order]
        self._prepare([predictors[i] for i in self.order], [tokens[i] for i in self.order], device)

    def _prepare(self, predictors: Sequence[Predictor], tokens: Sequence[Rows], device: torch.device) -> None:
        first = self.data[0]
        table = np.zeros(len(first.store), np.int64)
        for part, counts in zip(self.data, tokens, strict=True):
            table[part.parts.train] = counts
        few = [_few(part.parts.train, table, member) for member, part in enumerate(self.data)]
        used = used_weights(predictors[0], first.store.batch(first.parts.train[:2], first.labels.train))
        self.stack = WeightStack(predictors, used)
        self.batches = JoinedBatches(self.stack, self.data, table)
        try:
            prove(self.stack, predictors, self.batches, few)
        except StackingError as error:
            raise _refused(predictors[0], str(error)) from None
        self.stack.to(device)
        averages = [leaf.detach().clone() for leaf in self.stack.leaves] if self.recipe.ema else []
        self.state = State(0, 0.0, averages, {}, [[] for _ in self.data])
        self.steps = [len(sampler) for sampler in self.samplers]
        self.groups = [self._group(steps) for steps in sorted(set(self.steps), reverse=True)]

    def _group(self, steps: int) -> Group:
        first = self.steps.index(steps)
        last = first + self.steps.count(steps)
        parameters = {}
        for name, leaf, shape in zip(("matrices", "vectors"), self.stack.leaves, ((last - first, -1), (-1,)), strict=True):
            parameter = nn.Parameter(leaf.detach()[first:last].view(shape))
            assert leaf.grad is not None
            parameter.grad = leaf.grad[first:last].view(shape)
            parameters[name] = parameter
        return Group(first, last, steps, *build_optimizer(self.recipe, parameters.items(), steps * self.recipe.epochs))

    def run(self, last: Path, resume: bool) -> None:
        """Train to the end, keeping everything in ``last`` at times; with ``resume`` go on from there.

        Raises:
            UserError: if ``last`` is damaged.
        """
        if resume and last.exists():
            self._load(last)
        saved, every = time.monotonic(), min(self.recipe.eval_every, self.recipe.epochs)
        began = saved - self.state.seconds
        description = f"{self.config.predictor.name} on {self.config.dataset.name}, {len(self.seeds)} seeds"
        with bar() as progress:
            total = self.recipe.epochs * self.steps[0]
            task = progress.add_task(description, total=total, completed=self.state.epoch * self.steps[0], note="")
            for epoch in range(self.state.epoch, self.recipe.epochs):
                loss = self._epoch(epoch)
                if (epoch + 1) % every == 0:
                    self._validate(epoch + 1)
                self.state.epoch, self.state.seconds = epoch + 1, time.monotonic() - began
                note = f"epoch {epoch + 1}/{self.recipe.epochs}  train/loss {loss:.4f}"
                progress.update(task, completed=(epoch + 1) * self.steps[0], note=note)
                final = epoch + 1 == self.recipe.epochs
                if final or time.monotonic() - saved >= 60 * self.config.trainer.checkpoint_minutes:
                    self._save(last)
                    saved = time.monotonic()

    def _epoch(self, epoch: int) -> float:
        """All batches of one epoch; the last mean loss."""
        for sampler in self.samplers:
            sampler.set_epoch(epoch)
        batches = [list(sampler) for sampler in self.samplers]
        loss = float("nan")
        for number in range(self.steps[0]):
            rows = [own[number] for own in batches if number < len(own)]
            states = []
            for member in range(len(rows)):
                torch.manual_seed(step_seed(self.seeds[member], epoch * self.steps[member] + number, 0))
                states.append(torch.get_rng_state())
            loss = self.batches.gradients(rows, states)
            self._clip()
            for group in self.groups:
                if number < group.steps:
                    self._update(group)
        return loss

    def _clip(self) -> None:
        """Scale each member's gradient as ``torch.nn.utils.clip_grad_norm_`` does one member's."""
        if not self.recipe.clip:
            return
        gradients = [leaf.grad for leaf in self.stack.leaves if leaf.grad is not None]
        norm = torch.stack([g.square().sum(1) for g in gradients]).sum(0).sqrt()
        scale = (self.recipe.clip / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(scale[:, None])

    @torch.no_grad()
    def _update(self, group: Group) -> None:
        group.optimizer.step()
        group.schedule.step()
        if not self.recipe.ema:
            return
        own = slice(group.first, group.last)
        averages = [leaf[own] for leaf in self.state.averages]
        weights = [leaf.detach()[own] for leaf in self.stack.leaves]
        if group.averaged:
            get_ema_multi_avg_fn(self.recipe.ema)(averages, weights, None)  # type: ignore[no-untyped-call]
        else:
            torch._foreach_copy_(averages, weights)
            group.averaged = True

    def _validate(self, epochs: int) -> None:
        first = self.data[0]
        sets = [self.stack.leaves, self.state.averages][: 1 + bool(self.recipe.ema)]
        rows = [part.parts.val[np.argsort(self.batches.nodes[part.parts.val], kind="stable")] for part in self.data]
        metric, mode = selection_metric(first.task)
        logged: list[dict[str, float]] = [{} for _ in self.data]
        for prefix, leaves in zip(Validation.prefixes, sets, strict=False):
            found = self.batches.predict(leaves, rows, first.labels.val, self.config.trainer.eval_nodes)
            for own, values in zip(found, logged, strict=True):
                row, prediction, label = own
                scores = Predictions.gather([(row, prediction, label)]).scores(first.task)
                values |= {f"{prefix}/{name}": value for name, value in scores.values.items()}
            reached = torch.tensor([values.get(f"{prefix}/{metric}", METRICS[metric].worst) for values in logged])
            self._keep_best(prefix, leaves, reached, mode, epochs)
        for curve, values, steps in zip(self.state.curves, logged, self.steps, strict=True):
            curve.append((epochs * steps - 1, {"epoch": epochs - 1, **values}))  # counted from 0, as Lightning does

    def _keep_best(self, prefix: str, leaves: Leaves, reached: Tensor, mode: str, epochs: int) -> None:
        if prefix not in self.state.best:
            steps = [epochs * n for n in self.steps]
            self.state.best[prefix] = Best([leaf.detach().clone() for leaf in leaves], reached, steps)
            return
        best = self.state.best[prefix]
        for member in torch.nonzero(reached > best.value if mode == "max" else reached < best.value).flatten().tolist():
            best.value[member], best.step[member] = reached[member], epochs * self.steps[member]
            for kept, leaf in zip(best.leaves, leaves, strict=True):
                kept[member] = leaf.detach()[member]

    @property
    def device(self) -> torch.device:
        """Where the stack is."""
        return self.batches.device

    def epoch_steps(self, position: int) -> int:
        """Steps an epoch of seed number ``position`` as given."""
        return self.steps[self.order.index(position)]

    def write_checkpoints(self, position: int, folder: Path) -> list[tuple[int, dict[str, float]]]:
        """Write the checkpoints of seed number ``position`` as given, and return its validation curve."""
        member = self.order.index(position)
        raw = self.stack.state_dict(member, self.stack.leaves)
        last: dict[str, Any] = {"state_dict": raw, "global_step": self.recipe.epochs * self.steps[member]}
        if self.recipe.ema:
            last |= {"state_dict": self.stack.state_dict(member, self.state.averages), "current_model_state": raw}
        write_checkpoint(last, folder / "last.ckpt")
        for prefix, name in zip(Validation.prefixes, ("best", "best_ema"), strict=True):
            if prefix in self.state.best:
                best = self.state.best[prefix]
                content = {"state_dict": self.stack.state_dict(member, best.leaves), "global_step": best.step[member]}
                write_checkpoint(content, folder / f"{name}.ckpt")
        return self.state.curves[member]

    def _save(self, path: Path) -> None:
        state = self.state
        content = {
            "epoch": state.epoch,
            "seconds": state.seconds,
            "leaves": [leaf.detach() for leaf in self.stack.leaves],
            "averages": state.averages,
            "best": {prefix: vars(best) for prefix, best in state.best.items()},
            "curves": state.curves,
            "groups": [(g.optimizer.state_dict(), g.schedule.state_dict(), g.averaged) for g in self.groups],
        }
        write_checkpoint(content, path)

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        content = read_last(path, self.device)
        for leaf, kept in zip(self.stack.leaves, content["leaves"], strict=True):
            leaf.copy_(kept)
        best = {prefix: Best(**{**kept, "value": kept["value"].cpu()}) for prefix, kept in content["best"].items()}
        seconds = content.get("seconds", 0.0)  # which older checkpoints lack
        self.state = State(content["epoch"], seconds, content["averages"], best, content["curves"])
        for group, (optimizer, schedule, averaged) in zip(self.groups, content["groups"], strict=True):
            group.optimizer.load_state_dict(optimizer)
            group.schedule.load_state_dict(schedule)
            group.averaged = averaged


def check(predictor: Predictor) -> None:
    """Check what can be told without trying.

    Raises:
        UserError: for a predictor that cannot be stacked.
    """
    if isinstance(predictor, FittedPredictor):
        raise _refused(predictor, "it is fitted in one go, not trained by gradient steps")
    for name in ("training_step", "validation_step", "configure_optimizers"):
        if getattr(type(predictor), name) is not getattr(Predictor, name):
            raise _refused(predictor, f"it has a {name} of its own")
    parameters = dict(predictor.named_parameters())
    state = [name for name in predictor.state_dict() if name not in parameters]
    if state or not all(parameter.requires_grad for parameter in parameters.values()):
        raise _refused(predictor, f"it has state that is not trained{': ' + state[0] if state else ''}")


def _refused(predictor: Predictor, reason: str) -> UserError:
    return UserError(
        f"predictor={predictor.config.name} cannot be stacked: {reason}; run its seeds one by one with -m seed=..."
    )


def _few(train: Rows, tokens: Rows, member: int) -> Rows:
    """A few training graphs of equally many tokens, another number of them for every member."""
    sizes = tokens[train]
    few: Rows = train[sizes == np.bincount(sizes).argmax()][: PROOF_GRAPHS + member]
    return few


def _device(config: ExperimentConfig) -> torch.device:
    hardware = config.trainer
    if hardware.devices * hardware.num_nodes > 1 or hardware.precision != "32-true":
        raise UserError("seeds=[...] trains on one device in float32; set trainer.devices=1 trainer.precision=32-true")
    trainer = quiet_trainer(hardware, devices=1, logger=False, enable_checkpointing=False)
    return trainer.strategy.root_device
