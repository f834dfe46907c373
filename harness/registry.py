"""What can be chosen by name: the YAML files of a Hydra group, each naming its class as ``target: module:Class``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path

from omegaconf import OmegaConf

from datasets.errors import UserError

CONF = Path(__file__).parent / "conf"


def names(group: str) -> list[str]:
    """Registered names of a group such as ``predictor``, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def target(group: str, name: str) -> str:
    """``module:Class`` of a registered name, read from its YAML without importing anything.

    Raises:
        UserError: for an unknown name, with the nearest known ones, or for a YAML without a target.
    """
    known = names(group)
    if name not in known:
        raise UserError(f"{group}={name}: unknown; {suggest(name, known)}")
    path = CONF / group / f"{name}.yaml"
    found = OmegaConf.select(OmegaConf.load(path), f"{group}.target")
    if not isinstance(found, str):
        raise UserError(f"{path}: {group}.target is missing; write it as module:Class")
    return found


def load(target: str) -> type:
    """Import the class that ``module:Class`` names.

    Raises:
        UserError: naming ``target`` if it is not of that form, cannot be imported or is not a class.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise UserError(f"target {target!r}: write it as module:Class")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise UserError(f"target {target!r}: cannot be imported ({error}); check the module or install it") from error
    except AttributeError:
        raise UserError(f"target {target!r}: module {module} has no {name}; check the class name") from None
    if not isinstance(found, type):
        raise UserError(f"target {target!r}: {name} is not a class; name one")
    return found


@cache
def reads(predictor: str, dataset: str) -> bool:
    """Whether a predictor reads the graphs of a benchmark: whole networks, which not all do, or cells."""
    defaults = OmegaConf.select(OmegaConf.load(CONF / "dataset" / f"{dataset}.yaml"), "defaults", default=[])
    whole_networks = any("override /networks" in entry for entry in defaults)
    return not whole_networks or bool(load(target("predictor", predictor)).whole_networks)  # type: ignore[attr-defined]


def suggest(name: str, known: Sequence[str]) -> str:
    """The nearest of the ``known`` names, or all of them where none is near."""
    near = get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
