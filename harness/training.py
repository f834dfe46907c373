"""Training by gradient steps under Lightning: averaged weights, checkpoints and exact resumption."""

from __future__ import annotations

import errno
import itertools
import logging
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from datasets.base import Benchmark
from datasets.errors import UserError
from datasets.graph import GraphBatch
from harness import distributed, loggers
from harness.checkpoints import WholeCheckpoints
from harness.config import ExperimentConfig, TrainerConfig
from harness.evaluation import Predictions, by_size, token_counts
from harness.metric_facts import METRICS, selection_metric
from harness.progress import TrainingProgress
from predictors.base import Predictor

DAMAGES = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError)
"""What reading a checkpoint raises whose end is missing or whose bytes are others."""


@dataclass(frozen=True)
class Weights:
    """One set of trained weights: a checkpoint and which of the weights in it."""

    file: str
    averaged: bool


def weight_sets(ema: bool) -> dict[str, Weights]:
    """The weights reported of a run, by name: chosen by validation or last, raw or averaged."""
    raw = {"best": Weights("best.ckpt", averaged=False), "last": Weights("last.ckpt", averaged=False)}
    if not ema:
        return raw
    return raw | {"best_ema": Weights("best_ema.ckpt", averaged=True), "last_ema": Weights("last.ckpt", averaged=True)}


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, validated after the raw weights on a second validation loader."""

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self._swapped = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the raw weights for the first loader."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Put the averaged weights in place when the second loader starts."""
        if dataloader_idx == 1 and not self._swapped:
            self._swap_models(pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back."""
        if self._swapped:
            self._swap_models(pl_module)
            self._swapped = False


class Validation(Callback):
    """Metrics over all predictions of a validation pass, logged as ``val/<metric>`` and ``val_ema/<metric>``."""

    prefixes = ("val", "val_ema")

    def __init__(self, task: str) -> None:
        self.task = task
        self.parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: GraphBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's predictions."""
        self.parts.setdefault(dataloader_idx, []).append((batch.row, outputs, batch.target))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score each loader's predictions; a selection metric without a value counts as the worst there is."""
        name, _ = selection_metric(self.task)
        for index, parts in self.parts.items():
            scores = Predictions.gather(parts).scores(self.task)
            values = {name: scores.values.get(name, METRICS[name].worst)} | scores.values
            logged = {f"{self.prefixes[index]}/{metric}": value for metric, value in values.items()}
            pl_module.log_dict(logged, add_dataloader_idx=False)
        self.parts = {}


class StepSeed(Callback):
    """Makes the random numbers of a step a function of (seed, step, rank): a resumed run repeats a whole one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: GraphBatch, batch_idx: int) -> None:
        """Seed torch's generators."""
        torch.manual_seed(step_seed(self.seed, trainer.global_step, trainer.global_rank))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the random numbers of a step."""
    return ((seed * 100_000_007 + step) * 1_009 + rank) % 2**63


class MovableCheckpoint(ModelCheckpoint):
    """Remembers its best score and files when a run is continued, also if the run's folder was moved meanwhile.

    Attributes:
        resumable: whether its file has the optimiser's state; that of the best weights is written too often for it.
    """

    resumable = False
    _writing = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what was remembered, with the files where they are now."""
        paths = {key: self._here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})

    def is_of(self, step: int) -> bool:
        """Whether the file was written at ``step``."""
        return self._last_global_step_saved == step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out of its own file what only a resumption needs."""
        if self._writing and not self.resumable:
            del checkpoint["optimizer_states"]

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self._writing = True
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            self._writing = False

    def _here(self, path: str) -> str:
        return str(Path(str(self.dirpath)) / Path(path).name) if path else path


class LastCheckpoint(MovableCheckpoint):
    """``last.ckpt`` at the end of an epoch: every ``minutes``, after the last, and whenever one of ``best`` was written.

    So what is resumed has the files in ``best`` in its past: a run that goes on otherwise than before, with another number
    of processes or threads, is not judged by weights that are not its own, unless it was killed between the two writes.
    """

    resumable = True

    def __init__(self, folder: Path, minutes: float, best: Sequence[MovableCheckpoint]) -> None:
        super().__init__(folder, filename="last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True)
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self._best = best

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time."""
        final = trainer.current_epoch + 1 == trainer.max_epochs
        better = any(checkpoint.is_of(trainer.global_step) for checkpoint in self._best)
        due = final or better or time.monotonic() - self._saved >= self._seconds
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # clocks differ, and saving takes all processes
            super().on_train_epoch_end(trainer, pl_module)
            self._saved = time.monotonic()


