"""What a push and a pull cost, counted: commits, fsyncs, statements, memory. Numbers change only on purpose."""

import contextlib
import hashlib
import http.client
import io
import itertools
import json
import os
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import Transaction

from charthouse.app import Application
from charthouse.blobs.filesystem import FilesystemStore
from charthouse.database.sqlite import SqliteDatabase
from charthouse.database.sqlite_writer import Writer
from charthouse.helm.inspection import EXTRACTOR_VERSION
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, OCI_MANIFEST
from charthouse.names import Digest, Namespace
from charthouse.queries import find_facts
from charthouse.settings import Settings
from support.server import serving

CONFIG = json.dumps({"name": "app", "version": "1.0.0", "apiVersion": "v2"}).encode()  # as YAML too
MEMORY_LIMIT = 150 * 1024 * 1024
SIZE = (1024 if os.environ.get("LONG_TESTS") == "1" else 256) * 1024 * 1024  # bytes pushed and pulled at once


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


class Chart:
    """Of 20 KiB, which no compression makes smaller. All have the same config."""

    def __init__(self, number: int) -> None:
        self.layer = archive({"Chart.yaml": CONFIG, "data": hashlib.shake_256(b"%d" % number).digest(20 * 1024)})
        manifest = {
            "schemaVersion": 2,
            "config": described(CONFIG, CHART_CONFIG),
            "layers": [described(self.layer, CHART_LAYER)],
        }
        self.manifest = json.dumps(manifest).encode()


