"""NAS-Bench-201 from one Parquet table, one row per cell; the columns are in docs/data.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.nasbench201_columns import build
from datasets.store import Columns, Manifest

LABELS = {
    "hp200_c10valid_val": "cifar10valid_validation_200ep",
    "hp200_c10valid_test": "cifar10valid_test_200ep",
    "hp200_c10_test": "cifar10_test_200ep",
    "nats_c10_test200": "nats_cifar10_test_200ep",
    "nats_c100_test200": "nats_cifar100_test_200ep",
    "nats_in16_test200": "nats_imagenet16_test_200ep",
    "hp12_c10valid_val": "cifar10valid_validation_12ep",
    "hp12_c10_test": "cifar10_test_12ep",
    "hp12_c100_val": "cifar100_validation_12ep",
    "hp12_c100_test": "cifar100_test_12ep",
    "hp12_in16_val": "imagenet16_validation_12ep",
    "hp12_in16_test": "imagenet16_test_12ep",
}
"""Label of each column of accuracies in percent; ``nats_`` labels are of another release and never to be mixed."""

_PARAMS = "params_M_nats"


def read_table(path: Path) -> tuple[Columns, Manifest]:
    """Read a table with ``arch_idx``, ``arch_str`` and at least one of ``LABELS``; other columns are ignored.

    Parameters and multiply-accumulates are computed from the cell; ``params_M_nats`` (millions), where the table has it,
    must be these parameters.

    Raises:
        UserError: naming the file and the row and column that are missing or not valid, or the column of fractions.
    """
    table = _read(path)
    percent = {name: _numbers(path, table, name) for name in LABELS if name in table.column_names}
    for name, values in percent.items():
        _refuse(path, name, ~((values >= 0) & (values <= 100)), values, "is no accuracy in percent")
        if len(values) and values.max() <= 1:
            raise UserError(f"{path}: column {name}: no accuracy is above {values.max():g}: fractions? give percent")
    index = _numbers(path, table, "arch_idx")
    _refuse(path, "arch_idx", index != np.arange(len(index)), index, "is not the row number")
    columns, manifest = build(
        str(path), _strings(path, table, "arch_str"), {LABELS[name]: values / 100 for name, values in percent.items()}
    )
    if _PARAMS in table.column_names:
        _check_params(path, _numbers(path, table, _PARAMS), columns.static["params"])
    return columns, manifest


def _check_params(path: Path, millions: NDArray[np.float64], computed: NDArray[np.int64]) -> None:
    _refuse(path, _PARAMS, ~(np.isfinite(millions) & (millions > 0)), millions, "is no number of parameters in millions")
    wrong = np.rint(millions * 1e6) != computed
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}: row {row}, column {_PARAMS}: {millions[row]} given where this cell's network has "
            f"{computed[row] / 1e6} million parameters; mend it or leave the column out"
        )


def _read(path: Path) -> pa.Table:
    try:
        names = pa.parquet.read_schema(path).names
        missing = [name for name in ("arch_idx", "arch_str") if name not in names]
        if missing:
            raise UserError(f"{path}: no column {missing[0]}; it has {', '.join(names)}")
        if not LABELS.keys() & set(names):
            raise UserError(f"{path}: no column of labels; add one of {', '.join(LABELS)}")
        wanted = [name for name in ("arch_idx", "arch_str", _PARAMS, *LABELS) if name in names]
        return pa.parquet.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); copy it again") from None


def _numbers(path: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    column = table[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise UserError(f"{path}: column {name} holds {column.type}, not numbers; make the table again")
    values = np.asarray(column.to_numpy(), np.float64)
    _refuse(path, name, np.isnan(values), values, "is no number")
    return values


def _strings(path: Path, table: pa.Table, name: str) -> list[str]:
    column = table[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise UserError(f"{path}: column {name} holds {column.type}, not text; make the table again")
    return ["" if text is None else text for text in column.to_pylist()]


def _refuse(path: Path, name: str, bad: NDArray[np.bool_], values: NDArray[Any], why: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise UserError(f"{path}: row {rows[0]}, column {name}: {values[rows[0]]:g} {why}; mend it or make the table again")
