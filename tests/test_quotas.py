"""Quotas: what counts, who decides when two push at once, what is told, and what comes back when something goes."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import random
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from charthouse import queries, quotas, slots
from charthouse.app import Application, create_app
from charthouse.auth.access import ACTIONS, Pattern
from charthouse.composition import open_registry
from charthouse.core import Caller, Registry
from charthouse.database import Connection
from charthouse.errors import NameUnknown, QuotaExceeded, UserUnknown
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest, Namespace, RepositoryName
from charthouse.queries import Usage
from charthouse.settings import Settings, SettingsError, load
from durability import sizes
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import Remote, descriptor, encoded, error_of, image, index, pieces, running
from support.server import serving

pytestmark = pytest.mark.usefixtures("quick_passwords")

A = Namespace("team-a")
GRACE = 86400
FROM_FILE = ("quota_bytes", "namespaces")
PASSWORD = "correct horse battery"
CALLER = Caller()
LAYER = b"layer" * 2000  # 10,000 bytes: a file
CONFIG = b"{}"
MANIFEST = image(CONFIG, LAYER)
WHOLE_IMAGE = len(CONFIG) + len(LAYER) + len(MANIFEST)


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, "team-a/app")


@pytest.fixture
def limit(app: Application) -> Callable[..., object]:
    """Sets limits of team-a."""

    async def limit(namespace: Namespace = A, **values: int) -> None:
        await app.registry.namespaces.set(namespace, {name: str(value) for name, value in values.items()})

    return limit


async def push(remote: Remote, tag: str | None = None, *layers: bytes) -> bytes:
    body = image(CONFIG, *(layers or [LAYER]))
    for blob in (CONFIG, *(layers or [LAYER])):
        await remote.push_blob(blob)
    await remote.push_manifest(body, tag)
    return body


async def held(app: Application, name: str = "team-a") -> Usage:
    (found,) = await app.registry.quotas.usage(name)
    return found.usage


async def put_blob(remote: Remote, content: bytes) -> httpx.Response:
    return await remote.finish(await remote.start_upload(), Digest.of(content), content)


async def miscounted(app: Application) -> list[str]:
    return await app.registry._database.scan(queries.miscounted)


# --- what counts ------------------------------------------------------------------------------------------------------


async def test_blobs_count_once_in_each_repository_and_manifests_with_their_bytes(app, client, remote):
    await push(remote, "1")
    assert await held(app) == Usage(1, WHOLE_IMAGE, 0)
    other = image(CONFIG, LAYER, annotations={"n": "2"})
    await remote.push_manifest(other, "2")  # names the same blobs
    assert await held(app) == Usage(2, WHOLE_IMAGE + len(other), 0)
    await push(Remote(client, "team-a/b/other"), "1")  # the same bytes on the disk
    assert await held(app) == Usage(3, 2 * WHOLE_IMAGE + len(other), 0)
    await push(Remote(client, "team-ab/app"), "1")
    assert await held(app) == Usage(3, 2 * WHOLE_IMAGE + len(other), 0)
    assert await held(app, "team-a/b") == Usage(1, WHOLE_IMAGE, 0)


async def test_what_is_deleted_is_given_back_at_once_and_collection_takes_the_rest(app, remote, clock):
    await push(remote, "1")
    await remote.call("DELETE", f"manifests/{Digest.of(MANIFEST)}")
    assert await held(app) == Usage(0, 0, len(CONFIG) + len(LAYER))
    clock.now += GRACE + 1
    await app.registry.collector.run()
    assert await held(app) == Usage()


async def test_untagged_manifests_are_given_back_when_they_are_collected(app, remote, clock, limit):
    await app.registry.namespaces.set(A, {"untagged_expiry": "60"})
    await push(remote, "1")
    await push(remote, "1", b"other")
    assert (await held(app)).manifests == 2
    clock.now += 61
    await app.registry.collector.run()
    assert (await held(app)).manifests == 1


class Traffic:
    """What may happen to repositories, by dice; each step gives the answer, where there is one."""

    def __init__(self, app: Application, client: httpx.AsyncClient, clock: Any, seed: int) -> None:
        self.dice = random.Random(seed)
        self.registry = app.registry
        self.clock = clock
        self.remotes = [Remote(client, name) for name in ("team-a/x", "team-a/y", "team-a/b/z", "team-b/x", "root")]
        self.blobs = [bytes([65 + number]) * (number * 977) for number in range(12)]
        self.manifests = [image()]
        steps = (self.push_image, self.push_blob, self.push_index, self.mount, self.delete_manifest, self.delete_blob)
        self.steps = [*(self.push_image,) * 3, *steps, self.look, self.collect, self.empty, self.damage]

    async def step(self) -> httpx.Response | None:
        return await self.dice.choice(self.steps)(self.dice.choice(self.remotes))

    def digest(self) -> Digest:
        return Digest.of(self.dice.choice(self.blobs))

    async def push_blob(self, remote: Remote, blob: bytes | None = None) -> httpx.Response:
        blob = blob or self.dice.choice(self.blobs)
        begun = await remote.call("POST", "blobs/uploads/")
        if begun.status_code != 202:
            return begun
        location, in_two = begun.headers["location"], self.dice.random() < 0.3
        if in_two:
            await remote.patch(location, blob[:500])
        return await remote.finish(location, Digest.of(blob), blob[500:] if in_two else blob)

    async def push_image(self, remote: Remote) -> httpx.Response:
        named = self.dice.choices(self.blobs, k=self.dice.randint(1, 4))
        for blob in named:
            await self.push_blob(remote, blob)
        self.manifests.append(image(*named))
        return await remote.put_manifest(self.manifests[-1], self.dice.choice([None, "1", "2", "3"]))

    async def push_index(self, remote: Remote) -> httpx.Response:
        body = index(self.dice.choice(self.manifests))
        return await remote.put_manifest(body, self.dice.choice([None, "4"]), OCI_INDEX)

    async def mount(self, remote: Remote) -> httpx.Response:
        parameters = {"mount": self.digest(), "from": self.dice.choice(self.remotes).name}
        return await remote.call("POST", "blobs/uploads/", params=parameters)

    async def delete_manifest(self, remote: Remote) -> httpx.Response:
        reference = self.dice.choice(["1", "2", Digest.of(self.dice.choice(self.manifests))])
        return await remote.call("DELETE", f"manifests/{reference}")

    async def delete_blob(self, remote: Remote) -> httpx.Response:
        return await remote.call("DELETE", f"blobs/{self.digest()}")

    async def look(self, remote: Remote) -> httpx.Response:
        return await remote.call("HEAD", f"blobs/{self.digest()}")

    async def collect(self, _: Remote) -> None:
        self.clock.now += self.dice.choice([10, GRACE // 2, GRACE + 1])
        await self.registry.collector.run()

    async def empty(self, remote: Remote) -> None:
        with contextlib.suppress(NameUnknown):
            await self.registry.delete_repository(RepositoryName(remote.name))

    async def damage(self, _: Remote) -> None:
        digest = self.digest()
        if await self.registry._database.read(queries.stored_blob, digest):
            await self.registry._database.write(queries.mark_blob, digest, "it is a test", 1)


async def test_what_is_counted_is_what_the_rows_add_up_to_whatever_happens(app, client, clock, limit, did):
    """Random pushes, mounts, overwrites, deletes, damage and collections, with quotas that some of them meet."""
    await limit(quota_bytes=60_000, quota_manifests=6)
    await limit(Namespace("team-a/b"), quota_bytes=20_000)
    seed = sizes.seed()
    did(f"quotas: CHARTHOUSE_SEED={seed}")
    traffic = Traffic(app, client, clock, seed)
    codes: Counter[int] = Counter()
    for number in range(1_500):
        if number >= 150 and all(codes[code] for code in (201, 202, 403)):
            break
        answer = await traffic.step()
        codes[answer.status_code if answer else 0] += 1
        assert await miscounted(app) == []
        above, below = await held(app), await held(app, "team-a/b")
        assert above.bytes <= 60_000
        assert above.manifests <= 6
        assert below.bytes <= 20_000
    did(f"seed {seed}: {codes[201]} pushes, {codes[202]} deletes, {codes[403]} beyond a quota; every count right")
    assert codes[201]
    assert codes[202]
    assert codes[403]
    assert not any(code >= 500 for code in codes)


async def test_a_wrong_count_is_found_and_put_right(app, remote):
    await push(remote, "1")
    await app.registry._database.write(
        lambda connection: connection.execute(text("UPDATE repositories SET bytes = 7, manifests = 9")) and None
    )
    assert await app.registry.verification.recount() == ["team-a/app"]
    assert await held(app) == Usage(1, WHOLE_IMAGE, 0)
    assert await app.registry.verification.recount() == []


async def test_a_backup_is_restored_with_what_it_counts(app, remote, make_settings, tmp_path: Path):
    """The rows come with their numbers, and are counted by the triggers as well."""
    await push(remote, "1")
    await remote.push_blob(b"unnamed")

    def copy(connection: Connection) -> None:
        with tmp_database(tmp_path) as target:
            queries.copy_tables(connection, target)
            assert queries.miscounted(target) == []
            assert queries.usage(target, "team-a")[0] == Usage(1, WHOLE_IMAGE, len(b"unnamed"))

    await app.registry._database.scan(copy)


def tmp_database(folder: Path):
    from charthouse.backup import _new_metadata

    return _new_metadata(folder / "copy.db")


# --- who decides ------------------------------------------------------------------------------------------------------


async def test_a_push_beyond_the_bytes_is_told_the_numbers_and_leaves_nothing(app, client, remote, limit):
    await push(remote, "1")
    await limit(quota_bytes=WHOLE_IMAGE + 9_000)
    answer = await put_blob(remote, b"x" * 9_001)
    assert error_of(answer, 403, "DENIED") == (
        "namespace team-a holds 10.2 KiB of its 19 KiB; this push needs 8.8 KiB more: delete versions (`charthouse"
        " delete`), or have the quota raised (`charthouse namespace set team-a quota_bytes=…`)"
    )
    assert answer.json()["errors"][0]["detail"] == (
        f"bytes: used {WHOLE_IMAGE}, limit {WHOLE_IMAGE + 9_000}, wanted 9001"
    )
    assert await held(app) == Usage(1, WHOLE_IMAGE, 0)
    await push(Remote(client, "team-b/app"), "1", b"x" * 9_001)
    copied = await remote.call(
        "POST", "blobs/uploads/", params={"mount": Digest.of(b"x" * 9_001), "from": "team-b/app"}
    )
    error_of(copied, 403, "DENIED")
    assert (await put_blob(remote, b"x" * 9_000)).status_code == 201


async def test_the_manifest_that_names_too_much_is_refused_and_its_blobs_stay_unnamed(app, remote, limit):
    await push(remote, "1")
    before = await held(app)
    layers = [b"a" * 3_000, b"b" * 3_000]
    await limit(quota_bytes=15_000)
    for blob in layers:
        assert (await put_blob(remote, blob)).status_code == 201
    text = error_of(await remote.put_manifest(image(CONFIG, *layers), "2"), 403, "DENIED")
    assert "holds 10.2 KiB of its 14.6 KiB; this push needs 6.5 KiB more" in text
    assert await held(app) == Usage(before.manifests, before.bytes, 6_000)
    assert (await remote.call("GET", "tags/list")).json()["tags"] == ["1"]
    assert (await remote.put_manifest(image(CONFIG, layers[0]), "2")).status_code == 201


async def test_manifests_are_counted_too(app, remote, limit):
    await limit(quota_manifests=1)
    await push(remote, "1")
    assert (await remote.put_manifest(MANIFEST, "2")).status_code == 201  # the same again, under another tag
    text = error_of(await remote.put_manifest(image(CONFIG, LAYER, annotations={"n": "2"}), "3"), 403, "DENIED")
    assert "namespace team-a holds 1 of its 1 manifests; this push needs 1 more" in text


async def test_what_no_manifest_names_has_as_much_room_again(app, remote, limit):
    await limit(quota_bytes=15_000)
    for number in range(3):
        await put_blob(remote, bytes([number]) * 5_000)
    answer = await put_blob(remote, b"x" * 5_000)
    assert "team-a has 14.6 KiB of blobs that no manifest names, and may have 14.6 KiB" in error_of(
        answer, 403, "DENIED"
    )


async def test_each_namespace_above_counts_and_so_does_the_whole_registry(make_settings):
    settings = make_settings(quota_bytes="30KiB")
    async with running(create_app(settings, durable=False)) as client:
        namespaces = client._transport.app.registry.namespaces
        await namespaces.set(A, {"quota_bytes": "20KiB"})
        await namespaces.set(Namespace("team-a/b"), {"quota_bytes": "15KiB"})
        await namespaces.set(Namespace("/"), {"quota_manifests": "1"})
        deep, flat, other = (Remote(client, name) for name in ("team-a/b/app", "team-a/app", "root"))
        await push(deep, "1")
        assert "namespace team-a/b holds" in error_of(await put_blob(deep, b"x" * 9_000), 403, "DENIED")
        await push(flat, "1", b"y" * 5_000)
        assert "namespace team-a holds" in error_of(await put_blob(flat, b"x" * 9_000), 403, "DENIED")
        await push(other, "1")
        refused = await other.put_manifest(image(CONFIG, LAYER, annotations={"n": "2"}), "2")
        assert "namespace / holds 1 of its 1 manifests" in error_of(refused, 403, "DENIED")
        refused = await put_blob(Remote(client, "c/app"), b"z" * 9_000)
        assert "this registry holds" in error_of(refused, 403, "DENIED")


async def test_two_that_push_at_once_cannot_both_have_the_last_bytes(registry: Registry, settings: Settings, clock):
    """Each to a repository of its own, from servers of their own: only the sum of both is too much."""
    await registry.namespaces.set(A, {"quota_bytes": "50000", "quota_manifests": "5"})
    other = await open_registry(settings, clock=clock, durable=False)
    names = [RepositoryName(f"team-a/app-{number}") for number in range(12)]
    for name in names:
        for blob in (CONFIG, LAYER):
            await registry._database.write(hold, name, blob)  # by no push: the manifests alone decide
    pushes = [
        (registry, other)[number % 2].push_manifest(name, Digest.of(MANIFEST), MANIFEST, OCI_MANIFEST, CALLER)
        for number, name in enumerate(names)
    ]
    done = await asyncio.gather(*pushes, return_exceptions=True)
    await other.close()
    assert all(isinstance(each, QuotaExceeded) for each in done if isinstance(each, BaseException))
    (found,) = await registry.quotas.usage("team-a")
    assert found.usage.manifests == 4  # of WHOLE_IMAGE bytes each, in 50,000
    assert sum(not isinstance(each, BaseException) for each in done) == 4


def hold(connection: Connection, name: RepositoryName, content: bytes) -> None:
    blob = queries.StoredBlob(Digest.of(content), len(content), key=None, content=content)
    queries.add_blob(connection, blob, 1)
    queries.hold_blob(connection, queries.change_repository(connection, name, 1), Digest(blob.digest), 1)


async def test_who_is_over_a_quota_that_was_lowered_may_push_the_same_again_and_delete(app, remote, limit):
    await push(remote, "1")
    await limit(quota_bytes=1_000, quota_manifests=1)
    assert (await remote.put_manifest(MANIFEST, "1")).status_code == 201
    assert (await remote.put_manifest(MANIFEST, "other-tag")).status_code == 201
    error_of(await remote.put_manifest(image(CONFIG, LAYER, annotations={"n": "2"})), 403, "DENIED")
    assert (await remote.call("DELETE", f"manifests/{Digest.of(MANIFEST)}")).status_code == 202
    assert (await remote.put_manifest(image(CONFIG), "1")).status_code == 201


# --- before a body is taken -------------------------------------------------------------------------------------------


async def nothing() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


async def test_no_upload_begins_where_nothing_can_be_added(app, remote, limit):
    await push(remote, "1")
    await limit(quota_bytes=WHOLE_IMAGE)
    text = error_of(await remote.call("POST", "blobs/uploads/"), 403, "DENIED")
    assert text.startswith("namespace team-a holds 10.2 KiB of its 10.2 KiB: delete versions")
    await app.registry._database.write(queries.mark_blob, Digest.of(LAYER), "it is a test", 1)
    assert (await put_blob(remote, LAYER)).status_code == 201  # what is damaged is healed all the same
    error_of(await remote.call("POST", "blobs/uploads/"), 403, "DENIED")


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(app, remote, limit):
    await limit(quota_bytes=9_000)
    digest, location = Digest.of(b"x"), await remote.start_upload()
    for method, url in (
        ("PATCH", location),
        ("PUT", f"{location}?digest={digest}"),
        ("POST", remote.url(f"blobs/uploads/?digest={digest}")),
    ):
        answer = await remote.client.request(method, url, content=nothing(), headers={"Content-Length": "9001"})
        assert "this push needs 8.8 KiB more" in error_of(answer, 403, "DENIED")


async def test_a_body_that_does_not_say_how_large_it_is_is_refused_when_it_is_here(app, remote, limit, settings):
    await limit(quota_bytes=9_000)
    for size in (9_001, 200_000):
        content = b"x" * size
        location = await remote.start_upload()
        url = f"{location}?digest={Digest.of(content)}"
        answer = await remote.client.put(url, content=pieces(content[:5_000], content[5_000:]))
        error_of(answer, 403, "DENIED")
    assert [path for path in (settings.data / "blobs").rglob("*") if path.is_file()] == []
    assert [path for path in (settings.data / "uploads").rglob("*") if path.is_file()] == []


async def test_a_namespace_may_allow_smaller_blobs_and_larger_ones(make_settings):
    async with running(create_app(make_settings(blob_limit=20_000), durable=False)) as client:
        namespaces = client._transport.app.registry.namespaces
        await namespaces.set(A, {"blob_limit": "1KiB"})
        await namespaces.set(Namespace("team-a/large"), {"blob_limit": "30000"})
        small, large, other = (Remote(client, name) for name in ("team-a/app", "team-a/large/app", "team-b/app"))
        assert error_of(await put_blob(small, b"x" * 1025), 413, "SIZE_INVALID") == (
            "the blob has more than 1,024 bytes (blob_limit, namespace team-a)"
        )
        assert (await put_blob(large, b"x" * 30_000)).status_code == 201
        assert "20,000 bytes (blob_limit, on the command line)" in error_of(
            await put_blob(other, b"x" * 20_001), 413, "SIZE_INVALID"
        )


# --- how many at once -------------------------------------------------------------------------------------------------


class Body:
    """One that comes when the test lets it; `begun` when somebody waits for it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.begun = asyncio.Event()
        self.may_come = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        self.begun.set()
        await self.may_come.wait()
        yield self.content


