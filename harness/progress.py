"""Progress bars on stderr."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.distributed import share

T = TypeVar("T")
QUIET_SECONDS = 30
"""Where the output is not a terminal, a line this often stands in for the bar."""
console = Console(stderr=True)


def bar() -> Progress:
    """A progress display with description, bar, count and times; it disappears when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=share().rank > 0 or not console.is_terminal,
    )


def track(items: Collection[T] | Any, description: str) -> Iterator[T]:
    """Yield ``items`` under a progress bar."""
    with bar() as progress:
        task = progress.add_task(description, total=len(items), note="")
        for item in items:
            yield item
            progress.advance(task)


class TrainingProgress(Callback):
    """One bar over all training steps, with the loss and the last validation of ``metric`` beside it."""

    def __init__(self, description: str, metric: str) -> None:
        self.description = description
        self.metrics = ("train/loss", f"val/{metric}", f"val_ema/{metric}")
        self.progress = bar()
        self._printed = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, advanced to where a resumed run stands."""
        self.progress.start()
        steps = int(trainer.estimated_stepping_batches)
        self.task = self.progress.add_task(self.description, total=steps, completed=trainer.global_step, note="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Advance by one step."""
        self.progress.advance(self.task)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last loss and validation metrics."""
        values = trainer.callback_metrics
        note = "  ".join(f"{name} {float(values[name]):.4f}" for name in self.metrics if name in values)
        note = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {note}"
        self.progress.update(self.task, note=note)
        if share().rank == 0 and not console.is_terminal and time.monotonic() - self._printed > QUIET_SECONDS:
            console.print(f"{self.description}: {note}", soft_wrap=True)
            self._printed = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        self.progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bar away before the error is shown."""
        self.progress.stop()
