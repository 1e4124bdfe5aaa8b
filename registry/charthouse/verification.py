"""Whether what is stored is what was pushed: `charthouse verify`, beside a running server or without.

Rows are hashed always, they are small; of a file the size is looked at, or all of it is read and hashed. What is
damaged is marked, and absent from then on; a mark goes when the bytes turn out to be good again.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from charthouse import queries, transactions
from charthouse.blobs import BlobStore, Damage
from charthouse.database import Database
from charthouse.names import Digest, RepositoryName
from charthouse.queries import StoredBlob, StoredManifest

PAGE = 100  # blobs or manifests that are read from the database at once


class Pace:
    """Waits so that at most `rate` bytes pass in a second, taken from the beginning; 0 is no limit."""

    def __init__(
        self,
        rate: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._now = now
        self._sleep = sleep
        self._begun = now()
        self._passed = 0

    async def __call__(self, size: int) -> None:
        if not self._rate:
            return
        self._passed += size
        ahead = self._passed / self._rate - (self._now() - self._begun)
        if ahead > 0:
            await self._sleep(ahead)


@dataclass(frozen=True, slots=True)
class Checked:
    """A blob, or a manifest of a repository, and what its bytes are worth.

    `how` says what is wrong with them. `versions` are the tags, and digests without one, that cannot be pulled for it.
    `is_sound_again` when it was marked as damaged and is not.
    """

    kind: Literal["blob", "manifest"]
    digest: str
    size: int
    repository: str = ""
    how: str = ""
    versions: Sequence[str] = ()
    is_sound_again: bool = False


class Verification:
    def __init__(self, database: Database, store: BlobStore, now: Callable[[], int]) -> None:
        self._database = database
        self._store = store
        self._now = now

    async def totals(self) -> tuple[int, int]:
        """The number of blobs and manifests, and their bytes."""
        return await self._database.scan(queries.stored_totals)

    async def run(self, pace: Pace, *, deep: bool) -> AsyncIterator[Checked]:
        """Everything, one after the other, but for what is deleted or pushed again in the middle of it.

        Raises DatabaseError when the database's own file is damaged: then nobody knows what else is.
        """
        await self._database.check_file(deep=deep)
        last = ""
        while blobs := await self._database.scan(queries.blobs_after, last, PAGE):
            for blob in blobs:
                checked = await self._blob(blob, pace, deep=deep)
                if checked is not None:
                    yield checked
            last = blobs[-1].digest
        after = (0, "")
        while manifests := await self._database.scan(queries.manifests_after, *after, PAGE):
            for _, repository, manifest in manifests:
                checked = await self._manifest(repository, manifest)
                if checked is not None:
                    yield checked
            after = (manifests[-1][0], manifests[-1][2].digest)

    async def recount(self) -> list[RepositoryName]:
        """What quotas go by, where it is not what the rows add up to: a fault, which is put right and given."""
        found = await self._database.scan(queries.miscounted)
        for repository in found:
            await self._database.write(transactions.recount, repository, self._now())
        return found

    async def _blob(self, blob: StoredBlob, pace: Pace, *, deep: bool) -> Checked | None:
        """A blob that is marked is read whole: whoever marked it may have."""
        digest = Digest(blob.digest)
        how = await self._fault(blob, pace, deep=deep or not blob.is_sound)
        if not how:
            again = not blob.is_sound and await self._database.write(transactions.unmark_blob, blob)
            return Checked("blob", digest, blob.size, is_sound_again=again)
        if not await self._database.write(transactions.mark_blob, blob, how, self._now()):
            return None
        versions = await self._database.scan(queries.versions_with_blob, digest)
        return Checked("blob", digest, blob.size, how=how, versions=versions)

    async def _fault(self, blob: StoredBlob, pace: Pace, *, deep: bool) -> str:
        if blob.key is None:
            return _other_digest(blob.content or b"", Digest(blob.digest))
        hashed = hashlib.new(Digest(blob.digest).algorithm)
        try:
            async for piece in self._store.read(blob.key, blob.size, 0, blob.size if deep else 0):
                await asyncio.to_thread(hashed.update, piece)
                await pace(len(piece))
        except Damage as damage:
            return damage.how
        return _compared(hashed.hexdigest(), Digest(blob.digest)) if deep else ""

    async def _manifest(self, repository: RepositoryName, manifest: StoredManifest) -> Checked | None:
        digest = Digest(manifest.digest)
        how = _other_digest(manifest.content, digest)
        if not how:
            again = manifest.damage is not None and await self._database.write(
                transactions.unmark_manifest, repository, manifest, self._now()
            )
            return Checked("manifest", digest, manifest.size, repository, is_sound_again=again)
        if not await self._database.write(transactions.mark_manifest, repository, manifest, how, self._now()):
            return None
        versions = await self._database.scan(queries.versions_with_manifest, repository, digest)
        return Checked("manifest", digest, manifest.size, repository, how, versions)


def _other_digest(content: bytes, digest: Digest) -> str:
    return _compared(Digest.of(content, digest.algorithm).hex, digest)


def _compared(found: str, digest: Digest) -> str:
    return "" if found == digest.hex else f"its bytes have the digest {digest.algorithm}:{found}"
