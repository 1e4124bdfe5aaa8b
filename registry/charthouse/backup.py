"""`charthouse backup` and `charthouse restore`: all that a registry keeps, out of a running one, into an empty one.

A backup takes the metadata from one snapshot, and blobs before and after it: those of the snapshot are all there, and
others do no harm. Blobs have their digests as names, and their bytes are compared with them when they are copied.
What is left out: uploads that are not finished, the key of upload ids, the keys that sign access tokens, certificates.
A new registry makes its own, and a backup can sign nothing.
"""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError

from charthouse import migrate, queries, transactions
from charthouse.blobs import BlobStore, Damage
from charthouse.database import Connection, Database, DatabaseError
from charthouse.database.rows import Fetched
from charthouse.database.sqlite import connect, driver, prepare, version
from charthouse.database.sqlite_connection import Direct, open_file
from charthouse.names import Digest
from charthouse.queries import StoredBlob
from charthouse.settings import DATABASE_NAME, Settings
from charthouse.tables import SCHEMA_VERSION
from charthouse.vaults import METADATA, VaultError, VaultReader, VaultWriter
from charthouse.vaults.folder import sync_folder

log = logging.getLogger(__name__)

PAGE = 100  # blobs of which the rows are in memory at once
PIECE = 1024 * 1024  # bytes of a blob
UNFINISHED = "restore.unfinished"  # in the data folder: a server does not start in it
WORK = "restore.work"
OF_FILE_SYSTEMS = {"lost+found"}  # in a folder that is empty all the same

Advance = Callable[[], None]


@dataclass(slots=True)
class Copied:
    """What a backup did. `damaged` are blobs whose bytes are not what was pushed, and why; the backup lacks them."""

    blobs: int = 0  # that the backup has
    new: int = 0
    new_bytes: int = 0
    gone: int = 0  # deleted and collected while it ran
    damaged: dict[str, str] = field(default_factory=dict)


class Backup:
    def __init__(self, database: Database, store: BlobStore, now: Callable[[], int]) -> None:
        self._database = database
        self._store = store
        self._now = now

    async def count(self) -> int:
        """Blobs and manifests, for a progress bar."""
        return (await self._database.scan(queries.stored_totals))[0]

    async def run(self, vault: VaultWriter, advance: Advance) -> Copied:
        """Raises VaultError, StorageFull, OSError; then the backup that was there before is what it was."""
        copied = Copied()
        await self._copy_stored(vault, copied, advance)
        metadata = vault.work / METADATA
        with _new_metadata(metadata) as taken:
            await self._database.scan(queries.copy_tables, taken)
            await self._copy_named(taken, vault, copied)
        await asyncio.to_thread(vault.finish, metadata)
        return copied

    async def _copy_stored(self, vault: VaultWriter, copied: Copied, advance: Advance) -> None:
        """What is there now, so that little is left to be copied when the snapshot is taken."""
        last = ""
        while blobs := await self._database.scan(queries.blobs_after, last, PAGE):
            for blob in blobs:
                if blob.key is not None and blob.is_sound and not vault.has(Digest(blob.digest), blob.size):
                    await self._copy(blob, vault, copied)
                advance()
            last = blobs[-1].digest

    async def _copy_named(self, taken: Connection, vault: VaultWriter, copied: Copied) -> None:
        """What the snapshot names and is not copied yet."""
        last = ""
        while files := queries.files_after(taken, last, PAGE):
            for name, size, key in files:
                blob = StoredBlob(name, size, key, None)
                if vault.has(Digest(name), size) or await self._copy(blob, vault, copied):
                    copied.blobs += 1
                elif name not in copied.damaged:
                    queries.forget_blob(taken, name)
                    copied.gone += 1
            last = files[-1][0]

    async def _copy(self, blob: StoredBlob, vault: VaultWriter, copied: Copied) -> bool:
        """False for what is gone, and for what is damaged. It may have been pushed again, and then is elsewhere."""
        while True:
            try:
                fault = await vault.add(Digest(blob.digest), blob.size, self._read(blob))
            except Damage as damage:
                fault = damage.how
            if not fault:
                copied.new += 1
                copied.new_bytes += blob.size
                return True
            if await self._database.write(transactions.mark_blob, blob, fault, self._now()):
                log.critical("blob %s is damaged: %s", blob.digest, fault)
                copied.damaged[blob.digest] = fault
                return False
            found = await self._database.scan(queries.stored_blob, Digest(blob.digest))
            if found is None:
                return False
            blob = found

    def _read(self, blob: StoredBlob) -> AsyncIterator[bytes]:
        if blob.key is None:
            return _once(blob.content or b"")
        return self._store.read(blob.key, blob.size, 0, blob.size)

    async def fill(self, taken: "Taken", vault: VaultReader, advance: Advance) -> list[str]:
        """Puts a backup into this registry, which is empty: blobs, and then all rows in one transaction.

        Returns what is wrong with blobs, a line each. Raises StorageFull, OSError.
        """
        filled = await self._database.scan(queries.filled_table)
        if filled is not None:
            raise _not_empty(filled)
        faults = []
        last = ""
        while files := queries.files_after(taken.connection, last, PAGE):
            for name, size, _ in files:
                digest = Digest.parse(name)
                key, fault = await self._take(digest, size, vault)
                if fault:
                    faults.append(f"blob {digest}: {fault}")
                queries.set_key(taken.connection, digest, key)
                advance()
            last = files[-1][0]
        await self._database.write(_fill, taken.connection, serials=taken.serials)
        return faults

    async def _take(self, digest: Digest, size: int, vault: VaultReader) -> tuple[str, str]:
        """Its key, and what is wrong with its bytes: then nothing is at that key."""
        nowhere = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.lost"
        file = vault.open(digest)
        if file is None:
            return nowhere, "the backup does not have it"
        with file:
            upload = await self._store.open_upload(f"restore-{digest.hex}")
            try:
                for piece in _pieces(file):
                    await upload.write(piece)
                found = await upload.digest(digest.algorithm)
                if upload.offset == size and found == digest:
                    return await upload.publish(digest), ""
                fault = f"in the backup it has {upload.offset:,} of {size:,} bytes and the digest {found}"
                await upload.rewind(0)
                return nowhere, fault
            finally:
                await upload.close()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(PIECE), b"")


