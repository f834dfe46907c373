"""Reading many ONNX files, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed  # type: ignore[import-untyped]

from datasets.errors import UserError
from datasets.network_graph import NetworkGraph
from datasets.onnx_graph import read_network

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class NetworkFile:
    """An ONNX file and the batch size to read it with; None keeps its own."""

    path: Path
    batch: int | None = None


def read_networks(files: Sequence[NetworkFile], features: str, lenient: bool = False) -> list[NetworkGraph | UserError]:
    """The graph of each file, or why it has none; ``features`` and ``lenient`` as of ``read_network``."""
    return [_read(file, features, lenient) for file in files]


def chunks_of(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """``items`` cut into runs of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def cores() -> int:
    """Cores that this process may use."""
    return int(cpu_count())


def spread(
    work: Callable[[Sequence[T]], R], chunks: Sequence[Sequence[T]], workers: int | None = None
) -> Iterator[tuple[int, R]]:
    """``work`` of each chunk with the chunk's place, in the order in which they are done.

    Worker processes import nothing of the calling script, which so needs no ``if __name__ == "__main__"``; they stay for a
    while, ready for a next call.

    Args:
        work: a function that can be pickled.
        chunks: what it is given.
        workers: processes; all cores by default. With one, or one chunk, nothing is started.

    Raises:
        UserError: if a process dies.
    """
    processes = min(workers or cores(), len(chunks))
    if processes <= 1:
        yield from ((place, work(chunk)) for place, chunk in enumerate(chunks))
        return
    pool = Parallel(processes, backend="loky", return_as="generator_unordered", batch_size=1, max_nbytes=None)
    try:
        yield from pool(delayed(_numbered)(work, place, chunk) for place, chunk in enumerate(chunks))
    except BrokenProcessPool as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a process reading ONNX files died, perhaps for want of memory ({reason}); try again") from None


def _numbered(work: Callable[[Sequence[T]], R], place: int, chunk: Sequence[T]) -> tuple[int, R]:
    return place, work(chunk)


def _read(file: NetworkFile, features: str, lenient: bool) -> NetworkGraph | UserError:
    try:
        return read_network(file.path, file.batch, features, lenient=lenient)
    except UserError as error:
        return UserError(str(error))
