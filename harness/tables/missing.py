"""The commands that would run what a table lacks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from harness.registry import CONF
from harness.tables.build import Entry, Table
from harness.tables.defaults import composed
from harness.tables.recorded import Recorded

Command = dict[str, tuple[str, ...]]
"""Overrides: each key with the values that a grid takes."""


def commands(table: Table) -> list[str]:
    """One command for all missing seeds that differ in predictor, training size or experiment file alone."""
    found = [_command(entry) for row in table.entries for entry in row if entry.missing]
    for key in ("predictor", "train", "experiment"):
        found = _merged(found, key)
    return [_text(command) for command in found]


def overrides(entry: Entry) -> list[str]:
    """What a run of a cell overrides, seed aside."""
    return [f"{key}={value}" for key, (value, *_) in _command(entry).items() if key != "seed"]


def _command(entry: Entry) -> Command:
    row, column = entry.row, entry.column
    seeds = {"seed": tuple(map(str, entry.missing))}
    experiment = f"{row.predictor}_{column.dataset}_{column.train or column.family}"
    if not entry.cell.runs and not column.config and _is_experiment(experiment, column.protocol):
        return {"experiment": (experiment,), **_values(row.config), **seeds}
    command: Command = {
        "predictor": (row.predictor,),
        "dataset": (column.dataset,),
        "protocol": (column.protocol,),
        **_values({"train": column.train} if column.train is not None else {}),
        **_values({"protocol.family": column.family} if column.family else {}),
        **_values({"protocol.platform": column.platform} if column.platform else {}),
        **_values(column.config),
    }
    base = tuple(f"{key}={value}" for key, (value,) in command.items())
    runs = list(entry.cell.runs.values())
    return {**command, **_values(_changes(base, runs[0]) if runs else row.config), **seeds}


def _changes(base: tuple[str, ...], run: Recorded) -> dict[str, Any]:
    """What the run's settings change in the composed ``base``: another seed must share them to count beside it."""
    default, settings = composed(*base), run.settings
    return {
        key: settings[key]
        for key, value in default.items()
        if key in settings and settings[key] != value and key.rpartition(".")[2] not in ("seed", "target")
    }


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
