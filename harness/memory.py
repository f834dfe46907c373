"""How the C library keeps the memory of freed tensors."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt`` (malloc.h)."""


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
