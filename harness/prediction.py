"""A trained latency predictor, asked about networks of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import EncodeError
from onnx import ModelProto
from torch import nn
from torch.export import ExportedProgram

from datasets.base import NodeBudgetSampler
from datasets.errors import UserError, require_choice
from datasets.network_graph import NetworkGraph, batch
from datasets.network_reading import NetworkFile, chunks_of, read_networks, spread
from datasets.onnx_file import parse
from datasets.onnx_graph import network_of, read_network
from harness.error_band import ErrorBand
from harness.progress import bar
from harness.ranges import Ranges
from harness.records import PREDICTIONS, RunFolder
from harness.torch_export import to_onnx
from harness.trained import recorded_features, recorded_spec, trained, trained_platforms

CHUNK = 64
"""Files that are read and predicted together."""

POOL_FROM = 1000
"""Files from which on reading them on all cores makes up for starting processes."""

NO_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch's CPU allocator says in a ``RuntimeError``, on Linux and on Windows."""


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one network.

    Attributes:
        network: its file, or the name of its class.
        latency_ms: predicted latency.
        low_ms: lower end of the band that ``ErrorBand`` describes; None if the run has none.
        high_ms: its upper end.
        batch: batch size.
        nodes: nodes of its graph.
        warnings: in what it goes beyond the training networks, for which the band was not measured.
    """

    network: str
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    batch: int
    nodes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A file that nothing can be predicted of.

    Attributes:
        network: the file.
        error: why.
    """

    network: str
    error: str


