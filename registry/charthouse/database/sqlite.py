"""SQLite: reads at once in the event loop, one writer at a time over all processes of the data folder."""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import TextClause, text
from sqlalchemy.pool import NullPool

from charthouse.database import Connection, DatabaseError, P, Query, checked
from charthouse.database.sqlite_errors import FSYNC_FAILED, damaged, error_code, fail, is_busy, translated
from charthouse.locks import FileLock

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_LIMIT = 64  # writes that share one transaction and its fsync
WAL_LIMIT = 4 * 1024 * 1024  # bytes of the write-ahead log at which it is copied into the database: 1,000 pages
SCAN_THREADS = 2
READ_TIMEOUT = 0.05  # seconds; a read in the event loop waits no longer for a lock
SCAN_TIMEOUT = 5.0
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
        self._has_own_threads = threads is None
        self._scanners = threads or ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="charthouse-scan")
        self._writer = Writer(path, durable=durable, threads=threads)

    @property
    def _reader(self) -> "Direct":
        if self._opened is None:
            self._opened = Direct(open_file(self._path, read_only=True, timeout=READ_TIMEOUT))
            self._openings += 1
            if (limit := self._step_limit) is not None:
                self._opened.driver.set_progress_handler(lambda: self._is_above(limit), STEPS)
        return self._opened

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

    def stamp(self) -> int:
        version = int(self._reader.driver.execute("PRAGMA data_version").fetchone()[0])
        return self._openings << 32 | version  # each connection counts for itself

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


def _integrity(connection: Connection, *, deep: bool) -> str:
    """ "ok", or the first thing that is wrong. Source: sqlite.org/pragma.html, quick_check and integrity_check."""
    found = connection.execute(text(f"PRAGMA {'integrity_check' if deep else 'quick_check'}(1)")).scalar_one()
    return str(found).replace("\n", " ")


def open_file(path: Path, *, read_only: bool = False, timeout: float = SCAN_TIMEOUT) -> sqlite3.Connection:
    """A connection on which nothing begins or ends a transaction by itself, and that never checkpoints by itself."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


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


class Direct:
    """A `Connection` straight on sqlite3: a statement costs 10 µs, SQLAlchemy's 70 to 150 (docs/performance.md)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.driver = connection

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> "DirectRows":
        if parameters is None:
            return DirectRows(self.driver.execute(statement.text))
        if isinstance(parameters, Mapping):
            return DirectRows(self.driver.execute(statement.text, parameters))
        return DirectRows(self.driver.executemany(statement.text, parameters))


class DirectRows:
    """Reads to the end and lets go of the statement: one that is half read would hold its snapshot."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._rows = cursor.fetchall()
        self.rowcount = cursor.rowcount

    def first(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None

    def all(self) -> list[tuple[Any, ...]]:
        return self._rows

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        ((value,),) = self._rows
        return value

    def scalars(self) -> Iterator[Any]:
        return (row[0] for row in self._rows)


class OneStatement:
    """A `Connection` for one statement."""

    def __init__(self, connection: Direct) -> None:
        self._execute = connection.execute

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> DirectRows:
        rows = self._execute(statement, parameters)
        self._execute = _refuse_another
        return rows


def _refuse_another(*_: object) -> DirectRows:
    raise TypeError("a query that is marked as one_statement runs another: the two would see different states")


def in_snapshot(connection: Direct, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Every statement of the query sees the same state of the database."""
    if hasattr(query, "one_statement"):
        return checked(query(OneStatement(connection), *args, **kwargs))
    raw = connection.driver
    raw.execute("BEGIN")
    try:
        return checked(query(connection, *args, **kwargs))
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")


def writer_lock(path: Path) -> FileLock:
    """Held by whoever writes to the database or checkpoints it: the server's processes, the command line, a migration.

    Waiting for it is a wake-up by the kernel, not SQLite's polling, and two processes can never reset the WAL at once
    (the bug fixed in SQLite 3.51.3).
    """
    return FileLock(path.with_name(path.name + ".lock"))


def ended() -> DatabaseError:
    return DatabaseError("the database's writer has ended: the log says why; start the registry again")


class _TransactionLost(Exception):
    """SQLite has ended the transaction by itself (full disk, I/O error): nothing of the batch counts."""


@dataclass(slots=True)
class _Write:
    query: Callable[[Connection], Any]
    future: "asyncio.Future[Any]"


_Outcome = tuple[_Write, Any, BaseException | None]


