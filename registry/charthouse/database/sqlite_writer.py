"""SQLite's writer: what waits shares a transaction and its fsync, one at a time over all processes of the folder."""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from charthouse.database import Connection, DatabaseError, checked
from charthouse.database.sqlite_connection import Direct, open_file
from charthouse.database.sqlite_errors import FSYNC_FAILED, error_code, fail, translated
from charthouse.locks import FileLock

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_LIMIT = 64  # writes that share one transaction and its fsync
MANY = 10  # reads for each write, beyond which the writer gives way to them; where all push, there are two
COUNTED = 16  # writes at least, over which that is found
REST = 3  # times as long as a transaction took
LONGEST_REST = 0.06  # seconds
LONGEST_STANDSTILL = 0.005  # seconds: as long as any thread may keep the interpreter
WAL_LIMIT = 4 * 1024 * 1024  # bytes of the write-ahead log at which it is copied into the database: 1,000 pages


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


class Standstill:
    """Keeps the event loop from running while the statements of a transaction do, LONGEST_STANDSTILL at most.

    The driver gives the interpreter's lock away some fifteen times for a write, and a busy loop gives it back when it
    has done with a request: the two woke each other all the time, for a tenth of what a push costs
    (docs/performance.md).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._end = threading.Event()

    def begin(self) -> None:
        """Returns when the loop stands still, or has not come to it in that time: it may have ended."""
        begun, self._end = threading.Event(), threading.Event()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_stand, begun, self._end)
            begun.wait(LONGEST_STANDSTILL)

    def end(self) -> None:
        self._end.set()


def _stand(begun: threading.Event, end: threading.Event) -> None:
    begun.set()
    end.wait(LONGEST_STANDSTILL)


class Writer:
    """One thread that takes what is waiting as one transaction: one COMMIT, one fsync.

    The thread starts at the first write. It is its own and stays, or one of `threads`, which it gives back, with its
    connection, as soon as nothing waits. A future is resolved only after COMMIT returned. When the thread fails,
    whatever waits and whatever comes fails at once. Belongs to the event loop in which it is made.

    `reads` is raised by whoever reads in the event loop. Where they are many more than the writes, the thread rests
    after each transaction: the next one is larger for it, and the loop has the interpreter.
    """

    def __init__(self, path: Path, *, durable: bool, threads: ThreadPoolExecutor | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._durable = durable
        self._threads = threads
        self._lock = writer_lock(path)
        self._standstill = Standstill(self._loop)
        self._wal = f"{path.resolve()}-wal"  # SQLite puts it beside the file that a link leads to
        self._held_up_at = 0
        self.reads = 0
        self._writes = 0  # since the same moment
        self._gives_way = False
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
            while (write := self._first()) is not None:
                begin = monotonic()
                writes = self._carry_out(write)
                self._give_way(writes, monotonic() - begin)
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

    def _carry_out(self, first: _Write) -> int:
        """With what else is waiting when its turn has come. Returns how many that were."""
        batch = [first]
        outcomes: list[_Outcome] = []
        try:
            self._lock.acquire()
            if self._threads is None:  # one loop of many databases would stand still for each
                self._standstill.begin()
            batch += self._also_waiting(BATCH_LIMIT - 1)
            outcomes = self._together(batch)
            self._checkpoint_when_due()
        finally:
            self._standstill.end()
            self._lock.unlock()
            self._answer(outcomes or [(write, None, ended()) for write in batch])
        return len(batch)

    def _also_waiting(self, limit: int) -> Iterator[_Write]:
        for _ in range(limit):
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return
            if write is None:
                self._waiting.put(None)  # seen again once this batch is done
                return
            yield write

    def _give_way(self, writes: int, seconds: float) -> None:
        self._writes += writes
        if self._writes >= COUNTED:
            self._gives_way = self.reads > MANY * self._writes
            self.reads = self._writes = 0
        if self._gives_way:
            sleep(min(REST * seconds, LONGEST_REST))

    def _together(self, batch: list[_Write], *, apart: bool = False) -> list[_Outcome]:
        """First as if nothing could go wrong. What is refused costs the batch a second run, `apart`: in savepoints,
        which cost each write two statements and every page a copy."""
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            outcomes = [self._one(write) if apart else self._plain(write) for write in batch]
            self._standstill.end()  # the loop goes on while the disk works
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
        size = os.stat(self._wal).st_size  # noqa: PTH116 - for each transaction
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
