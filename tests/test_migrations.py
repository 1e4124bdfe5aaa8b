"""Migrations: where they lead, what they keep, and what is there when one is interrupted."""

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, LargeBinary, MetaData, Table, inspect, text
from sqlalchemy.types import Boolean, Integer, TypeEngine

from charthouse import migrate, queries, tables
from charthouse.composition import open_registry
from charthouse.database import postgres_connection, sqlite
from charthouse.database.postgres import PostgresDatabase
from charthouse.errors import DatabaseError
from charthouse.settings import DATABASE_NAME, Settings
from support import faults

# What the next migration may do at worst on SQLite: make parent tables anew, with rows that others refer to.
NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{revision}", "{down_revision}"

def upgrade():
    {middle}
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "auto"
    for table in ("repositories", "manifests", "blobs"):
        with op.batch_alter_table(table, recreate=recreate) as batch:
            batch.add_column(sa.Column("added", sa.Text, nullable=False, server_default=""))
    {end}
"""

HEAD = ScriptDirectory(str(migrate.scripts())).get_current_head()
REVISIONS = [script.revision for script in ScriptDirectory(str(migrate.scripts())).walk_revisions()]
BELONG_TO_NOBODY = {
    "audit",
    "users",
    "group_members",
    "grants",
    "access_generation",
    "api_tokens",
    "logins",
    "collection_passes",
    "quota_turns",
    "user_limits",
    "registry_id",
}
NEXT_REVISION = f"{int(HEAD) + 1:04}"
_reflected: dict[tuple[str, str | None], MetaData] = {}  # by database and revision

pytestmark = pytest.mark.no_tables  # else PostgreSQL would begin with the newest ones, and nothing be migrated


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Any]]:
    """Runs a function in a transaction on the test's database, on SQLite as on a folder that nobody serves."""

    async def on_postgres(work: Callable[[Connection], Any]) -> Any:
        engine = postgres_connection.engine(settings.database)
        async with engine.begin() as connection:
            found = await connection.run_sync(work)
        await engine.dispose()
        return found

    def on_sqlite(work: Callable[[Connection], Any]) -> Any:
        settings.data.mkdir(exist_ok=True)
        sqlite.prepare(settings.data / DATABASE_NAME)
        with sqlite.connect(settings.data / DATABASE_NAME) as connection:
            return work(connection)

    async def run(work: Callable[[Connection], Any]) -> Any:
        return await on_postgres(work) if settings.database else on_sqlite(work)

    return run


@pytest.fixture
def next_migration(tmp_path: Path) -> Callable[..., Path]:
    """A folder of all migrations and one more, which runs these words in its middle and at its end."""

    def make(middle: str = "", end: str = "") -> Path:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.scripts(), folder)
        migration = NEXT.format(revision=NEXT_REVISION, down_revision=HEAD, middle=middle, end=end)
        (folder / "versions" / f"{NEXT_REVISION}_next.py").write_text(migration)
        return folder

    return make


def knows_next(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """This program becomes the next one."""
    monkeypatch.setattr(migrate, "scripts", lambda: folder)
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", NEXT_REVISION)


async def start(settings: Settings) -> None:
    registry = await open_registry(settings, durable=False)
    await registry.close()


def at(revision: str) -> Callable[[Connection], None]:
    """Upgrades to there, from what is older."""

    def upgraded(connection: Connection) -> None:
        command.upgrade(migrate.configuration(connection), revision)
        assert migrate.version(connection) == revision

    return upgraded


def value(kind: TypeEngine[Any]) -> Any:
    """The same for every column of a kind, so that rows of tables that refer to each other fit."""
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, LargeBinary):
        return bytes(range(256)) * 100
    return 2**31 - 1 if isinstance(kind, Integer) else "sha256:ab\u00e9\u2603"


def fill(connection: Connection) -> None:
    for table in reflected(connection).sorted_tables:
        connection.execute(table.insert(), {column.name: value(column.type) for column in table.columns})


def content(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Without the columns' types, which take ten times as long to find out as the rows."""
    names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    return {name: [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))] for name in names}


def reflected(connection: Connection) -> MetaData:
    """Once for each revision, whose tables are the same everywhere. What a test has changed is not seen."""
    key = connection.dialect.name, migrate.version(connection)
    if key not in _reflected:
        metadata = MetaData()
        metadata.reflect(connection)
        metadata.remove(Table("alembic_version", metadata))
        _reflected[key] = metadata
    return _reflected[key]


def test_the_programs_schema_version_is_the_newest_migration():
    assert tables.SCHEMA_VERSION == HEAD


async def test_the_migrations_lead_to_the_tables(run):
    await run(at(HEAD))
    differences = await run(
        lambda connection: compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}),
            tables.metadata,
        )
    )
    assert differences == []


