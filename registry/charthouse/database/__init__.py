"""The three ways to the metadata, over SQLite or PostgreSQL.

A query is a function of a `Connection` (all are in `queries/`) that returns values, a row, a list or a dataclass,
never a result that is half read or a generator, and has no other effects.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import TextClause

from charthouse.errors import DatabaseError as DatabaseError, StorageFull


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int: ...

    def first(self) -> Any: ...

    def all(self) -> Sequence[Any]: ...

    def scalar(self) -> Any: ...

    def scalar_one(self) -> Any: ...

    def scalars(self) -> Any: ...


class Connection(Protocol):
    """What queries use of SQLAlchemy's connection. Each database has one of its own, `Direct`, that is quicker."""

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> Rows: ...


P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[Connection, P], T]


class Database(Protocol):
    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What is bounded by a key or a LIMIT, in one snapshot."""

    def read_at_once(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The same of a query that never gives None, where nobody has to wait for it; None where somebody would."""

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What is unbounded, in one snapshot, out of the way of everybody else."""

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction: it is on disk when this returns, and nothing of it is there when this raises.

        Once handed over it is carried out, whether or not the caller still waits. Raises StorageFull.
        """

    def check(self) -> None:
        """Raises DatabaseError when nothing can be written any more until the process is started again."""

    async def check_file(self, *, deep: bool) -> None:
        """Raises DatabaseError when the database's file is damaged; `deep` looks at every entry of every index too.

        Whoever keeps a PostgreSQL has its own tools for that.
        """

    def stamp(self) -> bytes | None:
        """The same only while nothing was committed, by whomever; None where that cannot be told without asking."""

    def rest(self) -> None:
        """Lets go of what the next read opens again: for many registries of one process, of which few are used."""

    async def close(self) -> None: ...


def one_statement(query: Query[P, T]) -> Query[P, T]:
    """Marks a query that is a snapshot by itself: `read` opens none around it. A second statement raises."""
    query.one_statement = True  # type: ignore[attr-defined]
    return query


class OneStatement:
    """A `Connection` for such a query."""

    def __init__(self, connection: Connection) -> None:
        self._execute = connection.execute

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> Rows:
        rows = self._execute(statement, parameters)
        self._execute = _refuse_another
        return rows


def _refuse_another(*_: object) -> Rows:
    raise TypeError("a query that is marked as one_statement runs another: the two would see different states")


def checked(value: T) -> T:
    """A half-read result would hold the connection's snapshot for as long as somebody keeps it."""
    if isinstance(value, Iterator) or hasattr(value, "rowcount"):  # a generator, every kind of result
        raise TypeError(f"a query returns values, never a {type(value).__name__}")
    return value


def full() -> StorageFull:
    return StorageFull("the disk of the registry's database is full: nothing can be pushed until there is room")
