"""Garbage collection: what goes and what stays, beside everybody else."""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.util import await_only

from charthouse import transactions
from charthouse.app import Application
from charthouse.collection import Report, expired
from charthouse.composition import open_registry
from charthouse.core import Caller, Registry
from charthouse.database import Connection
from charthouse.errors import BlobUnknown
from charthouse.housekeeping import collect_when_due
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest, Namespace, RepositoryName
from charthouse.queries import collection
from charthouse.queries.collection import Untagged
from charthouse.settings import Settings
from support.requests import Remote, descriptor, image, pieces

NAME = RepositoryName("team-a/app")
SMALL, LARGE = b"{}", b"layer" * 2000
GRACE = 86400
CALLER = Caller()


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, NAME)


@pytest.fixture
def collect(app: Application) -> Callable[[], object]:
    return app.registry.collector.run


def files(settings: Settings) -> list[Path]:
    return sorted(path for path in (settings.data / "blobs").rglob("*") if path.is_file())


def numbers(report: Report) -> dict[str, int]:
    """Those that are not 0."""
    fields = ("blobs", "blob_bytes", "released", "manifests", "uploads", "files", "file_bytes", "waiting")
    return {name: getattr(report, name) for name in fields if getattr(report, name)}


# --- who did it -------------------------------------------------------------------------------------------------------


async def test_a_pass_that_removes_something_is_one_row_of_the_audit_with_its_numbers(remote, app, clock):
    for content in (SMALL, LARGE):
        await remote.push_blob(content)
    collector, audit = app.registry.collector, app.registry.audit
    before = await audit.list()
    await collector.run()  # nothing is due
    clock.now += GRACE + 1
    await collector.plan()
    assert await audit.list() == before
    await collector.run()
    await remote.push_blob(LARGE)
    clock.now += GRACE + 1
    await collector.run_when_due()
    rows = [(row.who, row.action, row.target, row.at) for row in await audit.list() if row not in before]
    assert rows == [
        ("(on the machine)", "gc", "2 blobs of 10,002 bytes", int((clock.now - GRACE - 1) * 1000)),
        ("(the schedule)", "gc", "1 blob of 10,000 bytes", int(clock.now * 1000)),
    ]


async def test_a_pass_that_a_fault_ended_is_in_the_audit_with_what_it_removed(remote, app, clock, monkeypatch):
    for content in (SMALL, LARGE):
        await remote.push_blob(content)
    clock.now += GRACE + 1
    store = app.registry.collector._store
    monkeypatch.setattr(store, "delete", lambda _: asyncio.to_thread(Path("/nowhere/at/all").unlink))
    with pytest.raises(FileNotFoundError):
        await app.registry.collector.run()
    (row,) = [row for row in await app.registry.audit.list() if row.action == "gc"]
    assert row.target == "2 blobs of 10,002 bytes"


# --- blobs ------------------------------------------------------------------------------------------------------------


async def test_a_blob_goes_when_no_manifest_has_named_it_for_the_grace(remote, collect, clock, settings):
    for content in (SMALL, LARGE):
        await remote.push_blob(content)
    clock.now += GRACE
    assert numbers(await collect()) == {"waiting": 2}
    assert await remote.statuses(f"blobs/{Digest.of(LARGE)}") == [200]  # and with this answer its grace begins anew
    clock.now += 0.001
    assert numbers(await collect()) == {"blobs": 1, "blob_bytes": 2, "released": 1, "waiting": 1}
    assert await remote.statuses(f"blobs/{Digest.of(SMALL)}") == [404]
    clock.now += GRACE + 1
    assert numbers(await collect()) == {"blobs": 1, "blob_bytes": len(LARGE), "released": 1}
    assert files(settings) == []


