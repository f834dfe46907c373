"""The device ``ort-cpu``: ONNX Runtime on pinned cores of this machine."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from datasets.errors import UserError

NAME = "ort-cpu"


class OrtCpu:
    """Runs networks one after the other on ``threads`` threads, with full graph optimisation.

    Raises:
        UserError: if ONNX Runtime is not installed.
    """

    def __init__(self, threads: int) -> None:
        try:
            self._runtime = importlib.import_module("onnxruntime")
        except ModuleNotFoundError:
            raise UserError("measuring needs ONNX Runtime; pip install -e '.[measure]' in the checkout") from None
        self._threads = threads

    @property
    def facts(self) -> dict[str, Any]:
        """What latency depends on besides the network."""
        return {
            "device": NAME,
            "cpu": cpu_name(),
            "threads": self._threads,
            "onnxruntime": str(self._runtime.__version__),
            "system": f"{platform.system()} {platform.machine()}",
        }

    def load(self, model: ModelProto) -> Callable[[], object]:
        """A function that runs a network with weights once on random input."""
        runtime = self._runtime
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feeds = {value.name: rng.standard_normal(value.shape, np.float32) for value in session.get_inputs()}
        return lambda: session.run(None, feeds)


@contextmanager
def pinned(threads: int) -> Iterator[list[int]]:
    """Keep this process on as many cores as it has threads, the last it may use; yields them, or none where it cannot.

    Raises:
        UserError: if there are fewer cores than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    allowed = os.sched_getaffinity(0)
    if threads > len(allowed):
        raise UserError(f"--threads {threads}: only {len(allowed)} cores may be used here; ask for at most that many")
    cores = sorted(allowed)[-threads:]
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, allowed)


def cpu_name() -> str:
    """The model of the processor, as the system calls it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
