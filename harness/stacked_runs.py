"""Several seeds of one experiment trained at once, each leaving the run that it would leave alone."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from datasets.base import Benchmark
from datasets.errors import UserError
from harness import loggers
from harness.assembly import build_data, build_predictor
from harness.config import ExperimentConfig, typed
from harness.experiment import PLACES, Result, finish, resumable
from harness.memory import keep_freed_memory, restart_peak
from harness.records import SEED_FOLDERS, RunFolder, write_text
from harness.stacked_training import StackedTraining
from harness.transfer import start
from predictors.base import Predictor


def run_seeds(config: DictConfig) -> list[Result]:
    """Run (or finish, with ``resume``) the experiment that ``config`` describes under each of its ``seeds``.

    Raises:
        UserError: for any mistake in the configuration or the data, or if the predictor cannot be stacked.
    """
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    keep_freed_memory()
    restart_peak()
    stack = typed(config)
    if stack.seed:
        raise UserError(f"seed={stack.seed} beside seeds={stack.seeds}: give one of them")
    resume = RunFolder.existing(Path(stack.resume)) if stack.resume else None
    if resume and (finished := _finished(resume)):
        return finished
    configs = _stored(resume, config) if resume else [typed(_with_seed(config, seed)) for seed in stack.seeds or ()]
    begun = _folders(resume) if resume and resume.last_checkpoint.exists() else None
    starts = [where.start() for where in begun] if begun else [None] * len(configs)
    data, predictors, inits = zip(*map(_built, configs, starts), strict=True)
    training = StackedTraining(predictors, data, configs)
    folder, folders = (resume, _folders(resume)) if resume else _created(stack, configs)
    setup = time.perf_counter() - clock
    results = []
    with resumable(folder, folders):
        for where, init in zip(folders, inits, strict=True):
            where.write_start(init)
        training.run(folder.last_checkpoint, resume is not None)
        share = training.state.seconds / len(configs)
        timings = {"setup_seconds": setup / len(configs), "train_seconds": share, "train_seeds": len(configs)}
        for number, (own, where) in enumerate(zip(configs, folders, strict=True)):
            logger = loggers.build(own, where)
            for step, values in training.write_checkpoints(number, where.checkpoints):
                if logger is not None:
                    logger.log_metrics(values, step)
            steps = {"train_steps": own.recipe.epochs * training.epoch_steps(number)}
            predictors[number].to(training.device)
            results.append(
                finish(own, predictors[number], data[number], where, logger, timings | steps, started, inits[number])
            )
    return results


def _with_seed(config: DictConfig, seed: int) -> DictConfig:
    own = copy.deepcopy(config)
    own.seed, own.seeds, own.resume = seed, None, None
    if own.out is not None:
        own.out = f"{own.out}/s{seed}"
    return own


def _built(config: ExperimentConfig, kept: dict[str, Any] | None) -> tuple[Benchmark, Predictor, dict[str, Any] | None]:
    """Data and predictor as a run of its own makes them, and what it starts from."""
    data = build_data(config)
    data.prepare_data()
    data.setup()
    seed_everything(config.seed, workers=True, verbose=False)
    predictor = build_predictor(config, data.spec)
    return data, predictor, start(predictor, data, config, kept)


def _created(stack: ExperimentConfig, configs: Sequence[ExperimentConfig]) -> tuple[RunFolder, list[RunFolder]]:
    """The stack's folder, which holds what a resumption needs, and those of the seeds."""
    if stack.out:
        folder = RunFolder.create(stack)
        folders = [RunFolder.create(config) for config in configs]
    else:
        folders = [RunFolder.create(config) for config in configs]
        folder = RunFolder.create(replace(stack, out=f"{folders[0].path}-stack"))
    places = [os.path.relpath(own.path, folder.path) for own in folders]
    write_text(folder.path / SEED_FOLDERS, json.dumps(places, indent=1) + "\n")
    return folder, folders


def _folders(stack: RunFolder) -> list[RunFolder]:
    path = stack.path / SEED_FOLDERS
    if not path.is_file():
        raise UserError(f"{stack.path}: no stack of seeds here ({SEED_FOLDERS} is missing)")
    return [RunFolder.existing(stack.path / name) for name in json.loads(path.read_text())]


def _finished(stack: RunFolder) -> list[Result]:
    """The results of all seeds, none while one is missing."""
    found = [(folder, folder.record()) for folder in _folders(stack)]
    results = [Result(folder, record) for folder, record in found if record is not None]
    return results if len(results) == len(found) else []


def _stored(stack: RunFolder, config: DictConfig) -> list[ExperimentConfig]:
    """The configurations of the seeds, at the places where ``config`` has the stack go on."""
    stored = [OmegaConf.create(folder.config()) for folder in _folders(stack)]
    for own in stored:
        for place in PLACES:
            OmegaConf.update(own, place, OmegaConf.select(config, place))
    return [typed(own) for own in stored]
