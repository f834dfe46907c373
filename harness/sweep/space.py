"""What a sweep searches, read from YAML and checked against the configuration before anything runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from datasets.errors import UserError, require_choice
from harness.config import compose, config_hash, require_one_device, typed
from harness.metric_facts import COSTS, METRICS
from harness.registry import suggest

SWEEPS = Path(__file__).parents[2] / "sweeps"
"""The checkout's folder of search spaces."""

MILLISECONDS = "ms_per_architecture"
OBJECTIVES = METRICS | {MILLISECONDS: COSTS[MILLISECONDS]}
"""What can be an objective: a validation metric, or the time of one prediction."""

SAMPLERS = ("tpe", "gp", "nsga2")
PRUNERS = ("none", "median", "hyperband")
OWN_KEYS = ("seed", "seeds", "out", "runs", "resume", "logger.group")
"""Keys that every trial sets for itself."""


@dataclass
class Dimension:
    """The values of one configuration key.

    Attributes:
        type: ``float``, ``int`` or ``categorical``.
        low: smallest value.
        high: largest value.
        log: draw the logarithm uniformly.
        step: distance of neighbouring values.
        choices: of ``categorical``: numbers, booleans or text as on the command line.
    """

    type: str = MISSING
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: list[Any] | None = None


@dataclass
class Space:
    """A search space and how it is searched.

    Attributes:
        overrides: Hydra overrides that hold for every trial.
        space: values by configuration key.
        objectives: a validation metric, then optionally ``ms_per_architecture``.
        sampler: ``tpe``, ``gp`` or ``nsga2``.
        pruner: ``none``, ``median`` or ``hyperband``.
        warmup: epochs before which no trial is pruned.
        trials: finished trials, pruned ones included.
        seeds: every trial is the mean of runs with these seeds.
        name: of the file.
    """

    overrides: list[str] = MISSING
    space: dict[str, Dimension] = MISSING
    objectives: list[str] = MISSING
    sampler: str = "tpe"
    pruner: str = "none"
    warmup: int = 0
    trials: int = MISSING
    seeds: list[int] = field(default_factory=lambda: [0])
    name: str = ""

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's form of ``space``."""
        return {key: _distribution(key, dimension) for key, dimension in self.space.items()}

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """``maximize`` or ``minimize``, for each objective."""
        return ["maximize" if OBJECTIVES[name].higher_is_better else "minimize" for name in self.objectives]

    @property
    def configured(self) -> dict[str, Any] | None:
        """The values that the configuration has without the sweep, None if one of them is not in the space."""
        config = compose(self.overrides)
        found = {key: _drawable(values, OmegaConf.select(config, key)) for key, values in self.distributions.items()}
        return {key: values[0] for key, values in found.items()} if all(found.values()) else None

    @property
    def identity(self) -> dict[str, str]:
        """What may not change while a study goes on, by the keys it depends on; places and loggers may."""
        dimensions = {key: OmegaConf.to_container(OmegaConf.structured(value)) for key, value in self.space.items()}
        return {
            "space": json.dumps(dimensions, sort_keys=True),
            "objectives": json.dumps(self.objectives),
            "seeds": json.dumps(self.seeds),
            "overrides": config_hash(typed(compose(self.overrides))),
        }


