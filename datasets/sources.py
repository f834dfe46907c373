"""Finding, checking and converting the official files of a benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pooch
from filelock import FileLock
from rich.console import Console

from datasets.errors import UserError
from datasets.store import MANIFEST, SCHEMA_VERSION, Columns, GraphStore, Manifest, write_store

Reader = Callable[[Path], tuple[Columns, Manifest]]


@dataclass(frozen=True)
class Source:
    """One form in which a benchmark is published.

    Attributes:
        pattern: glob of the file or folder below the data root.
        what: what it is, for people.
        page: the project page that links to the download.
        read: converts it; the manifest's ``source`` is filled in by ``prepare_store``.
        sha256: official checksum, where one is published.
        shows_progress: the reader shows its own progress.
        files: the other files that it reads, as far as the official one names them.
    """

    pattern: str
    what: str
    page: str
    read: Reader
    sha256: str | None = None
    shows_progress: bool = False
    files: Callable[[Path], Iterable[Path]] | None = None


def find_source(name: str, root: Path, sources: tuple[Source, ...]) -> tuple[Source, Path]:
    """The first source that is present below ``root``.

    Raises:
        UserError: saying exactly what to download, from which page, and where to put it.
    """
    for source in sources:
        found = sorted(root.glob(source.pattern))
        if found:
            return source, found[0]
    ways = "\n".join(f"  {root / s.pattern}\n      {s.what}; linked from {s.page}" for s in sources)
    raise UserError(
        f"{name}: no data in {root}. Put one of these there (the first found is used), or point dataset.root "
        f"(--root) at the folder that has it:\n{ways}"
    )


def prepare_store(
    name: str, root: Path, cache: Path, sources: tuple[Source, ...], *, filed_as: str, checksum: bool = True
) -> GraphStore:
    """Open the store of a benchmark, converting the official file first if that was not done yet.

    A store belongs to one version of one file (path, size, time) and of the files that it names: when one of them
    changes it is converted anew.

    Args:
        name: benchmark name.
        root: folder with the official files.
        cache: folder of the stores.
        sources: forms the benchmark is published in, best first.
        filed_as: name of the store.
        checksum: refuse a file whose published checksum differs.

    Raises:
        UserError: if nothing is found, a file cannot be read, a checksum differs or the content is not valid.
    """
    source, path = find_source(name, root, sources)
    folder = cache / f"{filed_as}-{_identity(path, source.files)}"
    if (folder / MANIFEST).exists():
        return GraphStore.open(folder)
    with _locked(folder):
        if (folder / MANIFEST).exists():
            return GraphStore.open(folder)
        return _convert(name, source, path, folder, checksum=checksum)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock beside ``folder``, which other hosts that share the cache see too."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), mode=0o666)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"{folder.parent}: cannot be written or locked ({error.strerror}); choose another folder (--cache, "
            "dataset.cache)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _convert(name: str, source: Source, path: Path, folder: Path, *, checksum: bool) -> GraphStore:
    console, digest = Console(stderr=True), None
    if path.is_file():
        with console.status(f"{name}: checking {path.name}"):
            digest = _sha256(path)
        if checksum and source.sha256 and digest != source.sha256:
            raise UserError(
                f"{path}: sha256 {digest[:16]}... is not the published {source.sha256[:16]}...; the download is "
                "damaged or of another version: download it again, or set dataset.checksum=false (--no-checksum)"
            )
    with nullcontext() if source.shows_progress else console.status(f"{name}: converting {path.name}"):
        columns, manifest = source.read(path)
        facts: dict[str, Any] = {"file": path.name, "sha256": digest, "bytes": _size(path), "page": source.page}
        store = write_store(folder, columns, replace(manifest, source=facts))
    console.print(f"{name}: converted {path}", soft_wrap=True, highlight=False, markup=False)
    return store


def _sha256(path: Path) -> str:
    try:
        return str(pooch.file_hash(str(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _identity(path: Path, files: Callable[[Path], Iterable[Path]] | None) -> str:
    path = path.resolve()
    stamp = f"{SCHEMA_VERSION} {path} {_size(path)} {path.stat().st_mtime_ns}"
    digest = hashlib.sha256(stamp.encode())
    for file in files(path) if files else ():
        digest.update(f"\n{file} {_version(file)}".encode())
    return digest.hexdigest()[:16]


def _version(file: Path) -> str:
    try:
        facts = file.stat()
    except OSError as error:
        return str(error.strerror)
    return f"{facts.st_size} {facts.st_mtime_ns}"
