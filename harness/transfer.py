"""Starting from the encoder of another run, as NNLQP transfers to a new platform: every parameter but the head's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from datasets.base import Benchmark
from datasets.errors import UserError
from datasets.graph import TaskSpec
from harness.assembly import build_data
from harness.config import ExperimentConfig, typed
from harness.records import RunFolder
from harness.trained import trained
from predictors.base import Predictor
from predictors.fitted import FittedPredictor


@dataclass(frozen=True)
class Source:
    """A finished run whose encoder can be carried over.

    Attributes:
        folder: of the run.
        record: of the run.
        config: of the run.
        predictor: with the weights that the run reports, in evaluation mode.
        step: training step they are of.
    """

    folder: RunFolder
    record: Mapping[str, Any]
    config: ExperimentConfig
    predictor: Predictor
    step: int

    @classmethod
    def open(cls, run: Path) -> Source:
        """Load a run, leaving torch's random numbers as they were.

        Raises:
            UserError: if the run is unfinished or damaged, was made by an older narbench or has no encoder.
        """
        folder = RunFolder.existing(run)
        record = folder.finished()
        config, predictor, step = trained(folder, record)
        _require_encoder(predictor, str(run))
        return cls(folder, record, config, predictor, step)

    @property
    def facts(self) -> dict[str, Any]:
        """Which run, and which of its weights, for a record."""
        protocol, weights = self.record["protocol"], self.record["selected_weights"]
        facts = {"run": str(self.folder.path), "weights": weights, "step": self.step}
        facts |= {name: self.record[name] for name in ("id", "config_hash", "seed")}
        return facts | {"selection": protocol["selection"], "leaks": protocol["leaks"]}

    def lineage(self) -> Iterator[tuple[ExperimentConfig, Mapping[str, Any]]]:
        """Configuration and record of the run, of the one whose encoder it started from, and so on.

        Raises:
            UserError: if one of them is not there any more, or another is in its place.
        """
        record = self.record
        yield self.config, record
        while init := record.get("init"):
            folder = RunFolder.existing(Path(init["run"]))
            record = folder.finished()
            if record["config_hash"] != init["config_hash"]:
                raise UserError(f"{folder.path}: another run than the one whose encoder was taken")
            yield typed(OmegaConf.create(folder.config())), record

    def benchmarks(self) -> Iterator[Benchmark]:
        """The data of each run of the lineage, under its protocol.

        Raises:
            UserError: if a run or its data are not there any more, or are others by now.
        """
        for config, record in self.lineage():
            data = build_data(config)
            data.setup()
            if data.store.manifest.fingerprint != record["dataset"]["fingerprint"]:
                raise UserError(f"{record['id']}: its data are others by now")
            yield data

    def seen(self, data: Benchmark) -> int | None:
        """Validation and test graphs of ``data`` whose labels trained or selected a run of the lineage.

        None if that is not known: a run, or its data, are gone. Labels of another device or column are other labels.
        """
        known = set[bytes]()
        try:
            for theirs in self.benchmarks():
                if _labels_in_common(theirs, data):
                    rows = np.concatenate([theirs.parts.train, theirs.parts.val])
                    known.update(map(bytes, theirs.store.hashes[rows]))
        except UserError:
            return None
        scored = np.concatenate([data.parts.val, data.parts.test])
        return sum(bytes(graph) in known for graph in data.store.hashes[scored])

    def initialise(self, predictor: Predictor) -> None:
        """Give ``predictor`` this run's encoder and leave its head as it is.

        Raises:
            UserError: if it is another kind of predictor, reads other graphs, or its parameters do not fit.
        """
        run = self.folder.path
        _require_encoder(predictor, predictor.config.name)
        if type(predictor) is not type(self.predictor):
            raise UserError(f"{run}: of predictor={self.config.predictor.name}, whose encoder is no other's; choose that")
        _check_graphs(run, self.predictor.spec, predictor.spec)
        theirs, ours = encoder(self.predictor), encoder(predictor)
        for name in dict.fromkeys((*theirs, *ours)):
            shapes = [_shape(state.get(name)) for state in (theirs, ours)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{run}: its encoder does not fit: {name} is {shapes[0]} there and {shapes[1]} here; "
                    f"give {self._differences(predictor)}, as there"
                )
        with torch.no_grad():
            for name, tensor in ours.items():
                tensor.copy_(theirs[name])

    def _differences(self, predictor: Predictor) -> str:
        there, here = (asdict(each.config) for each in (self.predictor, predictor))
        settings = [f"predictor.{key}={value}" for key, value in there.items() if here[key] != value]
        return " ".join(settings) or "this version's predictor"


def start(
    predictor: Predictor, data: Benchmark, config: ExperimentConfig, kept: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Give ``predictor`` the encoder of ``config.init``, if it names a run, and say for the record which weights these are.

    Args:
        predictor: with its initial weights.
        data: that it is trained and scored on.
        config: of the experiment.
        kept: what this returned when training began, if it goes on from a checkpoint; the encoder is not needed then.

    Raises:
        UserError: if there is no such run or its encoder does not fit.
    """
    if config.init is None or kept is not None:
        return kept
    source = Source.open(Path(config.init))
    source.initialise(predictor)
    return source.facts | {"seen": source.seen(data)}


def origin(run: str) -> str:
    """What tells apart the encoders that ``run`` may hold: its configuration, data, weights and results; "" without it."""
    path = Path(run)
    record = RunFolder(path).record() if path.is_dir() else None
    if record is None:
        return ""
    facts = [record["config_hash"], record["dataset"]["fingerprint"], record["selected_weights"], record["metrics"]]
    return json.dumps(facts, sort_keys=True)


def encoder(predictor: Predictor) -> dict[str, Tensor]:
    """The predictor's own parameters and persistent buffers by name, without those of its head."""
    heads = tuple(f"{name}." for name in predictor.head_modules)
    return {name: tensor for name, tensor in predictor.state_dict().items() if not name.startswith(heads)}


def _require_encoder(predictor: Predictor, name: str) -> None:
    if isinstance(predictor, FittedPredictor):
        raise UserError(f"{name}: a predictor that is fitted in one go has no encoder to carry over; choose another")
    if len(encoder(predictor)) == len(predictor.state_dict()):
        raise UserError(
            f"{name}: {type(predictor).__name__} has no {' or '.join(predictor.head_modules)}; name the submodules of its "
            "head in head_modules"
        )


def _labels_in_common(one: Benchmark, other: Benchmark) -> bool:
    devices = [set(data.store.platforms[0]) for data in (one, other)]
    return (
        one.store.manifest.name == other.store.manifest.name
        and one.labels.test == other.labels.test
        and (devices[0] == devices[1] or bool(devices[0] & devices[1]))
    )


def _check_graphs(run: Path, there: TaskSpec, here: TaskSpec) -> None:
    for name in ("operations", "static", "attributes"):
        theirs, ours = getattr(there, name), getattr(here, name)
        if theirs != ours:
            raise UserError(f"{run}: reads {name} {_list(theirs)}, and these graphs have {_list(ours)}; choose another run")


def _list(names: Any) -> str:
    return ", ".join(names) or "none"


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"