async def test_one_blob_too_many_at_once_waits_and_is_refused_with_no_429(app, remote, limit, settings, clock):
    """Also where the others come in through another server of the same data."""
    await limit(uploads_at_once=2)
    other = await open_registry(settings, clock=clock, durable=False)
    bodies = [Body(bytes([number]) * 9_000) for number in range(2)]
    name = RepositoryName("team-a/b/app")
    pushes = [
        asyncio.create_task(registry.push_blob(name, CALLER, Digest.of(body.content), body.pieces()))
        for registry, body in zip((app.registry, other), bodies, strict=True)
    ]
    await asyncio.gather(*(body.begun.wait() for body in bodies))
    app.registry._slots._patience = 0
    location = await remote.start_upload()
    url = f"{location}?digest={Digest.of(LAYER)}"
    text = error_of(await remote.client.put(url, content=nothing()), 403, "DENIED")
    assert text.startswith("2 blobs are coming in to namespace team-a, and more may not at once (uploads_at_once)")
    app.registry._slots._patience = slots.PATIENCE
    waiting = asyncio.create_task(put_blob(remote, LAYER))
    bodies[1].may_come.set()
    assert (await waiting).status_code == 201
    bodies[0].may_come.set()
    await asyncio.gather(*pushes)
    await other.close()


