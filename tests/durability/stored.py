"""What a data folder holds beside what its database names: while no server runs on it."""

import asyncio
import hashlib
import time
from dataclasses import dataclass

from sqlalchemy import text

from charthouse import clocks
from charthouse.composition import open_registry
from charthouse.database import Connection
from charthouse.settings import Settings

A_YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Stored:
    damaged: list[str]  # keys of named files without their bytes
    unnamed: list[str]  # files that no row names: a crash may leave some
    unnamed_left: list[str]  # of them, after a collection
    uploads: int  # files of unfinished uploads, which went when they had expired
    uploads_left: list[str]  # and what did not go


def look(settings: Settings) -> Stored:
    return asyncio.run(_look(settings))


def damaged(settings: Settings) -> list[str]:
    """Keys of named files without their bytes, beside a server."""
    return asyncio.run(_damaged_beside(settings))


async def _damaged_beside(settings: Settings) -> list[str]:
    registry = await open_registry(settings)
    try:
        return _damaged(settings, await registry._database.scan(_named))
    finally:
        await registry.close()


def collect(settings: Settings) -> None:
    """A pass of garbage collection now, beside a server."""
    asyncio.run(_collect(settings))


async def _collect(settings: Settings) -> None:
    registry = await open_registry(settings)
    try:
        await registry.collector.run()
    finally:
        await registry.close()


async def _look(settings: Settings) -> Stored:
    registry = await open_registry(settings, clock=lambda: time.time() + A_YEAR, steady=clocks.steady)
    try:
        named = await registry._database.scan(_named)
        blobs, uploads = settings.data / "blobs", settings.data / "uploads"
        files = {str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()}
        without_bytes = _damaged(settings, named)
        count = len(list(uploads.iterdir()))
        await registry.collector.run()  # finds that the clock was set
        await registry.collector.run()
        left = {str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()}
        return Stored(
            without_bytes,
            sorted(files - named.keys()),
            sorted(left - (await registry._database.scan(_named)).keys()),
            count,
            sorted(path.name for path in uploads.iterdir()),
        )
    finally:
        await registry.close()


def _named(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT key, digest FROM blobs WHERE key IS NOT NULL")).all()
    return dict(rows)


def _damaged(settings: Settings, named: dict[str, str]) -> list[str]:
    blobs = settings.data / "blobs"
    return [
        key for key, digest in named.items() if not (blobs / key).exists() or _digest(blobs / key, digest) != digest
    ]


def _digest(path, digest: str) -> str:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, path.read_bytes()).hexdigest()}"
