"""Blob stores: where the bytes of larger blobs are. A store is a file in this folder and a word in `open_store`.

A blob's key is the store's own name for it, unique for each time it was written and kept in the database: a file is
named in SQL after it is safe, and goes after SQL has forgotten it, so the two never meet.
"""

import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from charthouse.clocks import Clock
from charthouse.names import Digest
from charthouse.settings import Settings


class UploadBusy(Exception):
    """Another request is writing to the upload."""


class UploadEnded(Exception):
    """The upload was finished or cancelled."""


class Damage(Exception):
    """A blob's bytes are not there, too few or too many, or cannot be read. `how` says which, of its file."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Bytes that a store keeps under a key, and the digest that they were published with."""

    key: str
    digest: Digest
    size: int


class Upload(Protocol):
    """One writer's hold on an upload. `offset` is the number of bytes it has."""

    offset: int

    async def write(self, piece: bytes) -> None: ...

    async def digest(self, algorithm: str) -> Digest:
        """Of all its bytes, those of earlier requests included."""

    async def content(self) -> bytes:
        """All its bytes at once: for those that are few."""

    async def publish(self, digest: Digest) -> str:
        """Makes the bytes a blob that survives a power cut, and ends the upload. Returns the blob's key."""

    async def rewind(self, offset: int) -> None:
        """Forgets what came after `offset`."""

    async def discard(self) -> None:
        """Ends the upload; a later request for it is UploadEnded."""

    async def close(self) -> None:
        """Lets go of it. What was written stays for the next request; where that is nothing, nothing stays."""


class BlobStore(Protocol):
    """What cannot be written because the disk is full raises StorageFull, any other failure of it OSError."""

    async def open_upload(self, upload_id: str) -> Upload:
        """The upload of that id, made when there is none. Raises UploadBusy, UploadEnded."""

    async def upload_size(self, upload_id: str) -> int | None:
        """Bytes received so far, None for an upload that nobody has written to. Raises UploadEnded."""

    async def put(self, upload_id: str, content: bytes, digest: Digest) -> str:
        """A blob whose bytes came at once in that upload, safe when this returns. Returns its key."""

    def read(self, key: str, size: int, start: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from `start` of a blob of `size` bytes, in pieces. Raises Damage, also for another size."""

    def read_at_once(self, key: str, size: int) -> bytes | None:
        """All bytes of a small blob, where nobody has to wait for them; None where somebody would, or they are not as
        they should be: `read` says how."""

    async def delete(self, key: str) -> None:
        """A key that is not there is no error."""

    def files(self, older_than: float) -> AsyncIterator[Sequence[StoredFile]]:
        """All that was published before `older_than` (Unix seconds), in portions."""

    async def stale_uploads(self, older_than: float) -> dict[str, int]:
        """Bytes of the uploads that `forget_uploads` would remove, by their ids."""

    async def forget_uploads(self, older_than: float) -> int:
        """Removes uploads begun before `older_than` (Unix seconds), as their ids say. Returns their number."""

    async def check(self) -> None:
        """Raises OSError when the store cannot be written, or has lost what it was told to keep (a failed fsync)."""

    async def close(self) -> None: ...


def open_store(
    settings: Settings,
    *,
    clock: Clock = time.time,
    durable: bool = True,
    threads: ThreadPoolExecutor | None = None,
) -> BlobStore:
    """`threads` are shared with other stores of this process; without, the store has its own."""
    from charthouse.blobs.filesystem import FilesystemStore

    return FilesystemStore(settings.data, clock=clock, durable=durable, threads=threads)