async def test_the_place_of_a_connection_that_dies_is_free_again(app, remote, limit):
    await limit(uploads_at_once=1)
    app.registry._slots._patience = 0

    async def dies() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError("the client has gone")

    with pytest.raises(ConnectionError):
        await app.registry.push_blob(RepositoryName(remote.name), CALLER, Digest.of(LAYER), dies())
    assert (await put_blob(remote, LAYER)).status_code == 201


# --- users ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def users(app: Application, client: httpx.AsyncClient) -> Callable[..., Remote]:
    """Repositories as users see them who may push to all."""
    registry = app.registry
    await registry.users.add("admin", PASSWORD, administrator=True)
    for name in ("ann", "bob"):
        await registry.users.add(name, PASSWORD)
        await registry.users.grant(name, Pattern("*"), frozenset(ACTIONS))
    await registry.namespaces.set(A, {"policy": "oci", "versions": "mutable"})

    def remote(name: str, repository: str = "team-a/app", password: str = PASSWORD) -> Remote:
        auth = httpx.BasicAuth(name, password)
        return Remote(httpx.AsyncClient(transport=client._transport, base_url=client.base_url, auth=auth), repository)

    return remote


async def pushed(app: Application, name: str) -> Usage:
    (found,) = await app.registry.quotas.usage_of_users(name)
    return found.usage


