"""What is stored, as it was pushed or not at all: whatever is read whole is compared with its digest first.

What turns out to be damaged is marked before the next answer, so that it is absent for who would push it, and healed by
the next push.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

from charthouse import queries, transactions
from charthouse.blobs import BlobStore, Damage
from charthouse.database import Database
from charthouse.errors import BlobDamaged, BlobUnknown, ManifestDamaged, ManifestUnknown, RegistryError
from charthouse.names import Digest, RepositoryName
from charthouse.queries import StoredBlob, StoredManifest

log = logging.getLogger(__name__)

WHOLE_LIMIT = 1024 * 1024  # bytes of a blob that is kept in memory until it is all there
HASHED_AT_ONCE = 64 * 1024  # bytes: 60 µs, what a change of threads costs as well

Pieces = AsyncIterator[bytes]


class Reading:
    def __init__(self, database: Database, store: BlobStore, now: Callable[[], int]) -> None:
        self._database = database
        self._store = store
        self._now = now

    # --- manifests ----------------------------------------------------------------------------------------------------

    async def check_manifest(self, repository: RepositoryName, manifest: StoredManifest) -> None:
        """Raises MANIFEST_UNKNOWN (500) when something of it is damaged."""
        if manifest.damage:
            raise _damaged_manifest(repository, manifest)
        actual = Digest.of(manifest.content, Digest(manifest.digest).algorithm)
        if actual != manifest.digest:
            raise await self._found_damaged_manifest(repository, manifest, f"its bytes have the digest {actual}")

    def is_sound(self, manifest: StoredManifest) -> bool:
        """What is not is left to `check_manifest`, which gives alarm."""
        algorithm = Digest(manifest.digest).algorithm
        return not manifest.damage and Digest.of(manifest.content, algorithm) == manifest.digest

    async def _found_damaged_manifest(
        self, repository: RepositoryName, manifest: StoredManifest, how: str
    ) -> RegistryError:
        if not await self._mark(transactions.mark_manifest, repository, manifest, how):
            return ManifestUnknown(f"{repository}@{manifest.digest} was deleted or pushed again while it was read")
        error = _damaged_manifest(repository, manifest)
        log.critical("%s (%s)", error.message, how)
        return error

    # --- blobs --------------------------------------------------------------------------------------------------------

    def check_blob(self, blob: StoredBlob) -> None:
        """Raises BLOB_UNKNOWN (500) when it is known to be damaged."""
        if blob.damage:
            raise _damaged(blob, blob.damage)

    async def pieces(self, blob: StoredBlob, start: int, length: int) -> Pieces:
        """A small one that is read whole is compared; all others end early rather than with other bytes."""
        if length == blob.size <= WHOLE_LIMIT:
            yield await self.whole(blob)
            return
        async for piece in self._pieces(blob, start, length):
            yield piece

    async def whole(self, blob: StoredBlob) -> bytes:
        """All its bytes, having seen that they are what was pushed."""
        content = b"".join([piece async for piece in self._pieces(blob, 0, blob.size)])
        actual = await digest_of(content, Digest(blob.digest).algorithm)
        if actual != blob.digest:
            raise await self._found_damage(blob, f"its bytes have the digest {actual}")
        return content

    def whole_at_once(self, blob: StoredBlob) -> bytes | None:
        """The same of a small one that is in memory, in the system's if not in ours; None for all others, and for what
        is not sound: `whole` gives alarm."""
        if blob.size > HASHED_AT_ONCE:
            return None
        content = blob.content if blob.key is None else self._store.read_at_once(blob.key, blob.size)
        if content is None or Digest.of(content, Digest(blob.digest).algorithm) != blob.digest:
            return None
        return content

    async def content_of(self, digest: Digest) -> bytes:
        """For the registry's own use, whoever holds the blob. Raises BLOB_UNKNOWN."""
        found = await self._database.read(queries.stored_blob, digest)
        if found is None:
            raise BlobUnknown(f"there is no blob {digest}")
        self.check_blob(found)
        return await self.whole(found)

    async def _pieces(self, blob: StoredBlob, start: int, length: int) -> Pieces:
        if blob.key is None:
            yield (blob.content or b"")[start : start + length]
            return
        try:
            async for piece in self._store.read(blob.key, blob.size, start, length):
                yield piece
        except Damage as damage:
            raise await self._found_damage(blob, damage.how) from damage

    async def _found_damage(self, blob: StoredBlob, how: str) -> RegistryError:
        """Gives alarm, and lets everybody know before the next answer. Returns what to raise."""
        if not await self._mark(transactions.mark_blob, blob, how):
            return BlobUnknown(f"blob {blob.digest} was deleted or pushed again while it was read")
        error = _damaged(blob, how)
        log.critical("%s", error.message)
        return error

    async def _mark(self, mark: Callable[..., bool], *what: object) -> bool:
        """False when it is not stored like this any more."""
        try:
            return await self._database.write(mark, *what, self._now())
        except Exception:
            log.exception("that something is damaged could not be remembered")
            return True


async def digest_of(content: bytes, algorithm: str) -> Digest:
    hashed = partial(Digest.of, content, algorithm)
    return hashed() if len(content) <= HASHED_AT_ONCE else await asyncio.to_thread(hashed)


def _damaged(blob: StoredBlob, how: str) -> BlobDamaged:
    return BlobDamaged(f"blob {blob.digest} is damaged, {how}: push it again")


def _damaged_manifest(repository: RepositoryName, manifest: StoredManifest) -> ManifestDamaged:
    what = f"{manifest.damage}, which it names, is" if manifest.damage not in (None, manifest.digest) else "it is"
    return ManifestDamaged(f"{repository} cannot give manifest {manifest.digest}, {what} damaged: push it again")
