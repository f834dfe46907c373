"""Settings by dotted key, and today's defaults, which those of records are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datasets.errors import UserError
from harness.config import NOT_HASHED, compose, explain, plain, typed
from harness.registry import CONF


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """The settings that overrides give, by dotted key.

    Hydra composes the groups among the overrides once for all values of the others: it takes 0.1 s.

    Raises:
        UserError: for an unknown name or key.
    """
    groups = tuple(override for override in overrides if (CONF / override.partition("=")[0]).is_dir())
    values = OmegaConf.from_dotlist([override for override in overrides if override not in groups])
    try:
        config = OmegaConf.merge(_composed(groups), values)
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    assert isinstance(config, DictConfig)
    return settings(plain(typed(config)))


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by dotted key, without what says where things are or how they are shown."""
    return {key: value for key, value in _flat(config).items() if not _is_place(key)}


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _is_place(key: str) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in NOT_HASHED)


@cache
def _composed(groups: tuple[str, ...]) -> DictConfig:
    return compose(groups)
