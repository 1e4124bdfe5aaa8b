"""Damaged bytes: never served as good ones, absent for who would push them, and whole again after the next push."""

import asyncio
import contextlib
import hashlib
import http.client
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from charthouse.app import Application
from charthouse.core import Caller, Registry
from charthouse.database import Connection
from charthouse.manifest import OCI_INDEX
from charthouse.names import Digest, RepositoryName
from charthouse.settings import Settings
from support.requests import Remote, error_of, image, index, pieces
from support.server import serving
from test_counts import CONFIG, Chart

LAYER = hashlib.shake_256(b"layer").digest(20_000)
LAYER_PATH, CONFIG_PATH = (f"blobs/{Digest.of(content)}" for content in (LAYER, b"{}"))
MANIFEST = image(b"{}", LAYER)
MANIFEST_PATH = f"manifests/{Digest.of(MANIFEST)}"


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, "team-a/app")


@pytest.fixture
def file(settings: Settings) -> Callable[[bytes], Path]:
    """Where the bytes are."""

    def find(content: bytes) -> Path:
        (path,) = (settings.data / "blobs").rglob(f"{Digest.of(content).hex}.*")
        return path

    return find


def files(settings: Settings) -> int:
    return sum(path.is_file() for folder in ("blobs", "uploads") for path in (settings.data / folder).rglob("*"))


async def push(remote: Remote, tag: str = "1.0") -> None:
    for content in (b"{}", LAYER):
        await remote.push_blob(content)
    await remote.push_manifest(MANIFEST, tag)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": (flip, "its bytes have the digest sha256:"),
    "short": (lambda path: os.truncate(path, 1000), "has 1,000 bytes in place of 20,000"),
    "long": (lambda path: path.write_bytes(LAYER + b"!"), "has 20,001 bytes in place of 20,000"),
    "empty": (lambda path: os.truncate(path, 0), "has 0 bytes in place of 20,000"),
    "missing": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_blob_is_an_error_and_an_alarm_and_from_then_on_absent(
    remote: Remote, file, caplog: pytest.LogCaptureFixture, damage: str
):
    """HEAD of it and of the manifest that names it are 404, GET of both is 500 with a message that says what to do."""
    await push(remote)
    assert await remote.statuses(LAYER_PATH, MANIFEST_PATH, "manifests/1.0") == [200] * 3
    cause, words = DAMAGES[damage]
    cause(file(LAYER))
    found = error_of(await remote.call("GET", LAYER_PATH), 500, "BLOB_UNKNOWN")
    assert words in found
    assert found.endswith("push it again")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("CRITICAL", found)]
    assert await remote.statuses(LAYER_PATH, MANIFEST_PATH, "manifests/1.0") == [404] * 3
    assert words in error_of(await remote.call("GET", LAYER_PATH), 500, "BLOB_UNKNOWN")
    for reference in (MANIFEST_PATH, "manifests/1.0"):
        message = error_of(await remote.call("GET", reference), 500, "MANIFEST_UNKNOWN")
        assert f"{Digest.of(LAYER)}, which it names, is damaged" in message
    assert await remote.statuses(CONFIG_PATH) == [200]
    assert len(caplog.records) == 1  # one alarm


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_next_push_heals(remote: Remote, file, settings: Settings, damage: str):
    await push(remote)
    before = files(settings)
    DAMAGES[damage][0](file(LAYER))
    await remote.call("GET", LAYER_PATH)
    await push(remote)
    assert (await remote.call("GET", LAYER_PATH)).content == LAYER
    assert (await remote.call("GET", "manifests/1.0")).content == MANIFEST
    assert await remote.statuses(LAYER_PATH, MANIFEST_PATH, "manifests/1.0") == [200] * 3
    assert files(settings) == before  # the damaged file went


