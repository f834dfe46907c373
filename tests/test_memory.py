from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from harness.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def layers():
    kept = [torch.ones(250_000) for _ in range(100)]
layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_freed_memory_is_used_again_without_page_faults():
    runs = [[sys.executable, "-c", FAULTS, what] for what in ("keep", "usual")]
    keep, usual = (int(subprocess.run(run, capture_output=True, text=True, check=True).stdout) for run in runs)
    assert usual > 5_000
    assert keep < usual / 20