async def test_a_users_quota_counts_what_he_pushed_and_is_still_there(app, users):
    """Each manifest with the blobs that it names: those of two count twice."""
    ann, bob = users("ann"), users("bob")
    other = image(CONFIG, LAYER, annotations={"n": "2"})
    await push(ann, "1")
    await ann.push_manifest(other, "2")
    await push(bob, "1")  # the same again is Ann's
    assert await pushed(app, "ann") == Usage(2, 2 * WHOLE_IMAGE + len(other) - len(MANIFEST))
    assert await pushed(app, "bob") == Usage()
    await push(bob, "3", b"of bob")
    assert (await pushed(app, "bob")).manifests == 1
    await bob.call("DELETE", f"manifests/{Digest.of(other)}")
    assert await pushed(app, "ann") == Usage(1, WHOLE_IMAGE)
    assert [held.name for held in await app.registry.quotas.usage_of_users()] == ["ann", "bob"]


async def test_a_user_beyond_his_quota_is_told_so_and_others_go_on(app, users):
    ann, bob = users("ann"), users("bob", "team-a/other")
    await push(ann, "1")
    await app.registry.users.limit("ann", {"quota_bytes": str(WHOLE_IMAGE + 9_000), "quota_manifests": "2"})
    assert error_of(await put_blob(ann, b"x" * 9_001), 403, "DENIED") == (
        "user ann holds 10.2 KiB of his 19 KiB; this push needs 8.8 KiB more: delete versions (`charthouse delete`), or"
        " have the quota raised (`charthouse user limit ann quota_bytes=…`)"
    )
    refused = await ann.put_manifest(image(CONFIG, LAYER, annotations={"n": "2"}), "2")
    assert "user ann holds 10.2 KiB of his 19 KiB; this push needs 10.2 KiB more" in error_of(refused, 403, "DENIED")
    await push(ann, "2", b"small")
    assert (await ann.put_manifest(MANIFEST, "other-tag")).status_code == 201
    text = error_of(await ann.call("POST", "blobs/uploads/"), 403, "DENIED")
    assert text.startswith("user ann holds 2 of his 2 manifests: delete versions")
    await push(bob, "1", b"y" * 20_000)
    await app.registry.users.limit("ann", {"quota_bytes": None, "quota_manifests": None})
    await push(ann, "3", b"y" * 20_000)


