from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest

STARTING_THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""glibc's own value (mallopt(3)); given by name it stays, where it would else grow with what happens to be freed."""

FAULTS = """
import resource, sys, torch
from harness.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def layers():
    kept = [torch.ones(250_000) for _ in range(100)]
for _ in range(3):
    layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_freed_memory_is_used_again_without_page_faults():
    runs = [[sys.executable, "-c", FAULTS, what] for what in ("keep", "usual")]
    environment = os.environ | STARTING_THRESHOLD
    faults = [subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout for run in runs]
    pages = 5 * 100 * 250_000 * 4 // resource.getpagesize()
    keep, usual = map(int, faults)
    assert usual > pages / 2
    assert keep < pages / 100
