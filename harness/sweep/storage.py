"""Where a study is kept, and the locks by which its workers agree.

Two kinds of storage: a journal file beside the runs, or a PostgreSQL server that many hosts can reach. A worker holds a
lock for as long as it runs a trial. The operating system, or the server, frees the lock when the worker dies, however it
dies: a running trial whose lock is free was abandoned.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from datasets.errors import UserError

DEAD_HOST = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""PostgreSQL closes the connection of a host that is silent for 30 + 3 x 10 seconds, which frees its locks."""


class Locks(ABC):
    """Locks of one study, freed when their holder dies."""

    @abstractmethod
    def study(self) -> AbstractContextManager[None]:
        """Hold the lock of the whole study, waiting for it."""

    @abstractmethod
    def try_hold(self, number: int) -> bool:
        """Take the lock of trial ``number`` if it is free."""

    @abstractmethod
    def release(self, number: int) -> None:
        """Free the lock of trial ``number``."""


class FileLocks(Locks):
    """Lock files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._held: dict[int, FileLock] = {}

    @contextmanager
    def study(self) -> Iterator[None]:
        """Hold ``study.lock``."""
        with FileLock(self.folder / "study.lock"):
            yield

    def try_hold(self, number: int) -> bool:
        """Take the trial's lock file if it is free."""
        lock = FileLock(self.folder / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[number] = lock
        return True

    def release(self, number: int) -> None:
        """Free the trial's lock file."""
        self._held.pop(number).release()


class ServerLocks(Locks):
    """PostgreSQL's advisory locks, held by a connection that lives as long as the worker."""

    def __init__(self, url: str, name: str) -> None:
        self.study_key = zlib.crc32(name.encode()) - 2**31
        engine = create_engine(url, poolclass=NullPool, connect_args={"options": DEAD_HOST})
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def study(self) -> Iterator[None]:
        """Hold the lock with the number before the first trial's."""
        self._call("pg_advisory_lock", -1)
        try:
            yield
        finally:
            self.release(-1)

    def try_hold(self, number: int) -> bool:
        """Take the trial's lock if it is free."""
        return bool(self._call("pg_try_advisory_lock", number))

    def release(self, number: int) -> None:
        """Free the trial's lock."""
        self._call("pg_advisory_unlock", number)

    def _call(self, function: str, number: int) -> object:
        keys = {"study": self.study_key, "trial": number}
        return self._connection.execute(text(f"select {function}(:study, :trial)"), keys).scalar()


class JournalLock(JournalFileOpenLock):
    """Lock of a journal file that no killed writer can leave locked, or with half a line at its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))

    def acquire(self) -> bool:
        """Wait for the lock, then cut off what a killed writer did not finish."""
        self._lock.acquire()
        with self._path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Free the lock."""
        self._lock.release()


def open_storage(storage: str | None, name: str, out: Path) -> tuple[BaseStorage, Locks]:
    """The storage at a PostgreSQL URL, or the journal in ``out``, and the locks of study ``name``.

    Raises:
        UserError: for another kind of URL, a missing driver or a server that does not answer.
    """
    if storage is None:
        out.mkdir(parents=True, exist_ok=True)
        journal = out / "journal.log"
        return JournalStorage(JournalFileBackend(str(journal), JournalLock(journal))), FileLocks(out / "locks")
    try:
        url = make_url(storage)
        if url.get_backend_name() != "postgresql":
            raise UserError(
                f"--storage {url.render_as_string()}: give a URL of PostgreSQL, postgresql://USER@HOST/DATABASE"
            )
        address = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        locks = ServerLocks(address, name)
        with locks.study():
            return RDBStorage(address, engine_kwargs={"pool_pre_ping": True}), locks
    except ImportError:
        raise UserError("--storage: PostgreSQL needs a driver: pip install -e '.[postgres]' in the checkout") from None
    except ArgumentError:
        raise UserError("--storage: not a URL; write postgresql://USER@HOST/DATABASE") from None
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--storage {url.render_as_string()}: {reason}; check the server and the URL") from None
