"""A database that knows nothing, over a folder of blobs: a mistake that must not cost them.

To collection they would all be files that no row names, and go after a day.
"""

import os
import time
from pathlib import Path

import pytest

from charthouse.composition import open_existing, open_registry
from charthouse.core import Caller, Registry
from charthouse.errors import DatabaseError
from charthouse.names import Digest, RepositoryName
from charthouse.settings import DATABASE_NAME, Settings, load

LAYER = bytes(20_000)
LONG_AGO = time.time() - 7 * 24 * 3600


async def push(registry: Registry) -> None:
    async def pieces():
        yield LAYER

    await registry.push_blob(RepositoryName("team-a/app"), Caller(), Digest.of(LAYER), pieces())


def files(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]


async def collect(settings: Settings) -> None:
    registry = await open_existing(settings)
    try:
        await registry.collector.run()
    finally:
        await registry.close()


@pytest.fixture
async def elsewhere(settings: Settings, target_url: str) -> Settings:
    """The same folder with another database, which is empty: it was lost, or is not the one that is meant."""
    registry = await open_registry(settings, durable=False)
    await push(registry)
    await registry.close()
    (path,) = files(settings.data)
    os.utime(path, (LONG_AGO, LONG_AGO))
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