async def test_what_a_manifest_names_stays_for_ever(remote, collect, clock):
    await remote.push_blob(LARGE)
    await remote.push_blob(SMALL)
    body = await remote.push_manifest(image(SMALL, LARGE))
    clock.now += 1000 * GRACE
    assert numbers(await collect()) == {}
    assert (
        await remote.statuses(f"manifests/{body}", f"blobs/{Digest.of(SMALL)}", f"blobs/{Digest.of(LARGE)}")
        == [200] * 3
    )


async def test_a_blob_goes_from_the_repository_that_names_it_no_more_and_its_bytes_with_the_last(
    remote, collect, clock, settings
):
    other = Remote(remote.client, NAME + "/other")
    for repository in (remote, other):
        await repository.push_blob(LARGE)
    await other.push_blob(SMALL)
    await other.push_manifest(image(SMALL, LARGE), "1.0")
    clock.now += GRACE + 1
    assert numbers(await collect()) == {"released": 1}
    path = f"blobs/{Digest.of(LARGE)}"
    assert (await remote.statuses(path), await other.statuses(path)) == ([404], [200])
    assert (await other.call("GET", path)).content == LARGE
    await other.call("DELETE", f"manifests/{Digest.of(image(SMALL, LARGE))}")
    clock.now += GRACE + 1
    assert numbers(await collect()) == {"released": 2, "blobs": 2, "blob_bytes": len(SMALL + LARGE)}
    assert files(settings) == []


async def test_bytes_that_delete_left_without_a_repository_go_at_once(remote, collect, settings):
    for content in (SMALL, LARGE):
        await remote.push_blob(content)
        await remote.call("DELETE", f"blobs/{Digest.of(content)}")
    assert numbers(await collect()) == {"blobs": 2, "blob_bytes": len(SMALL + LARGE)}
    assert files(settings) == []


async def test_more_than_one_transaction_takes_goes_too(app, remote, collect, clock):
    for number in range(250):
        await app.registry.push_blob(NAME, CALLER, Digest.of(b"%d" % number), pieces(b"%d" % number))
    for number in range(150):  # of these delete leaves bytes without a repository
        await app.registry.delete_blob(NAME, Digest.of(b"%d" % number))
    clock.now += GRACE + 1
    report = await collect()
    assert (report.blobs, report.released) == (250, 100)
    assert numbers(await collect()) == {}


async def test_what_was_collected_may_be_pushed_again(remote, collect, clock):
    for _ in range(2):
        await remote.push_blob(LARGE)
        await remote.push_blob(SMALL)
        body = await remote.push_manifest(image(SMALL, LARGE), "1.0")
        assert (await remote.call("GET", f"blobs/{Digest.of(LARGE)}")).content == LARGE
        await remote.call("DELETE", f"manifests/{body}")
        clock.now += GRACE + 1
        assert (await collect()).blobs == 2


async def test_the_pull_cache_never_answers_for_what_was_collected(remote, collect, clock):
    body = await remote.push_image("1.0")
    path = f"blobs/{Digest.of(SMALL)}"
    assert await remote.statuses(path, path) == [200, 200]
    await remote.call("DELETE", f"manifests/{Digest.of(body)}")
    clock.now += GRACE + 1
    await collect()
    assert await remote.statuses(path) == [404]


# --- at the same moment -----------------------------------------------------------------------------------------------


async def test_a_push_of_the_same_digest_between_the_transaction_and_the_file_succeeds(
    app, remote, collect, clock, settings, monkeypatch
):
    """The new bytes have a file of their own, which the collector has never heard of."""
    await remote.push_blob(LARGE)
    clock.now += GRACE + 1
    delete = app.registry._store.delete

    async def push_first(key: str) -> None:
        monkeypatch.setattr(app.registry._store, "delete", delete)
        await remote.push_blob(LARGE)
        assert len(files(settings)) == 2
        await delete(key)

    monkeypatch.setattr(app.registry._store, "delete", push_first)
    assert (await collect()).blobs == 1
    assert (await remote.call("GET", f"blobs/{Digest.of(LARGE)}")).content == LARGE
    assert len(files(settings)) == 1


