"""A table of the tests' own, and the queries on it."""

from sqlalchemy import Connection, text

NOTES = "CREATE TABLE notes (name TEXT PRIMARY KEY, value BIGINT NOT NULL)"


def add(connection: Connection, name: str, value: int = 0) -> str:
    connection.execute(text("INSERT INTO notes VALUES (:name, :value)"), {"name": name, "value": value})
    return name


def names(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT name FROM notes ORDER BY name")).scalars())