def words(connection: Connection) -> list[Any]:
    """What Alembic does not compare: indexes, collations and cascades, as the database itself says them."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    else:
        query = """
            SELECT conrelid::regclass::text || conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT table_name || '.' || column_name, COALESCE(collation_name, '') || data_type
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            ORDER BY 1"""
    return [tuple(map(_parts, row)) for row in connection.execute(text(query))]


def _parts(word: object) -> list[str]:
    """In no order: what comes by ALTER TABLE stands after the constraints that were there before."""
    return sorted(re.split(r"[(),]", "".join(str(word).split())))


async def test_a_new_database_is_what_the_migrations_would_have_made(settings, run):
    def emptied(connection: Connection) -> None:
        everything = MetaData()
        everything.reflect(connection)
        everything.drop_all(connection)

    await run(at(HEAD))
    by_migrations = await run(words), await run(content)
    await run(emptied)
    await start(settings)
    await run(lambda connection: connection.execute(text("DELETE FROM registry_id")))  # given to it by who opened it
    assert (await run(words), await run(content)) == by_migrations
    assert await run(migrate.version) == HEAD


@pytest.mark.parametrize("older", REVISIONS)
async def test_an_upgrade_keeps_every_row_of_every_table(
    settings, run, next_migration, monkeypatch: pytest.MonkeyPatch, older: str
):
    """From each schema there was, over all that came after it, to one that makes tables anew."""
    await run(at(older))
    await run(fill)
    before = await run(content)
    assert all(len(rows) == 1 for rows in before.values())
    knows_next(monkeypatch, next_migration())
    await start(settings)
    after = await run(content)
    for table, rows in before.items():
        assert len(after[table]) == len(rows), table
        for old, new in zip(rows, after[table], strict=True):
            assert {column: new[column] for column in old} == old, table
    assert after["manifests"][0]["added"] == ""


async def test_an_upgrade_counts_what_repositories_hold(settings, run):
    await run(at("0009"))
    await run(fill)
    await start(settings)
    (repository,) = (await run(content))["repositories"]
    size = value(Integer())
    assert (repository["manifests"], repository["bytes"], repository["unnamed_bytes"]) == (1, size, size)
    assert (await run(content))["manifests"][0]["weight"] == 2 * size
    assert await run(queries.miscounted) == []
    await run(lambda connection: connection.execute(text("UPDATE repository_blobs SET unnamed_since = NULL")) and None)
    (repository,) = (await run(content))["repositories"]
    assert (repository["bytes"], repository["unnamed_bytes"]) == (2 * size, 0)


async def test_foreign_keys_hold_after_an_upgrade(settings, run, next_migration, monkeypatch: pytest.MonkeyPatch):
    await run(at(HEAD))
    await run(fill)
    knows_next(monkeypatch, next_migration())
    await start(settings)
    for parent in ("repositories", "namespaces", "blobs"):
        await run(lambda connection, parent=parent: connection.execute(text(f"DELETE FROM {parent}")) and None)
    left = await run(content)
    assert {table for table, rows in left.items() if rows} == BELONG_TO_NOBODY  # all else went with what it belongs to


async def test_an_upgrade_that_fails_changes_nothing(settings, run, next_migration, monkeypatch: pytest.MonkeyPatch):
    await run(at(HEAD))
    await run(fill)
    before = await run(content)
    knows_next(monkeypatch, next_migration(end="raise RuntimeError('no further')"))
    with pytest.raises(RuntimeError, match="no further"):
        await start(settings)
    assert await run(content) == before
    assert await run(migrate.version) == HEAD


# Starts the registry as the next program, whose migration ends the process between two statements, or waits there.
UPGRADE = """
    import asyncio, sys
    from pathlib import Path
    from charthouse import migrate
    from charthouse.composition import open_registry
    from charthouse.settings import load

    folder, migrate.SCHEMA_VERSION, data, database = Path(sys.argv[1]), *sys.argv[2:]
    migrate.scripts = lambda: folder

    async def main():
        registry = await open_registry(load({"data": Path(data), "database": database}, environ={}))
        await registry.close()

    asyncio.run(main())
