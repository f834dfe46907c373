"""Runs that are killed midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def kill_after_first_checkpoint(overrides: Sequence[str], out: Path) -> Path:
    """Start ``run.py`` in ``out``, kill it once ``last.ckpt`` is there, and return that file."""
    command = [sys.executable, "run.py", *overrides, "trainer.checkpoint_minutes=0", f"out={out}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last, patience = out / "checkpoints" / "last.ckpt", time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert last.exists()
    return last


def resume(out: Path) -> None:
    """Finish the run in ``out``."""
    done = subprocess.run([sys.executable, "run.py", f"resume={out}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
