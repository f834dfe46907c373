"""Several processes that train and score one predictor: how they start and what they tell each other."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from datasets.errors import UserError
from datasets.shares import ALONE, Share
from harness.config import TrainerConfig

T = TypeVar("T")


def share() -> Share:
    """Which of how many processes this is."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE


def launch(hardware: TrainerConfig) -> None:
    """Start the other processes of ``trainer=ddp``, unless torchrun or SLURM did, and join them all into one group.

    The others run the same command from its beginning.

    Raises:
        UserError: if there are not as many processes or devices as asked for, or none of their kind, or none that train in
            the precision asked for.
    """
    asked = hardware.devices * hardware.num_nodes
    several = hardware.strategy == "ddp"
    if asked > 1 and not several:
        raise UserError(f"{asked} devices, of which one would be used; give trainer=ddp, too")
    try:
        fabric = Fabric(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.num_nodes,
            strategy=hardware.strategy,
        )
        if hardware.precision == "16-mixed" and fabric.device.type == "cpu":
            raise UserError("trainer.precision=16-mixed: no CPU trains in float16; give bf16-mixed or 32-true, or a GPU")
        if several:
            fabric.launch()
            atexit.register(_leave)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        given = "trainer=ddp" if several else f"trainer.accelerator={hardware.accelerator}"
        raise UserError(f"{given}: {' '.join(str(error).split())}") from None
    elastic = int(os.environ["WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 1
    started = max(elastic, share().world)
    if started != asked:
        raise UserError(f"{started} processes were started, and {asked} asked for; give trainer=ddp trainer.devices=N")


def _leave() -> None:
    """End the group before the process: Gloo's threads abort one that exits under them, and Lightning ends NCCL's alone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def strategy(hardware: TrainerConfig) -> str | DDPStrategy:
    """How Lightning is to train.

    Buffers are constants. Parameters may have no gradient: heads of platforms that a batch is without, and the last
    NN-Former block's graph convolution, whose output the class token does not read.
    """
    if hardware.strategy == "auto":
        return "auto"
    names = signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"  # so called before torch 2.13
    settings: dict[str, Any] = {"find_unused_parameters": True, sync: False}
    return DDPStrategy(**settings)


def on_first(function: Callable[[], T]) -> T | None:
    """Call ``function`` in the first process, while the others wait and get None.

    Raises:
        UserError: in every process, if ``function`` does.
    """
    result: T | None = None
    mistake: list[UserError | None] = [None]
    if share().rank == 0:
        try:
            result = function()
        except UserError as error:
            mistake = [error]
    _broadcast(mistake)
    if mistake[0] is not None:
        raise mistake[0]
    return result


def from_first(function: Callable[[], T]) -> T:
    """Call ``function`` in the first process; every process gets its result.

    Raises:
        UserError: in every process, if ``function`` does.
    """
    box: list[Any] = [on_first(function)]
    _broadcast(box)
    result: T = box[0]
    return result


def gather(columns: NDArray[Any]) -> NDArray[Any]:
    """The ``columns`` (C, n) of all processes beside each other, in every process; all must call it equally often."""
    if share() == ALONE:
        return columns
    parts: list[Any] = [None] * share().world
    dist.all_gather_object(parts, columns)
    return np.concatenate(parts, axis=1)


def _broadcast(box: list[Any]) -> None:
    if share() != ALONE:
        dist.broadcast_object_list(box)
