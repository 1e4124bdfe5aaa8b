"""PostgreSQL: the same queries over asyncpg, any number of servers on one database."""

import asyncio
from typing import TypeVar

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from charthouse.database import DatabaseError, P, Query, checked, full

T = TypeVar("T")

SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"
FOREIGN_KEY_VIOLATION = "23503"  # what was there a statement ago went, or what was to go is held since
CONFLICTS = (SERIALIZATION_FAILURE, DEADLOCK, FOREIGN_KEY_VIOLATION)
DISK_FULL = "53100"
ATTEMPTS = 10
POOL_SIZE = 10


class PostgresDatabase:
    def __init__(self, url: str) -> None:
        self.engine = engine(url)
        self._snapshots = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._statements = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes: set[asyncio.Task[object]] = set()  # the loop itself holds tasks weakly

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """No connection is tried before it is used: what one that is lost cannot say, the next one is asked."""
        engine = self._statements if hasattr(query, "one_statement") else self._snapshots
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with engine.connect() as connection:
                    return await _run(connection, query, *args, **kwargs)
            except DBAPIError as error:
                if attempt == ATTEMPTS or not error.connection_invalidated:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def read_at_once(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:  # noqa: ARG002
        return None

    scan = read  # a connection of its own is all that it takes here

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(self._write(query, *args, **kwargs))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.engine.connect() as connection:
                    value = await _run(connection, query, *args, **kwargs)
                    await _commit(connection)
                    return value
            except DBAPIError as error:
                if sqlstate(error) == DISK_FULL:
                    raise full() from error
                may_repeat = sqlstate(error) in CONFLICTS or error.connection_invalidated
                if attempt == ATTEMPTS or not may_repeat:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def check(self) -> None:
        """Nothing here ends for good: a lost connection is replaced at the next use."""

    async def check_file(self, *, deep: bool) -> None:
        """No file of ours."""

    def stamp(self) -> None:
        return None

    def rest(self) -> None:
        """The pool's connections stay."""

    async def close(self) -> None:
        if self._writes:
            await asyncio.wait(self._writes)
        await self.engine.dispose()


def engine(url: str) -> AsyncEngine:
    """The door to asyncpg. Statements are prepared and kept for each connection of the pool."""
    return create_async_engine(_with_driver(url), pool_size=POOL_SIZE, max_overflow=POOL_SIZE)


async def _run(connection: AsyncConnection, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await connection.run_sync(lambda c: checked(query(c, *args, **kwargs)))


async def _commit(connection: AsyncConnection) -> None:
    """Raises DatabaseError when the connection is lost, before or after the commit: so nobody repeats it."""
    try:
        await connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DatabaseError(
                "the connection to the database was lost during a commit: it may be done or not"
            ) from error
        raise


def _with_driver(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+asyncpg")


def sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
