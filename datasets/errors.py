"""The one error a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """A problem the user can mend: one line naming the file, row or key, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
