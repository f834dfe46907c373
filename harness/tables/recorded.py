"""Records of finished runs, as tables read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets.protocols import VERSIONS
from harness.metric_facts import COSTS, selection_metric
from harness.records import PREDICTIONS, RECORD, RunFolder, start_time
from harness.registry import names
from harness.tables.costs import cost
from harness.tables.defaults import composed, settings


@dataclass(frozen=True)
class Recorded:
    """One finished run.

    Attributes:
        path: of its record.
        content: the record.
        outdated: its protocol has a newer version, or newer runs with the same settings of the data have other data.
    """

    path: Path
    content: Mapping[str, Any]
    outdated: bool = False

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.content["seed"])

    @cached_property
    def started(self) -> datetime:
        """When the run was started, in UTC."""
        return start_time(self.content)

    @property
    def predictions(self) -> Path | None:
        """Its predictions, None where only the record was kept."""
        path = self.path.with_name(PREDICTIONS)
        return path if path.is_file() else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration by dotted key, without what says where things are or how they are shown."""
        return settings(self.content["config"])

    @property
    def current_protocol(self) -> bool:
        """The protocol is one of those for benchmarks, in today's version."""
        protocol = self.content["protocol"]
        return VERSIONS.get(protocol["name"]) == int(protocol["version"])

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return str(self.content["dataset"]["fingerprint"])

    @cached_property
    def data_settings(self) -> str:
        """The settings of the data, which have one fingerprint at a time; today's default where the record is older."""
        dataset = self.content["dataset"]["name"]
        default = composed(f"dataset={dataset}") if dataset in names("dataset") else {}
        own = {key: value for key, value in (default | self.settings).items() if key.startswith("dataset.")}
        return json.dumps(own, sort_keys=True)

    def configuration(self, assumed: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, Any], ...]]:
        """What was computed: settings, data and the encoder it started from as one string, and the settings of seeds.

        Args:
            assumed: values of settings that the record may be older than.
        """
        settings = {**assumed, **self.settings}
        seeds = {key: settings.pop(key) for key in sorted(settings) if _is_seed(key)}
        sizes = self.content["protocol"]["sizes"]
        for name in ("train", "val"):  # the same numbers can be written as a fraction, in either key
            settings |= {name: sizes[name], f"protocol.{name}": None}
        return self._described(settings), tuple(seeds.items())

    def recipe(self, assumed: Mapping[str, Any]) -> str:
        """What was computed under whichever protocol, with its sizes, and seed; see ``configuration``."""
        settings = {**assumed, **self.settings}
        return self._described(
            {key: value for key, value in settings.items() if not (_is_seed(key) or _is_of_protocol(key))}
        )

    def _described(self, settings: Mapping[str, Any]) -> str:
        encoder = {name: self._init.get(name) for name in ("config_hash", "weights", "step")}
        described = {"dataset.checksum", *(["init"] if self._init else [])}  # by the fingerprint, and by ``encoder``
        rest = {key: value for key, value in settings.items() if key not in described}
        return json.dumps([rest, self.fingerprint, encoder], sort_keys=True)

    @property
    def _init(self) -> Mapping[str, Any]:
        return self.content.get("init") or {}

    @property
    def selects_on_test(self) -> bool:
        """The checkpoint was chosen by test labels of test graphs."""
        labels = self.content["dataset"]["labels"]
        return bool(self.content["protocol"]["leaks"]) and labels["val"] == labels["test"]

    @property
    def starts_from_scored(self) -> bool:
        """The encoder that it started from was trained or selected on labels of its validation or test graphs."""
        return bool(self._init.get("seen"))

    def test(self, metric: str) -> float | None:
        """A metric of the test set, None if it failed."""
        value: float | None = self.content["metrics"]["test"].get(metric)
        return value

    def value(self, name: str) -> float | None:
        """A metric of the test set or a cost, None without one."""
        return cost(self.content, name) if name in COSTS else self.test(name)

    def validation(self) -> float:
        """The selection metric on validation, turned so that higher is better; -inf without a value."""
        metric, mode = selection_metric(self.content["dataset"]["task"])
        value = self.content["metrics"].get("val", {}).get(metric)
        return float("-inf") if value is None else float(value) if mode == "max" else -float(value)


def read_records(folders: Iterable[Path]) -> list[Recorded]:
    """Every record below the folders, those marked that are outdated.

    Raises:
        UserError: naming the file for a record that is damaged, incomplete or of another version.
    """
    paths = sorted({path for folder in folders for path in folder.rglob(RECORD)})
    records = [Recorded(path, RunFolder(path.parent).finished()) for path in paths]
    current = sorted((record for record in records if record.current_protocol), key=lambda record: record.started)
    newest = {record.data_settings: record.fingerprint for record in current}
    kept = {record.path for record in current if record.fingerprint == newest[record.data_settings]}
    return [replace(record, outdated=record.path not in kept) for record in records]


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _is_of_protocol(key: str) -> bool:
    return key in ("train", "val") or key.startswith("protocol.")
