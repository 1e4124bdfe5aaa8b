"""The three ways to the metadata, on both databases: what a reader sees, and what a writer is told."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.util import await_only

from charthouse.core import Caller, Registry
from charthouse.database import Database, DatabaseError, one_statement
from charthouse.database.postgres import ATTEMPTS, PostgresDatabase
from charthouse.database.postgres_connection import IDLE, POOL_SIZE
from charthouse.database.sqlite import SqliteDatabase, connect, driver, prepare
from charthouse.database.sqlite_writer import writer_lock
from charthouse.manifest import OCI_INDEX
from charthouse.names import Digest, RepositoryName, Tag
from support.notes import NOTES, add, names
from support.process import PATIENCE


class Elsewhere:
    """Another session on the same database, of another kind than ours."""

    def __init__(self, path: Path, url: str) -> None:
        self._path, self.url = path, url

    def execute(self, statement: str) -> list[Any]:
        return self._on_postgres(statement) if self.url else self._on_sqlite(statement)

    def _on_sqlite(self, statement: str) -> list[Any]:
        with connect(self._path) as connection:
            return driver(connection).execute(statement).fetchall()

    def _on_postgres(self, statement: str) -> list[Any]:
        """In a thread, because a query runs inside the loop."""
        rows: list[Any] = []

        async def session() -> None:
            connection = await asyncpg.connect(self.url)
            rows.extend(tuple(row) for row in await connection.fetch(statement))
            await connection.close()

        thread = threading.Thread(target=lambda: asyncio.run(session()))
        thread.start()
        thread.join()
        return rows

    @contextlib.asynccontextmanager
    async def holding_writers_up(self) -> AsyncIterator[None]:
        if not self.url:
            with writer_lock(self._path):
                yield
            return
        connection = await asyncpg.connect(self.url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            yield
        await connection.close()


@pytest.fixture
def elsewhere(tmp_path: Path, database_url: str) -> Elsewhere:
    return Elsewhere(tmp_path / "notes.db", database_url)


@pytest.fixture
async def database(tmp_path: Path, database_url: str, elsewhere: Elsewhere) -> AsyncIterator[Database]:
    if not database_url:
        prepare(tmp_path / "notes.db")
    elsewhere.execute(NOTES)
    database = PostgresDatabase(database_url) if database_url else SqliteDatabase(tmp_path / "notes.db", durable=False)
    yield database
    await database.close()


def rows(connection: Connection) -> Any:
    return connection.execute(text("SELECT name FROM notes"))


def scalars(connection: Connection) -> Any:
    return rows(connection).scalars()


def generator(connection: Connection) -> Iterator[str]:
    yield from names(connection)


async def test_a_query_that_returns_an_iterator_and_no_value_is_refused(database: Database):
    for query in (rows, scalars, generator):
        for way in (database.read, database.scan, database.write):
            with pytest.raises(TypeError, match="a query returns values"):
                await way(query)


async def test_a_refused_query_leaves_no_snapshot_behind(database: Database, elsewhere: Elsewhere):
    await database.write(add, "a")
    with pytest.raises(TypeError):
        await database.read(rows)
    elsewhere.execute("INSERT INTO notes VALUES ('b', 0)")
    assert await database.read(names) == ["a", "b"]


@pytest.mark.parametrize("way", ["read", "scan"])
async def test_a_read_is_one_snapshot(database: Database, elsewhere: Elsewhere, way: str):
    def before_and_after(connection: Connection) -> tuple[list[str], list[str]]:
        before = names(connection)
        elsewhere.execute("INSERT INTO notes VALUES ('b', 0)")
        return before, names(connection)

    await database.write(add, "a")
    assert await getattr(database, way)(before_and_after) == (["a"], ["a"])
    assert await database.read(names) == ["a", "b"]


async def test_what_a_write_returned_for_is_seen_by_everybody(database: Database, elsewhere: Elsewhere):
    def add_and_look(connection: Connection) -> list[Any]:
        add(connection, "a")
        return elsewhere.execute("SELECT name FROM notes")

    assert await database.write(add_and_look) == []
    assert elsewhere.execute("SELECT name FROM notes") == [("a",)]


async def test_writes_at_once_are_all_carried_out(database: Database):
    expected = [f"{number:03}" for number in range(100)]
    assert await asyncio.gather(*[database.write(add, name) for name in expected]) == expected
    assert await database.read(names) == expected


async def test_the_exception_of_one_write_leaves_the_others(database: Database):
    def add_and_fail(connection: Connection, name: str) -> None:
        add(connection, name)
        raise KeyError(name)

    writes = [database.write(add_and_fail if name in "cf" else add, name) for name in "abcdefgh"]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [repr(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [
        "KeyError('c')",
        "KeyError('f')",
    ]
    assert await database.read(names) == list("abdegh")


async def test_the_write_of_a_waiter_that_went_away_is_carried_out(database: Database, elsewhere: Elsewhere):
    async with elsewhere.holding_writers_up():
        waiter = asyncio.create_task(database.write(add, "a"))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    await database.close()  # which waits for it: on PostgreSQL a later write may be done before an earlier one
    assert elsewhere.execute("SELECT name FROM notes") == [("a",)]


async def test_closing_waits_for_the_writes_that_were_handed_over(database: Database, elsewhere: Elsewhere):
    writes = [asyncio.create_task(database.write(add, name)) for name in "ab"]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*writes) == ["a", "b"]
    assert elsewhere.execute("SELECT name FROM notes ORDER BY name") == [("a",), ("b",)]


# --- the same answers -------------------------------------------------------------------------------------------------

REPOSITORY = RepositoryName("team-a/app")
SUBJECT = Digest.of(b"subject")


def index_with(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], **fields}).encode()


async def test_text_is_in_byte_order_whatever_the_databases_collation(registry: Registry, elsewhere: Elsewhere):
    tags = [
        Tag(name) for name in ("b", "B", "a", "_", "Z", "z", "A-", "A_", "A.", "1.10.0", "1.9.0", "aa", "a-b", "a.b")
    ]
    await registry.push_manifest(REPOSITORY, tags[0], index_with(), OCI_INDEX, Caller(), tags[1:])
    names_of_repositories = [RepositoryName(name) for name in ("a-b", "a/b", "a.b", "a_b", "a0", "ab", "a")]
    for name in names_of_repositories:
        await registry.push_manifest(name, Tag("1"), index_with(), OCI_INDEX, Caller())
    if elsewhere.url:
        print(
            "the server's own order:",
            elsewhere.execute("SELECT v FROM (VALUES ('a'), ('B'), ('_')) AS t (v) ORDER BY v"),
        )
    paged, last = [], ""
    while page := (await registry.list_tags(REPOSITORY, last, 3))[0]:
        paged, last = paged + page, page[-1]
    assert paged == sorted(tags)
    assert (await registry.list_repositories("", 100, Caller()))[0] == sorted([*names_of_repositories, REPOSITORY])
    assert (await registry.list_repositories("a.b", 2, Caller()))[0] == ["a/b", "a0"]


async def test_nul_and_lone_surrogates_stay_in_the_bytes_of_a_manifest(registry: Registry):
    odd = "x\0y\ud800z"
    body = index_with(
        artifactType="a/b" + odd,
        annotations={odd: odd},
        subject={"mediaType": odd, "digest": SUBJECT, "size": 2**63 - 1},
    )
    pushed = await registry.push_manifest(REPOSITORY, Tag("odd"), body, OCI_INDEX, Caller("ann"))
    assert (await registry.pulls.get_manifest(REPOSITORY, Tag("odd"))).content == body
    (referrer,), _ = await registry.list_referrers(REPOSITORY, SUBJECT, None, "", 10)
    assert referrer.digest == pushed.digest
    assert json.loads(referrer.annotations) == {odd: odd}


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def on_postgres(postgres_server: str) -> AsyncIterator[PostgresDatabase]:
    """The server's own database, because these have nothing to compare with on SQLite, where writers stand in line."""
    url = postgres_server.format(name="postgres")
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP TABLE IF EXISTS notes; {NOTES}; INSERT INTO notes VALUES ('a', 0), ('b', 0)")
    await connection.close()
    database = PostgresDatabase(url)
    yield database
    await database.close()


