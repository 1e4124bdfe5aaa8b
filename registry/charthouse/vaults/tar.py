"""A backup as one tar file, written anew each time: to send it somewhere else."""

import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from charthouse.locks import FileLock
from charthouse.names import Digest
from charthouse.vaults import METADATA, Pieces, VaultError, blob_path
from charthouse.vaults.folder import copy_hashed, create, sync_file, sync_folder

PARTIAL = ".partial"  # what follows the file's name in that of the folder of what is not finished


class TarWriter:
    """Blobs in the order in which they come, and the database as the last member."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.work = path.with_name(path.name + PARTIAL)
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = FileLock(self.work / "lock")
        if not self._lock.acquire(blocking=False):
            raise VaultError(f"another backup is writing to {path}: wait until it has ended")
        self._has: set[Digest] = set()
        self._beside = self.work / "backup.tar"
        self._file = create(self._beside)
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def has(self, digest: Digest, size: int) -> bool:  # noqa: ARG002 - it has what it was given
        return digest in self._has

    async def add(self, digest: Digest, size: int, pieces: Pieces) -> str:
        """Through a file without a name: a member says its size first, and these bytes may turn out to be others."""
        with TemporaryFile(dir=self.work) as file:
            fault = await copy_hashed(digest, size, pieces, file.write)
            if fault:
                return fault
            file.seek(0)
            self._tar.addfile(_member(blob_path(digest), size), file)
        self._has.add(digest)
        return ""

    def finish(self, metadata: Path) -> None:
        with metadata.open("rb") as file:
            self._tar.addfile(_member(METADATA, metadata.stat().st_size), file)
        self._close_tar()
        sync_file(self._beside)
        self._beside.replace(self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        self._close_tar()
        shutil.rmtree(self.work, ignore_errors=True)
        self._lock.release()

    def _close_tar(self) -> None:
        if not self._file.closed:
            self._tar.close()
            self._file.close()


class TarReader:
    """Finds members by their exact names among regular files, and so reads nothing but what the archive holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - closed by close
            self._members = {member.name: member for member in self._tar if member.isreg()}
        except tarfile.TarError as error:
            self._file.close()
            raise VaultError(f"{path} is no tar file that is whole: {error}") from None

    def metadata(self, copy: Path) -> None:
        source = self._open(METADATA)
        if source is None:
            raise VaultError(f"{self._path} holds no whole backup: there is no {METADATA} in it")
        with source, create(copy) as target:
            shutil.copyfileobj(source, target)

    def open(self, digest: Digest) -> BinaryIO | None:
        return self._open(blob_path(digest))

    def _open(self, name: str) -> BinaryIO | None:
        member = self._members.get(name)
        return cast("BinaryIO", self._tar.extractfile(member)) if member else None

    def close(self) -> None:
        self._tar.close()
        self._file.close()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member
