"""The commands that would run what a table lacks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from harness.registry import CONF
from harness.tables.build import Entry, Table
from harness.tables.defaults import composed
from harness.tables.definition import Row

Command = dict[str, tuple[str, ...]]
"""Overrides: each key with the values that a grid takes."""


def commands(table: Table) -> list[str]:
    """One command for all missing seeds that differ in predictor, training size or experiment file alone."""
    columns = list(zip(*table.entries, strict=True))
    found = [
        _command(entry, column)
        for row in table.entries
        for entry, column in zip(row, columns, strict=True)
        if entry.missing
    ]
    for key in ("predictor", "train", "experiment"):
        found = _merged(found, key)
    return [_text(command) for command in found]


def overrides(entry: Entry, column: Sequence[Entry]) -> list[str]:
    """What a run of a cell of a column overrides, seed aside."""
    return [f"{key}={value}" for key, (value, *_) in _command(entry, column).items() if key != "seed"]


def _command(entry: Entry, entries: Sequence[Entry]) -> Command:
    row, column = entry.row, entry.column
    seeds = {"seed": tuple(map(str, entry.missing))}
    like = next((one for one in (entry, *entries) if one.row.predictor == row.predictor and one.cell.runs), None)
    experiment = f"{row.predictor}_{column.dataset}_{column.train or column.family}"
    if not entry.cell.runs and not column.config and _is_experiment(experiment, column.protocol):
        command: Command = {"experiment": (experiment,)}
    else:
        command = _chosen(entry)
    base = tuple(f"{key}={value}" for key, (value,) in command.items())
    return {**command, **_values(_changes(base, row, like) if like else row.config), **seeds}


def _chosen(entry: Entry) -> Command:
    """What a row and its column choose by name and size."""
    row, column = entry.row, entry.column
    return {
        "predictor": (row.predictor,),
        "dataset": (column.dataset,),
        "protocol": (column.protocol,),
        **_values({"train": column.train} if column.train is not None else {}),
        **_values({"protocol.family": column.family} if column.family else {}),
        **_values({"protocol.platform": column.platform} if column.platform else {}),
        **_values(column.config),
    }


def _changes(base: tuple[str, ...], row: Row, like: Entry) -> dict[str, Any]:
    """What the composed ``base`` lacks of a row's configuration and, this aside, of the settings of the runs ``like``.

    Another seed must share them to count beside those runs, and a variant of their predictor to differ in nothing else.
    """
    default = composed(*base)
    shared = {
        key: value
        for key, value in next(iter(like.cell.runs.values())).settings.items()
        if key in default and key not in like.row.config and key.rpartition(".")[2] not in ("seed", "target")
    }
    wanted = {**default, **shared, **row.config}
    return {key: value for key, value in wanted.items() if key not in default or default[key] != value}


@cache
def _is_experiment(name: str, protocol: str) -> bool:
    path = CONF / "experiment" / f"{name}.yaml"
    if not path.is_file():
        return False
    defaults = OmegaConf.select(OmegaConf.load(path), "defaults", default=[])
    return any(entry.get("override /protocol") == protocol for entry in defaults)


def _values(settings: dict[str, Any]) -> Command:
    return {key: (value if isinstance(value, str) else json.dumps(value),) for key, value in settings.items()}


def _merged(commands: Iterable[Command], key: str) -> list[Command]:
    """Commands that differ in ``key`` alone, as one."""
    merged: dict[tuple[Any, ...], Command] = {}
    for command in commands:
        rest = tuple(item for item in command.items() if item[0] != key)
        known = merged.setdefault((key in command, *rest), {**command, key: ()} if key in command else command)
        if key in command:
            known[key] = (*known[key], *(value for value in command[key] if value not in known[key]))
    return list(merged.values())


def _text(command: Command) -> str:
    grid = any(len(values) > 1 for values in command.values())
    overrides = [shlex.quote(f"{key}={','.join(values)}") for key, values in command.items()]
    return " ".join(["python run.py", *(["-m"] if grid else []), *overrides])
