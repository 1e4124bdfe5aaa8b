"""What a data folder holds beside what its database names: while no server runs on it."""

import asyncio
import hashlib
import time
from dataclasses import dataclass

from sqlalchemy import text

from charthouse.composition import open_registry
from charthouse.database import Connection
from charthouse.settings import Settings

A_YEAR = 365 * 24 * 3600


@dataclass(frozen=True)
class Stored:
    damaged: list[str]  # keys of named files without their bytes
    unnamed: list[str]  # files that no row names: a crash may leave some
    uploads: int  # files of unfinished uploads, which went when they had expired
    uploads_left: list[str]  # and what did not go


def look(settings: Settings) -> Stored:
    return asyncio.run(_look(settings))


async def _look(settings: Settings) -> Stored:
    registry = await open_registry(settings, clock=lambda: time.time() + A_YEAR)
    try:
        named = await registry._database.scan(_named)
        blobs, uploads = settings.data / "blobs", settings.data / "uploads"
        files = {str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()}
        damaged = [key for key, digest in named.items() if key not in files or _digest(blobs / key, digest) != digest]
        count = len(list(uploads.iterdir()))
        await registry.forget_stale_uploads()
        return Stored(damaged, sorted(files - named.keys()), count, sorted(path.name for path in uploads.iterdir()))
    finally:
        await registry.close()


def _named(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT key, digest FROM blobs WHERE key IS NOT NULL")).all()
    return dict(rows)


def _digest(path, digest: str) -> str:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, path.read_bytes()).hexdigest()}"