async def test_sizes_that_a_manifest_makes_up_do_not_count(app, users):
    ann = users("ann")
    for blob in (CONFIG, LAYER):
        await ann.push_blob(blob)
    lying = encoded(json.loads(MANIFEST) | {"layers": [descriptor(LAYER) | {"size": 1}]})
    await ann.push_manifest(lying, "1")
    assert await pushed(app, "ann") == Usage(1, len(CONFIG) + len(LAYER) + len(lying))


async def test_a_user_who_pushes_often_at_once_has_the_last_manifest_once(registry: Registry, settings, clock):
    other = await open_registry(settings, clock=clock, durable=False)
    await registry.users.add("admin", PASSWORD, administrator=True)
    await registry.users.limit("admin", {"quota_manifests": "3"})
    await registry.namespaces.set(A, {"policy": "oci"})
    names = [RepositoryName(f"team-a/app-{number}") for number in range(40)]
    for name in names:
        for blob in (CONFIG, LAYER):
            await registry._database.write(hold, name, blob)
    caller = Caller("admin")
    pushes = [
        (registry, other)[number % 2].push_manifest(name, Digest.of(MANIFEST), MANIFEST, OCI_MANIFEST, caller)
        for number, name in enumerate(names)
    ]
    done = await asyncio.gather(*pushes, return_exceptions=True)
    await other.close()
    assert sum(isinstance(each, QuotaExceeded) for each in done) == 37
    (found,) = await registry.quotas.usage_of_users("admin")
    assert found.usage.manifests == 3


