"""The networks of an NNLQP folder, read in chunks on all cores; finished chunks outlive an interruption.

A chunk is kept as an Arrow file under the names, sizes and times of its ONNX files, unless one of them could not be read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datasets.errors import UserError
from datasets.network_graph import NetworkGraph, join
from datasets.network_reading import NetworkFile, chunks_of, read_networks, spread
from datasets.store import SCHEMA_VERSION

CHUNK = 250
"""Networks of a chunk, a second or two of work: the most that an interruption loses per core."""

QUIET_SECONDS = 30
"""Where the output is not a terminal, a line this often stands in for the bar."""

Network = tuple[str, int]
"""Path of an ONNX file below its folder, and batch size."""


@dataclass
class Networks:
    """What was read.

    Attributes:
        tables: graphs, as a store has them, each under the ``name`` of its network.
        failures: why each of the other networks could not be read.
    """

    tables: list[pa.Table] = field(default_factory=list)
    failures: dict[Network, str] = field(default_factory=dict)

    @property
    def unknown(self) -> dict[str, int]:
        """How often each operator outside the vocabulary occurs, the most frequent first."""
        counts: Counter[str] = Counter()
        for table in self.tables:
            counts.update(json.loads(table.schema.metadata[b"unknown"]))
        return dict(counts.most_common())


def name(network: Network) -> str:
    """The key of a network in ``Networks.tables``."""
    return f"{network[0]} {network[1]}"


def read_all(
    folder: Path,
    networks: Sequence[Network],
    features: str,
    lenient: bool,
    scratch: Path | None,
    workers: int | None,
    title: str,
) -> Networks:
    """Read ``networks`` under a progress bar.

    Args:
        folder: what their paths are relative to.
        networks: each once.
        features: as of ``read_network``.
        lenient: as of ``read_network``.
        scratch: folder of the finished chunks, made when needed; None keeps none.
        workers: processes; all cores by default.
        title: text beside the bar.

    Raises:
        UserError: if a process dies or ``scratch`` cannot be written.
    """
    chunks = chunks_of(networks, CHUNK)
    caches = [_cache_file(scratch, folder, chunk, features, lenient) for chunk in chunks]
    stored = [_load(cache) for cache in caches]
    read = Networks([table for table in stored if table is not None])
    left = [place for place, table in enumerate(stored) if table is None]
    work = partial(_read_chunk, folder=folder, features=features, lenient=lenient)
    results = spread(work, [chunks[place] for place in left], workers)
    with _bar(title, sum(table.num_rows for table in read.tables), len(networks)) as advance:
        for place, part in results:
            read.tables += part.tables
            read.failures |= part.failures
            if not part.failures:
                _save(part.tables[0], caches[left[place]])
            advance(len(chunks[left[place]]))
    return read


def _read_chunk(networks: Sequence[Network], folder: Path, features: str, lenient: bool) -> Networks:
    files = [NetworkFile(folder / path, batch) for path, batch in networks]
    results = map(_usable, read_networks(files, features, lenient))
    named = list(zip(networks, results, strict=True))
    read = {network: graph for network, graph in named if isinstance(graph, NetworkGraph)}
    failed = {network: error for network, error in named if isinstance(error, UserError)}
    failures = {network: str(error).removeprefix(f"{folder / network[0]}: ") for network, error in failed.items()}
    if not read:
        return Networks([], failures)
    unknown: Counter[str] = sum((graph.unknown for graph in read.values()), Counter())
    table = join(list(read.values()), [name(network) for network in read]).table()
    return Networks([table.replace_schema_metadata({"unknown": json.dumps(unknown)})], failures)


def _usable(result: NetworkGraph | UserError) -> NetworkGraph | UserError:
    """The result, or an error for node features that are not finite: one such network makes a whole training NaN."""
    if isinstance(result, UserError):
        return result
    finite = np.isfinite(np.concatenate([result.attributes, result.output_shape], 1)).all(1)
    if finite.all():
        return result
    return UserError(
        f"the features of {result.names[int(finite.argmin())]!r} are not finite numbers, as NNLQP's code makes them of an "
        "input of rank 0; dataset.features=fixed reads it"
    )


def _cache_file(
    scratch: Path | None, folder: Path, networks: Sequence[Network], features: str, lenient: bool
) -> Path | None:
    if scratch is None:
        return None
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {features} {lenient}".encode())
    for path, batch in networks:
        try:
            facts = (folder / path).stat()
        except OSError:
            return None
        digest.update(f"\n{path} {batch} {facts.st_size} {facts.st_mtime_ns}".encode())
    return scratch / f"{digest.hexdigest()[:32]}.arrow"


def _load(cache: Path | None) -> pa.Table | None:
    """A finished chunk; None if there is none, or a damaged one."""
    if cache is None or not cache.exists():
        return None
    try:
        return pa.ipc.open_file(pa.memory_map(str(cache))).read_all()
    except (OSError, pa.ArrowInvalid):
        return None


def _save(table: pa.Table, cache: Path | None) -> None:
    if cache is None:
        return
    temporary = cache.with_name(f".{uuid4().hex}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(temporary), table.schema) as writer:
            writer.write_table(table)
        temporary.replace(cache)
    except OSError as error:
        raise UserError(
            f"{cache.parent}: could not be written ({error.strerror or error}); free some space or choose another folder "
            "(--cache, dataset.cache), then prepare again"
        ) from None


@contextmanager
def _bar(title: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, or lines where the output is not a terminal; yields the function that advances it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    printed = time.monotonic()
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(title, total=total, completed=done)

        def advance(count: int) -> None:
            nonlocal printed, done
            done += count
            progress.advance(task, count)
            if not console.is_terminal and time.monotonic() - printed > QUIET_SECONDS:
                console.print(f"{title}: {done:,}/{total:,}", soft_wrap=True, highlight=False)
                printed = time.monotonic()

        yield advance
