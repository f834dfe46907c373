"""Work kept as it is done: a file of JSON lines below a line of settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import UserError


@dataclass
class JsonLines:
    """A journal, every line of which is on disk before the work goes on.

    Attributes:
        path: its file.
        lines: those below the settings.
    """

    path: Path
    lines: list[dict[str, Any]]

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any], remedy: str) -> JsonLines:
        """Continue the journal at ``path``, or start it; a last line that a kill cut short is removed.

        Args:
            path: its file.
            settings: what may not change while the work goes on.
            remedy: what to do where they did.

        Raises:
            UserError: if it was kept with other settings or is damaged.
        """
        content = path.read_bytes() if path.exists() else b""
        end = content.rfind(b"\n") + 1
        parsed = [_parsed(path, number, line) for number, line in enumerate(content[:end].splitlines(), 1)]
        if not parsed:
            path.write_bytes(b"")
            _append(path, settings)
            return cls(path, [])
        changed = next((key for key in {**settings, **parsed[0]} if parsed[0].get(key) != settings.get(key)), None)
        if changed is not None:
            raise UserError(f"{path}: made with {changed} {parsed[0].get(changed)}, now {settings.get(changed)}; {remedy}")
        os.truncate(path, end)
        return cls(path, parsed[1:])

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        _append(self.path, line)
        self.lines.append(dict(line))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); delete that line to have it made again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, line {number}: no JSON object; delete that line to have it made again")
    return content
