"""The grace of a blob: it begins when its last manifest goes, or with a later answer that it is here."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text

from charthouse import queries
from charthouse.app import Application
from charthouse.database import Connection
from charthouse.manifest import DOCKER_MANIFEST, OCI_MANIFEST
from charthouse.names import Digest, RepositoryName, Tag
from support.requests import Remote, image

NAME = RepositoryName("team-a/app")
CONFIG = Digest.of(b"{}")
LAYER = b"layer" * 2000


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, NAME)


@pytest.fixture
def since(app: Application) -> Callable[..., object]:
    """Seconds since no manifest names the blob, None when one does, "gone" when the repository does not hold it."""

    async def since(digest: Digest = CONFIG, repository: str = NAME) -> object:
        found = await app.registry._database.read(queries.find_blob, RepositoryName(repository), digest)
        if found is None:
            return "gone"
        return None if found.unnamed_since is None else app.registry._clock() - found.unnamed_since / 1000

    return since


async def test_a_blob_that_was_just_pushed_waits_for_its_manifest(remote, since, clock):
    for content in (b"{}", LAYER):
        await remote.push_blob(content)
        clock.now += 5
        assert await since(Digest.of(content)) == 5


async def test_a_manifest_names_its_blobs_and_no_others(remote, since):
    for content in (b"{}", LAYER, b"other"):
        await remote.push_blob(content)
    await remote.push_manifest(image(b"{}", LAYER))
    assert [await since(Digest.of(content)) for content in (b"{}", LAYER, b"other")] == [None, None, 0]


async def test_the_grace_begins_when_the_last_manifest_goes(remote, since, clock):
    first = await remote.push_image("1.0")
    second = await remote.push_image("2.0", annotations={"an": "other"})
    await remote.call("DELETE", f"manifests/{Digest.of(first)}")
    assert await since() is None
    clock.now += 5
    await remote.call("DELETE", f"manifests/{Digest.of(second)}")
    assert await since() == 0
    clock.now += 5
    assert await since() == 5


async def test_a_manifest_of_another_repository_names_nothing_here(remote, since):
    other = Remote(remote.client, NAME + "/other")
    body = await remote.push_image("1.0")
    await other.push_image("1.0")
    await remote.call("DELETE", f"manifests/{Digest.of(body)}")
    assert (await since(), await since(repository=other.name)) == (0, None)


async def test_a_tag_that_goes_leaves_the_blobs_named(remote, since):
    await remote.push_image("1.0")
    await remote.call("DELETE", "manifests/1.0")
    assert await since() is None


@pytest.mark.parametrize("how", ["delete_version", "delete_repository"])
async def test_the_grace_begins_with_every_way_in_which_a_manifest_goes(app, remote, since, how):
    await remote.push_image("1.0")
    arguments = [Tag("1.0")] if how == "delete_version" else []
    await getattr(app.registry, how)(NAME, *arguments)
    assert await since() == 0


async def test_a_repository_that_goes_does_not_begin_the_grace_of_what_waits_already(app, remote, since, clock):
    await remote.push_image("1.0")
    waiting = await remote.push_blob(LAYER)
    clock.now += 5
    await app.registry.delete_repository(NAME)
    assert (await since(), await since(waiting)) == (0, 5)


async def test_the_same_bytes_with_another_media_type_name_the_same_blobs(remote, since):
    await remote.push_blob(b"{}")
    body = image(mediaType=None)
    for media_type in (OCI_MANIFEST, DOCKER_MANIFEST, "application/vnd.example+json"):
        await remote.push_manifest(body, media_type=media_type)
        assert await since() is None


async def test_a_blob_that_comes_after_its_manifest_is_named_at_once(app, remote, since):
    object.__setattr__(app.registry.settings, "sparse_manifests", True)
    await remote.push_manifest(image())
    await remote.push_blob(b"{}")
    assert await since() is None


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_an_answer_that_an_unnamed_blob_is_here_begins_its_grace_anew(app, remote, since, clock, method):
    await remote.push_blob(b"{}")
    clock.now += app.registry.settings.gc_grace / 2
    assert (await remote.call(method, f"blobs/{CONFIG}")).status_code == 200
    assert await since() == 0


@pytest.mark.parametrize("content", [b"{}", LAYER], ids=["a row", "a file"])
async def test_an_upload_of_what_is_here_and_a_mount_begin_the_grace_anew(remote, since, clock, content):
    digest = await remote.push_blob(content)
    other = Remote(remote.client, NAME + "/other")
    clock.now += 5
    await remote.push_blob(content)
    assert await since(digest) == 0
    for _ in range(2):
        clock.now += 5
        answer = await other.call("POST", f"blobs/uploads/?mount={digest}&from={NAME}")
        assert answer.status_code == 201
        assert (await since(digest, other.name)) == 0


async def test_an_answer_about_a_blob_that_was_pushed_again_while_named_leaves_it_named(remote, since):
    await remote.push_image("1.0")
    await remote.push_blob(b"{}")
    assert await since() is None


async def test_answers_close_together_are_recorded_once(app, remote, since, clock):
    await remote.push_blob(b"{}")
    clock.now += app.registry.settings.gc_grace / 10 - 1
    await remote.call("HEAD", f"blobs/{CONFIG}")
    assert await since() == app.registry.settings.gc_grace / 10 - 1
    clock.now += 1
    await remote.call("HEAD", f"blobs/{CONFIG}")
    assert await since() == 0


async def test_a_grace_from_the_future_is_set_right(remote, since, clock):
    await remote.push_blob(b"{}")
    clock.now -= 86400
    await remote.call("HEAD", f"blobs/{CONFIG}")
    assert await since() == 0


async def test_only_an_answer_about_an_unnamed_blob_is_a_write(app, remote, clock, monkeypatch):
    written = []
    write = app.registry._database.write
    monkeypatch.setattr(
        app.registry._database, "write", lambda query, *args: written.append(query.__name__) or write(query, *args)
    )
    await remote.push_image("1.0")
    await remote.push_blob(LAYER)
    clock.now += 86400
    written.clear()
    for path in ("manifests/1.0", f"blobs/{CONFIG}"):
        for method in ("HEAD", "GET"):
            await remote.call(method, path)
    assert written == []
    await remote.call("HEAD", f"blobs/{Digest.of(LAYER)}")
    assert written == ["answer_for"]


async def test_the_cache_keeps_only_blobs_that_a_manifest_names(app, remote, since, clock):
    """What it answered from memory would extend nothing."""
    path = f"blobs/{CONFIG}"
    await remote.push_image("1.0")
    await remote.call("HEAD", path)
    assert ("HEAD", remote.url(path), b"") in app._cache._entries
    await remote.call("DELETE", f"manifests/{Digest.of(image())}")
    for _ in range(2):
        clock.now += app.registry.settings.gc_grace / 2
        await remote.call("HEAD", path)
        assert await since() == 0
        assert ("HEAD", remote.url(path), b"") not in app._cache._entries


async def test_an_answer_about_a_blob_that_goes_at_that_moment_is_blob_unknown(app, remote, clock, monkeypatch):
    """It was there when it was looked for, and was collected before its grace could begin anew."""
    await remote.push_blob(b"{}")
    clock.now += 86400
    write = app.registry._database.write

    async def collected_first(query, *args):
        await write(_release, CONFIG)
        return await write(query, *args)

    monkeypatch.setattr(app.registry._database, "write", collected_first)
    assert (await remote.call("HEAD", f"blobs/{CONFIG}")).status_code == 404


def _release(connection: Connection, digest: Digest) -> None:
    connection.execute(text("DELETE FROM repository_blobs WHERE digest = :digest"), {"digest": digest})
