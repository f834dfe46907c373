"""NAS-Bench-201 from its official files: the two ``.pth`` files and the NATS-Bench folder of one file per architecture."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from datasets.nasbench201_results import Result, collect, read_result
from datasets.store import Columns, Manifest
from datasets.unpickle import PLAIN, TENSORS, load_torch, loads

_LARGEST = 1 << 28
"""Bytes one NATS file may unpack to; the official ones stay far below."""


def read_pth(path: Path) -> tuple[Columns, Manifest]:
    """Read ``NAS-Bench-201-v1_1-096897.pth`` or ``NAS-Bench-201-v1_0-e61699.pth``, in memory of several times its size.

    Raises:
        UserError: naming what is refused, damaged or missing.
    """
    content = load_torch(path, {**PLAIN, **TENSORS})
    cells = _cells(content, str(path))
    records = content.get("arch2infos")
    if not isinstance(records, dict):
        raise UserError(f"{path}: no arch2infos, so not NAS-Bench-201; download it again")
    return collect(_pth_results(records, cells, path), str(path))


def _pth_results(records: dict[int, Any], cells: list[str], path: Path) -> Iterator[Result]:
    for index, cell in enumerate(cells):
        where = f"{path}: architecture {index}"
        record = records.get(index)
        if not isinstance(record, dict) or not {"full", "less"} <= record.keys():
            raise UserError(f"{where}: no full and less results; the file is incomplete: download it again")
        yield read_result({200: record["full"], 12: record["less"]}, cell, where)


def read_nats(folder: Path) -> tuple[Columns, Manifest]:
    """Read the folder ``NATS-tss-v1_0-3ffb9-simple``, one architecture in memory at a time.

    Raises:
        UserError: naming the file that is missing, refused or damaged.
    """
    meta = folder / "meta.pickle.pbz2"
    cells = _cells(_read_packed(meta), str(meta))
    return collect(_nats_results(folder, cells), str(folder))


def _nats_results(folder: Path, cells: list[str]) -> Iterator[Result]:
    for index, cell in enumerate(cells):
        path = folder / f"{index:06d}.pickle.pbz2"
        record = _read_packed(path)
        if not isinstance(record, dict) or not {"200", "12"} <= record.keys():
            raise UserError(f"{path}: no results of 12 and of 200 epochs; download the folder again")
        yield read_result({200: record["200"], 12: record["12"]}, cell, str(path))


def _read_packed(path: Path) -> Any:
    try:
        with bz2.open(path) as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: missing from the series; unpack or download the folder again") from None
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); download the folder again") from None
    if len(data) > _LARGEST:
        raise UserError(f"{path}: unpacks to more than {_LARGEST >> 20} MiB, so not NATS-Bench; download the folder again")
    return loads(data, PLAIN, str(path))


def _cells(content: Any, source: str) -> list[str]:
    cells = content.get("meta_archs") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        raise UserError(f"{source}: no meta_archs (list of architecture strings), so not NAS-Bench-201; download it again")
    return cells