class Writer:
    """One thread that takes what is waiting as one transaction: one COMMIT, one fsync.

    The thread starts at the first write. It is its own and stays, or one of `threads`, which it gives back, with its
    connection, as soon as nothing waits. A future is resolved only after COMMIT returned. When the thread fails,
    whatever waits and whatever comes fails at once. Belongs to the event loop in which it is made.
    """

    def __init__(self, path: Path, *, durable: bool, threads: ThreadPoolExecutor | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._durable = durable
        self._threads = threads
        self._lock = writer_lock(path)
        self._wal = path.with_name(path.name + "-wal")
        self._held_up_at = 0
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._turn = threading.Lock()  # held to put a write, and to see that there is none and stop
        self._is_over = False
        self._stopped: asyncio.Future[None] | None = None  # there while the thread runs

    @property
    def alive(self) -> bool:
        return not self._is_over

    def submit(self, query: Callable[[Connection], T]) -> "asyncio.Future[T]":
        write = _Write(query, self._loop.create_future())
        with self._turn:
            if self._is_over:
                write.future.set_exception(ended())
                return write.future
            if self._stopped is None:
                try:
                    self._start()
                except sqlite3.DatabaseError as error:
                    fail(error, self._path)
            self._waiting.put(write)
        return write.future

    async def close(self) -> None:
        with self._turn:
            self._is_over = True
            self._waiting.put(None)
            stopped = self._stopped
        if stopped is not None:
            await stopped

    def _start(self) -> None:
        self._raw = open_file(self._path)
        self._connection = Direct(self._raw)
        self._raw.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
        self._raw.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone does not reach the disk
        self._raw.execute("PRAGMA temp_store=MEMORY")  # else a batch's savepoints write every page to a file as well
        self._raw.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")  # a WAL begun anew is cut to this
        self._stopped = self._loop.create_future()
        if self._threads is not None:
            self._threads.submit(self._run, self._stopped)
        else:
            threading.Thread(target=self._run, args=[self._stopped], name="charthouse-writer", daemon=True).start()

    def _run(self, stopped: "asyncio.Future[None]") -> None:
        try:
            while batch := self._next_batch():
                self._carry_out(batch)
        except BaseException:
            log.critical("the database's writer has ended, nothing can be written any more", exc_info=True)
            with self._turn:
                self._is_over = True
                self._fail_waiting()
                self._raw.close()
                self._lock.release()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(_resolve_one, stopped)

    def _next_batch(self) -> list[_Write]:
        """Takes a write and what else is there; empty when the thread is to stop."""
        first = self._first()
        batch = [] if first is None else [first]
        while batch and len(batch) < BATCH_LIMIT:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                break
            if write is None:
                self._waiting.put(None)  # seen again once this batch is done
                break
            batch.append(write)
        return batch

    def _first(self) -> _Write | None:
        """None, with the connection closed, when the writer is: or when nothing waits, where the thread is shared."""
        if self._threads is None and (write := self._waiting.get()) is not None:
            return write
        with self._turn:
            write = None if self._waiting.empty() else self._waiting.get_nowait()
            if write is None:
                with self._lock:  # SQLite checkpoints when the last connection of all processes is closed
                    self._raw.close()
                self._stopped = None
            return write

    def _carry_out(self, batch: list[_Write]) -> None:
        outcomes: list[_Outcome] = [(write, None, ended()) for write in batch]
        try:
            self._lock.acquire()
            outcomes = self._together(batch)
            self._checkpoint_when_due()
        finally:
            self._lock.unlock()
            self._answer(outcomes)

    def _together(self, batch: list[_Write], *, apart: bool = False) -> list[_Outcome]:
        """First as if nothing could go wrong. What is refused costs the batch a second run, `apart`: in savepoints,
        which cost each write two statements and every page a copy."""
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            outcomes = [self._one(write) if apart else self._plain(write) for write in batch]
            self._raw.execute("COMMIT")
        except Exception as failure:  # of a batch only what ends it for all
            error = (isinstance(failure, _TransactionLost) and failure.__cause__) or failure
            if error_code(error) in FSYNC_FAILED:
                raise  # the system may have dropped the pages, and the next fsync would succeed: nobody writes on
            is_lost = not self._raw.in_transaction
            if not is_lost:
                self._raw.execute("ROLLBACK")
            if len(batch) == 1:
                return [(batch[0], None, translated(error, self._path))]
            if not apart and not is_lost:
                return self._together(batch, apart=True)
            return [outcome for write in batch for outcome in self._together([write])]
        return outcomes

    def _plain(self, write: _Write) -> _Outcome:
        return write, checked(write.query(self._connection)), None

    def _one(self, write: _Write) -> _Outcome:
        self._raw.execute("SAVEPOINT one")
        try:
            value = checked(write.query(self._connection))
        except Exception as error:  # whatever it is belongs to the caller of this write
            if not self._raw.in_transaction:
                raise _TransactionLost from error
            self._raw.execute("ROLLBACK TO one")
            self._raw.execute("RELEASE one")
            return write, None, translated(error, self._path)
        self._raw.execute("RELEASE one")
        return write, value, None

    def _checkpoint_when_due(self) -> None:
        """By the file's size, which all processes see: it falls to the limit when the WAL begins anew."""
        size = self._wal.stat().st_size
        if size <= WAL_LIMIT:
            self._held_up_at = 0
        elif size > self._held_up_at + WAL_LIMIT or not self._held_up_at:
            # Held up by a long read or a full disk it is due again when the WAL has grown as much once more.
            self._held_up_at = 0 if self._checkpoint() else size

    def _checkpoint(self) -> bool:
        """Whether all that is in the WAL is in the database now."""
        try:
            _, pages, copied = self._raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            if error_code(error) in FSYNC_FAILED:
                raise
            log.warning("the write-ahead log could not be copied into the database, and grows: %s", error)
            return False
        return bool(pages == copied)

    def _answer(self, outcomes: Sequence[_Outcome]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(_resolve, outcomes)

    def _fail_waiting(self) -> None:
        while True:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return
            if write is not None:
                self._answer([(write, None, ended())])


def _resolve_one(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _resolve(outcomes: Sequence[_Outcome]) -> None:
    for write, value, error in outcomes:
        if write.future.done():
            continue  # its waiter was cancelled
        if error is None:
            write.future.set_result(value)
        else:
            write.future.set_exception(error)


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
