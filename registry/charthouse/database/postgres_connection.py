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

from charthouse.database.rows import Fetched

POOL_SIZE = 20  # connections at most: who comes then waits for one
IDLE = 10  # that are kept while nobody uses them
CLOSING = 5.0  # seconds in which a server takes leave; then the connection is cut
STATEMENTS = 256  # that are prepared on a connection; all queries together are fewer

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
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

    def is_lost(self, error: Exception) -> bool:
        """Also when somebody has changed the tables of what it has prepared: then nobody is to use it any more."""
        if isinstance(error, (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)):
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

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Direct]:
        async with self._free:
            connection = self._take() or Direct(await asyncpg.connect(**self._options))
            try:
                yield connection
            except asyncio.CancelledError:
                connection.driver.terminate()  # what it was asked is not over, and asyncpg tells the server to end it
                raise
            finally:
                await self._give_back(connection)

    def _take(self) -> Direct | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.driver.is_closed():
                return connection
        return None

    async def _give_back(self, connection: Direct) -> None:
        if connection.driver.is_closed():
            return
        if connection.driver.is_in_transaction():  # which somebody could not end
            connection.driver.terminate()
        elif self._is_closed or len(self._idle) == IDLE:
            await connection.driver.close(timeout=CLOSING)
        else:
            self._idle.append(connection)

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            await self._idle.pop().driver.close(timeout=CLOSING)


def engine(url: str) -> AsyncEngine:
    """SQLAlchemy's own way in, which Alembic needs."""
    return create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))


def _options(url: str) -> dict[str, Any]:
    """What the URL says, as the engine understands it."""
    _, options = _DIALECT.create_connect_args(make_url(url))
    return {str(name): value for name, value in options.items()}
