"""Brings a database to the schema of this program, under a lock: two that start together do not collide.

Alembic is imported only where there is something to do.
"""

import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, create_mock_engine, inspect, text
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from charthouse.database import DatabaseError, sqlite as sqlite_database
from charthouse.database.sqlite_errors import fail
from charthouse.database.sqlite_writer import writer_lock
from charthouse.queries import triggers
from charthouse.tables import SCHEMA_VERSION, metadata

if TYPE_CHECKING:
    from alembic.config import Config

    from charthouse.database.postgres import PostgresDatabase

Making = Callable[[], None]  # asked before tables are made in an empty database; raises where they must not be

ADVISORY_LOCK = 0x63686172  # any number that nobody else of this database uses: "char"


def _as_you_like() -> None:
    pass


def migrate_sqlite(path: Path, making: Making = _as_you_like) -> None:
    """Raises DatabaseError when the database is newer than this program, or no database at all."""
    try:
        if not path.exists():
            making()
        sqlite_database.prepare(path)
        if sqlite_database.version(path) == SCHEMA_VERSION:
            return
        with writer_lock(path), sqlite_database.connect(path) as connection:
            _upgrade_sqlite(connection, making)
    except (sqlite3.DatabaseError, DBAPIError) as error:
        fail(error.orig or error if isinstance(error, DBAPIError) else error, path)


def _upgrade_sqlite(connection: Connection, making: Making = _as_you_like) -> None:
    """One transaction; foreign keys are off before it begins, since a table made anew would empty its children."""
    raw = sqlite_database.driver(connection)
    raw.execute("PRAGMA foreign_keys=OFF")
    raw.execute("PRAGMA legacy_alter_table=ON")  # or a trigger's table could not be made anew: it is away for a moment
    raw.execute("BEGIN IMMEDIATE")
    try:
        upgrade(connection, making)
        broken = raw.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise DatabaseError(
                f"the upgrade would leave {len(broken)} rows without the rows they belong to; nothing was changed"
            )
        raw.execute("COMMIT")
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raw.execute("PRAGMA legacy_alter_table=OFF")
        raw.execute("PRAGMA foreign_keys=ON")


async def migrate_postgres(database: "PostgresDatabase", making: Making = _as_you_like) -> None:
    """Raises DatabaseError when the database is newer than this program, or cannot be reached."""
    from charthouse.database import postgres

    try:
        if await database.read(postgres.version) != SCHEMA_VERSION:
            await _upgrade_postgres(database.url, making)
    except (OSError, DBAPIError, *postgres.ERRORS) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise DatabaseError(f"the PostgreSQL database cannot be used: {reason}") from error


async def _upgrade_postgres(url: str, making: Making) -> None:
    from charthouse.database.postgres_connection import engine

    made = engine(url)
    try:
        async with made.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            await connection.run_sync(upgrade, making)
    finally:
        await made.dispose()


def version(connection: Connection) -> str | None:
    """The schema's version, None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, making: Making = _as_you_like) -> None:
    """To the newest version, within the connection's transaction."""
    found = version(connection)
    if found == SCHEMA_VERSION:
        return
    if found is None:
        making()
        _make(connection)
        return
    if found > SCHEMA_VERSION:
        raise DatabaseError(
            f"the database has schema {found} and this program knows up to {SCHEMA_VERSION}:"
            " start the newer charthouse that wrote it"
        )
    from alembic import command

    command.upgrade(configuration(connection), "head")


def _make(connection: Connection) -> None:
    """The tables as they are now, in an empty database: a tenth of a second less than all migrations, for each new
    registry. Tests demand that the two lead to the same."""
    for statement in (*_tables(connection.dialect.name), *triggers.STATEMENTS[connection.dialect.name]):
        connection.exec_driver_sql(statement)
    connection.execute(
        text("""
        CREATE TABLE alembic_version (
            version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))""")
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": SCHEMA_VERSION})


@functools.cache
def _tables(dialect: str) -> list[str]:
    """What makes tables and indexes: to put it together takes longer than to carry it out, and some make hundreds."""
    statements: list[str] = []

    def keep(made: ExecutableDDLElement, *_: object) -> None:
        statements.append(str(made.compile(dialect=engine.dialect)))

    engine: MockConnection = create_mock_engine(f"{dialect}://", keep)
    metadata.create_all(engine, checkfirst=False)
    return statements


def configuration(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    return config


def scripts() -> Path:
    """The migrations: beside this file in a wheel, at the top of the repository in a checkout."""
    beside = Path(__file__).parent / "migrations"
    return beside if beside.is_dir() else Path(__file__).parents[2] / "migrations"
