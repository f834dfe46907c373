"""The table of labels of NNLQP (``gt.txt``): one row per measurement, columns separated by spaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.errors import UserError

COLUMNS = "id, ONNX path, batch size, latency in ms, family, platform id and, in all rows or none, stage"
STAGES = ("train", "test")

MAX_DIGITS = 18
"""Most digits of a batch size or platform id."""

LATENCIES = 1e-9, 1e9
"""Least and greatest latency that is believed, in ms: a picosecond, and eleven days."""

PLATFORMS = {
    1: "gpu-gtx1660-trt7.1-fp32",
    2: "cpu-openppl-fp32",
    9: "hi3559A-nnie11-int8",
    10: "gpu-T4-trt7.1-fp32",
    12: "gpu-T4-trt7.1-int8",
    13: "gpu-P4-trt7.1-fp32",
    14: "gpu-P4-trt7.1-int8",
    16: "hi3519A-nnie12-int8",
    18: "atlas300-acl-fp16",
    23: "mul270-neuware-int8",
}
"""Names of the platforms by their ids (NNLQP, README and demo)."""


@dataclass(frozen=True)
class Measurement:
    """A row of the table.

    Attributes:
        id: official id.
        path: ONNX file, relative to the folder of the table.
        batch: batch size it was measured with.
        latency: milliseconds.
        family: kind of network.
        platform: name of the device, its id where NNLQP publishes none.
        stage: ``train`` or ``test``, where published.
    """

    id: str
    path: str
    batch: int
    latency: float
    family: str
    platform: str
    stage: str | None


def read_table(path: Path) -> list[Measurement]:
    """Every row, in file order.

    Raises:
        UserError: naming the file and the row that is not valid.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; save it as one, or download it again") from None
    numbered = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"{path}: no rows; write some, or download it again")
    width = len(numbered[0][1])
    rows = [_parse(f"{path}: row {number}", fields, width) for number, fields in numbered]
    _check_unique(path, [number for number, _ in numbered], rows)
    return rows


def keys(rows: Sequence[Measurement]) -> list[str]:
    """A name for each row: its id, with the platform where ids occur on several."""
    unique = len({row.id for row in rows}) == len(rows)
    return [row.id if unique else f"{row.id}@{row.platform}" for row in rows]


def _parse(where: str, fields: Sequence[str], width: int) -> Measurement:
    if len(fields) != width or width not in (6, 7):
        raise UserError(f"{where}: {len(fields)} columns; there must be {COLUMNS}")
    name, path, batch, latency, family, platform = fields[:6]
    stage = fields[6] if width == 7 else None
    if stage is not None and stage not in STAGES:
        raise UserError(f"{where}: stage {stage!r} is unknown; write {' or '.join(STAGES)}")
    number = _integer(platform, where, "platform id", 0)
    return Measurement(
        id=name,
        path=_inside(path, where),
        batch=_integer(batch, where, "batch size", 1),
        latency=_latency(latency, where),
        family=family,
        platform=PLATFORMS.get(number, str(number)),
        stage=stage,
    )


def _integer(text: str, where: str, what: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS) or int(text) < least:
        raise UserError(
            f"{where}: {what} {text[: MAX_DIGITS + 1]!r} is no whole number from {least} on; the columns are {COLUMNS}"
        )
    return int(text)


def _latency(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not LATENCIES[0] <= value <= LATENCIES[1]:
        raise UserError(f"{where}: {text!r} is no latency in ms; mend or remove the row (the columns are {COLUMNS})")
    return value


def _inside(text: str, where: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise UserError(f"{where}: path {text!r} leaves the folder of the table; write it relative to that folder")
    return str(path)


def _check_unique(path: Path, numbers: Sequence[int], rows: Sequence[Measurement]) -> None:
    first: dict[tuple[str, str], int] = {}
    for number, row in zip(numbers, rows, strict=True):
        earlier = first.setdefault((row.id, row.platform), number)
        if earlier != number:
            raise UserError(f"{path}: row {number}: id {row.id} is that of row {earlier}; remove one of them")
