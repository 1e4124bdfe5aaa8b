"""The lock of the data folder's writers: between objects, threads and processes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from charthouse.composition import open_existing, open_registry
from charthouse.core import Caller
from charthouse.database.sqlite import SqliteDatabase, connect, driver, prepare
from charthouse.database.sqlite_writer import writer_lock
from charthouse.locks import FileLock
from charthouse.names import Digest, RepositoryName
from charthouse.settings import DATABASE_NAME, load
from support import faults

REPOSITORY = RepositoryName("team-a/app")


def test_two_objects_exclude_each_other_within_a_process(tmp_path: Path):
    with FileLock(tmp_path / "lock"):
        assert not FileLock(tmp_path / "lock").acquire(blocking=False)
    free = FileLock(tmp_path / "lock")
    assert free.acquire(blocking=False)
    free.release()


def test_a_held_lock_may_be_acquired_again_and_is_let_go_of_once(tmp_path: Path):
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.acquire()
    assert one.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    one.release()
    assert other.acquire(blocking=False)
    other.release()


@pytest.mark.parametrize("let_go", [FileLock.unlock, FileLock.release])
def test_whoever_lets_go_twice_takes_nothing_from_others(tmp_path: Path, let_go: Callable[[FileLock], None]):
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    one.acquire()
    let_go(one)
    assert other.acquire(blocking=False)
    let_go(one)
    assert not one.acquire(blocking=False)
    other.release()
    one.release()


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path):
    lock = FileLock(tmp_path / "lock")
    with faults.lock_held(lock.path):
        assert not lock.acquire(blocking=False)
    assert lock.acquire(blocking=False)  # it was killed
    lock.release()


def test_a_lock_that_could_not_be_had_keeps_no_file_open(tmp_path: Path):
    with FileLock(tmp_path / "lock"):
        waiting = FileLock(tmp_path / "lock")
        before = sorted(Path("/proc/self/fd").iterdir())
        assert not waiting.acquire(blocking=False)
        assert sorted(Path("/proc/self/fd").iterdir()) == before


async def test_while_another_process_holds_the_writers_lock_every_writer_waits_and_then_goes_on(tmp_path: Path):
    """Every writer of the server and of the command line, which opens a registry of its own on the same folder."""
    settings = load({"data": tmp_path / "data"}, environ={})
    server = await open_registry(settings, durable=False)
    command = await open_existing(settings)
    contents = [b"%d" % number for number in range(10)]
    with faults.lock_held(writer_lock(settings.data / DATABASE_NAME).path) as holder:
        pushes = [
            asyncio.ensure_future(registry.push_blob(REPOSITORY, Caller(), Digest.of(content), _pieces(content)))
            for content in contents
            for registry in (server, command)
        ]
        while faults.waiting_for(writer_lock(settings.data / DATABASE_NAME).path) < 2:  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(0.01)
        assert not any(push.done() for push in pushes)
        assert await server.list_repositories("", 10, Caller()) == ([], False)  # reads go on
        with connect(settings.data / DATABASE_NAME) as connection:
            assert driver(connection).execute("SELECT COUNT(*) FROM blobs").fetchall() == [(0,)]
        holder.go_on()
        await asyncio.gather(*pushes)
    for content in contents:
        assert (await server.pulls.get_blob(REPOSITORY, Digest.of(content))).size == len(content)
    await command.close()
    await server.close()


async def _pieces(content: bytes):
    yield content


COUNT = """
    import asyncio, sys
    from pathlib import Path
    from sqlalchemy import text
    from charthouse.database.sqlite import SqliteDatabase

    def add(connection, name):
        value = connection.execute(text("SELECT value FROM counter")).scalar()
        connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})
        connection.execute(text("INSERT INTO notes VALUES (:name, zeroblob(20000))"), {"name": name})

    async def main(path, name):
        database = SqliteDatabase(path, durable=False)
        print("ready", flush=True)
        input()
        for number in range(15):
            await asyncio.gather(*[database.write(add, f"{name} {number} {member}") for member in range(8)])
        await database.close()

    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_processes_that_write_at_once_lose_nothing(tmp_path: Path):
    path = tmp_path / "count.db"
    prepare(path)
    with connect(path) as connection:
        driver(connection).executescript(
            "CREATE TABLE counter (value BIGINT); INSERT INTO counter VALUES (0);"
            "CREATE TABLE notes (name TEXT PRIMARY KEY, content BLOB)"
        )
    with (
        faults.child(COUNT, path, "one") as one,
        faults.child(COUNT, path, "two") as two,
        faults.child(COUNT, path, "three") as three,
    ):
        children = (one, two, three)
        assert {child.says() for child in children} == {"ready"}
        for child in children:
            child.go_on()
        assert [child.ended() for child in children] == [0, 0, 0]

    def count(connection: Connection) -> tuple[int, int, str]:
        return tuple(
            connection.execute(text(query)).scalar()
            for query in ("SELECT value FROM counter", "SELECT COUNT(*) FROM notes", "PRAGMA integrity_check")
        )

    database = SqliteDatabase(path)
    assert await database.read(count) == (360, 360, "ok")
    await database.close()
