"""SQLite's own: reads in the event loop, the writer's batches when the disk fails, the write-ahead log."""

import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from charthouse.database import DatabaseError, sqlite_index, sqlite_writer
from charthouse.database.sqlite import SqliteDatabase, connect, driver, prepare
from charthouse.database.sqlite_writer import BATCH_LIMIT, COUNTED, LONGEST_REST, MANY, WAL_LIMIT
from charthouse.errors import ManifestUnknown, StorageFull
from support import faults
from support.notes import NOTES, add, names
from support.process import PATIENCE

# --- reads ----------------------------------------------------------------------------------------------------

COUNT_TO = text("""
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < :last)
    SELECT COUNT(*) FROM counted""")


def count_to(connection: Connection, last: int) -> int:
    return int(connection.execute(COUNT_TO, {"last": last}).scalar_one())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    prepare(path)
    with connect(path) as connection:
        driver(connection).execute(NOTES)
    return path


@contextlib.asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path, **{"durable": False, **options})
    try:
        yield database
    finally:
        await database.close()


async def test_a_step_limit_fails_an_unbounded_read_and_no_scan(path: Path):
    async with opened(path, step_limit=20_000) as database:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await database.read(count_to, 10_000)
        assert await database.scan(count_to, 10_000) == 10_000


@pytest.mark.parametrize(("more", "rests"), [(0, 0), (1, COUNTED)])
async def test_the_writer_rests_while_reads_are_many_more_than_writes(path: Path, monkeypatch, more: int, rests: int):
    """From when that is found until it is found to be over, after each transaction."""
    rested: list[float] = []
    monkeypatch.setattr(sqlite_writer, "sleep", rested.append)
    async with opened(path) as database:
        for _ in range(MANY * COUNTED + more):
            database.stamp()
        for number in range(3 * COUNTED):
            await database.write(add, str(number))
    assert len(rested) == rests
    assert all(0 < seconds <= LONGEST_REST for seconds in rested)


async def test_a_step_limit_counts_each_read_anew(path: Path):
    async with opened(path, step_limit=20_000) as database:
        for _ in range(200):
            assert await database.read(count_to, 100) == 100


async def test_reads_run_in_the_event_loop_and_scans_in_threads_of_their_own(path: Path):
    def thread(_: Connection) -> str:
        return threading.current_thread().name

    async with opened(path) as database:
        assert await database.read(thread) == threading.current_thread().name
        assert (await database.scan(thread)).startswith("charthouse-scan")
        assert await database.write(thread) == "charthouse-writer"


async def test_many_databases_share_a_few_threads_and_hold_nothing_while_they_wait(tmp_path: Path):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with ThreadPoolExecutor(2, thread_name_prefix="shared") as threads:
        databases = []
        for number in range(20):
            path = tmp_path / f"{number}.db"
            prepare(path)
            with connect(path) as connection:
                driver(connection).execute(NOTES)
            databases.append(SqliteDatabase(path, durable=False, threads=threads))
        before, others = descriptors(), threading.active_count()
        for letters in ("abc", "def"):
            await asyncio.gather(*[database.write(add, name) for name in letters for database in databases])
            assert threading.active_count() <= others + 2
            for database in databases:
                database.rest()
            await asyncio.gather(*[_stopped(database) for database in databases])
            assert descriptors() == before
        assert [await database.read(names) for database in databases] == [list("abcdef")] * 20
        for database in databases:
            await database.close()
            with pytest.raises(DatabaseError):
                await database.write(add, "z")
        assert descriptors() <= before


async def _stopped(database: SqliteDatabase) -> None:
    if stopped := database._writer._stopped:
        await stopped


