"""Pickles and torch files from strangers, read without running anything they contain.

A pickle runs code by naming a global and calling it. Here every global is looked up in a table of the few names a format
needs; any other is refused. Arrays and tensors are admitted but not built: they become ``Skipped``, so a file with
trained weights costs no memory for them. This is the C unpickler: some twenty times as fast as ``torch.load`` with
``weights_only=True``, which matters for files of gigabytes. A hostile file can still waste time and memory.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from datasets.errors import UserError

Allowed = Mapping[str, Callable[..., Any]]

_DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a torch file of before 1.6 (``torch.serialization.MAGIC_NUMBER``)."""


class Skipped:
    """Stands for an array, tensor or storage, whose values are not read."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _ScalarType:
    """A NumPy number type: what a pickled scalar says of its bytes."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch("[biuf][1248]", code):
            raise TypeError(f"numpy type {code!r} is no number")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise TypeError(f"byte order {state[1]!r}")
        self.code = state[1] + self.code


class _Scalar:
    """A pickled NumPy number as a Python number; a pickle could change the defaults of a function."""

    __slots__ = ()

    def __call__(self, kind: _ScalarType, data: bytes) -> Any:
        return np.frombuffer(data, kind.code, count=1)[0].item()


class _Latin1:
    """Bytes that old pickles keep as text; a pickle could change the defaults of a function."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"encoding {encoding!r}")
        return text.encode("latin1")


PLAIN: Allowed = MappingProxyType(
    {
        "collections.OrderedDict": OrderedDict,
        "builtins.set": set,
        "__builtin__.set": set,
        "_codecs.encode": _Latin1(),
        **{
            f"numpy.{core}.multiarray.{name}": value
            for core in ("core", "_core")
            for name, value in (("scalar", _Scalar()), ("_reconstruct", Skipped))
        },
        "numpy.dtype": _ScalarType,
        "numpy.ndarray": Skipped,
    }
)
"""Plain containers, NumPy numbers (read as Python numbers) and NumPy arrays (skipped)."""

TENSORS: Allowed = MappingProxyType(
    {"torch._utils._rebuild_tensor_v2": Skipped, "torch._utils._rebuild_parameter": Skipped}
    | {f"torch.{kind}Storage": Skipped for kind in ("Byte", "Bool", "Int", "Long", "Half", "Float", "Double")}
)
"""Tensors, skipped."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], allowed: Allowed, source: str) -> None:
        super().__init__(file)
        self.allowed = allowed
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        known = self.allowed.get(f"{module}.{name}")
        if known is None:
            raise UserError(
                f"{self.source}: refused {module}.{name}, which the format does not need and which could run code; "
                "download the file again from the official page"
            )
        return known

    def persistent_load(self, pid: Any) -> Skipped:
        return Skipped()


def load(file: IO[bytes], allowed: Allowed, source: str) -> Any:
    """Read one pickle, and no further than its end.

    Args:
        file: opened for reading bytes.
        allowed: what each global (``module.name``) that may occur stands for.
        source: the file, for messages.

    Raises:
        UserError: naming the refused global, or if the pickle is cut short or damaged.
    """
    try:
        return _Unpickler(file, allowed, source).load()
    except _DAMAGED as error:
        detail = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(f"{source}: damaged, or not a pickle ({detail}); download it again") from None


def loads(data: bytes, allowed: Allowed, source: str) -> Any:
    """Read one pickle from memory; see ``load``."""
    return load(io.BytesIO(data), allowed, source)


def load_torch(path: Path, allowed: Allowed) -> Any:
    """Read the object in a ``torch.save`` file, zipped (torch 1.6 and later) or legacy; tensors become ``Skipped``.

    Args:
        path: the file.
        allowed: as for ``load``; ``PLAIN | TENSORS`` for plain containers of numbers and tensors.

    Raises:
        UserError: naming the refused global, or if the file is damaged or no torch file.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == _ZIP_MAGIC
        file.seek(0)
        return _load_zip(file, allowed, str(path)) if zipped else _load_legacy(file, allowed, str(path))


def _load_zip(file: IO[bytes], allowed: Allowed, source: str) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            plain = len(found) == 1 and found[0].compress_type == zipfile.ZIP_STORED and not found[0].flag_bits & 1
            if not plain:
                raise UserError(f"{source}: not a torch file (no single uncompressed data.pkl inside); download it again")
            with archive.open(found[0]) as member:
                return load(member, allowed, source)
    except zipfile.BadZipFile as error:
        raise UserError(f"{source}: damaged ({error}); download it again") from None


def _load_legacy(file: IO[bytes], allowed: Allowed, source: str) -> Any:
    if load(file, {}, source) != _LEGACY_MAGIC:
        raise UserError(f"{source}: not a torch file (its magic number is wrong); download it again")
    for _ in ("protocol version", "system information"):
        load(file, {}, source)
    return load(file, allowed, source)