class TrainedPredictor:
    """The predictor of a finished run on whole networks, with the weights its record reports.

    Attributes:
        record: the run's record.
        band: how far its test networks were from their predictions.
        platforms: devices that it predicts, of a run on several, each with its place among those of the benchmark.
    """

    def __init__(self, run: str | Path) -> None:
        """Load a run.

        Raises:
            UserError: if the run is unfinished, damaged, older than this format or not one on the latency of networks.
        """
        folder = RunFolder.existing(Path(run))
        self.record = record_on_networks(folder)
        self.spec = recorded_spec(self.record)
        self.ranges = Ranges(**self.record["ranges"])
        self.band = ErrorBand.read(folder.path / PREDICTIONS)
        self.platforms = trained_platforms(self.record)
        self.features = recorded_features(self.record)
        config, self._predictor, _ = trained(folder, self.record)
        self._batch_nodes = config.trainer.eval_nodes

    def predict(
        self,
        network: str | Path | ModelProto | nn.Module | ExportedProgram,
        *,
        example: Any = None,
        batch: int | None = None,
        platform: str | None = None,
    ) -> Prediction:
        """Predict one network.

        Args:
            network: an ONNX file or model, a module or an exported program.
            example: one input, or a tuple of all, for a module.
            batch: batch size; None keeps that of the network.
            platform: device, of a run on several.

        Raises:
            UserError: if the network cannot be read, exported or predicted, or the platform is unknown.
        """
        place = self._platform(platform)
        if isinstance(network, (str, Path)):
            if Path(network).is_dir():
                raise UserError(f"{network}: a folder; predict_files takes folders")
            name, graph = str(network), read_network(Path(network), batch, self.features, lenient=True)
        else:
            name, content = type(network).__name__, _onnx(network, example)
            graph = network_of(parse(content, name), batch, as_code=self.features == "as_code", lenient=True)
        answer = self._answers([name], [graph], place)[0]
        if isinstance(answer, Failure):
            raise UserError(f"{answer.network}: {answer.error}")
        return answer

    def predict_files(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        batch: int | None = None,
        platform: str | None = None,
        workers: int | None = None,
    ) -> list[Prediction | Failure]:
        """Predict many ONNX files, in the order given.

        Args:
            paths: a file or several, and folders whose files ending in ``.onnx`` are taken, those of subfolders too.
            batch: batch size; None keeps that of each file.
            platform: device, of a run on several.
            workers: processes that read; by default all cores where there are many files.

        Raises:
            UserError: if a folder holds no ONNX file or the platform is unknown.
        """
        place = self._platform(platform)
        chunks = chunks_of([NetworkFile(path, batch) for path in _files(paths)], CHUNK)
        if workers is None and len(chunks) * CHUNK < POOL_FROM:
            workers = 1
        answers: dict[int, list[Prediction | Failure]] = {}
        with bar() as progress:
            task = progress.add_task("predicting", total=len(chunks), note="")
            for number, results in spread(partial(read_networks, features=self.features, lenient=True), chunks, workers):
                names = [str(file.path) for file in chunks[number]]
                answers[number] = self._answers(names, results, place)
                progress.advance(task)
        return [answer for number in range(len(chunks)) for answer in answers[number]]

    def _answers(
        self, names: Sequence[str], results: Sequence[NetworkGraph | UserError], platform: int | None
    ) -> list[Prediction | Failure]:
        graphs = [result for result in results if isinstance(result, NetworkGraph)]
        values = iter(self._forward(graphs, platform))
        return [
            self._answer(name, result, next(values))
            if isinstance(result, NetworkGraph)
            else Failure(name, str(result).removeprefix(f"{name}: "))
            for name, result in zip(names, results, strict=True)
        ]

    def _answer(self, name: str, graph: NetworkGraph, value: float | None) -> Prediction | Failure:
        if value is None:
            return Failure(name, f"not enough memory for the prediction of its {len(graph.ops):,} nodes")
        if not 0 < value < np.inf:
            return Failure(
                name, "the prediction is not a finite number above 0; the network is too unlike the training networks"
            )
        low, high = self.band.around(value) if self.band else (None, None)
        remarks = tuple(self.ranges.remarks(graph, self.spec.operations))
        return Prediction(name, value, low, high, int(graph.static["batch"]), len(graph.ops), remarks)

    def _forward(self, graphs: Sequence[NetworkGraph], platform: int | None) -> list[float | None]:
        """Predictions in the order of ``graphs``, made in batches of networks of like size; None where memory is short."""
        sizes = np.array([len(graph.ops) for graph in graphs], np.int64)
        values: list[float | None] = [None] * len(graphs)
        with torch.inference_mode():
            order = np.argsort(sizes, kind="stable")
            for rows in NodeBudgetSampler(order, sizes[order], self._batch_nodes):
                for row, value in zip(rows, self._together([graphs[row] for row in rows], platform), strict=True):
                    values[row] = value
        return values

    def _together(self, graphs: Sequence[NetworkGraph], platform: int | None) -> list[float | None]:
        """Predictions of one batch, or of its networks one at a time if memory is short; None for those alone too large."""
        try:
            graph_batch = batch(graphs)
            if platform is not None:
                graph_batch = replace(graph_batch, platform=torch.full((len(graphs),), platform))
            values: list[float | None] = self._predictor(graph_batch).double().tolist()
            return values
        except (MemoryError, RuntimeError) as error:
            if not _memory_is_short(error):
                raise
        return [self._together([graph], platform)[0] for graph in graphs] if len(graphs) > 1 else [None]

    def _platform(self, name: str | None) -> int | None:
        known = tuple(self.platforms)
        if name is None and len(known) > 1:
            raise UserError(f"platform: this run predicts {len(known)}; choose one of {', '.join(known)}")
        if name is not None:
            if not known:
                raise UserError(f"platform={name}: this run predicts one device; leave it out")
            require_choice("platform", name, known)
        return self.platforms[name or known[0]] if len(self.spec.platforms) > 1 else None


def record_on_networks(folder: RunFolder) -> dict[str, Any]:
    """The record of a finished run on the latency of whole networks.

    Raises:
        UserError: if the run is unfinished, is on something else or was made by an older narbench.
    """
    record = folder.finished()
    name, task, spec = record["dataset"]["name"], record["dataset"]["task"], record.get("spec")
    if task != "latency" or (spec and not spec["attributes"]):
        raise UserError(
            f"{folder.path}: predicts the {task} of the cells of {name}, not of ONNX networks; choose a run on whole "
            "networks (dataset=ortcpu, nnlqp or nb201_latency)"
        )
    return record


def _memory_is_short(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in NO_MEMORY)


def _onnx(network: ModelProto | nn.Module | ExportedProgram, example: Any) -> bytes:
    if not isinstance(network, ModelProto):
        return to_onnx(network, example)
    try:
        content: bytes = network.SerializeToString()
    except EncodeError:
        raise UserError(
            "the model holds more than 2 GiB; give its file, or load it without weights "
            "(onnx.load(file, load_external_data=False))"
        ) from None
    return content


def _files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        found = sorted(file for file in path.rglob("*.onnx") if not file.is_dir()) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no .onnx files in this folder; give another")
        files += found
    return files
