"""Today's default settings, which records are compared with."""

from __future__ import annotations

from functools import cache
from typing import Any

from harness.config import compose, plain, typed
from harness.tables.recorded import flatten


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """The settings that overrides give, by dotted key.

    Raises:
        UserError: for an unknown name or key.
    """
    return flatten(plain(typed(compose(overrides))))