async def test_a_users_blobs_may_be_limited_and_an_api_tokens_too(app, users):
    await app.registry.users.limit("ann", {"blob_limit": "2KiB"})
    assert "2,048 bytes (blob_limit, user ann)" in error_of(await put_blob(users("ann"), LAYER), 413, "SIZE_INVALID")
    secret = await app.registry.api_tokens.add("ci", [Pattern("*")], frozenset(ACTIONS), None)
    await app.registry.users.limit("token:ci", {"quota_bytes": "5000"})
    ci = users("ci", password=secret)
    assert "user token:ci holds 0 bytes of his 4.9 KiB" in error_of(await put_blob(ci, LAYER), 403, "DENIED")
    assert (await put_blob(users("bob"), LAYER)).status_code == 201


async def test_limits_go_with_their_user_and_are_set_of_nobody_else(app, users):
    registry: Registry = app.registry
    await registry.users.limit("ann", {"quota_bytes": "1"})
    await registry.users.remove("ann")
    await registry.users.add("ann", PASSWORD)
    await registry.users.grant("ann", Pattern("*"), frozenset(ACTIONS))
    assert (await put_blob(users("ann"), LAYER)).status_code == 201
    for nobody in ("zoe", "token:none", "", "team-a"):
        with pytest.raises(UserUnknown, match="there is no user"):
            await registry.users.limit(nobody, {"quota_bytes": "1"})
    with pytest.raises(ValueError, match="a user has no limit 'policy'; there are blob_limit, quota_bytes"):
        await registry.users.limit("ann", {"policy": "oci"})
    with pytest.raises(ValueError, match="quota_bytes is '1GB': give bytes"):
        await registry.users.limit("ann", {"quota_bytes": "1GB"})