async def test_a_pass_that_the_end_of_the_server_meets_leaves_no_file_that_sql_has_forgotten(
    app, remote, clock, settings, monkeypatch
):
    for number in range(3):
        await remote.push_blob(LARGE + b"%d" % number)
    clock.now += GRACE + 1
    delete, begun = app.registry._store.delete, asyncio.Event()

    async def slowly(key: str) -> None:
        begun.set()
        await asyncio.sleep(0)
        await delete(key)

    monkeypatch.setattr(app.registry._store, "delete", slowly)
    passing = asyncio.create_task(app.registry.collector.run())
    await begun.wait()
    passing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passing
    assert files(settings) == []


async def test_a_pull_that_found_a_blob_which_is_then_collected_is_blob_unknown(app, remote, collect, clock):
    await remote.push_blob(LARGE)
    blob = await app.registry.pulls.get_blob(NAME, Digest.of(LARGE))
    clock.now += GRACE + 1
    await collect()
    with pytest.raises(BlobUnknown):
        await anext(blob.read(0, blob.size))


async def test_a_pull_that_has_begun_gets_the_whole_blob(app, remote, collect, clock, settings):
    """On the systems where an open file stays readable."""
    content = bytes(3 * 1024 * 1024)
    await remote.push_blob(content)
    blob = await app.registry.pulls.get_blob(NAME, Digest.of(content))
    reading = blob.read(0, blob.size)
    first = await anext(reading)
    clock.now += GRACE + 1
    await collect()
    assert files(settings) == []
    assert first + b"".join([piece async for piece in reading]) == content


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["a row", "a file"])
async def test_pushes_and_collections_of_one_blob_side_by_side_lose_none(make_settings, clock, content):
    """Two servers: whatever was acknowledged can be named at once. On PostgreSQL the transactions really overlap."""
    settings = make_settings(gc_grace=0)
    one, other = [await open_registry(settings, clock=clock, durable=False) for _ in range(2)]
    digest = Digest.of(content)

    async def push(number: int) -> None:
        repository = RepositoryName(f"team-a/{number}")
        for _ in range(15):
            await one.push_blob(repository, CALLER, digest, pieces(content))
            with contextlib.suppress(BlobUnknown):  # with no grace at all it may go before the next request
                read = (await one.pulls.get_blob(repository, digest)).read(0, len(content))
                assert b"".join([piece async for piece in read]) == content

    async def collect() -> None:
        while not pushes.done():
            clock.now += 1
            await other.collector.run()

    pushes = asyncio.gather(*[push(number) for number in range(4)])
    await asyncio.gather(pushes, collect())
    clock.now += 1
    await other.collector.run()
    counts = await one._database.scan(_counts)
    assert counts == {"blobs": 0, "repository_blobs": 0}
    assert files(settings) == []
    for registry in (one, other):
        await registry.close()


def _counts(connection: Connection) -> dict[str, int]:
    tables = ("blobs", "repository_blobs")
    return {name: connection.execute(text(f"SELECT COUNT(*) FROM {name}")).scalar() for name in tables}


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["a row", "a file"])
@pytest.mark.parametrize(
    "first", [transactions.hold_blob, collection.take_due_blobs], ids=["the push", "the collection"]
)
async def test_a_push_meets_the_collection_of_the_same_blob_before_either_has_ended(
    make_settings, database_url, clock, first, content
):
    """On PostgreSQL the first transaction stays open until the other waits for it; SQLite has one writer at a time."""
    settings = make_settings(gc_grace=0)
    registry = await open_registry(settings, clock=clock, durable=False)
    digest, other = Digest.of(content), RepositoryName("team-a/other")
    await registry.push_blob(NAME, CALLER, digest, pieces(content))
    clock.now += 1
    reached, go_on = asyncio.Event(), asyncio.Event()

    def stay_open(connection: Connection, *args: object) -> object:
        found = first(connection, *args)
        if database_url and not reached.is_set():
            reached.set()
            await_only(go_on.wait())
        return found

    now = registry._now()
    begun = registry._database.write(stay_open, *((other, digest, now) if first is transactions.hold_blob else (now,)))
    running = asyncio.ensure_future(begun)
    if database_url:
        await reached.wait()
    push = registry.push_blob(other, CALLER, digest, pieces(content))
    second = asyncio.ensure_future(registry.collector.run() if first is transactions.hold_blob else push)
    if database_url:
        await _until_somebody_waits(registry)
    go_on.set()
    await asyncio.gather(running, second)
    push.close()
    blob = await registry.pulls.get_blob(other, digest)
    assert b"".join([piece async for piece in blob.read(0, blob.size)]) == content
    with pytest.raises(BlobUnknown):
        await registry.pulls.get_blob(NAME, digest)
    await registry.close()


