"""Latencies of the NAS-Bench-201 networks on many devices, the networks as whole graphs of ONNX operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from datasets.base import Benchmark, DatasetConfig, LoadingConfig
from datasets.errors import require_choice
from datasets.nb201_devices import DEVICES, NNMETER_TABLE, TABLE
from datasets.nb201_latency_table import read_latencies
from datasets.protocol_types import ProtocolConfig
from datasets.sources import Source

_WHAT = {
    TABLE: ("a table of the latencies of HELP and HW-NAS-Bench: docs/data.md", "https://github.com/HayeonLee/HELP"),
    NNMETER_TABLE: ("a table of the latencies of nn-Meter: docs/data.md", "https://github.com/microsoft/nn-Meter"),
}


@dataclass
class NB201LatencyConfig(DatasetConfig):
    """Configuration of the benchmark.

    Attributes:
        device: whose latencies; see ``nb201_devices.DEVICES``.
    """

    device: str


class NB201Latency(Benchmark):
    """Rows are those of the table, keys architecture strings, labels ``latency_ms.<device>``.

    Every batch size, image size and number of classes is a store of its own: shapes and per-graph features differ.
    """

    Config = NB201LatencyConfig
    task = "latency"
    unit = "ms"
    config: NB201LatencyConfig

    def __init__(self, config: NB201LatencyConfig, protocol: ProtocolConfig, loading: LoadingConfig, seed: int) -> None:
        require_choice("dataset.device", config.device, DEVICES)
        super().__init__(config, protocol, loading, seed)
        self.device = DEVICES[config.device]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The table that the device is in."""
        what, page = _WHAT[self.device.table]
        return (Source(self.device.table, what, page, partial(read_latencies, like=self.device)),)

    @property
    def store_name(self) -> str:
        """The benchmark's name and the device's batch, image size and classes."""
        return f"{self.config.name}-{self.device.setting}"
