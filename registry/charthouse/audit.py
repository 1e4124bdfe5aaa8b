"""Who did what: a row for every change, written in its transaction, and for refusals of what was shown.

A refusal is no change, and a client that goes on trying makes thousands of them: those of one second, of one caller,
for one thing and from one address are one row with their number. A request without credentials that is told to sign in
leaves none.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from charthouse import queries
from charthouse.database import Connection, Database, P, Query, T

log = logging.getLogger(__name__)

GATHERED_FOR = 1.0  # seconds
MOST_GATHERED = 1000  # rows of one time; all else is counted in one
FORGOTTEN_AT_ONCE = 1000  # rows of one transaction
TARGET_LENGTH = 512  # characters of what was refused: a path can be longer
DAY = 24 * 3600 * 1000  # milliseconds

REFUSED, SIGNING_IN = "refused", "sign in"
FURTHER = "(further ones)"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a user, a token or `anonymous`, from which address, in which request."""

    name: str
    address: str = ""
    request_id: str = ""


ON_THE_MACHINE = Actor("(on the machine)")  # the command line, which needs no login
THE_SCHEDULE = Actor("(the schedule)")  # of `serve`


@dataclass(frozen=True, slots=True)
class Entry:
    """A row. `id` grows with time, `at` is in Unix milliseconds, `count` above 1 for refusals that were gathered."""

    id: int
    at: int
    who: str
    action: str
    target: str
    address: str
    request_id: str
    count: int


class Change(Protocol):
    """Carries a query out as one write, with its row of the audit."""

    def __call__(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


def audited(database: Database, by: Actor, action: str, target: str, now: Callable[[], int]) -> Change:
    """A query that gives False says that it changed nothing, and leaves no row."""

    def change(query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        def carry_out(connection: Connection) -> T:
            done = query(connection, *args, **kwargs)
            if done is not False:
                queries.add_audit(connection, by, action, target, now())
            return done

        return database.write(carry_out)

    return change


class Audit:
    def __init__(self, database: Database, now: Callable[[], int], days: int) -> None:
        self._database = database
        self._now = now
        self._days = days
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._writing: asyncio.Task[None] | None = None

    async def list(self, *, since: int = 0, name: str = "", after: int = 0, limit: int = 1000) -> list[Entry]:
        """At most `limit` from that time on, oldest first, behind the row `after`; those of one caller, if named."""
        rows = await self._database.scan(queries.list_audit, since, name, after, limit)
        return [Entry(*row) for row in rows]

    async def add(self, by: Actor, action: str, target: str) -> None:
        """For a change that is no transaction of the database."""
        await self._database.write(queries.add_audit, by, action, target, self._now())

    def refuse(self, who: str, what: str, address: str) -> None:
        """Notes it; the row comes within a second."""
        key = (who, what[:TARGET_LENGTH], address)
        if key not in self._refused and len(self._refused) >= MOST_GATHERED:
            key = (FURTHER, "", "")
        self._refused[key] += 1
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        await asyncio.sleep(GATHERED_FOR)
        self._writing = None
        await self.flush()

    async def flush(self) -> None:
        """Writes what was gathered."""
        refused, self._refused = self._refused, Counter()
        if not refused:
            return
        rows = [(who, REFUSED, what, address, count) for (who, what, address), count in refused.items()]
        try:
            await self._database.write(queries.add_refusals, rows, self._now())
        except Exception:
            log.exception("%d refusals could not be written to the audit", sum(refused.values()))

    async def forget_old(self) -> int:
        """Rows older than the setting says. Returns their number."""
        before, forgotten = self._now() - self._days * DAY, 0
        while count := await self._database.write(queries.forget_audit, before, FORGOTTEN_AT_ONCE):
            forgotten += count
        return forgotten

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        await self.flush()