async def _until_somebody_waits(registry: Registry) -> None:
    query = text("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")
    while not await registry._database.read(_scalar, query):  # noqa: ASYNC110 - the database's own wait
        await asyncio.sleep(0.01)


def _scalar(connection: Connection, query: TextClause) -> object:
    return connection.execute(query).scalar()


# --- files and uploads ------------------------------------------------------------------------------------------------


async def test_a_file_that_no_row_names_goes_when_no_upload_can_still_be_at_work_on_it(
    app, remote, collect, clock, settings
):
    """A crash between the rename and the row leaves one."""
    await remote.push_blob(SMALL)
    await remote.push_blob(LARGE)
    await remote.push_manifest(image(SMALL, LARGE))
    (named,) = files(settings)
    left = named.with_name(named.name + "0")
    left.write_bytes(LARGE)
    foreign = named.with_name("notes")
    foreign.write_bytes(b"of the administrator")
    for path in (named, left, foreign):
        os.utime(path, (clock.now, clock.now))
    clock.now += settings.upload_expiry
    assert numbers(await collect()) == {}
    clock.now += 1
    plan = await app.registry.collector.plan()
    assert [(item.kind, item.size) for item in plan.items] == [("file", len(LARGE))]
    assert numbers(await collect()) == {"files": 1, "file_bytes": len(LARGE)}
    assert files(settings) == sorted([named, foreign])


async def test_a_blob_whose_bytes_came_long_ago_is_published_now(remote, clock, settings):
    """Else a collection between its rename and its row could take it for what a crash left."""
    location = await remote.start_upload()
    location = (await remote.patch(location, LARGE)).headers["location"]
    (upload,) = (settings.data / "uploads").iterdir()
    os.utime(upload, (1, 1))
    assert (await remote.finish(location, Digest.of(LARGE))).status_code == 201
    (file,) = files(settings)
    assert file.stat().st_mtime == clock.now


async def test_stale_uploads_go_in_the_same_pass(app, remote, collect, clock, settings):
    await remote.patch(await remote.start_upload(), LARGE)
    assert numbers(await collect()) == {}
    clock.now += settings.upload_expiry + 1
    plan = await app.registry.collector.plan()
    assert [(item.kind, item.size) for item in plan.items] == [("upload", len(LARGE))]
    assert numbers(await collect()) == {"uploads": 1}
    assert list((settings.data / "uploads").iterdir()) == []


# --- manifests without a tag ------------------------------------------------------------------------------------------

EXPIRY = 7 * GRACE


@pytest.fixture
async def expiring(app: Application) -> None:
    await app.registry.namespaces.set(Namespace("team-a"), {"untagged_expiry": str(EXPIRY)})


async def test_a_manifest_without_a_tag_stays_for_ever_unless_a_setting_says_otherwise(remote, collect, clock):
    body = await remote.push_image()
    clock.now += 1000 * GRACE
    assert numbers(await collect()) == {}
    assert await remote.statuses(f"manifests/{Digest.of(body)}") == [200]


