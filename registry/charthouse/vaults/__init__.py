"""Where a backup lies: a folder, or a tar file. Each is a file here and a word in `open_writer` and `open_reader`.

A backup is `metadata.db`, a SQLite database with our tables whatever the registry's own database is, and the bytes of
each blob that is no row of it under `blobs/sha256/ab/<hex>`. It is whole when `metadata.db` is there, which comes last.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol

from charthouse.errors import VaultError as VaultError
from charthouse.names import Digest

METADATA = "metadata.db"
TAR = ".tar"

Pieces = AsyncIterator[bytes]


class VaultWriter(Protocol):
    """Nobody else writes to it between `open` and `close`. Raises VaultError, OSError."""

    @property
    def work(self) -> Path:
        """A folder for what is not finished, of this backup alone."""

    def has(self, digest: Digest, size: int) -> bool: ...

    async def add(self, digest: Digest, size: int, pieces: Pieces) -> str:
        """Returns what is wrong with the bytes, and then does not have the blob. Raises what `pieces` raises."""

    def finish(self, metadata: Path) -> None:
        """Makes the backup whole and safe: in place of the one before, which is good until then."""

    def close(self) -> None:
        """Lets go of it; what is not finished goes."""


class VaultReader(Protocol):
    def metadata(self, copy: Path) -> None:
        """Writes its database to that file. Raises VaultError when there is no whole backup."""

    def open(self, digest: Digest) -> BinaryIO | None:
        """None for a blob that it does not have."""

    def close(self) -> None: ...


def blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def open_writer(place: Path) -> VaultWriter:
    from charthouse.vaults.folder import FolderWriter
    from charthouse.vaults.tar import TarWriter

    return TarWriter(place) if place.suffix == TAR else FolderWriter(place)


def open_reader(place: Path) -> VaultReader:
    """Raises VaultError when nothing is there."""
    from charthouse.vaults.folder import FolderReader
    from charthouse.vaults.tar import TarReader

    if not place.exists():
        raise VaultError(f"there is no {place}: name the folder or the .tar file that `charthouse backup` wrote")
    return FolderReader(place) if place.is_dir() else TarReader(place)
