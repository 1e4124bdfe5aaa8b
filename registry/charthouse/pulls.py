"""Pull: manifests and blobs, and whether they are here.

Each operation has a twin that waits for nothing: it gives the same, raises the same, and None where it would have to
wait, for whoever then asks the other one (`at_once.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from charthouse import queries, transactions
from charthouse.database import Database
from charthouse.errors import BlobDamaged, BlobUnknown, ManifestDamaged, ManifestUnknown, NameUnknown
from charthouse.names import Digest, Reference, RepositoryName
from charthouse.queries import Absent, StoredBlob, StoredManifest
from charthouse.reading import Pieces, Reading

GRACE_SHARE = 10  # parts of the grace: answers closer together than one are recorded once


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a repository of that generation holds. `read(start, length)` gives its bytes in pieces, `at_once()`
    all of them, or None where that takes waiting.

    `is_named` says that a manifest of the repository names it: then it stays while the generation does. `is_file`, that
    its bytes are in the blob store.
    """

    digest: Digest
    size: int
    read: Callable[[int, int], Pieces]
    at_once: Callable[[], bytes | None]
    generation: int
    is_named: bool
    is_file: bool


class Pulls:
    """`grace` in milliseconds."""

    def __init__(self, database: Database, reading: Reading, now: Callable[[], int], grace: int) -> None:
        self._database = database
        self._reading = reading
        self._now = now
        self._grace = grace

    # --- manifests ----------------------------------------------------------------------------------------------------

    async def get_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest:
        """The exact bytes that were pushed. Raises NAME_UNKNOWN, MANIFEST_UNKNOWN (500: something of it is damaged)."""
        looked = await self._database.read(queries.look_for_manifest, repository, reference)
        found = _manifest(looked, repository, reference)
        await self._reading.check_manifest(repository, found)
        return found

    def get_manifest_at_once(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        looked = self._database.read_at_once(queries.look_for_manifest, repository, reference)
        if looked is None:
            return None
        found = _manifest(looked, repository, reference)
        return found if self._reading.is_sound(found) else None

    async def stat_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest:
        """The same for who asks so as not to push again: what is damaged, or names what is, is not here.

        Raises NAME_UNKNOWN, MANIFEST_UNKNOWN. Helm and its relatives push nothing more when they find the manifest.
        """
        try:
            return await self.get_manifest(repository, reference)
        except ManifestDamaged as damaged:
            raise ManifestUnknown(damaged.message) from None

    # --- blobs --------------------------------------------------------------------------------------------------------

    async def get_blob(self, repository: RepositoryName, digest: Digest) -> Blob:
        """A blob that this repository holds. Raises NAME_UNKNOWN, BLOB_UNKNOWN (500 for one that is damaged)."""
        return self._blob(await self.find_blob(repository, digest))

    def get_blob_at_once(self, repository: RepositoryName, digest: Digest) -> Blob | None:
        looked = self._database.read_at_once(queries.look_for_blob, repository, digest)
        if looked is None:
            return None
        found = _blob(looked, repository, digest)
        return self._blob(found) if found.is_sound and not self._needs_grace(found) else None

    async def stat_blob(self, repository: RepositoryName, digest: Digest) -> Blob:
        """The same for who asks so as not to push again: what is damaged is not here.

        Raises NAME_UNKNOWN, BLOB_UNKNOWN.
        """
        try:
            return await self.get_blob(repository, digest)
        except BlobDamaged as damaged:
            raise BlobUnknown(damaged.message) from None

    async def find_blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob:
        """Where its bytes are. Raises as `get_blob`."""
        looked: StoredBlob | Absent
        looked = await self._database.read(queries.look_for_blob, repository, digest)
        if isinstance(looked, StoredBlob) and self._needs_grace(looked):
            looked = await self._database.write(transactions.answer_for, repository, digest, self._now())
        found = _blob(looked, repository, digest)
        self._reading.check_blob(found)
        return found

    def _needs_grace(self, blob: StoredBlob) -> bool:
        """Whether an answer has to be recorded; one is good for all that follow in a tenth of the grace."""
        if blob.unnamed_since is None or not blob.is_sound:
            return False
        return not 0 <= self._now() - blob.unnamed_since < self._grace // GRACE_SHARE

    def _blob(self, found: StoredBlob) -> Blob:
        return Blob(
            Digest(found.digest),
            found.size,
            partial(self._reading.pieces, found),
            partial(self._reading.whole_at_once, found),
            found.generation,
            found.unnamed_since is None,
            found.key is not None,
        )


def _manifest(looked: StoredManifest | Absent, repository: RepositoryName, reference: Reference) -> StoredManifest:
    if isinstance(looked, StoredManifest):
        return looked
    if looked is Absent.CONTENT:
        raise ManifestUnknown(f"{repository} has no manifest {reference}")
    raise NameUnknown(f"there is no repository {repository}")


def _blob(looked: StoredBlob | Absent, repository: RepositoryName, digest: Digest) -> StoredBlob:
    if isinstance(looked, StoredBlob):
        return looked
    if looked is Absent.CONTENT:
        raise BlobUnknown(f"{repository} has no blob {digest}")
    raise NameUnknown(f"there is no repository {repository}")
