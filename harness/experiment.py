"""One experiment: data, predictor, training, evaluation, record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from datasets.base import Benchmark
from datasets.errors import UserError
from datasets.protocols import VERSIONS
from harness import distributed, loggers
from harness.assembly import build_data, build_predictor
from harness.checkpoints import write_checkpoint
from harness.config import ExperimentConfig, config_hash, plain, typed
from harness.environment import code_version, environment
from harness.evaluation import Predictions, evaluate
from harness.memory import keep_freed_memory, peak_memory_mb, restart_peak
from harness.metric_facts import METRICS, selection_metric
from harness.metrics import Scores
from harness.ranges import Ranges
from harness.records import SCHEMA_VERSION, RunFolder
from harness.trained import reported_weights
from harness.training import Weights, load_weights, quiet_lightning, train
from harness.transfer import start
from predictors.base import Predictor
from predictors.fitted import FittedPredictor

HARDWARE = tuple(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy"))
PLACES = (*HARDWARE, "dataset.root", "dataset.cache")
"""Keys that may be changed to finish a run: any number of processes continues the work of any other, anywhere."""


@dataclass(frozen=True)
class Result:
    """What a finished run left behind."""

    folder: RunFolder
    record: dict[str, Any]

    @property
    def selection(self) -> float | None:
        """The selection metric on validation, which a sweep or a grid ranks runs by."""
        metric, _ = selection_metric(self.record["dataset"]["task"])
        value: float | None = self.record["metrics"]["val"].get(metric)
        return value


def run(config: DictConfig, callbacks: Sequence[Callback] = ()) -> Result:
    """Run the experiment that ``config`` describes, or finish the run ``resume``, which is left as it is if it is finished.

    Args:
        config: composed by Hydra.
        callbacks: called during training by gradient steps; a predictor that is fitted in one go calls none.

    Raises:
        UserError: for any mistake in the configuration or the data.
        KeyboardInterrupt: after Ctrl-C, with a message that says how the run is finished.
    """
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    keep_freed_memory()
    restart_peak()
    experiment = typed(config)
    if (finished := _finished(experiment)) is not None:
        return finished
    data = build_data(experiment)
    data.prepare_data()
    data.setup()
    seed_everything(experiment.seed, workers=True, verbose=False)
    predictor = build_predictor(experiment, data.spec)
    begun = RunFolder.existing(Path(experiment.resume)) if experiment.resume else None
    init = start(predictor, data, experiment, begun.start() if begun and begun.last_checkpoint.exists() else None)
    _launch(experiment, predictor)
    folder = distributed.from_first(lambda: begun or RunFolder.create(experiment))
    timings = {"setup_seconds": time.perf_counter() - clock}
    with resumable(folder):
        distributed.on_first(lambda: folder.write_start(init))
        logger = distributed.on_first(lambda: loggers.build(experiment, folder))
        timings |= _fit(predictor, data, experiment, folder, logger, callbacks)
        return finish(experiment, predictor, data, folder, logger, timings, started, init)


@contextmanager
def resumable(folder: RunFolder, seeds: Sequence[RunFolder] = ()) -> Iterator[None]:
    """Keep other processes from a run, or a stack of ``seeds``, and say of one that is interrupted how it is finished.

    Raises:
        UserError: if another process is running it.
        KeyboardInterrupt: with how it is finished as its message.
    """
    with ExitStack() as held:
        distributed.on_first(lambda: [held.enter_context(own.lock()) for own in (folder, *seeds)])
        try:
            yield
        except KeyboardInterrupt:
            begun = folder.last_checkpoint.exists()
            where = "its last checkpoint" if begun else "its beginning, for there is no checkpoint yet"
            raise KeyboardInterrupt(f"interrupted; resume={folder.path} finishes the run from {where}") from None


def finish(
    experiment: ExperimentConfig,
    predictor: Predictor,
    data: Benchmark,
    folder: RunFolder,
    logger: Any,
    timings: dict[str, float],
    started: str,
    init: Any,
) -> Result:
    """Score the checkpoints that training left in ``folder``, and write predictions and record."""
    clock = time.perf_counter()
    evaluated = _evaluate(predictor, data, folder, reported_weights(predictor, experiment))
    timings["evaluate_seconds"] = time.perf_counter() - clock
    chosen = _choose(evaluated, data.task)
    timings["evaluated_graphs"] = sum(len(evaluated[chosen][split].rows) for split in ("val", "test"))
    timings["evaluations"] = len({id(predictions) for predictions in evaluated.values()})
    record = record_of(experiment, predictor, data, VERSIONS[experiment.protocol.name], evaluated, chosen) | {
        "id": folder.path.name,
        "started": started,
        "init": init,
        "timings": timings,
    }
    distributed.on_first(lambda: _keep(folder, record, data, evaluated[chosen], logger))
    return Result(folder, record)


def record_of(
    config: ExperimentConfig,
    predictor: Predictor,
    data: Benchmark,
    version: int,
    evaluated: Mapping[str, Mapping[str, Predictions]],
    chosen: str,
) -> dict[str, Any]:
    """The record of a run but for its id, start, timings and where its encoder came from.

    Args:
        config: of the run.
        predictor: that was trained.
        data: of the run.
        version: of the protocol.
        evaluated: predictions by name of the weights, then by split; without ``val`` nothing was selected.
        chosen: name of the weights that are reported.
    """
    scores = {name: {split: part.scores(data.task) for split, part in parts.items()} for name, parts in evaluated.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "predictor": config.predictor.name,
        "parameters": sum(p.numel() for p in predictor.parameters()),
        "seed": config.seed,
        "config": plain(config),
        "config_hash": config_hash(config),
        **_data_facts(data, config, version, "val" in evaluated[chosen]),
        "code_version": code_version(),
        "environment": environment(),
        "peak_memory_mb": peak_memory_mb(),
        "selected_weights": chosen,
        "metrics": {split: part.values for split, part in scores[chosen].items()},
        "failed_metrics": {split: part.failed for split, part in scores[chosen].items() if part.failed},
        "weights": {name: {split: part.values for split, part in parts.items()} for name, parts in scores.items()},
    }


def _finished(config: ExperimentConfig) -> Result | None:
    """The result that the run to be resumed has already.

    Raises:
        UserError: if this is not one run.
    """
    if config.seeds is not None:
        raise UserError(f"seeds={config.seeds} is several runs: use run.py, or harness.stacked_runs.run_seeds in Python")
    if config.resume is None:
        return None
    folder = RunFolder.existing(Path(config.resume))
    record = folder.record()
    return None if record is None else Result(folder, record)


def resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run that ``config.resume`` names, with the overrides that say where it goes on.

    Raises:
        UserError: if it is of an adaptation, or another override given beside ``resume`` differs from it.
    """
    stored = OmegaConf.create(RunFolder.existing(Path(str(config.resume))).config())
    if stored.protocol.name not in VERSIONS:
        raise UserError(f"{config.resume}: made by `narbench adapt`, which continues it with --out {config.resume}")
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "resume" or key.startswith("hydra"):
            continue
        if key == "trainer" or key in PLACES:
            for place in HARDWARE if key == "trainer" else (key,):
                OmegaConf.update(stored, place, OmegaConf.select(config, place))
            continue
        if _part(config, key) != _part(stored, key):
            raise UserError(f"{override}: differs from the run in {config.resume}; leave it out, or start a new run")
    stored.resume = config.resume
    return stored