@pytest.mark.usefixtures("expiring")
async def test_a_manifest_goes_when_its_last_tag_went_so_long_ago_and_its_blobs_have_their_grace(
    remote, collect, clock
):
    body = await remote.push_image("1.0")
    await remote.push_manifest(body, "latest")
    digest = Digest.of(body)
    clock.now += 2 * EXPIRY
    await remote.call("DELETE", "manifests/latest")
    assert numbers(await collect()) == {}
    await remote.push_image("1.0", annotations={"an": "other"})  # the last tag moves to it
    clock.now += EXPIRY
    assert numbers(await collect()) == {}
    clock.now += 1
    assert numbers(await collect()) == {"manifests": 1}
    assert await remote.statuses(f"manifests/{digest}", "manifests/1.0") == [404, 200]


@pytest.mark.usefixtures("expiring")
async def test_the_blobs_of_a_manifest_that_goes_begin_their_grace(remote, collect, clock):
    await remote.push_image()
    clock.now += EXPIRY + 1
    assert numbers(await collect()) == {"manifests": 1, "waiting": 1}
    clock.now += GRACE + 1
    assert numbers(await collect()) == {"released": 1, "blobs": 1, "blob_bytes": 2}


@pytest.mark.usefixtures("expiring")
async def test_a_manifest_that_is_pushed_again_without_a_tag_begins_anew(remote, collect, clock):
    body = await remote.push_image()
    clock.now += EXPIRY
    await remote.push_manifest(body)
    clock.now += EXPIRY
    assert numbers(await collect()) == {}
    clock.now += 1
    assert (await collect()).manifests == 1


@pytest.mark.usefixtures("expiring")
async def test_only_the_namespace_that_says_so_loses_untagged_manifests(remote, collect, clock):
    other = Remote(remote.client, "team-b/app")
    for repository in (remote, other):
        await repository.push_image()
    clock.now += EXPIRY + 1
    assert (await collect()).manifests == 1
    digest = Digest.of(image())
    assert (await remote.statuses(f"manifests/{digest}"), await other.statuses(f"manifests/{digest}")) == (
        [404],
        [200],
    )


@pytest.mark.usefixtures("expiring")
async def test_children_of_an_index_and_referrers_of_a_manifest_stay_as_long_as_that_is_here(remote, collect, clock):
    child = await remote.push_image(annotations={"a": "child"})
    parent = await remote.push_index(child, tag="1.0")
    signature = await remote.push_image(subject=descriptor(parent, OCI_INDEX))
    of_the_child = await remote.push_image(subject=descriptor(child, OCI_MANIFEST))
    of_the_signature = await remote.push_image(subject=descriptor(signature, OCI_MANIFEST))
    clock.now += 2 * EXPIRY
    assert numbers(await collect()) == {}
    await remote.call("DELETE", "manifests/1.0")
    clock.now += EXPIRY
    assert numbers(await collect()) == {}
    clock.now += 1
    assert (await collect()).manifests == 5
    paths = [f"manifests/{Digest.of(each)}" for each in (child, parent, signature, of_the_child, of_the_signature)]
    assert await remote.statuses(*paths) == [404] * 5


@pytest.mark.usefixtures("expiring")
async def test_what_loses_its_index_or_its_subject_begins_then(remote, collect, clock):
    child = await remote.push_image(annotations={"a": "child"})
    parent = await remote.push_index(child, tag="1.0")
    signature = await remote.push_image(subject=descriptor(parent, OCI_INDEX))
    clock.now += 2 * EXPIRY
    await remote.call("DELETE", f"manifests/{Digest.of(parent)}")
    clock.now += EXPIRY
    assert numbers(await collect()) == {}
    clock.now += 1
    assert (await collect()).manifests == 2
    assert await remote.statuses(f"manifests/{Digest.of(child)}", f"manifests/{Digest.of(signature)}") == [404, 404]