class Meeting:
    """Two transactions that each take a row before either goes on; what is repeated waits for nobody."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self._both = asyncio.Event()

    async def wait(self, name: str) -> None:
        self.attempts.append(name)
        if len(self.attempts) >= 2:
            self._both.set()
        await self._both.wait()


def raise_value(connection: Connection, name: str) -> None:
    connection.execute(text("UPDATE notes SET value = value + 1 WHERE name = :name"), {"name": name})


async def test_a_deadlock_is_resolved_by_writing_again(on_postgres: PostgresDatabase):
    meeting = Meeting()

    def in_order(connection: Connection, first: str, second: str) -> None:
        raise_value(connection, first)
        await_only(meeting.wait(first))
        raise_value(connection, second)

    await asyncio.gather(on_postgres.write(in_order, "a", "b"), on_postgres.write(in_order, "b", "a"))
    assert len(meeting.attempts) > 2  # one of the two was told of a deadlock, perhaps more than once
    assert await on_postgres.read(lambda c: list(c.execute(text("SELECT value FROM notes")).scalars())) == [2, 2]


async def test_a_serialization_failure_is_resolved_by_writing_again(on_postgres: PostgresDatabase):
    meeting = Meeting()

    def serializable(connection: Connection, name: str) -> None:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        connection.execute(text("SELECT SUM(value) FROM notes")).scalar()
        await_only(meeting.wait(name))
        raise_value(connection, name)

    await asyncio.gather(on_postgres.write(serializable, "a"), on_postgres.write(serializable, "b"))
    assert len(meeting.attempts) > 2
    assert await on_postgres.read(lambda c: list(c.execute(text("SELECT value FROM notes")).scalars())) == [1, 1]


async def test_connections_that_the_server_has_ended_are_replaced_at_the_next_use(
    on_postgres: PostgresDatabase, postgres_server: str
):
    """As when it starts again. All of the pool's at once: the first that is found lost condemns the others."""
    async with asyncio.TaskGroup() as several:
        for _ in range(5):
            several.create_task(on_postgres.read(lambda c: c.execute(text("SELECT 1 FROM pg_sleep(0.01)")).scalar()))
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    connection = await asyncpg.connect(postgres_server.format(name="postgres"))
    end = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {others}"  # which waits for each
    assert await connection.fetchval(end) == 5
    await connection.close()
    assert await on_postgres.read(names) == ["a", "b"]
    await on_postgres.write(add, "c")
    assert await on_postgres.read(names) == ["a", "b", "c"]


