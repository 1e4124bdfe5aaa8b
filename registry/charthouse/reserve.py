"""Room that is given up when the disk is full, so that deleting and collecting go on.

SQLite cannot delete without writing: pages go to its log first. So a file of `disk_reserve` bytes lies in the data
folder. Whatever makes room may have its place; until the file is there again nothing is pushed. That it is there, or
not, is all that the processes of a folder know of it.
"""

import contextlib
import logging
import os
from pathlib import Path

from charthouse.database import Database, P, Query, T
from charthouse.errors import StorageFull
from charthouse.locks import FileLock

log = logging.getLogger(__name__)

PIECE = 1024 * 1024  # bytes written at once


class Reserve:
    """`size` in bytes; 0 is none, and then it is always there and never given up."""

    def __init__(self, data: Path, size: int) -> None:
        self._path = data / "reserve"
        self._new = data / "reserve.new"
        self._lock = data / "reserve.lock"
        self._size = size

    def is_there(self) -> bool:
        return not self._size or self._path.exists()

    def give_up(self) -> bool:
        """Whether there was something to give."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
            return True
        return False

    def make(self) -> bool:
        """Whether it is there through this caller: of all that come at once, in all processes, one makes it.

        Two that wrote to one file would leave holes in it, and one that fails would take away what the other writes.
        Raises StorageFull, and leaves nothing behind.
        """
        try:
            with FileLock(self._lock):
                return not self.is_there() and self._write()
        except OSError as error:
            raise StorageFull("the disk of the registry is full: nothing can be pushed until there is room") from error

    def _write(self) -> bool:
        try:
            with self._new.open("wb", buffering=0) as file:
                for start in range(0, self._size, PIECE):  # random: some file systems store zeros without room for them
                    content = memoryview(os.urandom(min(PIECE, self._size - start)))
                    while content:
                        content = content[file.write(content) :]
                os.fsync(file.fileno())
            self._new.rename(self._path)
        finally:
            self._new.unlink(missing_ok=True)
        return True


class MakingRoom:
    """The database for whatever makes room: a write that meets a full disk is given the reserve's place."""

    def __init__(self, database: Database, reserve: Reserve) -> None:
        self._database = database
        self._reserve = reserve

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._database.write(query, *args, **kwargs)
        except StorageFull:
            if self._reserve.give_up():
                log.warning(
                    "the disk is full: the reserve is given up for a delete, nothing is pushed until it is back"
                )
            # Whoever comes second finds it given up by another, of this process or not, and has its room too.
            return await self._database.write(query, *args, **kwargs)

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.read(query, *args, **kwargs)

    def read_at_once(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        return self._database.read_at_once(query, *args, **kwargs)

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.scan(query, *args, **kwargs)

    def check(self) -> None:
        self._database.check()

    async def check_file(self, *, deep: bool) -> None:
        await self._database.check_file(deep=deep)

    def stamp(self) -> bytes | None:
        return self._database.stamp()

    def rest(self) -> None:
        self._database.rest()

    async def close(self) -> None:
        await self._database.close()
