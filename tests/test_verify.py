"""`verify`: what is damaged is found without anybody asking for it, and what is good again is no longer absent."""

import asyncio
import json
import os
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from charthouse.app import Application
from charthouse.core import Registry
from charthouse.database import Connection
from charthouse.listing import print_checked
from charthouse.manifest import OCI_INDEX
from charthouse.names import Digest
from charthouse.settings import Settings
from charthouse.verification import Checked, Pace
from support.requests import Remote, image, index

LAYERS = [bytes([number]) * 20_000 for number in range(5)]
MANIFEST = image(b"{}", *LAYERS)


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, "team-a/app")


def file(settings: Settings, content: bytes) -> Path:
    (path,) = (settings.data / "blobs").rglob(f"{Digest.of(content).hex}.*")
    return path


async def push(remote: Remote) -> None:
    for content in (b"{}", *LAYERS):
        await remote.push_blob(content)
    await remote.push_manifest(MANIFEST, "1.0")


async def verify(registry: Registry, *, deep: bool = False) -> list[Checked]:
    return [checked async for checked in registry.verification.run(Pace(0), deep=deep)]


async def damaged(registry: Registry, *, deep: bool = False) -> dict[str, str]:
    return {checked.digest: checked.how for checked in await verify(registry, deep=deep) if checked.how}


async def execute(app: Application, sql: str, **parameters: object) -> None:
    def change(connection: Connection) -> None:
        connection.execute(text(sql), parameters)

    await app.registry._database.write(change)


def break_four(settings: Settings) -> None:
    """One by one of each kind; the fifth stays."""
    missing, short, long, flipped = (file(settings, content) for content in LAYERS[:4])
    missing.unlink()
    os.truncate(short, 7)
    long.write_bytes(LAYERS[2] + b"!")
    flipped.write_bytes(LAYERS[3][:-1] + b"!")


WORDS = [
    "is missing",
    "has 7 bytes in place of 20,000",
    "has 20,001 bytes in place of 20,000",
    "have the digest sha256:",
]


@pytest.mark.parametrize("deep", [False, True])
async def test_the_size_of_all_files_or_their_bytes_too(remote: Remote, app: Application, settings, deep: bool):
    await push(remote)
    assert await damaged(app.registry, deep=True) == {}
    break_four(settings)
    found = await damaged(app.registry, deep=deep)
    expected = [Digest.of(content) for content in LAYERS[: 4 if deep else 3]]
    assert set(found) == set(expected)
    assert all(words in found[digest] for words, digest in zip(WORDS, expected, strict=False))
    statuses = await remote.statuses(*[f"blobs/{Digest.of(content)}" for content in LAYERS], "manifests/1.0")
    assert statuses == [404, 404, 404, 404 if deep else 200, 200, 404]
    await push(remote)
    assert await damaged(app.registry, deep=deep) == {}
    assert await remote.statuses("manifests/1.0") == [200]


async def test_rows_are_hashed_without_being_asked_to(remote: Remote, app: Application):
    await push(remote)
    await execute(app, "UPDATE blobs SET content = :bad WHERE digest = :digest", bad=b"[]", digest=Digest.of(b"{}"))
    bad = MANIFEST.replace(b"1", b"7", 1)
    await execute(
        app, "UPDATE manifests SET content = :bad WHERE digest = :digest", bad=bad, digest=Digest.of(MANIFEST)
    )
    assert set(await damaged(app.registry)) == {Digest.of(b"{}"), Digest.of(MANIFEST)}
    assert await remote.statuses(f"blobs/{Digest.of(b'{}')}", "manifests/1.0") == [404, 404]
    await push(remote)
    assert await damaged(app.registry) == {}


async def test_it_names_the_versions_that_cannot_be_pulled_in_all_repositories_and_above(
    client: httpx.AsyncClient, app: Application, settings: Settings
):
    one, other = Remote(client, "team-a/app"), Remote(client, "team-b/app")
    for remote in (one, other):
        await push(remote)
    await one.push_manifest(MANIFEST, "1.0.1")
    parent = index(MANIFEST)
    await one.push_manifest(parent, media_type=OCI_INDEX)
    await one.push_image("sound")
    file(settings, LAYERS[0]).unlink()
    (found,) = [checked for checked in await verify(app.registry) if checked.how]
    assert sorted(found.versions) == [
        "team-a/app:1.0",
        "team-a/app:1.0.1",
        f"team-a/app@{Digest.of(parent)}",
        "team-b/app:1.0",
    ]


