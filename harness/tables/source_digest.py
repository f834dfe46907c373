"""The digest of the source that a run depends on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

COMPUTES = tuple(
    f"harness.{name}"
    for name in (
        *("assembly", "experiment", "training", "trained", "transfer"),
        *("evaluation", "distributed", "metrics", "metric_facts"),
    )
)
"""What every run goes through; what these import to read settings or to show results is left out."""


def source_digest(*targets: str) -> str:
    """Sha256 of the source of classes (``module:Class``), of all they import of their own packages, and of ``COMPUTES``.

    Imports are found in the source, also those within functions; nothing is imported for it but parent packages.
    """
    return _digest(tuple(sorted(target.partition(":")[0] for target in targets)))


@cache
def _digest(roots: tuple[str, ...]) -> str:
    packages = {"predictors", "datasets", *(root.partition(".")[0] for root in roots)}
    digest = hashlib.sha256()
    for name in sorted({*_closure(roots, packages), *COMPUTES}):
        digest.update(f"{name}\n".encode() + _source(name))
    return digest.hexdigest()


def _closure(roots: Iterable[str], packages: set[str]) -> set[str]:
    found, waiting = set[str](), list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [used for used in _imported(name) if used.partition(".")[0] in packages and _is_module(used)]
    return found


@cache
def _imported(name: str) -> tuple[str, ...]:
    return tuple(_names(ast.parse(_source(name))))


def _names(tree: ast.AST) -> Iterator[str]:
    """Modules that a source may import: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


@cache
def _source(name: str) -> bytes:
    spec = find_spec(name)
    return Path(spec.origin).read_bytes() if spec and spec.origin else b""