@pytest.fixture(params=["from the index", "by a statement"])
def stamping(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Options of a database: whoever shares its threads with others looks at no index."""
    if request.param == "from the index":
        yield {}
        return
    with ThreadPoolExecutor(1) as threads:
        yield {"threads": threads}


async def test_the_stamp_of_a_connection_opened_again_is_none_that_was_seen_before(path: Path, stamping):
    async with opened(path, **stamping) as database:
        seen = set()
        for name in "abc":
            await database.write(add, name)
            seen.add(database.stamp())
            database.rest()
        assert len(seen) == 3


# A process that recovers the WAL's index: bytes 120 (write) and 122 (recover) of its locks, the header not yet valid.
RECOVER = """
    import fcntl, sys
    with open(sys.argv[1], "r+b", buffering=0) as index:
        fcntl.lockf(index, fcntl.LOCK_EX, 3, 120)
        index.write(bytes(136))
        print("recovering", flush=True)
        input()
"""


async def test_a_read_that_would_have_to_wait_becomes_a_scan(path: Path):
    def letterswhen_free(connection: Connection) -> tuple[str, list[str]]:
        if threading.current_thread() is not threading.main_thread():
            recovering.go_on()
        return threading.current_thread().name, names(connection)

    async with opened(path) as database:
        await database.write(add, "a")
        with faults.child(RECOVER, f"{path}-shm") as recovering:
            assert recovering.says() == "recovering"
            thread, found = await database.read(letterswhen_free)
    assert thread.startswith("charthouse-scan")
    assert found == ["a"]


async def test_the_stamp_moves_with_every_commit_of_whomever_and_with_nothing_else(path: Path, stamping):
    async with opened(path, **stamping) as database:
        stamps = [database.stamp()]
        await database.read(names)
        stamps.append(database.stamp())
        await database.write(add, "a")
        stamps.append(database.stamp())
        with connect(path) as other:
            driver(other).execute("INSERT INTO notes VALUES ('b', 0)")
        stamps.append(database.stamp())
    assert stamps[0] == stamps[1]
    assert len(set(stamps)) == 3


async def test_a_stamp_takes_no_statement(path: Path):
    statements: list[str] = []
    async with opened(path) as database:
        await database.write(add, "a")
        database._reader.driver.set_trace_callback(statements.append)
        database.stamp()
    assert statements == []


async def test_where_the_index_cannot_be_read_the_stamp_takes_a_statement(path: Path, monkeypatch):
    monkeypatch.delattr(sqlite_index.mmap, "MAP_SHARED")  # as on Windows
    async with opened(path) as database:
        stamps = [database.stamp()]
        await database.write(add, "a")
        stamps.append(database.stamp())
    assert database._index is None
    assert len(set(stamps)) == 2


async def test_a_reader_that_finds_no_index_when_it_is_opened_again_uses_no_other(path: Path, monkeypatch):
    """Of one that another process has removed since, nothing would move any more."""
    async with opened(path) as database:
        before = database.stamp()
        database.rest()
        faults.run("import sqlite3, sys\nsqlite3.connect(sys.argv[1]).execute('SELECT * FROM notes').fetchall()", path)
        monkeypatch.delattr(sqlite_index.mmap, "MAP_SHARED")
        stamps = [before, database.stamp()]
        await database.write(add, "a")
        stamps.append(database.stamp())
    assert len(set(stamps)) == 3


async def test_an_opening_that_fails_is_no_opening(path: Path):
    """The index is being recovered: the next one that asks has all that a reader has."""
    async with opened(path, step_limit=20_000) as database:
        await database.write(add, "a")
        with faults.child(RECOVER, f"{path}-shm") as recovering:
            assert recovering.says() == "recovering"
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                database.stamp()
        assert database.stamp()
        assert database._index is not None
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await database.read(count_to, 10_000)


async def test_a_database_behind_a_link_is_like_any_other(path: Path):
    """SQLite has the log and its index beside the file, not beside the link: where something older may lie."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    link.with_name("link.db-shm").write_bytes(bytes(100))
    async with opened(link) as database:
        stamps = [database.stamp()]
        for name in "ab":
            await database.write(add, name)
            stamps.append(database.stamp())
        assert len(set(stamps)) == 3
        assert await database.read(names) == ["a", "b"]


# A process that commits to the database, and does not close it properly.
COMMIT = """
    import os, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    for number in range(int(sys.argv[2])):
        connection.execute("INSERT INTO notes VALUES (?, 0)", [f"{number} of {os.getpid()}"])
    os._exit(0)
"""


async def test_the_stamp_moves_with_the_commits_of_processes_that_are_killed(path: Path):
    async with opened(path) as database:
        stamps = [database.stamp()]
        for commits in (1, 2):
            faults.run(COMMIT, path, commits)
            stamps.append(database.stamp())
        assert len(set(stamps)) == 3
        assert len(await database.read(names)) == 3


async def test_looking_at_the_index_leaves_sqlite_its_locks(path: Path):
    """To close any descriptor of a file drops the process's locks on it: without that at byte 128 another process takes
    the index for left behind, and empties it."""
    async with opened(path) as database:
        await database.write(add, "a")
        for _ in range(3):
            database.stamp()
            assert faults.locked(path.with_name(f"{path.name}-shm")) == ["POSIX READ 128 128"]
            database.rest()
        async with opened(path) as other:
            assert other.stamp()
            assert database.stamp()
        assert faults.locked(path.with_name(f"{path.name}-shm")) == ["POSIX READ 128 128"]
    assert not any(database in index.users for index in sqlite_index._indexes.values())


# --- the event loop, while a transaction is carried out ---------------------------------------------------------


def stack_of(thread: int) -> list[str]:
    """What it is doing: the names of its functions, the innermost first."""
    found, frame = [], sys._current_frames().get(thread)
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


async def test_the_loop_stands_still_while_statements_run_and_goes_on_while_the_disk_works(path: Path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "LONGEST_STANDSTILL", 4 * PATIENCE)
    loop, here = asyncio.get_running_loop(), threading.get_ident()
    stacks: list[list[str]] = []

    def look(_: Connection) -> None:
        stacks.append(stack_of(here))

    async with opened(path) as database:
        await database.write(add, "a")
        commits: list[bool] = []

        def commit(sql: str) -> None:
            if sql == "COMMIT":
                went_on = threading.Event()
                loop.call_soon_threadsafe(went_on.set)
                commits.append(went_on.wait(PATIENCE))

        database._writer._raw.set_trace_callback(commit)
        await asyncio.gather(database.write(look), database.write(look))
        database._writer._raw.set_trace_callback(None)
    assert commits == [True]
    assert [sqlite_writer._stand.__name__ in stack for stack in stacks] == [True, True]


async def test_one_of_many_databases_lets_the_loop_run(path: Path):
    """The standstills of all would add up."""
    here = threading.get_ident()
    with ThreadPoolExecutor(1) as threads:
        async with opened(path, threads=threads) as database:
            stack = await database.write(lambda _: stack_of(here))
    assert sqlite_writer._stand.__name__ not in stack


async def test_a_transaction_that_takes_long_lets_the_loop_go_on(path: Path):
    loop, went_on = asyncio.get_running_loop(), threading.Event()

    def wait(_: Connection) -> bool:
        loop.call_soon_threadsafe(went_on.set)
        return went_on.wait(PATIENCE)

    async with opened(path) as database:
        assert await database.write(wait)


async def test_a_transaction_does_not_wait_for_a_loop_that_is_busy(path: Path):
    done = threading.Event()
    async with opened(path) as database:
        writing = asyncio.ensure_future(database.write(lambda _: done.set()))
        await asyncio.sleep(0)  # it is handed over
        assert done.wait(PATIENCE)
        await writing


async def test_what_comes_until_the_loop_stands_still_shares_the_transaction(path: Path, monkeypatch):
    monkeypatch.setattr(sqlite_writer, "LONGEST_STANDSTILL", PATIENCE)
    statements: list[str] = []
    async with opened(path) as database:
        await database.write(add, "a")
        database._writer._raw.set_trace_callback(statements.append)
        await asyncio.gather(*[database.write(add, name) for name in "bcd"])
        database._writer._raw.set_trace_callback(None)
    assert statements.count("COMMIT") == 1


# --- faults ---------------------------------------------------------------------------------------------------

EIGHT = "abcdefgh"


def add_large(connection: Connection, name: str) -> str:
    connection.execute(text("INSERT INTO notes VALUES (:name, 0)"), {"name": name})
    connection.execute(text("INSERT INTO pages VALUES (:name, zeroblob(1000000))"), {"name": name})
    return name


def pragma(connection: Connection, name: str, value: int) -> None:
    connection.execute(text(f"PRAGMA {name}={value}"))


@contextlib.asynccontextmanager
async def busy_writer(database: SqliteDatabase) -> AsyncIterator[None]:
    """Whatever is written meanwhile waits, and is one batch afterwards."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        begun.set()
        go_on.wait()

    waiting = asyncio.ensure_future(database.write(wait))
    await asyncio.to_thread(begun.wait)
    try:
        yield
        await asyncio.sleep(0)  # the tasks begun here hand over their writes
    finally:
        go_on.set()
    await waiting


async def write_eight(database: SqliteDatabase, path: Path, queries: Sequence[Any]) -> list[Any]:
    """Eight writes in one batch. Returns their answers, having seen that the rows agree with them."""
    async with busy_writer(database):
        writes = [
            asyncio.ensure_future(database.write(query, name)) for query, name in zip(queries, EIGHT, strict=True)
        ]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    with connect(path) as connection:
        assert names(connection) == [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert driver(connection).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return outcomes


@pytest.fixture
def pages(path: Path) -> Path:
    with connect(path) as connection:
        driver(connection).execute("CREATE TABLE pages (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
    return path


def refuse(connection: Connection, name: str) -> None:
    """Refused after it has changed something, as a push is by a constraint."""
    add(connection, name)
    raise ManifestUnknown(f"there is no {name}")


@pytest.mark.parametrize("refused", [(), (3,), (0, 7), range(8)])
async def test_a_write_that_is_refused_costs_its_batch_a_second_run_and_no_other_commit(path: Path, refused):
    async with opened(path) as database:
        await database.write(names)
        traced: list[str] = []
        database._writer._raw.set_trace_callback(traced.append)
        queries: list[Any] = [refuse if k in refused else add for k in range(8)]
        outcomes = await write_eight(database, path, queries)
        counts = Counter(sql.split()[0] for sql in traced)
        # The batch, and the write that it waited for.
        assert counts["COMMIT"] == 2
        assert counts["SAVEPOINT"] == (8 if refused else 0)
        assert counts["INSERT"] == (min(refused) + 1 + 8 if refused else 8)
    assert [isinstance(outcome, ManifestUnknown) for outcome in outcomes] == [k in refused for k in range(8)]


@pytest.mark.parametrize("k", range(8))
async def test_when_the_kth_write_of_a_batch_fills_the_disk_it_alone_fails(pages: Path, k: int):
    async with opened(pages) as database:
        await database.write(pragma, "max_page_count", 50)
        queries: list[Any] = [add] * 8
        queries[k] = add_large
        outcomes = await write_eight(database, pages, queries)
        assert [type(outcome) for outcome in outcomes] == [str] * k + [StorageFull] + [str] * (7 - k)
        database.check()


@pytest.mark.parametrize("k", range(8))
async def test_when_the_disk_fails_in_the_kth_write_of_a_batch_it_alone_fails(pages: Path, k: int):
    async with opened(pages) as database:
        await database.write(pragma, "cache_size", 10)  # so that a large write reaches the disk before COMMIT
        queries: list[Any] = [add] * 8
        queries[k] = add_large
        with faults.files_at_most(300_000):
            outcomes = await write_eight(database, pages, queries)
        assert [type(outcome) for outcome in outcomes] == [str] * k + [DatabaseError] + [str] * (7 - k)
        assert "disk I/O error" in str(outcomes[k])
        assert await database.write(add, "z") == "z"


@pytest.mark.parametrize("frames", range(0, 27, 3))
async def test_when_commit_fails_answers_and_rows_agree(path: Path, frames: int):
    """The WAL has room for so many frames: the batch's COMMIT fails, then those of its members once it is full."""
    async with opened(path) as database:
        await database.write(names)
        room = path.with_name("notes.db-wal").stat().st_size + frames * 4120
        with faults.files_at_most(room):
            outcomes = await write_eight(database, path, [add] * 8)
        assert any(isinstance(outcome, DatabaseError) for outcome in outcomes) or frames > 2
        assert await database.write(add, "z") == "z"


# Every write of this process to the WAL may fail as strace is told. Prints, for each of its batches, answers and rows.
BATCHES = """
    import asyncio, sys
    from pathlib import Path
    from sqlalchemy import text
    from charthouse.database.sqlite import SqliteDatabase, connect, driver, prepare

    def add(connection, name):
        size = int(name[:-1]) * 200  # so that a COMMIT writes another number of pages in each round
        connection.execute(text("INSERT INTO notes VALUES (:name, zeroblob(:size))"), {"name": name, "size": size})
        return name

    async def main(path, rounds):
        prepare(path)
        with connect(path) as connection:
            driver(connection).execute("CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB)")
        database = SqliteDatabase(path)
        for number in range(rounds):
            writes = [database.write(add, f"{number:03}{name}") for name in "abcdefgh"]
            answers = await asyncio.gather(*writes, return_exceptions=True)
            with connect(path) as connection:
                rows = driver(connection).execute(f"SELECT name FROM notes WHERE name LIKE '{number:03}_'").fetchall()
            told = [answer for answer in answers if isinstance(answer, str)]
            print("same" if told == sorted(row[0] for row in rows) else f"{told} but {rows}", len(told),
                  *{type(answer).__name__ for answer in answers if answer not in told})
        try:
            database.check()
        except Exception as error:
            print(type(error).__name__)
        await database.close()

    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.parametrize(("fault", "error"), [("ENOSPC", "StorageFull"), ("EIO", "DatabaseError")])
def test_when_a_write_to_the_log_fails_answers_and_rows_agree(tmp_path: Path, fault: str, error: str):
    """Every eleventh one fails, so that many places of a COMMIT are met."""
    path = tmp_path / "notes.db"
    wal = path.with_name("notes.db-wal")
    inject = [f"pwrite64:error={fault}:when=9+11"]
    printed, _ = faults.strace(tmp_path / "log", BATCHES, path, 24, calls=["pwrite64"], inject=inject, path=wal)
    print(printed)
    lines = [line.split() for line in printed.splitlines()]
    assert len(lines) == 24
    assert {line[0] for line in lines} == {"same"}
    assert {error} == {word for line in lines for word in line[2:]}
    assert len({line[1] for line in lines}) > 2  # batches that failed in whole, in part and not at all


@pytest.mark.provokes("disk I/O error")
def test_after_a_failed_fsync_nothing_is_written_any_more(tmp_path: Path):
    path = tmp_path / "notes.db"
    inject = ["fdatasync:error=EIO:when=12", "fsync:error=EIO:when=12"]
    printed, _ = faults.strace(
        tmp_path / "log",
        BATCHES,
        path,
        20,
        calls=["fsync", "fdatasync"],
        inject=inject,
        path=path.with_name("notes.db-wal"),
    )
    print(printed)
    *batches, check = printed.splitlines()
    assert check == "DatabaseError"
    assert {line.split()[0] for line in batches} == {"same"}
    assert batches[0] == "same 8"
    assert batches[-1] == "same 0 DatabaseError"


async def test_when_the_writer_ends_every_waiting_and_every_later_write_fails(
    path: Path, caplog: pytest.LogCaptureFixture
):
    def end(_: Connection) -> None:
        raise SystemExit

    async with opened(path) as database:
        database.check()
        async with busy_writer(database):
            writes = [asyncio.ensure_future(database.write(add, name)) for name in "ab"]
            writes += [asyncio.ensure_future(database.write(end))]
            writes += [asyncio.ensure_future(database.write(add, f"{number:03}")) for number in range(BATCH_LIMIT)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DatabaseError}
        with pytest.raises(DatabaseError, match="start the registry again"):
            await database.write(add, "z")
        with pytest.raises(DatabaseError):
            database.check()
        assert await database.read(names) == []
    assert "nothing can be written any more" in caplog.text


# --- the write-ahead log --------------------------------------------------------------------------------------


def add_pages(connection: Connection, name: str, size: int) -> None:
    connection.execute(text("INSERT INTO pages VALUES (:name, zeroblob(:size))"), {"name": name, "size": size})


async def test_a_checkpoint_that_fails_stops_no_write(pages: Path, caplog: pytest.LogCaptureFixture):
    """The database's file may not grow as far as its log does; then there is room again."""
    wal = pages.with_name("notes.db-wal")
    async with opened(pages) as database:
        for number in range(8):
            await database.write(add_pages, f"before {number}", 500_000)
        with faults.files_at_most(5_000_000):
            outcomes = [
                (await asyncio.gather(database.write(add_pages, str(number), 500_000), return_exceptions=True))[0]
                for number in range(20)
            ]
            database.check()
        assert DatabaseError in map(type, outcomes)
        for number in range(20, 40):
            await database.write(add_pages, str(number), 500_000)
        assert wal.stat().st_size < 2 * WAL_LIMIT
        assert await database.read(lambda c: c.execute(text("SELECT COUNT(*) FROM pages")).scalar()) == (
            28 + sum(outcome is None for outcome in outcomes)
        )
    assert "could not be copied into the database" in caplog.text


async def test_no_connection_checkpoints_by_itself(path: Path):
    def autocheckpoint(connection: Connection) -> int:
        return int(connection.execute(text("PRAGMA wal_autocheckpoint")).scalar_one())

    async with opened(path) as database:
        assert [await way(autocheckpoint) for way in (database.read, database.scan, database.write)] == [0, 0, 0]


@pytest.mark.parametrize("size", [20_000, 1_000_000, 10_000_000])
async def test_the_log_stays_small_whoever_writes(pages: Path, size: int):
    wal = pages.with_name("notes.db-wal")
    largest = 0
    async with opened(pages) as one, opened(pages) as other:
        for number in range(60_000_000 // size if size > 20_000 else 500):
            await (one, other)[number % 2].write(add_pages, str(number), size)
            largest = max(largest, wal.stat().st_size)
    assert largest < WAL_LIMIT + 2 * size + 500_000


async def test_the_log_becomes_small_again_after_a_long_read(pages: Path):
    wal = pages.with_name("notes.db-wal")
    async with opened(pages) as database:
        await database.write(add, "a")
        with connect(pages) as reader:
            driver(reader).execute("BEGIN")
            names(reader)
            for number in range(12):
                await database.write(add_pages, str(number), 1_000_000)
            assert wal.stat().st_size > 2 * WAL_LIMIT
            driver(reader).execute("ROLLBACK")
        for number in range(12, 18):
            await database.write(add_pages, str(number), 1_000_000)
        assert wal.stat().st_size <= WAL_LIMIT + 2_000_000


async def test_the_last_to_leave_leaves_one_file(path: Path):
    async with opened(path) as one:
        async with opened(path) as other:
            await other.write(add, "a")
            assert await other.read(names) == ["a"]
        await one.write(add, "b")
        assert await one.read(names) == ["a", "b"]
        assert path.with_name("notes.db-wal").exists()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["notes.db", "notes.db.lock"]
    async with opened(path) as database:
        assert await database.read(names) == ["a", "b"]


async def test_preparing_the_file_again_takes_no_lock_from_who_has_it_open(path: Path):
    """A process that closes any descriptor of a file loses its POSIX locks there; another would remove the log."""
    leave = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM notes'); c.close()"
    async with opened(path) as database:
        await database.write(add, "a")
        prepare(path)
        faults.run(leave, path)
        assert path.with_name("notes.db-wal").exists()


def test_only_its_owner_reads_the_file(path: Path):
    assert path.stat().st_mode & 0o777 == 0o600