async def test_a_damaged_manifest_concerns_its_own_repository_and_the_indexes_above(
    client: httpx.AsyncClient, app: Application
):
    one, other = Remote(client, "team-a/app"), Remote(client, "team-b/app")
    for remote in (one, other):
        await push(remote)
    await one.push_manifest(index(MANIFEST), "all", OCI_INDEX)
    await execute(
        app,
        "UPDATE manifests SET content = :bad WHERE digest = :digest"
        " AND repository_id = (SELECT id FROM repositories WHERE name = 'team-a/app')",
        bad=b"{}",
        digest=Digest.of(MANIFEST),
    )
    (found,) = [checked for checked in await verify(app.registry) if checked.how]
    assert (found.kind, found.repository) == ("manifest", "team-a/app")
    assert sorted(found.versions) == ["team-a/app:1.0", "team-a/app:all"]
    assert await other.statuses("manifests/1.0") == [200]


async def test_what_is_good_again_is_no_longer_absent(remote: Remote, app: Application, settings: Settings):
    """A disk that was not mounted is mounted again."""
    await push(remote)
    path = file(settings, LAYERS[0])
    path.rename(settings.data / "aside")
    await damaged(app.registry)
    (settings.data / "aside").rename(path)
    assert await remote.statuses("manifests/1.0") == [404]
    again = [checked.digest for checked in await verify(app.registry) if checked.is_sound_again]
    assert again == [Digest.of(LAYERS[0])]
    assert await remote.statuses("manifests/1.0") == [200]
    assert (await remote.call("GET", f"blobs/{again[0]}")).content == LAYERS[0]
    assert not any(checked.is_sound_again for checked in await verify(app.registry))


async def test_a_right_size_does_not_excuse_bytes_that_were_found_wrong(
    remote: Remote, app: Application, settings: Settings
):
    await push(remote)
    break_four(settings)
    await damaged(app.registry, deep=True)
    assert Digest.of(LAYERS[3]) in await damaged(app.registry)
    assert await remote.statuses(f"blobs/{Digest.of(LAYERS[3])}") == [404]


async def test_what_is_deleted_meanwhile_is_not_damaged(app: Application, settings: Settings, client):
    """Its row was read, and is gone when its file is looked for."""
    remote = Remote(client, "team-a/app")
    for content in LAYERS:
        await remote.push_blob(content)
    run = app.registry.verification.run(Pace(0), deep=True)
    first = await anext(run)
    for content in LAYERS:
        if (digest := Digest.of(content)) != first.digest:
            await execute(app, "DELETE FROM repository_blobs WHERE digest = :digest", digest=digest)
            await execute(app, "DELETE FROM blobs WHERE digest = :digest", digest=digest)
            file(settings, content).unlink()
    assert [checked async for checked in run] == []


async def test_more_than_one_page(remote: Remote, app: Application, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("charthouse.verification.PAGE", 2)
    await push(remote)
    for number in range(4):
        await remote.push_image(annotations={"number": str(number)})
    found = await verify(app.registry, deep=True)
    assert [checked.kind for checked in found] == ["blob"] * 6 + ["manifest"] * 5
    assert len({checked.digest for checked in found}) == 11
    assert await app.registry.verification.totals() == (11, sum(checked.size for checked in found))


async def test_no_more_bytes_pass_in_a_second_than_the_rate():
    time, slept = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal time
        slept.append(seconds)
        time += seconds

    pace = Pace(1000, lambda: time, sleep)
    for _ in range(4):
        await pace(500)
    assert (time, slept) == (2.0, [0.5] * 4)
    time += 10  # the disk was slow: nothing to wait for
    await pace(3000)
    assert len(slept) == 4
    await asyncio.gather(*[Pace(0, lambda: time, sleep)(10**12)])
    assert len(slept) == 4


def test_the_command_says_what_to_do_and_names_ten_versions_and_no_more(capsys: pytest.CaptureFixture[str]):
    found = [
        Checked("blob", "sha256:aa", 3, how="its file is missing", versions=[f"team-a/app:{n}" for n in range(12)]),
        Checked("blob", "sha256:bb", 1000, is_sound_again=True),
        Checked("blob", "sha256:cc", 5, how="its file has 3 bytes in place of 5"),
        Checked("manifest", "sha256:dd", 7, "team-a/app"),
    ]
    print_checked(found, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["damaged: blob sha256:aa, its file is missing", "  team-a/app:0"]
    assert lines[10:] == [
        "  team-a/app:9",
        "  and 2 more, see --json",
        "damaged: blob sha256:cc, its file has 3 bytes in place of 5",
        "  no manifest names it",
        "sound again: blob sha256:bb",
        "3 blobs and 1 manifests, 1,015 bytes: 2 damaged",
        "push these versions again, with the same files: that replaces what is damaged",
    ]
    print_checked(found, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["sound_again"] == ["sha256:bb"]
    assert [len(each["versions"]) for each in document["damaged"]] == [12, 0]
    assert (document["blobs"], document["manifests"], document["bytes"]) == (3, 1, 1015)