def known_spaces() -> list[str]:
    """Names of the search spaces in ``sweeps``, sorted."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def read_space(name: str, overrides: Sequence[str] = (), trials: int | None = None) -> Space:
    """The space in ``sweeps``, or in the YAML file that ``name`` is the path of.

    Args:
        name: of the space, or path of a YAML file.
        overrides: more Hydra overrides for every trial.
        trials: another number of trials than the file's.

    Raises:
        UserError: for an unknown name, a file that breaks the schema, or keys and values that no experiment can have.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"
    if not path.is_file():
        known = known_spaces()
        hint = suggest(name, known) if known else "give the path of a YAML file, or run in a checkout"
        raise UserError(f"sweep {name}: no such search space; {hint}")
    try:
        content = OmegaConf.create(yaml.safe_load(path.read_text()) or {})
        space = cast(Space, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Space), content)))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; docs/sweeps.md shows the form") from None
    for override in overrides:
        _refuse_change(override, space)
    space.name = path.stem
    space.overrides = [*space.overrides, *overrides]
    space.trials = space.trials if trials is None else trials
    try:
        _check(space)
        _check_keys(space)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return space


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Drawn values as Hydra overrides."""
    return [f"{key}={'null' if value is None else value}" for key, value in values.items()]


def _refuse_change(override: str, space: Space) -> None:
    """Check that an override given beside a space changes its trials."""
    key = override.lstrip("+~").partition("=")[0]
    if key in space.space:
        raise UserError(f"{override}: {key} is searched; leave it out, or search a copy of the space without it")
    if key == "experiment":
        raise UserError(f"{override}: the space's own predictor and dataset come first; write it into overrides of a copy")
    if key.startswith("hydra"):
        raise UserError(f"{override}: a sweep has workers of its own; leave it out, and give --workers")


def _check(space: Space) -> None:
    require_choice("sampler", space.sampler, SAMPLERS)
    require_choice("pruner", space.pruner, PRUNERS)
    for name in ("space", "objectives", "seeds"):
        if not getattr(space, name):
            raise UserError(f"{name} is empty; give at least one")
    if len(set(space.seeds)) < len(space.seeds):
        raise UserError("seeds: one occurs twice; give each once")
    if space.trials < 1:
        raise UserError(f"trials={space.trials}: give 1 or more")
    for objective in space.objectives:
        require_choice("objectives", objective, OBJECTIVES)
    if space.objectives[0] == MILLISECONDS or space.objectives[1:] not in ([], [MILLISECONDS]):
        raise UserError(f"objectives: give one validation metric, then {MILLISECONDS} or nothing")
    if len(space.objectives) > 1 and space.pruner != "none":
        raise UserError(f"pruner={space.pruner}: trials with two objectives cannot be compared midway; set pruner: none")
    for override in space.overrides:
        if (key := override.lstrip("+~").partition("=")[0]) in OWN_KEYS:
            instead = " and use the seeds of the space" if key in ("seed", "seeds") else ""
            raise UserError(f"overrides: {key} is set by the sweep; leave it out{instead}")


def _check_keys(space: Space) -> None:
    """Compose the two ends of every range and every choice."""
    ends = {key: _examples(distribution) for key, distribution in space.distributions.items()}
    for key in ends:
        if key in OWN_KEYS:
            raise UserError(f"space.{key}: is set by the sweep; leave it out")
    for index in range(max(map(len, ends.values()))):
        values = {key: examples[min(index, len(examples) - 1)] for key, examples in ends.items()}
        trial = typed(compose([*space.overrides, *as_overrides(values)]))
        require_one_device(trial.trainer, "a sweep")


def _drawable(distribution: BaseDistribution, value: Any) -> list[Any]:
    """The value in the form in which the distribution draws it; nothing if it does not."""
    if isinstance(distribution, CategoricalDistribution):
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        parsed = [yaml.safe_load(choice) if isinstance(choice, str) else choice for choice in distribution.choices]
        return [choice for choice, each in zip(distribution.choices, parsed, strict=True) if each == plain]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return []
    steps = (value - distribution.low) / (distribution.step or 1)
    return [value] if distribution.step is None or math.isclose(steps, round(steps), abs_tol=1e-9) else []


def _examples(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _distribution(key: str, dimension: Dimension) -> BaseDistribution:
    where = f"space.{key}"
    require_choice(f"{where}.type", dimension.type, ("float", "int", "categorical"))
    if dimension.type == "categorical":
        if not dimension.choices or (dimension.low, dimension.high, dimension.step, dimension.log) != (
            None,
            None,
            None,
            False,
        ):
            raise UserError(f"{where}: categorical takes choices, and nothing else")
        if any(isinstance(choice, list | dict) for choice in dimension.choices):
            raise UserError(f'{where}.choices: write a list as text, for instance "[6,1,1,1]"')
        return CategoricalDistribution(dimension.choices)
    if dimension.choices is not None or dimension.low is None or dimension.high is None:
        raise UserError(f"{where}: {dimension.type} takes low and high, not choices")
    if dimension.low > dimension.high:
        raise UserError(f"{where}: low={dimension.low:g} is above high={dimension.high:g}; exchange them")
    try:
        if dimension.type == "float":
            return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
        low, high, step = (_whole(where, value) for value in (dimension.low, dimension.high, dimension.step or 1))
        return IntDistribution(low, high, log=dimension.log, step=step)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _whole(where: str, value: float) -> int:
    if value != int(value):
        raise UserError(f"{where}: {value:g} is no whole number; use type: float")
    return int(value)
