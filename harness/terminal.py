"""Lines of text in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from datasets.errors import UserError


class InterruptionError(UserError):
    """What the user broke off and how it goes on; told as a mistake is, with exit status 130."""


def say(text: str, style: str = "", *, stderr: bool = False) -> None:
    """Print a line as it is, however long: nothing in it is taken for mark-up."""
    Console(stderr=stderr).print(Text(text, style), soft_wrap=True)


def show_error(message: str) -> None:
    """Print a mistake and its remedy in one red line on stderr."""
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
