"""A backup in a folder: the next one into the same folder copies only the blobs that are new."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from charthouse.blobs.filesystem import ON_WINDOWS, fsync
from charthouse.locks import FileLock
from charthouse.names import Digest
from charthouse.vaults import METADATA, Pieces, VaultError, blob_path

PARTIAL = "partial"  # the folder of what is not finished
LOCK = "backup.lock"


class FolderWriter:
    def __init__(self, folder: Path) -> None:
        _demand_ours(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._touched = {folder, folder.absolute().parent}
        self._kept: set[str] = set()
        self._lock = FileLock(folder / LOCK)
        if not self._lock.acquire(blocking=False):
            raise VaultError(f"another backup is writing to {folder}: wait until it has ended")
        self.work = folder / PARTIAL
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(mode=0o700)

    def has(self, digest: Digest, size: int) -> bool:
        """By its size: a file gets its name only after its bytes had the digest."""
        path = self._folder / blob_path(digest)
        self._kept.add(path.name)
        try:
            return path.stat().st_size == size
        except FileNotFoundError:
            return False

    async def add(self, digest: Digest, size: int, pieces: Pieces) -> str:
        beside = self.work / "blob"
        with create(beside) as file:
            fault = await copy_hashed(digest, size, pieces, file.write)
            if fault:
                return fault
            file.flush()
            fsync(file.fileno())
        path = self._folder / blob_path(digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.replace(path)
        self._touched.update((path.parent, path.parent.parent, path.parent.parent.parent))
        return ""

    def finish(self, metadata: Path) -> None:
        for folder in self._touched:
            sync_folder(folder)
        sync_file(metadata)
        metadata.replace(self._folder / METADATA)
        sync_folder(self._folder)
        self._forget_others()

    def _forget_others(self) -> None:
        """Blobs that only an earlier backup named."""
        for path in (self._folder / "blobs").glob("*/*/*"):
            if path.name not in self._kept:
                path.unlink()

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self._lock.release()


class FolderReader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def metadata(self, copy: Path) -> None:
        try:
            with (self._folder / METADATA).open("rb") as source, create(copy) as target:
                shutil.copyfileobj(source, target)
        except FileNotFoundError:
            raise VaultError(f"{self._folder} holds no whole backup: there is no {METADATA} in it") from None

    def open(self, digest: Digest) -> BinaryIO | None:
        try:
            return (self._folder / blob_path(digest)).open("rb")
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Nothing is held."""


def _demand_ours(folder: Path) -> None:
    """Blobs that a backup does not name are removed from its folder: never from somebody else's."""
    if folder.exists() and not folder.is_dir():
        raise VaultError(f"{folder} is a file: name a folder, or a file that ends in .tar")
    if folder.exists() and any(folder.iterdir()) and not (folder / LOCK).exists():
        raise VaultError(f"{folder} is not empty and holds no backup: name another folder")


async def copy_hashed(digest: Digest, size: int, pieces: Pieces, write: Callable[[bytes], object]) -> str:
    """Returns what is wrong with the bytes."""
    hashed, found = hashlib.new(digest.algorithm), 0
    async for piece in pieces:
        hashed.update(piece)
        found += len(piece)
        write(piece)
    if found != size:
        return f"it has {found:,} bytes in place of {size:,}"
    return (
        "" if hashed.hexdigest() == digest.hex else f"its bytes have the digest {digest.algorithm}:{hashed.hexdigest()}"
    )


def create(path: Path) -> BinaryIO:
    """A file for its owner alone: a backup holds password hashes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    if ON_WINDOWS:
        return  # see blobs/filesystem.py
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)
