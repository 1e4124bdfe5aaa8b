"""Connections to SQLite's file: straight on sqlite3, on which nothing begins or ends a transaction by itself."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import TextClause

from charthouse.database import OneStatement, P, Query, checked
from charthouse.database.rows import Fetched

T = TypeVar("T")

WAIT = 5.0  # seconds for a lock of SQLite's own


def open_file(path: Path, *, read_only: bool = False, timeout: float = WAIT) -> sqlite3.Connection:
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


class Direct:
    """A `Connection` straight on sqlite3: a statement costs 10 µs, SQLAlchemy's 70 to 150 (docs/performance.md)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.driver = connection

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> Fetched:
        if parameters is None:
            return _fetched(self.driver.execute(statement.text))
        if isinstance(parameters, (dict, Mapping)):  # an abstract class alone takes a detour
            return _fetched(self.driver.execute(statement.text, parameters))
        return _fetched(self.driver.executemany(statement.text, parameters))


def _fetched(cursor: sqlite3.Cursor) -> Fetched:
    return Fetched(cursor.fetchall(), cursor.rowcount)


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
