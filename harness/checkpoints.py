"""Checkpoints: each written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Replace a checkpoint in one step, which takes a temporary file in its own folder: others may be of other disks."""
    temporary = path.with_name(f".{path.name}")
    torch.save(content, temporary)
    temporary.replace(path)


class WholeCheckpoints(TorchCheckpointIO):
    """Has Lightning write checkpoints by ``write_checkpoint``; of several processes, it lets the first write."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint``."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint, target)
