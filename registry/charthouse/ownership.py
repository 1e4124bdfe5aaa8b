"""That a database and a data folder belong together: to another database all blobs are files that no row names, and
collection removes them after a day.

Both keep the same id, the folder in `registry.id`. A database may have several folders; a folder has one database.
"""

import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from charthouse import queries
from charthouse.database import Database, DatabaseError
from charthouse.errors import DigestInvalid
from charthouse.locks import FileLock
from charthouse.names import Digest

ID_SIZE = 32  # hexadecimal digits
LOOKED_AT = 100  # blobs of a folder that has no id yet

WAYS_OUT = "name the database that knows them with --database or CHARTHOUSE_DATABASE, or their folder with --data"


def demand_no_blobs(data: Path) -> None:
    """Before tables are made in an empty database. It was lost, or another one was meant: raises DatabaseError."""
    if any(_blob_files(data)):
        blobs = (data / "blobs").absolute()
        raise DatabaseError(
            f"the database is empty, and {blobs} holds blobs: name the database that knows them with --database or"
            f" CHARTHOUSE_DATABASE, or restore a backup into another folder; to begin anew, remove {blobs}"
        )


async def claim(data: Path, database: Database, *, durable: bool) -> None:
    """Gives both an id where there is none. Raises DatabaseError when the folder's blobs are another registry's."""
    known = await database.read(queries.registry_id)
    if known is None:
        known = await database.write(queries.give_registry_id, secrets.token_hex(ID_SIZE // 2))
    path = data / "registry.id"
    found = _read(path)
    if found == known:
        return
    if found and any(_blob_files(data)):
        raise DatabaseError(
            f"{(data / 'blobs').absolute()} holds the blobs of another registry than this database's: {WAYS_OUT};"
            f" if they do belong together, remove {path.absolute()}"
        )
    await _demand_known_blobs(data, database)
    _write(path, known, durable=durable)


async def _demand_known_blobs(data: Path, database: Database) -> None:
    """Folders had no id before schema 0012: the database names one of the first blobs that are found in it."""
    files = list(itertools.islice(_blob_files(data), LOOKED_AT))
    for file in files:
        digest = _digest(file)
        if digest and await database.read(queries.stored_blob, digest) is not None:
            return
    if files:
        raise DatabaseError(
            f"the database knows none of {len(files)} blobs in {(data / 'blobs').absolute()}: {WAYS_OUT};"
            " to begin anew, remove them"
        )


def _blob_files(data: Path) -> Iterator[Path]:
    return (path for path in (data / "blobs").rglob("*") if path.is_file())


def _digest(file: Path) -> Digest | None:
    """Of `…/sha256/ab/<hex>.<unique>`."""
    try:
        return Digest.parse(f"{file.parents[1].name}:{file.name.partition('.')[0]}")
    except DigestInvalid:
        return None


def _read(path: Path) -> str:
    """Empty where there is none, and for what a crash left of one."""
    found = path.read_text("ascii", "replace").strip() if path.exists() else ""
    return found if len(found) == ID_SIZE else ""


def _write(path: Path, known: str, *, durable: bool) -> None:
    with FileLock(path) as file:
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"{known}\n".encode(), 0)
        if durable:
            os.fsync(file.fileno())