async def test_every_manifest_that_names_it_is_absent_in_every_repository_and_above_an_index_too(
    client: httpx.AsyncClient, file
):
    one, other, third = (Remote(client, name) for name in ("team-a/app", "team-b/app", "team-c/app"))
    await push(one)
    await other.call("POST", f"blobs/uploads/?mount={Digest.of(LAYER)}&from=team-a/app")
    await push(other)
    await third.push_image("sound")
    child = await one.push_index(MANIFEST)
    parent = index(child, media_type=OCI_INDEX)
    await one.push_manifest(parent, "deep", OCI_INDEX)
    sound = await one.push_image("sound")
    file(LAYER).unlink()
    await one.call("GET", LAYER_PATH)
    above = [f"manifests/{Digest.of(body)}" for body in (child, parent)]
    assert await one.statuses(MANIFEST_PATH, *above, "manifests/deep") == [404] * 4
    assert await other.statuses(MANIFEST_PATH, "manifests/1.0", LAYER_PATH) == [404] * 3
    assert await one.statuses("manifests/sound", f"manifests/{Digest.of(sound)}") == [200] * 2
    assert await third.statuses("manifests/sound") == [200]
    await push(other)  # one push heals all of them
    assert await one.statuses(MANIFEST_PATH, *above, "manifests/deep", LAYER_PATH) == [200] * 5


