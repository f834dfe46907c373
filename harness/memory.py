"""The memory of this process: how the C library keeps that of freed tensors, and the most there was."""

from __future__ import annotations

import ctypes
import platform
import re
import resource
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

_PEAK_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next tensors instead of handing it back after every layer.

    By default glibc returns the top of the heap once it is 128 KiB to 64 MiB large, and the kernel has to clear the same
    pages for the next tensor: up to half the time of scoring whole networks. Afterwards the heap stays as large as it ever
    was. Elsewhere than with glibc nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_MMAP_THRESHOLD, 2**25)


def restart_peak() -> None:
    """Hand back the memory that is not used, and count ``peak_memory_mb`` from now on.

    Only Linux can (proc(5), ``clear_refs``); elsewhere the peak stays that of the process.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    if _PEAK_RESET.exists():
        _PEAK_RESET.write_text("5")


def peak_memory_mb() -> float:
    """Largest resident size of this process since ``restart_peak``, in MB."""
    if _STATUS.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