@pytest.mark.usefixtures("expiring")
async def test_a_manifest_that_is_tagged_at_the_last_moment_stays_with_all_that_belongs_to_it(
    app, remote, collect, clock, monkeypatch
):
    child = await remote.push_image(annotations={"a": "child"})
    parent = await remote.push_index(child)
    clock.now += EXPIRY + 1
    write = app.registry._database.write

    async def tagged_first(query, *args):
        if query.__name__ == "_expire":
            monkeypatch.setattr(app.registry._database, "write", write)
            await remote.push_manifest(parent, "1.0", OCI_INDEX)
        return await write(query, *args)

    monkeypatch.setattr(app.registry._database, "write", tagged_first)
    assert (await collect()).manifests == 0
    assert await remote.statuses("manifests/1.0", f"manifests/{Digest.of(child)}") == [200, 200]


@pytest.mark.usefixtures("expiring")
async def test_the_plan_names_what_would_go_and_changes_nothing(app, remote, collect, clock, settings):
    body = await remote.push_image()
    await remote.push_blob(LARGE)
    deleted = await remote.push_blob(b"deleted")
    await remote.call("DELETE", f"blobs/{deleted}")
    clock.now += EXPIRY + 1
    plan = await app.registry.collector.plan()
    assert [(item.kind, item.repository, item.name, item.size) for item in plan.items] == [
        ("manifest", NAME, Digest.of(body), len(body)),
        ("blob", NAME, Digest.of(LARGE), len(LARGE)),
        ("blob", "", deleted, 7),
    ]
    assert [item.why for item in plan.items] == [
        "no tag names it since 2027-01-15 08:00:00 UTC, and untagged_expiry is over",
        "no manifest names it since 2027-01-15 08:00:00 UTC, and gc_grace is over",
        "no repository holds it",
    ]
    assert (plan.manifests, plan.blobs, plan.blob_bytes) == (1, 2, len(LARGE) + 7)
    again = await app.registry.collector.plan()
    assert again == plan
    done = await collect()
    assert (done.manifests, done.blobs, done.blob_bytes) == (plan.manifests, plan.blobs, plan.blob_bytes)


def test_a_deep_index_whose_layers_all_list_the_next_is_walked_once():
    """20 layers of 20 indexes each: 20 to the 20th ways through it."""
    layers = [[f"{depth}-{number}" for number in range(20)] for depth in range(20)]
    children = [(parent, child) for upper, lower in itertools.pairwise(layers) for parent in upper for child in lower]
    untagged = [Untagged(digest, 0, 0, None) for layer in layers for digest in layer]
    order = [each.digest for each in expired(untagged, children)]
    assert sorted(order) == sorted(each.digest for each in untagged)
    assert all(order.index(parent) < order.index(child) for parent, child in children[:50] + children[-50:])
    kept = [each for each in untagged if each.digest != "0-0"]  # as if that had a tag: it keeps all but its own layer
    assert {each.digest for each in expired(kept, children)} == set(layers[0][1:])


# --- when -------------------------------------------------------------------------------------------------------------


async def test_of_several_servers_one_collects(make_settings, clock):
    settings = make_settings(gc_every=100)
    one, other = [await open_registry(settings, clock=clock, durable=False) for _ in range(2)]
    assert await one.collector.run_when_due() is not None
    assert await other.collector.run_when_due() is None
    clock.now += 89
    assert await other.collector.run_when_due() is None
    clock.now += 1
    assert await other.collector.run_when_due() is not None
    assert await one.collector.run_when_due() is None
    assert await one.collector.run() is not None  # who asks for it gets it
    for registry in (one, other):
        await registry.close()


async def test_the_server_collects_by_itself_and_writes_a_line_when_something_went(
    app, remote, clock, caplog: pytest.LogCaptureFixture
):
    await remote.push_blob(SMALL)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        clock.now += GRACE
        await collect_when_due(app.registry)
        clock.now += 3600
    lines = [record.getMessage() for record in caplog.records if record.name == "charthouse.housekeeping"]
    assert lines == ["garbage collection removed 1 blob of 2 bytes"]