"""


async def test_a_process_killed_in_the_middle_of_an_upgrade_leaves_the_older_schema_and_the_next_start_succeeds(
    settings, run, next_migration, monkeypatch: pytest.MonkeyPatch
):
    await run(at(HEAD))
    await run(fill)
    before = await run(content)
    kill = "op.execute('CREATE TABLE half_way (name TEXT)'); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    folder = next_migration(end=kill)
    faults.run(UPGRADE, folder, NEXT_REVISION, settings.data, settings.database, returncode=-9)
    assert await run(content) == before
    assert await run(migrate.version) == HEAD
    await start(settings)  # the older program still can
    shutil.rmtree(folder)
    knows_next(monkeypatch, next_migration())
    await start(settings)
    assert await run(migrate.version) == NEXT_REVISION
    assert {table: len(rows) for table, rows in (await run(content)).items()} == dict.fromkeys(before, 1)


async def test_two_that_start_together_do_not_collide(settings, run, next_migration):
    """The first stops in the middle of its upgrade until the second has begun; only one of them makes it."""
    await run(at(HEAD))
    await run(fill)
    folder = next_migration(middle="print('upgrading', flush=True); input()")
    arguments = (folder, NEXT_REVISION, settings.data, settings.database)
    with faults.child(UPGRADE, *arguments) as one:
        assert one.says() == "upgrading"
        with faults.child(UPGRADE, *arguments) as two:
            await _wait_for_one_in_line(settings, run)
            one.go_on()
            assert one.ended() == 0
            assert two.ended() == 0
            assert two.says() == ""  # it found everything done
    assert await run(migrate.version) == NEXT_REVISION


async def _wait_for_one_in_line(settings: Settings, run: Callable[..., Any]) -> None:
    def in_line(connection: Connection) -> int:
        return int(connection.execute(text("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")).scalar_one())

    lock = sqlite.writer_lock(settings.data / DATABASE_NAME).path
    while not (await run(in_line) if settings.database else faults.waiting_for(lock)):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)


async def test_two_that_make_a_new_database_together_do_not_collide(settings, run):
    await asyncio.gather(*[asyncio.to_thread(asyncio.run, start(settings)) for _ in range(4)])
    assert await run(migrate.version) == HEAD


async def test_a_database_newer_than_the_program_is_refused_in_one_line_and_left_alone(settings, run):
    await start(settings)
    await run(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")) and None)
    with pytest.raises(DatabaseError) as refusal:
        await start(settings)
    assert str(refusal.value) == (
        f"the database has schema 9999 and this program knows up to {HEAD}: start the newer charthouse that wrote it"
    )
    assert await run(migrate.version) == "9999"


async def test_a_start_without_anything_to_do_changes_nothing(settings, run):
    await start(settings)
    await run(fill)
    before = await run(content)
    await start(settings)
    assert await run(content) == before


def test_rows_that_would_lose_the_row_they_belong_to_stop_the_upgrade(
    tmp_path: Path, next_migration, monkeypatch: pytest.MonkeyPatch
):
    """On SQLite nothing else would notice: foreign keys are off while tables are made anew."""
    path = tmp_path / DATABASE_NAME
    migrate.migrate_sqlite(path)
    with sqlite.connect(path) as connection:
        fill(connection)
    knows_next(monkeypatch, next_migration(middle="op.execute('DELETE FROM manifests')"))
    with pytest.raises(DatabaseError, match="the upgrade would leave 7 rows without"):
        migrate.migrate_sqlite(path)
    with sqlite.connect(path) as connection:
        assert migrate.version(connection) == HEAD
        assert {len(rows) for rows in content(connection).values()} == {1}


def test_foreign_keys_are_on_again_and_none_is_broken_after_an_upgrade(
    tmp_path: Path, next_migration, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / DATABASE_NAME
    sqlite.prepare(path)
    with sqlite.connect(path) as connection:
        at(HEAD)(connection)
        fill(connection)
        knows_next(monkeypatch, next_migration())
        migrate._upgrade_sqlite(connection)
        raw = sqlite.driver(connection)
        assert raw.execute("PRAGMA foreign_keys").fetchall() == [(1,)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute("INSERT INTO repository_blobs VALUES (2, 'sha256:00', 0, NULL)")


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / DATABASE_NAME
    path.write_bytes(b"no database, but long enough to be one" * 100)
    with pytest.raises(DatabaseError, match=r"charthouse\.db is damaged, file is not a database: restore"):
        migrate.migrate_sqlite(path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("postgresql://ann:secret@127.0.0.1:1/none", "Connect call failed"), ("", '"none" does not exist')],
    ids=["no server", "no database"],
)
async def test_a_server_that_cannot_be_used_is_one_line_without_the_password(
    postgres_server: str, url: str, reason: str
):
    with pytest.raises(DatabaseError, match="the PostgreSQL database cannot be used: ") as refusal:
        await migrate.migrate_postgres(PostgresDatabase(url or postgres_server.format(name="none")))
    assert reason in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_a_parameter_of_the_url_that_nobody_knows_is_one_line_that_names_it(postgres_server: str):
    url = f"{postgres_server.format(name='postgres')}&sslmode=require"
    with pytest.raises(DatabaseError, match=r"a parameter that asyncpg cannot take: .*sslmode") as refusal:
        await migrate.migrate_postgres(PostgresDatabase(url))
    assert "\n" not in str(refusal.value)


async def test_what_a_url_says_to_sqlalchemy_alone_is_no_hindrance(postgres_server: str):
    database = PostgresDatabase(f"{postgres_server.format(name='postgres')}&prepared_statement_cache_size=0")
    assert await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    await database.close()
