"""Composing an experiment's configuration and turning its mistakes into advice."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from threading import Lock
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from datasets.base import Benchmark, DatasetConfig
from datasets.errors import UserError, require_choice
from datasets.protocol_types import ProtocolConfig
from harness.registry import CONF, load, suggest
from predictors.base import Predictor
from predictors.fitted import FittedPredictor
from predictors.recipe import Recipe, check

CONF_MODULE = "harness.conf"
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's names of what trains, and in which numbers: those that convert no batch, which is immutable."""

_COMPOSING = Lock()
"""Hydra's state is one for all threads."""

COMPUTED_GROUPS = ("recipe", "networks")
"""Groups whose default is computed from others' and need not exist."""

LARGEST_SEED = 2**32 - 1
"""The largest that numpy and Lightning take."""

NOT_HASHED = (
    *("out", "resume", "runs", "logger", "dataset.root", "dataset.cache"),
    *("trainer.accelerator", "trainer.eval_nodes", "trainer.checkpoint_minutes"),
)
"""Keys that say where things are, where they run or how they are shown, not what is computed."""


@dataclass
class TrainerConfig:
    """Where and how exactly the computation runs.

    Attributes:
        accelerator: Lightning's ``auto``, ``cpu``, ``gpu`` ...
        devices: devices of one node.
        num_nodes: nodes.
        precision: Lightning's precision of training; evaluation is in float32.
        eval_nodes: nodes of an evaluation batch, about.
        deterministic: refuse operations that are not reproducible.
        checkpoint_minutes: longest time whose work a kill can lose (plus one epoch).
        strategy: ``auto`` for one process, ``ddp`` for one on each device of each node.
    """

    accelerator: str
    devices: int
    num_nodes: int
    precision: str
    eval_nodes: int
    deterministic: bool
    checkpoint_minutes: float
    strategy: str = "auto"


@dataclass
class LoggerConfig:
    """Mirror of the run: ``wandb``, ``csv``, ``tensorboard`` or ``none``.

    Attributes:
        kind: which logger.
        mode: ``offline`` or ``online`` (wandb).
        project: project name (wandb).
        group: runs shown together (wandb); by default those of one dataset and protocol.
    """

    kind: str
    mode: str
    project: str
    group: str | None = None


@dataclass
class ExperimentConfig:
    """One experiment, every value resolved and typed.

    Attributes:
        predictor: the predictor's own configuration.
        recipe: how it is trained.
        dataset: the benchmark.
        protocol: which graphs train, select and test.
        trainer: where it runs.
        logger: who mirrors it.
        seed: of initial weights, batches, dropout and the ``strict`` split.
        train: training graphs (count, fraction or ``all``).
        val: graphs that choose the checkpoint.
        out: folder of the run; by default a new one in ``runs``.
        resume: folder of a run to finish.
        runs: where runs are kept.
        init: folder of a finished run whose encoder the weights start from; null draws all of them.
        seeds: instead of ``seed``, several that are trained at once and leave a run each.
    """

    predictor: Any
    recipe: Recipe
    dataset: DatasetConfig
    protocol: ProtocolConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    seed: int
    train: int | float | str
    val: int | float | str
    out: str | None
    resume: str | None
    runs: str
    init: str | None = None
    seeds: list[int] | None = None