async def test_a_read_of_one_statement_has_no_transaction_around_it_and_any_other_has(on_postgres: PostgresDatabase):
    """Nor is the connection tried before: it goes to the server once, and any other three times."""
    said: list[str] = []  # beside what is prepared, which asyncpg does not tell

    await on_postgres.read(names)
    (kept,) = on_postgres._pool._idle
    kept.driver.add_query_logger(lambda record: said.append(record.query.split()[0]))
    await on_postgres.read(one_statement(partial(names)))
    await asyncio.sleep(0)  # when asyncpg tells
    assert said == []
    await on_postgres.read(names)
    await asyncio.sleep(0)
    assert said == ["BEGIN", "ROLLBACK;"]


async def connections(server: str, condition: str) -> int:
    """But for the one that asks."""
    connection = await asyncpg.connect(server.format(name="postgres"))
    others = "datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    found: int = await connection.fetchval(f"SELECT COUNT(*) FROM pg_stat_activity WHERE {others} AND {condition}")
    await connection.close()
    return found


async def test_as_many_read_at_once_as_there_are_connections_and_half_of_them_stay(
    on_postgres: PostgresDatabase, postgres_server: str
):
    together, count, most = asyncio.Event(), 0, 0
    used: set[int] = set()  # the numbers of their processes on the server

    async def meet() -> None:
        nonlocal count, most
        count += 1
        most = max(most, count)
        if count == POOL_SIZE:
            together.set()
        await together.wait()
        count -= 1

    def read_together(connection: Connection) -> list[str]:
        used.add(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        await_only(meet())
        return names(connection)

    found = await asyncio.gather(*[on_postgres.read(read_together) for _ in range(POOL_SIZE + 3)])
    assert found == [["a", "b"]] * (POOL_SIZE + 3)
    assert most == len(used) == POOL_SIZE

    async def half_of_them_stay() -> bool:
        return await connections(postgres_server, f"pid IN ({', '.join(map(str, used))})") == IDLE

    await until(half_of_them_stay)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            pass


@pytest.mark.parametrize("marked", [one_statement, lambda query: query], ids=["alone", "in a snapshot"])
async def test_whoever_goes_while_the_server_answers_waits_for_nothing_and_it_ends_what_it_does(
    on_postgres: PostgresDatabase, postgres_server: str, marked
):
    """Nor is it asked once more for him. Nobody else has his connection then."""
    asked = 0

    def wait_long(connection: Connection) -> None:
        nonlocal asked
        asked += 1
        connection.execute(text("SELECT pg_sleep(600)"))

    async def is_asleep() -> bool:
        return await connections(postgres_server, "query LIKE '%pg_sleep(600)%' AND state = 'active'") == 1

    async def are_gone() -> bool:
        return await connections(postgres_server, "query LIKE '%pg_sleep(600)%'") == 0

    reading = asyncio.ensure_future(on_postgres.read(marked(wait_long)))
    await until(is_asleep)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(are_gone)
    assert asked == 1
    assert await on_postgres.read(names) == ["a", "b"]


async def test_the_first_connection_that_is_found_lost_condemns_the_others(on_postgres: PostgresDatabase):
    """There are as many as attempts, and none of them sees it before it is used, as behind a proxy."""
    await asyncio.gather(*[on_postgres.read(sleep_a_little) for _ in range(IDLE)])
    for connection in on_postgres._pool._idle:
        connection._prepared = {"SELECT name FROM notes ORDER BY name": Cut(connection.driver)}
    assert len(on_postgres._pool._idle) == IDLE == ATTEMPTS
    assert await on_postgres.read(names) == ["a", "b"]


class Cut:
    """A statement of a connection that is cut in its middle."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def fetch(self) -> None:
        self._driver.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def sleep_a_little(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT 1 FROM pg_sleep(0.05)")).scalar_one()
    return found


async def test_a_statement_that_was_prepared_before_its_table_changed_is_prepared_anew(
    on_postgres: PostgresDatabase, postgres_server: str
):
    """As when another server, of a newer version, has migrated."""

    def everything(connection: Connection) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in connection.execute(text("SELECT * FROM notes ORDER BY name")).all()]

    assert await on_postgres.read(everything) == [("a", 0), ("b", 0)]
    Elsewhere(Path(), postgres_server.format(name="postgres")).execute("ALTER TABLE notes ADD COLUMN more BOOLEAN")
    assert await on_postgres.read(everything) == [("a", 0, None), ("b", 0, None)]


class Losing:
    """A query that ends its own connection the first time, after what it has written and before it reads."""

    def __init__(self, *written: str) -> None:
        self._written = written
        self.times = 0

    def __call__(self, connection: Connection) -> list[str]:
        self.times += 1
        for name in self._written:
            add(connection, name)
        if self.times == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return names(connection)


async def test_what_a_lost_connection_has_not_committed_is_written_by_the_next_one(on_postgres: PostgresDatabase):
    losing = Losing("c")
    assert await on_postgres.write(losing) == ["a", "b", "c"]
    assert losing.times == 2
    assert await on_postgres.read(names) == ["a", "b", "c"]


@pytest.mark.parametrize("marked", [one_statement, lambda query: query], ids=["alone", "in a snapshot"])
async def test_what_a_lost_connection_cannot_say_the_next_one_is_asked(on_postgres: PostgresDatabase, marked):
    losing = Losing()
    assert await on_postgres.read(marked(losing)) == ["a", "b"]
    assert losing.times == 2


async def test_a_scan_that_loses_its_connection_is_not_begun_again(on_postgres: PostgresDatabase):
    """A backup's has written half of a copy by then."""
    losing = Losing()
    with pytest.raises(asyncpg.PostgresConnectionError):
        await on_postgres.scan(losing)
    assert losing.times == 1


async def test_whoever_finds_every_connection_busy_for_long_is_told_so(on_postgres: PostgresDatabase, monkeypatch):
    monkeypatch.setattr("charthouse.database.postgres_connection.WAIT", 0.01)
    async with contextlib.AsyncExitStack() as busy:
        for _ in range(POOL_SIZE):
            await busy.enter_async_context(on_postgres._pool.connection())
        with pytest.raises(DatabaseError, match=r"all 20 connections to PostgreSQL have been busy for 0.01 s"):
            await on_postgres.read(names)
    assert await on_postgres.read(names) == ["a", "b"]


async def test_what_is_marked_as_one_statement_runs_no_other(database: Database):
    """Outside of a transaction the two would see different states."""

    def two(connection: Connection) -> list[str]:
        return names(connection) + names(connection)

    with pytest.raises(TypeError, match="one_statement"):
        await database.read(one_statement(two))


async def test_a_connection_that_is_lost_at_the_commit_is_an_error_and_nothing_is_repeated(
    on_postgres: PostgresDatabase, postgres_server: str
):
    """It may have been carried out."""
    others = Elsewhere(Path(), postgres_server.format(name="postgres"))
    runs = 0

    def add_and_lose(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        add(connection, "c")
        mine = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        assert others.execute(f"SELECT pg_terminate_backend({mine}, 5000)") == [(True,)]

    with pytest.raises(DatabaseError, match="it may be done or not"):
        await on_postgres.write(add_and_lose)
    assert runs == 1
    assert await on_postgres.read(names) == ["a", "b"]
