"""The three ways to the metadata, over SQLite or PostgreSQL.

A query is a function of a SQLAlchemy `Connection` (all are in `queries.py`) that returns values, a row, a list or a
dataclass, never a `Result` or a generator, and has no other effects.
"""

from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from charthouse.errors import DatabaseError as DatabaseError
from charthouse.errors import StorageFull

P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[Connection, P], T]


class Database(Protocol):
    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What is bounded by a key or a LIMIT, in one snapshot."""

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What is unbounded, in one snapshot, out of the way of everybody else."""

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction: it is on disk when this returns, and nothing of it is there when this raises.

        Once handed over it is carried out, whether or not the caller still waits. Raises StorageFull.
        """

    def check(self) -> None:
        """Raises DatabaseError when nothing can be written any more until the process is started again."""

    def stamp(self) -> int | None:
        """The same only while nothing was committed, by whomever; None where that cannot be told without asking."""

    async def close(self) -> None: ...


def checked(value: T) -> T:
    """A half-read result would hold the connection's snapshot for as long as somebody keeps it."""
    if isinstance(value, Iterator):  # every kind of Result, and a generator
        raise TypeError(f"a query returns values, never a {type(value).__name__}")
    return value


def full() -> StorageFull:
    return StorageFull("the disk of the registry's database is full: nothing can be pushed until there is room")