async def test_a_damaged_blob_is_not_counted_as_present(client: httpx.AsyncClient, file):
    """By a mount, by a manifest that names it, by an index above that."""
    one, other = Remote(client, "team-a/app"), Remote(client, "team-b/app")
    await push(one)
    await push(other)
    file(LAYER).unlink()
    await one.call("GET", LAYER_PATH)
    mounted = await other.call("POST", f"blobs/uploads/?mount={Digest.of(LAYER)}&from=team-a/app")
    assert mounted.status_code == 202
    message = error_of(await one.put_manifest(MANIFEST, "2.0"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert str(Digest.of(LAYER)) in message
    above = await one.put_manifest(index(MANIFEST), media_type=OCI_INDEX)
    assert str(Digest.of(MANIFEST)) in error_of(above, 404, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("damage", ["short", "missing"])
async def test_a_part_of_a_damaged_blob_is_no_answer_either(remote: Remote, file, damage: str):
    await push(remote)
    DAMAGES[damage][0](file(LAYER))
    error_of(await remote.call("GET", LAYER_PATH, headers={"Range": "bytes=0-9"}), 500, "BLOB_UNKNOWN")
    assert await remote.statuses(MANIFEST_PATH) == [404]


async def execute(app: Application, sql: str, **parameters: Any) -> None:
    def change(connection: Connection) -> None:
        connection.execute(text(sql), parameters)

    await app.registry._database.write(change)


async def test_a_damaged_row_is_found_when_it_is_asked_for_and_healed_too(remote: Remote, app: Application, caplog):
    await push(remote)
    await execute(app, "UPDATE blobs SET content = :bad WHERE digest = :digest", bad=b"[]", digest=Digest.of(b"{}"))
    error_of(await remote.call("GET", CONFIG_PATH), 500, "BLOB_UNKNOWN")
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert await remote.statuses(CONFIG_PATH, MANIFEST_PATH) == [404, 404]
    await push(remote)
    assert (await remote.call("GET", CONFIG_PATH)).content == b"{}"
    assert await remote.statuses(CONFIG_PATH, MANIFEST_PATH) == [200, 200]


async def test_a_manifest_whose_own_bytes_are_damaged_is_healed_by_its_next_push(
    remote: Remote, app: Application, caplog
):
    await push(remote)
    parent = await remote.push_index(MANIFEST)
    bad = MANIFEST.replace(b"1", b"7", 1)
    await execute(
        app, "UPDATE manifests SET content = :bad WHERE digest = :digest", bad=bad, digest=Digest.of(MANIFEST)
    )
    assert "it is damaged" in error_of(await remote.call("GET", "manifests/1.0"), 500, "MANIFEST_UNKNOWN")
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert await remote.statuses(MANIFEST_PATH, "manifests/1.0", f"manifests/{Digest.of(parent)}") == [404] * 3
    await remote.push_manifest(MANIFEST)
    assert (await remote.call("GET", "manifests/1.0")).content == MANIFEST
    assert await remote.statuses(MANIFEST_PATH, f"manifests/{Digest.of(parent)}") == [200] * 2


async def test_what_memory_holds_of_a_manifest_goes_at_once_for_every_process(
    client: httpx.AsyncClient, app: Application, registry: Registry, file
):
    """`registry` is another process on the same data: it finds the damage, `client`'s cache had the answer."""
    remote = Remote(client, "team-a/app")
    await push(remote)
    for _ in range(3):
        assert await remote.statuses(LAYER_PATH, MANIFEST_PATH) == [200, 200]
    file(LAYER).unlink()
    blob = await registry.pulls.get_blob(RepositoryName("team-a/app"), Digest.of(LAYER))
    with pytest.raises(Exception, match="is missing"):
        await anext(blob.read(0, blob.size))
    assert await remote.statuses(LAYER_PATH, MANIFEST_PATH) == [404, 404]


async def test_a_damaged_version_can_be_deleted(remote: Remote, registry: Registry, file):
    await push(remote)
    file(LAYER).unlink()
    await remote.call("GET", LAYER_PATH)
    assert (await remote.call("DELETE", "manifests/1.0")).status_code == 202
    assert (await remote.call("DELETE", MANIFEST_PATH)).status_code == 202
    assert (await remote.call("DELETE", LAYER_PATH)).status_code == 202
    error_of(await remote.call("GET", MANIFEST_PATH), 404, "MANIFEST_UNKNOWN")


async def test_a_blob_that_was_pushed_again_meanwhile_is_not_taken_for_damaged(
    remote: Remote, registry: Registry, file
):
    """Somebody found its row, lost its file to a healing push, and must not speak of the new file."""
    await push(remote)
    stale = await registry.pulls.get_blob(RepositoryName("team-a/app"), Digest.of(LAYER))
    file(LAYER).unlink()
    await remote.call("GET", LAYER_PATH)
    await push(remote)
    with pytest.raises(Exception, match="deleted or pushed again while it was read"):
        await anext(stale.read(0, stale.size))
    assert await remote.statuses(LAYER_PATH, MANIFEST_PATH) == [200, 200]


async def test_pushes_at_once_of_a_damaged_blob_leave_one_file(
    client: httpx.AsyncClient, registry: Registry, settings: Settings, file
):
    remotes = [Remote(client, f"team-{letter}/app") for letter in "abcd"]
    await push(remotes[0])
    before = files(settings)
    flip(file(LAYER))
    await remotes[0].call("GET", LAYER_PATH)
    await asyncio.gather(
        *[remote.push_blob(LAYER) for remote in remotes],
        registry.push_blob(RepositoryName("team-e/app"), Caller(), Digest.of(LAYER), pieces(LAYER)),
    )
    for remote in remotes:
        assert (await remote.call("GET", LAYER_PATH)).content == LAYER
    assert files(settings) == before


async def test_what_a_chart_is_judged_by_is_what_was_pushed(remote: Remote, file):
    """A push reads the archive that an earlier one left here, whose damage nobody has met yet."""
    chart = Chart(1)
    for content in (CONFIG, chart.layer):
        await remote.push_blob(content)
    flip(file(chart.layer))
    message = error_of(await remote.put_manifest(chart.manifest, "1.0.0"), 500, "BLOB_UNKNOWN")
    assert "its bytes have the digest" in message
    await remote.push_blob(chart.layer)
    await remote.push_manifest(chart.manifest, "1.0.0")


def test_a_blob_that_ends_early_in_the_middle_cuts_the_connection(tmp_path: Path):
    """Bytes are never made up: what was announced does not come, and the blob is absent from then on."""
    content = bytes(40_000_000)
    url = f"/v2/team-a/app/blobs/{Digest.of(content)}"
    with serving(tmp_path) as server:
        server.request("POST", f"team-a/app/blobs/uploads/?digest={Digest.of(content)}", content=content)
        (path,) = (tmp_path / "data/blobs").rglob(f"{Digest.of(content).hex}.*")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
            client.request("GET", url)
            answer = client.getresponse()
            assert answer.status == 200
            answer.read(1000)
            os.truncate(path, 20_000_000)
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
        assert httpx.head(f"http://{server.host}{url}", trust_env=False).status_code == 404
        said = server.log.read_text()
    print(said)
    assert said.count("is damaged") == 1
    assert "Traceback" not in said
