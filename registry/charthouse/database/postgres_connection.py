"""Connections to PostgreSQL, straight on asyncpg, and the pool of them."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import TextClause, make_url, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from charthouse.database import DatabaseError
from charthouse.database.rows import Fetched

POOL_SIZE = 20  # connections in use at most: who comes then waits for one
WAIT = 30.0  # seconds, at most
IDLE = 10  # that are kept while nobody uses them
CLOSING = 5.0  # seconds in which a server takes leave; then the connection is cut
STATEMENTS = 256  # that are prepared on a connection; all queries together are fewer

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
_FOR_THE_ENGINE = {"prepared_statement_cache_size", "prepared_statement_name_func"}  # of a URL's parameters
_UNUSABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # a server that ends a connection says so before it does, and may be asked in between
    asyncpg.InvalidCachedStatementError,
)
_COUNT = re.compile(r"(?:SELECT|INSERT \d+|UPDATE|DELETE) (\d+)")  # in what PostgreSQL says that it did


class Direct:
    """A `Connection` straight on asyncpg: a statement costs half of what it does through SQLAlchemy
    (docs/performance.md). To be used within `greenlet_spawn`, where it waits as if it did not."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self.driver = driver
        self._prepared: dict[str, asyncpg.prepared_stmt.PreparedStatement] = {}

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> Fetched:
        if parameters is None or isinstance(parameters, Mapping):
            return await_only(self._fetch(statement.text, parameters or {}))
        return await_only(self._execute_many(statement.text, parameters))

    def end_if_unusable(self, error: Exception) -> bool:
        """When the error says that it is lost, or that somebody has changed the tables of what it has prepared."""
        if isinstance(error, _UNUSABLE):
            self.driver.terminate()
        return bool(self.driver.is_closed())

    async def _fetch(self, sql: str, parameters: Mapping[str, Any]) -> Fetched:
        sql, names = _compiled(sql)
        prepared = self._prepared.get(sql)
        if prepared is None:
            prepared = await self._prepare(sql)
        rows = await prepared.fetch(*[parameters[name] for name in names])
        counted = _COUNT.fullmatch(prepared.get_statusmsg())
        return Fetched(rows, int(counted[1]) if counted else -1)

    async def _prepare(self, sql: str) -> asyncpg.prepared_stmt.PreparedStatement:
        if len(self._prepared) == STATEMENTS:
            self._prepared.clear()
        prepared = self._prepared[sql] = await self.driver.prepare(sql)
        return prepared

    async def _execute_many(self, sql: str, parameters: Sequence[Mapping[str, Any]]) -> Fetched:
        sql, names = _compiled(sql)
        await self.driver.executemany(sql, [[each[name] for name in names] for each in parameters])
        return Fetched([], -1)


@cache
def _compiled(sql: str) -> tuple[str, list[str]]:
    """With $1 in place of :name, and the names in that order."""
    compiled = text(sql).compile(dialect=_DIALECT)
    return compiled.string, compiled.positiontup or []


class Pool:
    """The connection that was used last comes first: none is tried before it is used, and one that was lost meanwhile
    is seen to be."""

    def __init__(self, url: str) -> None:
        self._options = _options(url)
        self._free = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[Direct] = []
        self._is_closed = False
        self._leaving: set[asyncio.Future[None]] = set()  # the loop itself holds tasks weakly

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Direct]:
        """Raises DatabaseError when none is free for long."""
        await self._acquire()
        try:
            connection = self._take() or Direct(await self._connect())
            try:
                yield connection
            except asyncio.CancelledError:
                self._leave(connection)  # what it was asked is not over
                raise
            except BaseException:
                self._give_back(connection)
                raise
            else:
                self._give_back(connection)
        finally:
            self._free.release()

    async def _acquire(self) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        try:
            async with asyncio.timeout(WAIT):
                await self._free.acquire()
        except TimeoutError:
            raise DatabaseError(f"all {POOL_SIZE} connections to PostgreSQL have been busy for {WAIT:g} s") from None

    async def _connect(self) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(**self._options)
        except TypeError as error:  # "got an unexpected keyword argument"
            raise DatabaseError(f"the URL of the database has a parameter that asyncpg cannot take: {error}") from error

    def _take(self) -> Direct | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.driver.is_closed():
                return connection
        return None

    def _give_back(self, connection: Direct) -> None:
        driver = connection.driver
        if driver.is_closed():
            self._drop_idle()  # what has ended it has most likely ended them all, and nobody is to find out one by one
        elif self._is_closed or len(self._idle) == IDLE or driver.is_in_transaction():  # which somebody could not end
            driver.terminate()
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().driver.terminate()

    def _leave(self, connection: Direct) -> None:
        """Calls off what the server was asked, if it was, and takes leave of it. Nobody waits for that."""
        task = asyncio.ensure_future(connection.driver.close(timeout=CLOSING))  # which cuts it in the end
        self._leaving.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: "asyncio.Future[None]") -> None:
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # has been seen: the connection is cut

    async def close(self) -> None:
        """Those that are in use go when they are given back."""
        self._is_closed = True
        while self._idle:
            self._leave(self._idle.pop())
        if self._leaving:
            await asyncio.wait(self._leaving)


def engine(url: str) -> AsyncEngine:
    """SQLAlchemy's own way in, which Alembic needs."""
    return create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))


def _options(url: str) -> dict[str, Any]:
    """What the URL says, but for what is for the engine alone."""
    _, options = _DIALECT.create_connect_args(make_url(url))
    return {name: value for name, value in options.items() if name not in _FOR_THE_ENGINE}
