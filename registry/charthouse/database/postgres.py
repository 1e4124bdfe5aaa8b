"""PostgreSQL: the same queries over asyncpg, any number of servers on one database."""

import asyncio
import logging
from typing import TypeVar

import asyncpg
from asyncpg.transaction import Transaction
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn

from charthouse.database import Connection, DatabaseError, OneStatement, P, Query, checked, full
from charthouse.database.postgres_connection import Direct, Pool

log = logging.getLogger(__name__)

T = TypeVar("T")

CONFLICTS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ForeignKeyViolationError,  # what was there a statement ago went, or what was to go is held since
)
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
ATTEMPTS = 10


class PostgresDatabase:
    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = Pool(url)
        self._writes: set[asyncio.Task[object]] = set()  # the loop itself holds tasks weakly

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a connection that is lost cannot say, the next one is asked."""
        for attempt in range(1, ATTEMPTS + 1):
            async with self._pool.connection() as connection:
                try:
                    if hasattr(query, "one_statement"):
                        return await _run(OneStatement(connection), query, *args, **kwargs)
                    return await _in_snapshot(connection, query, *args, **kwargs)
                except ERRORS as error:
                    if not connection.end_if_unusable(error) or attempt == ATTEMPTS:
                        raise
                    log.warning("a connection to PostgreSQL was lost, and another one is asked: %s", error)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def read_at_once(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:  # noqa: ARG002
        return None

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Once: whoever takes a copy has begun to write it."""
        async with self._pool.connection() as connection:
            return await _in_snapshot(connection, query, *args, **kwargs)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.ensure_future(self._write(query, *args, **kwargs))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What conflicts with another's write, or whose connection is lost before its commit, is written anew."""
        for attempt in range(1, ATTEMPTS + 1):
            async with self._pool.connection() as connection:
                try:
                    return await _write_once(connection, query, *args, **kwargs)
                except asyncpg.DiskFullError as error:
                    raise full() from error
                except ERRORS as error:
                    is_lost = connection.end_if_unusable(error)
                    if attempt == ATTEMPTS or not (is_lost or isinstance(error, CONFLICTS)):
                        raise
                    if is_lost:
                        log.warning("a connection to PostgreSQL was lost before a commit, which is repeated: %s", error)
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
        await self._pool.close()


def version(connection: Connection) -> str | None:
    """The schema's, None for an empty database: asked over a connection that is there already."""
    if not connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar():
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


async def _run(connection: Connection, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await greenlet_spawn(lambda: checked(query(connection, *args, **kwargs)))


async def _in_snapshot(connection: Direct, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    transaction = connection.driver.transaction(isolation="repeatable_read", readonly=True)
    value = await _begin_and_run(transaction, connection, query, *args, **kwargs)
    await transaction.rollback()
    return value


async def _write_once(connection: Direct, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    transaction = connection.driver.transaction()
    value = await _begin_and_run(transaction, connection, query, *args, **kwargs)
    await _commit(connection, transaction)
    return value


async def _begin_and_run(
    transaction: Transaction, connection: Direct, query: Query[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Leaves it to the caller to end the transaction, unless the query raises. Whoever goes meanwhile does not wait for
    its end: his connection goes with him."""
    await transaction.start()
    try:
        return await _run(connection, query, *args, **kwargs)
    except Exception:
        if not connection.driver.is_closed():
            await transaction.rollback()
        raise


async def _commit(connection: Direct, transaction: Transaction) -> None:
    """Raises DatabaseError when the connection is lost, before or after the commit: so nobody repeats it."""
    try:
        await transaction.commit()
    except ERRORS as error:
        if connection.end_if_unusable(error):
            raise DatabaseError("the connection to PostgreSQL was lost at a commit: it may be done or not") from error
        raise