def _fill(connection: Connection, taken: Connection, *, serials: bool) -> None:
    filled = queries.filled_table(connection)
    if filled is not None:
        raise _not_empty(filled)
    queries.copy_tables(taken, connection)
    if serials:
        queries.advance_serials(connection)


def _not_empty(table: str) -> VaultError:
    return VaultError(f"the database is not empty, its table {table} has rows: restore into one that is")


@contextlib.contextmanager
def _new_metadata(path: Path) -> Iterator[Direct]:
    """An empty database with our tables in one file, written without a journal: it is moved only when it is whole."""
    try:
        prepare(path)
        with connect(path) as connection:
            raw = driver(connection)
            raw.execute("PRAGMA journal_mode=DELETE").fetchall()
            raw.execute("PRAGMA synchronous=OFF")  # synced when it is finished
            raw.execute("BEGIN")
            migrate.upgrade(connection)
            yield _Metadata(raw)
            raw.execute("COMMIT")
    except (sqlite3.DatabaseError, DBAPIError) as error:
        raise _unusable(error) from error


class _Metadata(Direct):
    """What goes wrong with it is not the registry's database."""

    def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None, /
    ) -> Fetched:
        try:
            return super().execute(statement, parameters)
        except sqlite3.DatabaseError as error:
            raise _unusable(error) from error


def _unusable(error: BaseException) -> VaultError:
    reason = error.orig if isinstance(error, DBAPIError) else error
    return VaultError(f"the backup's {METADATA} cannot be used: {reason}")


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup's metadata in a file of our own, with this program's tables."""

    connection: Direct
    serials: bool  # whether the database that it goes to has sequences

    def count(self) -> int:
        return queries.count_files(self.connection)


@contextlib.contextmanager
def restoring(settings: Settings, vault: VaultReader) -> Iterator[Taken]:
    """Around the making of a registry and its `fill`: the data folder says that it is unfinished until all is there.

    A restore that did not end well is begun again in the same folder. Raises VaultError when the folder is not empty,
    DatabaseError for a backup of a newer program.
    """
    _demand_empty(settings.data)
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = settings.data / WORK
    work.mkdir(mode=0o700)
    (settings.data / UNFINISHED).touch()
    sync_folder(settings.data)
    try:
        metadata = work / METADATA
        vault.metadata(metadata)
        _migrate(metadata)
        with contextlib.closing(open_file(metadata)) as opened:
            opened.execute("PRAGMA synchronous=OFF")
            yield Taken(_Metadata(opened), serials=bool(settings.database))
    except (VaultError, DatabaseError):
        _clear(settings.data)
        raise
    shutil.rmtree(work)
    (settings.data / UNFINISHED).unlink()
    sync_folder(settings.data)


def _migrate(path: Path) -> None:
    try:
        found = version(path)
    except sqlite3.DatabaseError as error:
        raise _unusable(error) from None
    if found is None:
        raise VaultError(f"the backup's {METADATA} has none of our tables")
    if found > SCHEMA_VERSION:
        raise VaultError(
            f"the backup has schema {found} and this program knows up to {SCHEMA_VERSION}:"
            " restore it with the newer charthouse that wrote it"
        )
    try:
        migrate.migrate_sqlite(path)
    except DatabaseError as error:  # its words name a file that goes with this restore
        raise _unusable(error.__cause__ or error) from error


def _demand_empty(data: Path) -> None:
    if not data.exists():
        return
    found = {path.name for path in data.iterdir()} - OF_FILE_SYSTEMS
    if UNFINISHED in found:
        _clear(data)
    elif found:
        what = "holds a registry" if DATABASE_NAME in found or "blobs" in found else f"holds {min(found)}"
        raise VaultError(f"{data.absolute()} is not empty, it {what}: restore into an empty folder, with --data")


def _clear(data: Path) -> None:
    """All that a restore began; the folder was empty then."""
    for path in data.iterdir():
        if path.name in OF_FILE_SYSTEMS or path.name == UNFINISHED:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (data / UNFINISHED).unlink(missing_ok=True)


def demand_finished(data: Path) -> None:
    """Raises DatabaseError in a folder that a restore did not finish."""
    if (data / UNFINISHED).exists():
        raise DatabaseError(f"a restore into {data.absolute()} did not end: run `charthouse restore` again")
