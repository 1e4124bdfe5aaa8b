"""SQLite: reads at once in the event loop, one writer at a time over all processes of the data folder."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from charthouse.database import Connection, P, Query
from charthouse.database.sqlite_connection import Direct, in_snapshot, open_file
from charthouse.database.sqlite_errors import damaged, fail, is_busy
from charthouse.database.sqlite_index import WalIndex, find_index, leave_indexes
from charthouse.database.sqlite_writer import Writer, ended, writer_lock

T = TypeVar("T")

SCAN_THREADS = 2
READ_TIMEOUT = 0.05  # seconds; a read in the event loop waits no longer for a lock
STEPS = 1000  # of SQLite's virtual machine between two looks at what a read may still take


class SqliteDatabase:
    """`path` is the file. `durable=False` leaves every fsync out, for registries that live as long as a test.

    `step_limit` fails a `read` that takes more steps of SQLite's virtual machine: so a test finds an unbounded one.
    `threads` are shared with the other databases of a process that has many of them; without, it has its own.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        step_limit: int | None = None,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self._path = path
        self._steps = 0
        self._step_limit = step_limit
        self._opened: Direct | None = None
        self._openings = 0
        self._index: WalIndex | None = None  # the reader's
        self._has_own_threads = threads is None
        self._scanners = threads or ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="charthouse-scan")
        self._writer = Writer(path, durable=durable, threads=threads)

    @property
    def _reader(self) -> Direct:
        if self._opened is None:
            self._opened = self._open_reader()
            self._openings += 1
        return self._opened

    def _open_reader(self) -> Direct:
        """A process that has many databases looks at no index: each costs two descriptors, and outlives the reader."""
        connection = open_file(self._path, read_only=True, timeout=READ_TIMEOUT)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()  # whoever reads first makes the index
        except BaseException:
            connection.close()
            raise
        if (limit := self._step_limit) is not None:
            connection.set_progress_handler(lambda: self._is_above(limit), STEPS)
        self._index = find_index(self._path, self) if self._has_own_threads else None
        return Direct(connection)

    def _is_above(self, limit: int) -> bool:
        self._steps += STEPS
        return self._steps > limit

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._read(query, *args, **kwargs)
        except sqlite3.DatabaseError as error:
            if not is_busy(error):
                fail(error, self._path)
            return await self.scan(query, *args, **kwargs)

    def read_at_once(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return self._read(query, *args, **kwargs)
        except sqlite3.DatabaseError as error:
            if not is_busy(error):
                fail(error, self._path)
            return None

    def _read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._steps = 0
        return in_snapshot(self._reader, query, *args, **kwargs)

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._scanners, lambda: self._scan(lambda c: query(c, *args, **kwargs)))

    def _scan(self, query: Callable[[Connection], T]) -> T:
        try:
            with contextlib.closing(open_file(self._path, read_only=True)) as opened:
                return in_snapshot(Direct(opened), query)
        except sqlite3.DatabaseError as error:
            fail(error, self._path)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.submit(lambda connection: query(connection, *args, **kwargs))

    def stamp(self) -> bytes:
        self._writer.reads += 1  # asked for at each request that is answered in the event loop
        reader = self._reader
        opening = b"%d:" % self._openings  # each connection counts for itself
        if self._index is not None:
            return opening + self._index.head()
        return opening + b"%d" % reader.driver.execute("PRAGMA data_version").fetchone()

    def check(self) -> None:
        if not self._writer.alive:
            raise ended()

    async def check_file(self, *, deep: bool) -> None:
        found = await self.scan(_integrity, deep=deep)
        if found != "ok":
            raise damaged(found, self._path)

    def rest(self) -> None:
        if self._opened is not None:
            self._opened.driver.close()
            self._opened = None

    async def close(self) -> None:
        """The writer last: so the last process to leave a folder leaves one file, without a write-ahead log."""
        if self._has_own_threads:
            await asyncio.to_thread(self._scanners.shutdown)
        self.rest()
        await self._writer.close()
        self.rest()  # whoever read meanwhile
        leave_indexes(self)


def _integrity(connection: Connection, *, deep: bool) -> str:
    """ "ok", or the first thing that is wrong. Source: sqlite.org/pragma.html, quick_check and integrity_check."""
    found = connection.execute(text(f"PRAGMA {'integrity_check' if deep else 'quick_check'}(1)")).scalar_one()
    return str(found).replace("\n", " ")


def connect(path: Path) -> sqlalchemy.Connection:
    """The same, as SQLAlchemy has it: for migrations."""
    engine = sqlalchemy.create_engine(
        "sqlite://", creator=lambda: open_file(path), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    return engine.connect()


def driver(connection: sqlalchemy.Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)  # noqa: S101 - tells the type checker what connect() made
    return found


def version(path: Path) -> str | None:
    """The schema's, None for an empty database: without SQLAlchemy, for the many times that nothing is to be done."""
    with contextlib.closing(open_file(path, read_only=True)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            return None
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
        return found


def prepare(path: Path) -> None:
    """Makes the file, readable by its owner alone, and its WAL. Once, before anyone opens it read-only."""
    with contextlib.suppress(FileExistsError):
        # Never a file that is there: closing it would drop the POSIX locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with writer_lock(path), contextlib.closing(open_file(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