async def test_an_administrator_sets_limits_over_http(app, users):
    admin = users("admin").client
    url = "/api/v1/users/ann/limits"
    assert (await admin.put(url, json={"quota_bytes": 9_000, "uploads_at_once": 2})).status_code == 200
    error_of(await put_blob(users("ann"), LAYER), 403, "DENIED")
    await admin.put(url, json={"quota_manifests": 5})  # in place of the others
    await push(users("ann"), "1")
    assert (await admin.get(url)).json() == {
        "bytes": WHOLE_IMAGE,
        "manifests": 1,
        "limits": {"quota_bytes": None, "quota_manifests": 5, "blob_limit": None, "uploads_at_once": None},
    }
    assert (await admin.put(url, json={"quota_bytes": -1})).status_code == 422
    assert (await admin.put("/api/v1/users/zoe/limits", json={})).status_code == 404


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (10_522_669_875, "9.8 GiB"),
        (2**63, "8 EiB"),
    ],
)
def test_bytes_are_said_in_units(size: int, words: str):
    assert quotas.said(size) == words


@pytest.mark.parametrize(
    ("value", "size"), [("10GiB", 10 * 1024**3), ("500 MiB", 500 * 1024**2), (7, 7), ("7B", 7), ("1KiB", 1024)]
)
def test_bytes_may_be_written_in_units(value: object, size: int):
    assert load({"quota_bytes": value}, environ={}).quota_bytes == size


@pytest.mark.parametrize("value", ["10GB", "-1", "1.5GiB", "x", "", "9000000TiB", True, "٣"])
def test_what_is_no_size_is_told_how_to_write_one(value: object):
    with pytest.raises(SettingsError, match="give bytes from 0 on, such as 1073741824 or 1GiB"):
        load({"quota_bytes": value}, environ={})