def archive(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for path, content in contents.items():
            entry = tarfile.TarInfo(f"app/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@contextlib.contextmanager
def counting(app: Application) -> Iterator[Counter[str]]:
    """Commits and statements as the drivers make them, and fsyncs of the blob store."""
    counts: Counter[str] = Counter()
    store = app.registry._store
    fsync, store._fsync = store._fsync, lambda _: counts.update(["fsyncs"])
    database = app.registry._database
    try:
        with on_sqlite(database, counts) if isinstance(database, SqliteDatabase) else on_postgres(counts):
            yield counts
    finally:
        store._fsync = fsync


@contextlib.contextmanager
def on_sqlite(database: SqliteDatabase, counts: Counter[str]) -> Iterator[None]:
    before = ""

    def trace(sql: str) -> None:
        nonlocal before
        fired = sql == before and sql.lstrip().startswith(("INSERT", "UPDATE", "DELETE"))
        before = sql
        if fired:
            return  # what a trigger does is told as the statement that fired it, once more
        if sql == "COMMIT":
            counts["commits"] += 1
        elif not sql.startswith(("BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA", "--")):
            counts["statements"] += 1

    if database._writer._stopped is None:
        database._writer._start()  # as the first write does
    connections = (database._reader.driver, database._writer._raw)
    for connection in connections:
        connection.set_trace_callback(trace)
    yield
    for connection in connections:
        connection.set_trace_callback(None)


@contextlib.contextmanager
def on_postgres(counts: Counter[str]) -> Iterator[None]:
    def counted(method: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[what] += 1
            return method(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PreparedStatement, "fetch", counted(PreparedStatement.fetch, "statements"))
        patched.setattr(asyncpg.Connection, "executemany", counted(asyncpg.Connection.executemany, "statements"))
        patched.setattr(Transaction, "commit", counted(Transaction.commit, "commits"))
        yield


async def push_blob(client: httpx.AsyncClient, content: bytes) -> None:
    """As Helm does: is it there, then POST and PUT."""
    digest = digest_of(content)
    if (await client.head(f"/v2/team-a/app/blobs/{digest}")).status_code == 200:
        return
    begun = await client.post("/v2/team-a/app/blobs/uploads/")
    done = await client.put(begun.headers["location"], params={"digest": digest}, content=content)
    assert done.status_code == 201


async def push(client: httpx.AsyncClient, chart: Chart, *references: str) -> None:
    await push_blob(client, CONFIG)
    await push_blob(client, chart.layer)
    for reference in references:
        await put_manifest(client, chart, reference)


async def put_manifest(client: httpx.AsyncClient, chart: Chart, reference: str) -> None:
    url = f"/v2/team-a/app/manifests/{reference}"
    done = await client.put(url, content=chart.manifest, headers={"Content-Type": OCI_MANIFEST})
    assert done.status_code == 201, done.text


async def pull(client: httpx.AsyncClient, tag: str) -> bytes:
    manifest = await client.get(f"/v2/team-a/app/manifests/{tag}")
    blobs = [manifest.json()["config"], *manifest.json()["layers"]]
    pulled = [(await client.get(f"/v2/team-a/app/blobs/{blob['digest']}")).content for blob in blobs]
    assert pulled[0] == CONFIG
    return pulled[1]


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Until the answer: what is read of a chart after it is left to the test that asks for it."""
    return make_settings(ephemeral=True)


@pytest.fixture
async def app(app: Application, client: httpx.AsyncClient) -> Application:
    """That knows already that there are no users."""
    await client.get("/v2/")
    return app


@pytest.fixture
def one_by_one(database_url: str) -> int:
    """SQLite's driver runs an insertion of two rows as two statements: what a new manifest names."""
    return int(not database_url)


@pytest.fixture
def asked(database_url: str) -> Callable[..., int]:
    """How often it is asked whether users or rights have changed: on SQLite after a commit, on PostgreSQL each time."""
    return lambda *, commits, requests: requests if database_url else commits


async def test_pushing_a_small_chart_is_three_commits_and_two_fsyncs(app, client, one_by_one, asked):
    chart = Chart(1)
    with counting(app) as counts:
        await push(client, chart, "1.0.0")
    # The layer's two-hex folder is new as well.
    assert counts == {"commits": 3, "fsyncs": 3, "statements": 30 + one_by_one + asked(commits=2, requests=7)}


async def test_a_folder_that_is_there_costs_no_third_fsync(app, client, one_by_one, asked):
    first = Chart(1)
    second = next(
        chart for chart in map(Chart, range(2, 9999)) if digest_of(chart.layer)[:9] == digest_of(first.layer)[:9]
    )
    await push(client, first, "1.0.0")
    with counting(app) as counts:
        await push(client, second, "1.0.0")
    # The config is held already; the tag moves, so the other manifest is without one from now on.
    assert counts == {"commits": 2, "fsyncs": 2, "statements": 26 + one_by_one + asked(commits=2, requests=5)}


async def test_what_helm_pushes_by_digest_and_then_by_tag_is_four_commits(app, client, one_by_one, asked):
    chart = Chart(1)
    with counting(app) as counts:
        await push(client, chart, digest_of(chart.manifest), "1.0.0")
    assert counts == {"commits": 4, "fsyncs": 3, "statements": 44 + one_by_one + asked(commits=3, requests=8)}


async def test_pushing_the_same_chart_again_touches_no_file(app, client, asked):
    chart = Chart(1)
    await push(client, chart, "1.0.0")
    with counting(app) as counts:
        await push(client, chart, "1.0.0")
    assert counts == {"commits": 1, "statements": 16 + asked(commits=1, requests=3)}


async def test_a_quota_costs_two_statements_more_with_each_commit(app, client, one_by_one, asked):
    """Whoever adds takes his turn, and adds up; before a body comes it is added up by another connection."""
    namespaces = app.registry.namespaces
    await namespaces.set(Namespace("team-a"), {"quota_bytes": "1GiB", "quota_manifests": "1000"})
    await client.get("/v2/")
    chart = Chart(1)
    with counting(app) as counts:
        await push(client, chart, "1.0.0")
    asked_before = 2 * 1 + 2 * 2  # each POST adds up; each PUT looks whether the blob is held, and adds up
    scanned = 4  # of these, on SQLite, by a connection that is not counted
    counted = asked_before - (scanned if one_by_one else 0)
    expected = 30 + one_by_one + asked(commits=2, requests=7) + 3 * 2 + counted
    assert counts == {"commits": 3, "fsyncs": 3, "statements": expected}


@pytest.mark.parametrize("waiting", [1, 3])
async def test_what_is_read_of_charts_for_people_is_one_commit_after_their_answers(app, client, waiting, monkeypatch):
    charts = [Chart(number) for number in range(waiting)]
    with monkeypatch.context() as patched:
        patched.setattr(app.registry.extraction, "later", lambda _: None)
        for chart in charts:
            await push(client, chart, "1.0.0")
    with counting(app) as counts:
        for chart in charts:
            app.registry.extraction.later(Digest(digest_of(chart.layer)))
        await app.registry.extraction.settled()
    assert counts["commits"] == 1
    read = app.registry._database.read
    assert all([await read(find_facts, digest_of(chart.layer), EXTRACTOR_VERSION) for chart in charts])


async def test_what_a_pull_asks_the_database(app, client, asked):
    chart = Chart(1)
    await push(client, chart, "1.0.0")
    with counting(app) as counts:
        assert await pull(client, "1.0.0") == chart.layer
    assert counts == {"statements": 3 + asked(commits=1, requests=3)}


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often work is given to a thread, by the kind of thread."""
    counts: Counter[str] = Counter()
    submit, write = ThreadPoolExecutor.submit, Writer.submit

    def counted_submit(self: ThreadPoolExecutor, *args: object, **kwargs: object) -> object:
        counts[self._thread_name_prefix.removeprefix("charthouse-").partition("_")[0]] += 1
        return submit(self, *args, **kwargs)

    def counted_write(self: Writer, query: Callable[..., object]) -> object:
        counts["writer"] += 1
        return write(self, query)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted_submit)
    monkeypatch.setattr(Writer, "submit", counted_write)
    return counts


def has_page_cache(store: FilesystemStore) -> bool:
    """Whether the one file that is there can be had at once: not on tmpfs."""
    (file,) = [path for path in store._blobs.rglob("*") if path.is_file()]
    return store.read_at_once(str(file.relative_to(store._blobs)), file.stat().st_size) is not None


async def test_a_push_changes_threads_once_for_its_file_and_once_for_each_commit(
    app, client, hops: Counter[str], database_url: str
):
    commits = Counter() if database_url else Counter(writer=3)  # PostgreSQL is a connection away, not a thread
    chart = Chart(1)
    await push_blob(client, CONFIG)
    await push_blob(client, chart.layer)
    await put_manifest(client, chart, "1.0.0")
    # The archive is read again, from the page cache where there is one, and inspected aside.
    read_aside = 0 if has_page_cache(app.registry._store) else 1
    assert hops == Counter(blobs=1 + read_aside, asyncio=1) + commits


async def test_a_pull_changes_threads_once_for_its_file_and_not_at_all_from_the_cache(app, client, hops: Counter[str]):
    chart = Chart(1)
    await push(client, chart, "1.0.0")
    hops.clear()
    assert await pull(client, "1.0.0") == chart.layer
    assert hops == {"blobs": 1}
    hops.clear()
    assert await pull(client, "1.0.0") == chart.layer
    assert not hops


# --- memory -----------------------------------------------------------------------------------------------------------


ZEROS = bytes(1024 * 1024)


def peak_memory(port: int) -> int:
    """VmHWM of the process that listens there, in bytes."""
    inodes = [
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X} 00000000" in line
    ]
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if entry.readlink().name in {f"socket:[{inode}]" for inode in inodes}:
                status = (entry.parent.parent / "status").read_text()
                return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    raise AssertionError(f"nobody listens on {port}")


def test_pushing_and_pulling_a_large_blob_keeps_the_server_small(tmp_path: Path):
    """256 MiB, or 1 GiB where LONG_TESTS=1."""
    hashed = hashlib.sha256()
    for _ in range(SIZE // len(ZEROS)):
        hashed.update(ZEROS)
    path = f"/v2/team-a/large/blobs/sha256:{hashed.hexdigest()}"
    with (
        serving(tmp_path) as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client,
    ):
        zeros = itertools.repeat(ZEROS, SIZE // len(ZEROS))
        url = f"/v2/team-a/large/blobs/uploads/?digest={path.rpartition('/')[2]}"
        client.request("POST", url, body=zeros, headers={"Content-Length": str(SIZE)})
        pushed = client.getresponse()
        assert (pushed.status, pushed.read()) == (201, b"")
        client.request("GET", path)
        pulled = client.getresponse()
        received, buffer = 0, bytearray(len(ZEROS))
        while count := pulled.readinto(buffer):
            received += count
        assert received == SIZE
        peak = peak_memory(server.port)
    print(f"pushed and pulled {SIZE:,} bytes; at most {peak:,} bytes of memory")
    assert peak < MEMORY_LIMIT


async def test_a_body_is_copied_once_at_most(app: Application):
    """It comes in pieces of 64 KiB; beside them there is never more than the whole."""
    content = hashlib.shake_256(b"copied").digest(1024 * 1024)
    pieces = [content[start : start + 65536] for start in range(0, len(content), 65536)]
    messages = [{"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces]
    received, answers = iter(messages), []

    async def receive() -> dict[str, object]:
        return next(received)

    async def send(message: dict[str, object]) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": "/v2/team-a/app/blobs/uploads/",
        "query_string": f"digest={digest_of(content)}".encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 5000),
    }
    tracemalloc.start()
    try:
        await app(scope, receive, send)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answers[0]["status"] == 201
    assert peak < 1.8 * len(content)


async def test_a_small_blob_that_comes_in_pieces_is_a_row_like_any_other(app: Application, client: httpx.AsyncClient):
    begun = await client.post("/v2/team-a/app/blobs/uploads/")
    patched = await client.patch(begun.headers["location"], content=CONFIG[:10])
    with counting(app) as counts:
        done = await client.put(patched.headers["location"], params={"digest": digest_of(CONFIG)}, content=CONFIG[10:])
    assert done.status_code == 201
    assert (await client.get(f"/v2/team-a/app/blobs/{digest_of(CONFIG)}")).content == CONFIG
    assert (counts["commits"], counts["fsyncs"]) == (1, 0)