def train(
    predictor: Predictor,
    data: Benchmark,
    config: ExperimentConfig,
    folder: Path,
    logger: Logger | None,
    resume: bool,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Train ``predictor``, leaving ``best.ckpt``, ``best_ema.ckpt`` and ``last.ckpt`` in ``folder``.

    Args:
        predictor: with its initial weights.
        data: set up.
        config: of the experiment.
        folder: of the checkpoints; with ``resume`` its ``last.ckpt`` is continued, if there is one.
        logger: mirror of the curves.
        resume: continue instead of starting afresh.
        callbacks: of the caller's, after our own.

    Raises:
        UserError: if ``last.ckpt`` is damaged.
        KeyboardInterrupt: after Ctrl-C.
    """
    recipe = config.recipe
    sizes = token_counts(predictor, data, data.parts.train, data.labels.train)
    share = distributed.share()
    loader = data.train_dataloader(sizes if recipe.batching == "by_size" else None, share)
    val_rows = share.of_sorted(by_size(predictor, data, data.parts.val, data.labels.val))
    val = [data.eval_dataloader(val_rows, data.labels.val) for _ in range(2 if recipe.ema else 1)]
    last = folder / "last.ckpt"
    step = int(read_last(last)["global_step"]) if resume and last.exists() else None
    with quiet_lightning():
        if step is not None:
            loggers.go_on(logger, step)
        trainer = _trainer(config, data, folder, logger, callbacks)
        try:
            trainer.fit(predictor, loader, val, ckpt_path=None if step is None else last, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    return trainer


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hold back Lightning's remarks on hardware, loaders and its own products; errors and real warnings pass."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*(treespec|exists and is not empty).*")
        yield
    for log, level in zip(logs, levels, strict=True):
        log.setLevel(level)


def quiet_trainer(hardware: TrainerConfig, **settings: Any) -> Trainer:
    """Lightning's Trainer on ``hardware``, without displays of its own; ``settings`` are its other arguments.

    Memory that torch leaves uninitialised is not filled in deterministic mode: nothing here reads any.

    Raises:
        UserError: for hardware that Lightning does not know or does not find here.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with quiet_lightning():
        try:
            return Trainer(
                accelerator=hardware.accelerator,
                precision=hardware.precision,  # type: ignore[arg-type]
                deterministic=hardware.deterministic,
                enable_progress_bar=False,
                enable_model_summary=False,
                **settings,
            )
        except (ValueError, MisconfigurationException) as error:
            asked = f"trainer.accelerator={hardware.accelerator} trainer.precision={hardware.precision}"
            raise UserError(f"{asked}: {error}") from None


def load_weights(predictor: Predictor, folder: Path, weights: Weights) -> int:
    """Load one set of weights of a finished run and return the training step they are of.

    Raises:
        UserError: if the checkpoint is missing or damaged.
    """
    path = folder / weights.file
    try:
        checkpoint = _read(path, "cpu", "train again")
    except FileNotFoundError:
        raise UserError(f"{path}: no checkpoint; finish the run with resume={folder.parent}") from None
    key = "state_dict" if weights.averaged or "current_model_state" not in checkpoint else "current_model_state"
    if missing := [name for name in (key, "global_step") if name not in checkpoint]:
        raise UserError(f"{path}: no checkpoint of a run ({', '.join(missing)} missing); train again")
    predictor.load_state_dict(checkpoint[key])
    return int(checkpoint["global_step"])


def read_last(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read the checkpoint that an interrupted run goes on from, its tensors to ``device``.

    Raises:
        UserError: if it is damaged.
    """
    return _read(path, device, f"delete it, and resume={path.parent.parent} trains from the beginning")


def _read(path: Path, device: str | torch.device, remedy: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (FileNotFoundError, torch.OutOfMemoryError):
        raise
    except DAMAGES as error:
        # of a file that is cut torch seeks places that are not there
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
        raise UserError(f"{path}: damaged checkpoint; {remedy}") from None
    return content


def _trainer(
    config: ExperimentConfig, data: Benchmark, folder: Path, logger: Logger | None, callbacks: Sequence[Callback]
) -> Trainer:
    recipe, hardware = config.recipe, config.trainer
    return quiet_trainer(
        hardware,
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy=distributed.strategy(hardware),
        use_distributed_sampler=False,
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip or None,
        check_val_every_n_epoch=min(recipe.eval_every, recipe.epochs),
        num_sanity_val_steps=0,
        callbacks=[*_callbacks(config, data, folder), *callbacks],
        plugins=WholeCheckpoints(),
        logger=logger or False,
        log_every_n_steps=10,
        default_root_dir=folder,
    )


def _callbacks(config: ExperimentConfig, data: Benchmark, folder: Path) -> list[Callback]:
    metric, mode = selection_metric(data.task)
    averaging = [AveragedWeights(config.recipe.ema)] if config.recipe.ema else []
    best = [
        MovableCheckpoint(folder, filename=name, monitor=f"{prefix}/{metric}", mode=mode, enable_version_counter=False)
        for prefix, name in itertools.islice((("val", "best"), ("val_ema", "best_ema")), 1 + len(averaging))
    ]
    description = f"{config.predictor.name} on {config.dataset.name}"
    return [
        StepSeed(config.seed),
        *averaging,
        Validation(data.task),
        TrainingProgress(description, metric),
        *best,
        LastCheckpoint(folder, config.trainer.checkpoint_minutes, best),
    ]