class TestClocks:
    """What is written down is worth what the clock is."""

    @pytest.fixture
    def steady(self) -> "Steady":
        return Steady()

    @pytest.fixture
    async def registry(self, settings: Settings, clock, steady) -> AsyncIterator[Registry]:
        registry = await open_registry(settings, clock=clock, steady=steady, durable=False)
        yield registry
        await registry.close()

    @pytest.mark.parametrize("jump", [86400, -86400, 365 * 86400])
    async def test_a_clock_that_is_set_deletes_nothing_that_was_just_answered_about(
        self, registry, clock, steady, jump, caplog: pytest.LogCaptureFixture
    ):
        await registry.collector.run()
        for content in (SMALL, LARGE):
            await registry.push_blob(NAME, CALLER, Digest.of(content), pieces(content))
        session = await registry.start_upload(NAME, CALLER)
        await registry.append(NAME, session, CALLER, pieces(LARGE), None)
        clock.now += jump + 60
        steady.now += 60
        report = await registry.collector.run()
        assert numbers(report) == {"waiting": 2}
        assert report.clock_jumped == pytest.approx(jump, abs=1)
        assert "the grace of 2 blobs begins anew" in caplog.text
        clock.now += GRACE
        steady.now += GRACE
        assert (await registry.collector.run()).blobs == 0
        clock.now += 1
        steady.now += 1
        assert (await registry.collector.run()).blobs == 2

    async def test_a_clock_that_is_set_before_the_first_pass_deletes_nothing_either(self, registry, clock, steady):
        await registry.collector.begin()
        await registry.push_blob(NAME, CALLER, Digest.of(SMALL), pieces(SMALL))
        clock.now += 365 * 86400
        steady.now += 60
        await registry.collector.begin()  # another server of the same registry
        assert numbers(await registry.collector.run()) == {"waiting": 1}

    async def test_a_clock_that_was_set_for_a_while_deletes_nothing_either(self, registry, clock, steady):
        await registry.collector.run()
        await registry.push_blob(NAME, CALLER, Digest.of(SMALL), pieces(SMALL))
        for jump in (365 * 86400, -365 * 86400):
            clock.now += jump + 60
            steady.now += 60
            assert (await registry.collector.run()).clock_jumped
        assert (await registry.pulls.get_blob(NAME, Digest.of(SMALL))).size == len(SMALL)

    async def test_a_clock_that_is_set_right_bit_by_bit_is_none_that_was_set(self, registry, clock, steady):
        await registry.collector.run()
        clock.now += 100_000
        steady.now += 100_050
        assert not (await registry.collector.run()).clock_jumped

    async def test_a_time_without_a_server_counts_for_the_grace(self, settings: Settings, registry, clock, steady):
        await registry.push_blob(NAME, CALLER, Digest.of(SMALL), pieces(SMALL))
        await registry.collector.run()
        clock.now += 10 * GRACE
        steady.now += 10 * GRACE
        other = await open_registry(settings, clock=clock, steady=steady, durable=False)
        assert (await other.collector.run()).blobs == 1
        await other.close()

    @pytest.mark.parametrize(("away", "jumped"), [(GRACE, False), (GRACE + 1, True), (-1, True)])
    async def test_after_a_start_of_the_machine_more_than_a_grace_without_a_pass_begins_it_anew(
        self, registry, clock, steady, monkeypatch, away, jumped
    ):
        """Its clock may be wrong, and there is nothing to compare it with."""
        await registry.collector.run()
        monkeypatch.setattr("charthouse.clocks.boot", lambda: "another")
        clock.now += away
        steady.now = 5
        assert bool((await registry.collector.run()).clock_jumped) == jumped


class Steady:
    """Seconds that pass whatever the clock says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