async def test_the_toml_file_may_say_it_too_and_goes_before(tmp_path: Path, make_settings):
    file = tmp_path / "charthouse.toml"
    file.write_text('[namespaces.team-a]\nquota_bytes = "9000B"\nuploads_at_once = 3\n')
    found = quotas.limits_of(
        load({}, file, {}), {"team-a": {"quota_bytes": "5", "quota_manifests": "7"}}, RepositoryName("team-a/app")
    )
    assert found.quotas == (quotas.Quota(A, 9000, 7, 3),)
    assert found.uploads == (("team-a", 3),)


@pytest.mark.parametrize("said", ['quota_bytes = "1GiB"', "[namespaces.team-a]\nquota_manifests = 7", ""])
async def test_what_was_set_when_the_server_was_started_holds_too(make_settings, tmp_path: Path, said: str):
    file = tmp_path / "charthouse.toml"
    file.write_text(said)
    settings = dataclasses.replace(make_settings(), **{name: getattr(load({}, file, {}), name) for name in FROM_FILE})
    registry = await open_registry(settings, durable=False)
    found = await registry.quotas.limits(RepositoryName("team-a/app"), {}, "ann")
    await registry.close()
    assert found == quotas.limits_of(settings, {}, RepositoryName("team-a/app"), "ann")
    assert bool(found.quotas) == bool(said)


def test_over_http_a_refused_connection_is_kept_and_one_that_dies_gives_its_place_back(tmp_path: Path):
    with serving(tmp_path, "--quota-bytes", "9000", "--uploads-at-once", "1") as server:
        path, digest = "/v2/team-a/app/blobs/uploads/", Digest.of(b"x" * 8_000)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
            client.request("POST", f"{path}?digest={Digest.of(LAYER)}", body=LAYER)
            refused = client.getresponse()
            assert (refused.status, "this push needs 9.8 KiB more" in refused.read().decode()) == (403, True)
            opened = client.sock
            client.request("GET", "/v2/")
            assert client.getresponse().read() is not None
            assert client.sock is opened  # it was not opened anew
        dying = http.client.HTTPConnection("127.0.0.1", server.port)
        dying.putrequest("POST", f"{path}?digest={digest}")
        dying.putheader("Content-Length", "8000")
        dying.endheaders(b"x" * 10)
        dying.close()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
            client.request("POST", f"{path}?digest={digest}", body=b"x" * 8_000)
            assert client.getresponse().status == 201


def test_a_refusal_reaches_who_goes_on_sending_a_body_that_nobody_reads(tmp_path: Path):
    """Closed at once, his next write would fail: Go's client says that, in place of the answer."""
    size = 64 * 1024 * 1024
    with (
        serving(tmp_path, "--quota-bytes", "9000") as server,
        contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as client,
    ):
        path = f"/v2/team-a/app/blobs/uploads/?digest={Digest.of(LAYER)}"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        sent = 0
        while sent < size and select.select([], [client], [], 0.3)[1]:  # as long as anything goes
            sent += client.send(bytes(65536))
        assert b"403 Forbidden" in client.recv(65536)
        assert sent < size


async def test_usage_is_shown_of_every_namespace_that_is_there(app, client, limit, capsys):
    from charthouse.listing import print_usage

    await push(Remote(client, "team-a/b/app"), "1")
    await push(Remote(client, "root"), "1")
    await limit(Namespace("team-c"), quota_bytes=10 * 1024**3)
    await limit(quota_manifests=1_000)
    found = await app.registry.quotas.usage()
    assert [(each.name, each.usage.manifests) for each in found] == [
        ("/", 1),
        ("team-a", 1),
        ("team-a/b", 1),
        ("team-c", 0),
        ("*", 2),
    ]
    print_usage(found, "namespace", as_json=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == "team-a 10.2 KiB 1 of 1,000 0 bytes"
    assert lines[4] == "team-c 0 bytes of 10 GiB 0 0 bytes"
    print_usage(found, "namespace", as_json=True)
    assert json.loads(capsys.readouterr().out)[1] == {
        "namespace": "team-a",
        "bytes": WHOLE_IMAGE,
        "quota_bytes": None,
        "manifests": 1,
        "quota_manifests": 1000,
        "unnamed_bytes": 0,
    }
