"""Devices that NAS-Bench-201 networks were measured on: columns of the published latencies and what each ran."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.networks201 import Setting

TABLE = "nasbench201.parquet"
NNMETER_TABLE = "nasbench201_nnmeter_latency.parquet"

_ONE_IMAGE = Setting()
_GPUS = ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp")
_ONE_IMAGE_DEVICES = (
    "essential_ph_1",
    "gold_6226",
    "gold_6240",
    "pixel2",
    "samsung_a50",
    "samsung_s7",
    "silver_4114",
    "silver_4210r",
)


@dataclass(frozen=True)
class Device:
    """One device, or one device at one batch size or on one data set.

    Attributes:
        columns: names of its column, the first present is read.
        setting: batch, image and classes it was measured with.
        table: file it is in.
        folds: its networks went through a compiler or a device model (HW-NAS-Bench), which may have left out what does
            not depend on the image.
    """

    columns: tuple[str, ...]
    setting: Setting = _ONE_IMAGE
    table: str = TABLE
    folds: bool = False


def _help_devices() -> dict[str, Device]:
    """HELP (Lee et al., NeurIPS 2021): five GPUs at three batch sizes; processors and phones at one image."""
    settings = {f"{gpu}_{batch}": Setting(batch) for gpu in _GPUS for batch in (1, 32, 256)}
    settings |= dict.fromkeys(_ONE_IMAGE_DEVICES, _ONE_IMAGE)
    return {name: Device((f"help_lat_{name}",), setting) for name, setting in settings.items()}


def _hwnas_devices() -> dict[str, Device]:
    """HW-NAS-Bench (Li et al., ICLR 2021): six devices on three data sets; HELP repeats four of its CIFAR-10 columns."""
    settings = {
        ("cifar10", ""): _ONE_IMAGE,
        ("cifar100", "_cifar100"): Setting(classes=100),
        ("ImageNet16-120", "_imagenet16"): Setting(side=16, classes=120),
    }
    devices = {
        f"{name}{suffix}": Device((f"hwnb_{data}_{name}_latency",), setting, folds=True)
        for (data, suffix), setting in settings.items()
        for name in ("edgegpu", "edgetpu", "eyeriss", "fpga", "pixel3", "raspi4")
    }
    for name in ("eyeriss", "fpga", "pixel3", "raspi4"):
        devices[name] = Device((f"help_lat_{name}", *devices[name].columns), folds=True)
    return devices


def _nnmeter_devices() -> dict[str, Device]:
    """nn-Meter (Zhang et al., MobiSys 2021): 2,000 networks."""
    columns = {f"nnmeter_{name}": f"lat_ms_{name}" for name in ("cpu", "gpu", "gpu1", "vpu")}
    return {name: Device((column,), table=NNMETER_TABLE) for name, column in columns.items()}


DEVICES = _help_devices() | _hwnas_devices() | _nnmeter_devices()
"""Every device by the name it is chosen by."""