def compose(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose the configuration of one experiment from overrides such as ``predictor=nnlp``.

    Args:
        overrides: as on the command line.
        with_hydra: also Hydra's own, under ``hydra``.

    Raises:
        UserError: for an unknown name, key or value, with suggestions.
    """
    with _COMPOSING:
        GlobalHydra.instance().clear()
        try:
            with initialize_config_module(CONF_MODULE, version_base="1.3"):
                config: DictConfig = hydra_compose("config", overrides=list(overrides), return_hydra_config=with_hydra)
                require_files(GlobalHydra.instance().config_loader(), overrides)
                return config
        except HydraException as error:
            raise UserError(explain(error)) from error


def require_files(loader: ConfigLoader, overrides: Sequence[str]) -> None:
    """Check what is chosen of the groups that Hydra leaves out without a word where it finds no file.

    Raises:
        UserError: for an unknown name, with suggestions.
    """
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if group in COMPUTED_GROUPS and name not in (known := loader.get_group_options(group)):
            raise UserError(f"{group}={name}: unknown; {suggest(name, known)}")


def typed(config: DictConfig) -> ExperimentConfig:
    """Check every key and type against the dataclasses beside each class.

    Raises:
        UserError: naming the key, with the valid ones.
    """
    predictor = _class(config.predictor.target, Predictor)
    schemas: dict[str, type] = {
        "predictor": predictor.Config,
        "recipe": Recipe,
        "dataset": _class(config.dataset.target, Benchmark).Config,
        "protocol": ProtocolConfig,
        "trainer": TrainerConfig,
        "logger": LoggerConfig,
    }
    nodes = {name: _merge(schema, config[name], name) for name, schema in schemas.items()}
    _require_read(nodes["protocol"])
    check(nodes["recipe"], fitted=issubclass(predictor, FittedPredictor))
    require_choice("trainer.strategy", nodes["trainer"].strategy, ("auto", "ddp"))
    require_choice("trainer.accelerator", nodes["trainer"].accelerator, ACCELERATORS)
    require_choice("trainer.precision", nodes["trainer"].precision, PRECISIONS)
    if nodes["trainer"].eval_nodes < 1:
        raise UserError(f"trainer.eval_nodes={nodes['trainer'].eval_nodes}: give 1 or more")
    if nodes["trainer"].checkpoint_minutes < 0:
        raise UserError(f"trainer.checkpoint_minutes={nodes['trainer'].checkpoint_minutes}: give 0 or more")
    require_choice("logger.kind", nodes["logger"].kind, ("wandb", "csv", "tensorboard", "none"))
    require_choice("logger.mode", nodes["logger"].mode, ("offline", "online"))
    everything = [field.name for field in fields(ExperimentConfig)]
    for key in config:
        if key not in everything:
            raise UserError(f"{key!s}: unknown key; {suggest(str(key), everything)}")
    names = [name for name in everything if name not in schemas]
    if missing := [name for name in names if name not in config]:
        raise UserError(f"{', '.join(missing)}: missing; an older narbench made this configuration, run it again")
    rest = {name: config[name] for name in names}
    for key in ("out", "resume", "runs", "init"):
        rest[key] = None if rest[key] is None else str(rest[key])
    if not rest["runs"]:
        raise UserError(f"runs={rest['runs'] or 'null'}: give the folder where runs are kept")
    for key, seed in {"seed": rest["seed"], "protocol.seed": nodes["protocol"].seed}.items():
        if not _is_seed(seed):
            raise UserError(f"{key}={seed}: give a whole number from 0 to {LARGEST_SEED:,}")
    if rest["seeds"] is not None:
        rest["seeds"] = require_seeds(rest["seeds"])
    experiment = ExperimentConfig(**nodes, **rest)
    _require_finite(asdict(experiment))
    return experiment


def require_one_device(trainer: TrainerConfig, what: str) -> None:
    """Check that many runs that are made at once have one device each.

    Raises:
        UserError: if not.
    """
    if trainer.devices * trainer.num_nodes > 1 or trainer.strategy != "auto":
        raise UserError(f"{what} gives every run one device; leave trainer=ddp, trainer.devices and trainer.num_nodes out")


def require_seeds(value: Any) -> list[int]:
    """Check ``seeds``.

    Raises:
        UserError: if they are not different whole numbers.
    """
    seeds = list(value) if isinstance(value, ListConfig | list) else []
    if not seeds or len(set(seeds)) < len(seeds) or not all(map(_is_seed, seeds)):
        raise UserError(f"seeds={value}: give different whole numbers from 0 to {LARGEST_SEED:,}, seeds=[0,1,2]")
    return seeds


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_SEED


def _require_read(protocol: ProtocolConfig) -> None:
    """Check that the rule reads every key that is set, which are those of its file; a recorded configuration has them all.

    Raises:
        UserError: naming a key that it does not.
    """
    path = CONF / "protocol" / f"{protocol.name}.yaml"
    known = OmegaConf.load(path) if path.is_file() else asdict(protocol)
    for field in fields(protocol):
        value = getattr(protocol, field.name)
        if field.name not in known and value != field.default:
            raise UserError(f"protocol.{field.name}={value}: protocol={protocol.name} does not read it; leave it out")


def _require_finite(value: Any, key: str = "") -> None:
    """Check that a record, which is JSON, can hold every number.

    Raises:
        UserError: naming the key of one that it cannot.
    """
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _require_finite(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: give a finite number")


def _class(target: str, kind: type) -> Any:
    found = load(target)
    if not issubclass(found, kind) or not hasattr(found, "Config"):
        raise UserError(f"target {target!r}: no {kind.__name__} with a Config; docs/add-a-predictor.md shows one")
    return found


def _merge(schema: type, node: DictConfig, name: str) -> Any:
    try:
        resolved = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), resolved))
    except OmegaConfBaseException as error:
        message = str(error.msg or error).splitlines()[0] if hasattr(error, "msg") else str(error).splitlines()[0]
        key = f"{name}.{error.full_key}" if error.full_key else name
        if isinstance(error, ConfigKeyError):
            valid = [field.name for field in fields(schema)]
            message = f"unknown key; {suggest(str(error.key), valid)}"
        raise UserError(f"{key}: {message}") from error


def plain(config: ExperimentConfig) -> dict[str, Any]:
    """The configuration as plain JSON types."""
    content = {
        field.name: OmegaConf.to_container(OmegaConf.structured(value)) if is_dataclass(value) else value
        for field in fields(config)
        for value in [getattr(config, field.name)]
    }
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]


def config_hash(config: ExperimentConfig) -> str:
    """Sha256 of what the configuration computes: places and loggers left out."""
    content = OmegaConf.create({key: value for key, value in plain(config).items() if key != "seeds"})
    for key in NOT_HASHED:
        OmegaConf.update(content, key, None, force_add=True)
    text = json.dumps(OmegaConf.to_container(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def explain(error: Exception) -> str:
    """Say in one line what is wrong with the configuration and what would be right."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={name}: unknown; {suggest(name, list(error.options))}"
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if isinstance(cause, OmegaConfBaseException):
        node, key = cause.parent_node, str(cause.key)
        within = [f"{name}.{key}" for name in _keys(node) if key in _keys(node.get(name))]
        hint = f"did you mean {' or '.join(within)}?" if within else suggest(key, _keys(node))
        return f"{cause.full_key}: unknown key; {hint}"
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        if not equals:
            return f"{error.override}: not of the form key=value, for instance predictor=nnlp"
        if value == "~" or value.startswith("~/"):
            return f"{error.override}: a value cannot begin with ~; write {key}=$HOME{value[1:]}"
        if value[:1] in ("[", "{"):
            return f"{error.override}: not a list or mapping; write {key}=[0,1] or {key}={{a: 1}}, in quotes for the shell"
        quoted = shlex.quote(f'{key}="{value}"')
        return f"{error.override}: the value has characters that are reserved; give it quotes of its own, {quoted}"
    return re.sub(r"\s+", " ", str(error)).strip()


def _keys(node: Any) -> list[str]:
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else ()
    return sorted(str(key) for key in keys if key != "hydra")
