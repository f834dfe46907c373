"""The one error a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """A problem the user can mend: one line naming the file, row or key, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def require_choice(key: str, value: str, known: Iterable[str]) -> None:
    """Refuse a configuration value that is none of those known.

    Raises:
        UserError: naming the key, the value and the choices.
    """
    if value not in (choices := list(known)):
        raise UserError(f"{key}={value}: unknown; choose one of {', '.join(choices)}")