def _part(config: DictConfig, key: str) -> Any:
    """What ``key`` sets but for places; the whole configuration for a choice with no key of its own (``experiment``)."""
    content = OmegaConf.create(plain(typed(config)))
    for place in PLACES:
        OmegaConf.update(content, place, None)
    if key.partition(".")[0] in content:
        return OmegaConf.select(content, key)
    return OmegaConf.merge(content, dict.fromkeys(("out", "runs", "resume")))


def _launch(config: ExperimentConfig, predictor: Predictor) -> None:
    if isinstance(predictor, FittedPredictor) and config.trainer.strategy != "auto":
        raise UserError(f"predictor={config.predictor.name} is fitted in one go, by one process; leave trainer=ddp out")
    with quiet_lightning():
        distributed.launch(config.trainer)


def _fit(
    predictor: Predictor,
    data: Benchmark,
    config: ExperimentConfig,
    folder: RunFolder,
    logger: Any,
    callbacks: Sequence[Callback],
) -> dict[str, float]:
    clock = time.perf_counter()
    if isinstance(predictor, FittedPredictor):
        predictor.fit(data.store.batch(data.parts.train, data.labels.train))
        write_checkpoint({"state_dict": predictor.state_dict(), "global_step": 0}, folder.checkpoints / "fitted.ckpt")
        return {"train_seconds": time.perf_counter() - clock}
    timer = Timer()
    resume = config.resume is not None
    trainer = train(predictor, data, config, folder.checkpoints, logger, resume, (timer, *callbacks))
    predictor.to(trainer.strategy.root_device)  # Lightning left it on the CPU
    return {"train_seconds": timer.time_elapsed(), "train_steps": trainer.global_step}


def _evaluate(
    predictor: Predictor, data: Benchmark, folder: RunFolder, weights: Mapping[str, Weights]
) -> dict[str, dict[str, Predictions]]:
    result: dict[str, dict[str, Predictions]] = {}
    same: dict[tuple[int, bool], str] = {}
    for name, chosen in weights.items():
        step = load_weights(predictor, folder.checkpoints, chosen)
        first = same.setdefault((step, chosen.averaged), name)
        result[name] = evaluate(predictor, data, name) if first == name else result[first]
    return result


def _keep(
    folder: RunFolder, record: Mapping[str, Any], data: Benchmark, predictions: Mapping[str, Predictions], logger: Any
) -> None:
    folder.write_predictions(data.store, {split: predictions[split] for split in ("val", "test")})
    folder.write_record(record)
    loggers.log_result(logger, record, predictions)


def _choose(evaluated: Mapping[str, Mapping[str, Predictions]], task: str) -> str:
    """The weights with the best validation metric: the rule that makes the headline figure."""
    metric, mode = selection_metric(task)

    def value(name: str) -> float:
        scores: Scores = evaluated[name]["val"].scores(task)
        found = scores.values.get(metric, METRICS[metric].worst)
        return found if mode == "max" else -found

    return max(evaluated, key=value)


def _data_facts(data: Benchmark, config: ExperimentConfig, version: int, selected: bool) -> dict[str, Any]:
    manifest, parts = data.store.manifest, data.parts
    sizes = {"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)}
    if parts.rest is not None:
        sizes["rest"] = len(parts.rest)
    return {
        "dataset": {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "source": dict(manifest.source),
            "task": data.task,
            "unit": data.unit,
            "labels": {"train": data.labels.train, "val": data.labels.val, "test": data.labels.test},
        },
        "protocol": {
            "name": config.protocol.name,
            "version": version,
            "sha256": parts.sha256,
            "sizes": sizes,
            "excluded": parts.excluded,
            "leaks": parts.leaks,
            "selection": " ".join(selection_metric(data.task)) if selected else "none: the last weights",
        },
        "spec": asdict(data.spec),
        "ranges": Ranges.of(data).plain(),
    }
