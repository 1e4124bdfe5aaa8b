"""A database that knows nothing of the blobs in its folder: a mistake that must not cost them.

To collection they would all be files that no row names, and go after a day.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from charthouse.composition import open_existing, open_registry
from charthouse.core import Caller, Registry
from charthouse.errors import DatabaseError
from charthouse.names import Digest, RepositoryName
from charthouse.settings import DATABASE_NAME, Settings, load

LAYER = bytes(20_000)
OTHERS = b"of another registry" * 1000
ID = "registry.id"
LONG_AGO = time.time() - 7 * 24 * 3600


async def push(registry: Registry, layer: bytes = LAYER) -> None:
    async def pieces():
        yield layer

    await registry.push_blob(RepositoryName("team-a/app"), Caller(), Digest.of(layer), pieces())


def files(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]


async def collect(settings: Settings) -> None:
    registry = await open_existing(settings)
    try:
        await registry.collector.run()
    finally:
        await registry.close()


async def start(settings: Settings, *layers: bytes) -> str:
    """With these pushed and old enough to be collected. Returns the registry's id."""
    registry = await open_registry(settings, durable=False)
    for layer in layers:
        await push(registry, layer)
    await registry.close()
    for path in files(settings.data):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return (settings.data / ID).read_text().strip()


@pytest.fixture
async def elsewhere(settings: Settings, target_url: str) -> Settings:
    """The same folder with another database, which is empty: it was lost, or is not the one that is meant."""
    await start(settings, LAYER)
    for path in settings.data.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    return load({"data": settings.data, "database": target_url}, environ={})


async def test_an_empty_database_is_refused_where_blobs_are_and_they_stay(elsewhere: Settings):
    for _ in range(2):
        with pytest.raises(DatabaseError) as refusal:
            await collect(elsewhere)
        assert len(files(elsewhere.data)) == 1
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).startswith(f"the database is empty, and {elsewhere.data / 'blobs'} holds blobs: ")
        assert "--database" in str(refusal.value)
    assert not (elsewhere.data / DATABASE_NAME).exists()


async def test_without_the_blobs_it_begins_anew(elsewhere: Settings):
    for path in files(elsewhere.data):
        path.unlink()
    registry = await open_existing(elsewhere)
    await push(registry)
    await registry.close()
    assert len(files(elsewhere.data)) == 1


@pytest.fixture
async def anothers(settings: Settings, target_url: str, tmp_path: Path) -> Settings:
    """The folder with the database of another registry, which has blobs of its own."""
    await start(settings, LAYER)
    other = load({"data": tmp_path / "other", "database": target_url}, environ={})
    await start(other, OTHERS)
    for path in settings.data.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    for path in other.data.glob(f"{DATABASE_NAME}*"):
        shutil.copy(path, settings.data)
    return load({"data": settings.data, "database": target_url}, environ={})


async def test_another_registrys_database_is_refused_and_the_blobs_stay(anothers: Settings):
    for _ in range(2):
        with pytest.raises(DatabaseError) as refusal:
            await collect(anothers)
        assert len(files(anothers.data)) == 1
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).startswith(f"{anothers.data / 'blobs'} holds the blobs of another registry than this")
        assert f"if they do belong together, remove {anothers.data / ID}" in str(refusal.value)


@pytest.mark.parametrize("content", [None, "", "0123", "\0" * 33])
async def test_a_folder_without_an_id_is_not_believed_where_the_database_knows_none_of_its_blobs(anothers, content):
    """A folder of a program before schema 0012, or what a crash left of the file."""
    (anothers.data / ID).unlink()
    if content is not None:
        (anothers.data / ID).write_text(content)
    with pytest.raises(DatabaseError, match=r"the database knows none of 1 blobs in .*--database"):
        await collect(anothers)
    assert len(files(anothers.data)) == 1


async def test_a_folder_without_an_id_takes_that_of_the_database_that_knows_its_blobs(settings: Settings):
    given = await start(settings, LAYER, OTHERS)
    (settings.data / ID).unlink()
    (settings.data / "blobs/sha256/left-over").write_bytes(b"nobody's")
    assert await start(settings) == given
    assert len(given) == 32


async def test_a_folder_without_blobs_is_everybodys(anothers: Settings):
    other = (anothers.data.parent / "other" / ID).read_text().strip()
    for path in files(anothers.data):
        path.unlink()
    assert await start(anothers, LAYER) == other


async def test_an_id_stays_and_no_two_registries_have_the_same(settings: Settings, target_url: str, tmp_path: Path):
    given = await start(settings)
    assert await start(settings) == given
    assert await start(load({"data": tmp_path / "other", "database": target_url}, environ={})) != given
