"""What a table shows, read from YAML."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datasets.errors import UserError, require_choice
from harness.config import require_seeds
from harness.metric_facts import COSTS, METRICS
from harness.registry import names, suggest
from harness.tables.defaults import composed

RESULTS = Path(__file__).parents[2] / "results"
"""The checkout's folder of published figures, table definitions and kept records."""


@dataclass
class Row:
    """One predictor of a table.

    Attributes:
        predictor: registered name.
        label: what the table calls it.
        config: values, by dotted key, that a record's configuration must have.
        variant: the ``variant`` of its published figures; None where none is published.
    """

    predictor: str = MISSING
    label: str = MISSING
    config: dict[str, Any] = field(default_factory=dict)
    variant: str | None = ""


@dataclass
class ColumnGroup:
    """Neighbouring columns that differ in the protocol.

    Attributes:
        dataset: registered name.
        protocols: names of protocols, one column each.
        label: heading.
        train: number of training graphs; None accepts any.
        family: the family that is held out.
        platform: the device of the protocol.
        config: values, by dotted key, that a record's configuration must have.
        metric: of a table of costs, another cost than the table's.
    """

    dataset: str = MISSING
    protocols: list[str] = MISSING
    label: str = MISSING
    train: int | None = None
    family: str | None = None
    platform: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    metric: str | None = None


@dataclass(frozen=True)
class Column:
    """One column: data, protocol and training size, family or settings; see ``ColumnGroup``."""

    dataset: str
    protocol: str
    label: str
    train: int | None
    family: str | None
    platform: str | None
    config: dict[str, Any]
    metric: str

    @property
    def setting(self) -> str:
        """What its runs share, the same for columns of any label and metric."""
        return json.dumps(
            [self.dataset, self.protocol, self.train, self.family, self.platform, self.config], sort_keys=True
        )


@dataclass
class Definition:
    """A table: its rows, its columns and what is in the cells.

    Attributes:
        title: heading.
        metric: a metric of the test set or a cost, see ``METRICS`` and ``COSTS``.
        seeds: the seeds that count; others are left out.
        rows: predictors.
        columns: settings.
        notes: sentences below the table.
        name: file name without suffix.
    """

    title: str = MISSING
    metric: str = MISSING
    seeds: list[int] = MISSING
    rows: list[Row] = MISSING
    columns: list[ColumnGroup] = MISSING
    notes: list[str] = field(default_factory=list)
    name: str = ""

    def single_columns(self) -> list[Column]:
        """Every column, those of one group side by side."""
        return [
            Column(
                dataset=group.dataset,
                protocol=protocol,
                label=group.label,
                train=group.train,
                family=group.family,
                platform=group.platform,
                config=group.config,
                metric=group.metric or self.metric,
            )
            for group in self.columns
            for protocol in group.protocols
        ]


def known_tables() -> list[str]:
    """Names of the definitions in ``results/tables``, sorted."""
    return sorted(path.stem for path in (RESULTS / "tables").glob("*.yaml"))


def read_definition(name: str) -> Definition:
    """The definition in ``results/tables``, or in the YAML file that ``name`` is the path of.

    Raises:
        UserError: for an unknown name, or a file that breaks the schema or names what is not registered.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RESULTS / "tables" / f"{name}.yaml"
    if not path.is_file():
        known = known_tables()
        hint = suggest(name, known) if known else "give the path of a YAML file, or run in a checkout"
        if Path(name).is_dir():
            hint = f"for the runs in this folder give --runs {name}"
        raise UserError(f"table {name}: no such definition; {hint}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Definition), OmegaConf.load(path))
        definition = cast(Definition, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; docs/tables.md shows the form") from None
    definition.name = path.stem
    try:
        _check(definition)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return definition


def _check(definition: Definition) -> None:
    for key, values in (
        ("rows", definition.rows),
        ("columns", definition.columns),
        ("seeds", definition.seeds),
        *((f"protocols of the column {group.label}", group.protocols) for group in definition.columns),
    ):
        if not values:
            raise UserError(f"{key} is empty; give at least one")
    require_seeds(definition.seeds)
    require_choice("metric", definition.metric, METRICS | COSTS)
    for row in definition.rows:
        require_choice("predictor", row.predictor, names("predictor"))
        _require_settings(row.config, composed(f"predictor={row.predictor}"))
    for column in definition.single_columns():
        require_choice("dataset", column.dataset, names("dataset"))
        require_choice("protocols", column.protocol, names("protocol"))
        if column.metric != definition.metric:
            require_choice("metric", definition.metric, COSTS)
            require_choice("metric of a column", column.metric, COSTS)
        if column.config:
            predictors = dict.fromkeys(row.predictor for row in definition.rows)
            known = (composed(f"predictor={name}", f"dataset={column.dataset}") for name in predictors)
            _require_settings(column.config, set().union(*known))


def _require_settings(config: Iterable[str], known: Collection[str]) -> None:
    for key in config:
        if key not in known:
            raise UserError(f"config {key}: no such setting; {suggest(key, sorted(known))}")
