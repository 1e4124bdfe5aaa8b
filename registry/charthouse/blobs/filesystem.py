"""Blobs as files: `blobs/sha256/ab/<hex>.<unique>`, uploads as `uploads/<id>`, on one file system.

A blob is safe when its file is fsynced, renamed to its key, and its folder (and a new folder's parent) is fsynced.
Every call that may touch the disk runs in a thread of the store's own.
"""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from charthouse.blobs import Damage, StoredFile, UploadBusy, UploadEnded
from charthouse.clocks import Clock
from charthouse.errors import DigestInvalid, StorageFull
from charthouse.locks import FileLock
from charthouse.names import Digest
from charthouse.uploads import begun

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
PIECE = 1024 * 1024  # bytes read or written at once
ENDED = ".ended"  # beside an upload that is over, so that its id is not taken for one that has not begun
ON_WINDOWS = os.name == "nt"


class FilesystemStore:
    def __init__(
        self,
        data: Path,
        *,
        clock: Clock = time.time,
        durable: bool = True,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self._blobs = data / "blobs"
        self._uploads = data / "uploads"
        self._fsync: Callable[[int], None] = fsync if durable else _no_fsync
        self._clock = clock
        self._fsync_failure: OSError | None = None
        self._has_own_threads = threads is None
        self._threads = threads or ThreadPoolExecutor(THREADS, thread_name_prefix="charthouse-blobs")
        self._random, self._count = secrets.token_hex(4), itertools.count()
        self._safe_folders = set(self._make_folders(data))

    def _make_folders(self, data: Path) -> Iterator[str]:
        """Gives those that are there already: what this process has not synced, another may have made a moment ago."""
        algorithms = [self._blobs / name for name in ("sha256", "sha512")]
        for folder in (self._uploads, *algorithms):
            folder.mkdir(parents=True, exist_ok=True)
        for algorithm in algorithms:
            yield from (entry.path for entry in os.scandir(algorithm))
        for folder in (*algorithms, self._blobs, data):
            self.sync_folder(folder)

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Work once begun is done when this returns, also for a cancelled request: nobody meets a file half written."""
        future = asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise

    # --- uploads ------------------------------------------------------------------------------------------------------

    async def open_upload(self, upload_id: str) -> "UploadFile":
        upload = UploadFile(self, self._uploads / upload_id)
        try:
            await self.in_thread(upload.open)
        except BaseException:
            upload.let_go()
            raise
        return upload

    async def upload_size(self, upload_id: str) -> int | None:
        path = f"{self._uploads}/{upload_id}"  # two stats, and without pathlib: a tenth of what changing threads costs
        if os.path.exists(path + ENDED):  # noqa: PTH110, ASYNC240 - as said
            raise UploadEnded
        try:
            return os.stat(path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return None

    async def stale_uploads(self, older_than: float) -> dict[str, int]:
        return await self.in_thread(self._stale_uploads, older_than)

    def _stale_uploads(self, older_than: float) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in self._stale(older_than):
            if not name.endswith(ENDED):
                with contextlib.suppress(FileNotFoundError):
                    found[name] = (self._uploads / name).stat().st_size
        return found

    async def forget_uploads(self, older_than: float) -> int:
        return await self.in_thread(self._forget_uploads, older_than)

    def _forget_uploads(self, older_than: float) -> int:
        return sum(_forget(self._uploads / name) for name in self._stale(older_than))

    def _stale(self, older_than: float) -> list[str]:
        return [entry.name for entry in os.scandir(self._uploads) if begun(entry.name.partition(".")[0]) < older_than]

    # --- blobs --------------------------------------------------------------------------------------------------------

    async def put(self, upload_id: str, content: bytes, digest: Digest) -> str:
        return await self.in_thread(self._put, upload_id, content, digest)

    def _put(self, upload_id: str, content: bytes, digest: Digest) -> str:
        path = f"{self._uploads}/{upload_id}.{self._unique()}"  # nobody else's, so it needs no lock
        try:
            with _full_disk():
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
                try:
                    view = memoryview(content)
                    while view:
                        view = view[os.write(descriptor, view) :]
                    self.sync(descriptor)
                finally:
                    os.close(descriptor)
                return self.place(path, digest)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def _unique(self) -> str:
        """Counted behind random bytes of this process: drawing anew would give away the interpreter's lock."""
        return f"{self._random}{next(self._count):x}"

    async def read(self, key: str, size: int, start: int, length: int) -> AsyncIterator[bytes]:
        with contextlib.ExitStack() as opened:
            descriptor, piece = await self.in_thread(self._open, opened, key, size, start, min(length, PIECE))
            while True:
                length -= len(piece)
                if not piece and length:
                    raise Damage(f"its file {key} ended {length:,} bytes early")
                yield piece
                if not length:
                    return
                piece = await self.in_thread(_read, descriptor, key, min(length, PIECE))

    def _open(self, opened: contextlib.ExitStack, key: str, size: int, start: int, length: int) -> tuple[int, bytes]:
        try:
            descriptor = os.open(self._blobs / key, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise Damage(f"its file {key} is missing") from None
        opened.callback(os.close, descriptor)
        found = os.fstat(descriptor).st_size
        if found != size:
            raise Damage(f"its file {key} has {found:,} bytes in place of {size:,}")
        os.lseek(descriptor, start, os.SEEK_SET)
        return descriptor, _read(descriptor, key, length)

    def read_at_once(self, key: str, size: int) -> bytes | None:
        """From the page cache, or not at all: where the system cannot tell (no Linux, or tmpfs), never."""
        content = bytearray(size + 1)  # one more, to see that there is none
        try:
            descriptor = os.open(f"{self._blobs}/{key}", os.O_RDONLY)
            try:
                found = os.preadv(descriptor, [content], 0, os.RWF_NOWAIT)
            finally:
                os.close(descriptor)
        except (OSError, AttributeError):
            return None
        return bytes(memoryview(content)[:size]) if found == size else None

    def place(self, path: Path | str, digest: Digest) -> str:
        """Gives a synced file its place among the blobs, safely. Returns its key."""
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{self._unique()}"
        folder = f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}"
        is_safe = folder in self._safe_folders
        if not is_safe:
            Path(folder).mkdir(exist_ok=True)
        now = self._clock()
        os.utime(path, (now, now))  # it is published now, however long ago its last bytes came
        os.rename(path, f"{self._blobs}/{key}")  # noqa: PTH104 - pathlib costs a tenth of the whole
        self.sync_folder(folder)
        if not is_safe:
            self.sync_folder(self._blobs / digest.algorithm)
            self._safe_folders.add(folder)
        return key

    def sync(self, descriptor: int) -> None:
        """A failed fsync is the last word: the system may have dropped the pages, and the next one would succeed."""
        try:
            self._fsync(descriptor)
        except OSError as error:
            self._fsync_failure = error
            raise

    def sync_folder(self, folder: Path | str) -> None:
        if ON_WINDOWS:
            return  # it has no fsync of folders; NTFS keeps renames in its journal
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    async def files(self, older_than: float) -> AsyncIterator[list[StoredFile]]:
        for folder in await self.in_thread(self._folders):
            if found := await self.in_thread(self._files, folder, older_than):
                yield found

    def _folders(self) -> list[Path]:
        return sorted(
            folder for algorithm in self._blobs.iterdir() for folder in algorithm.iterdir() if folder.is_dir()
        )

    def _files(self, folder: Path, older_than: float) -> list[StoredFile]:
        found = []
        for entry in os.scandir(folder):
            name, _, unique = entry.name.partition(".")
            with contextlib.suppress(DigestInvalid, FileNotFoundError):  # somebody else's, or gone meanwhile
                digest = Digest.parse(f"{folder.parent.name}:{name}")
                status = entry.stat()
                if unique and status.st_mtime < older_than:
                    found.append(StoredFile(f"{folder.parent.name}/{folder.name}/{entry.name}", digest, status.st_size))
        return found

    async def delete(self, key: str) -> None:
        await self.in_thread((self._blobs / key).unlink, missing_ok=True)

    # --- the store itself ---------------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self.in_thread(self._check)

    def _check(self) -> None:
        if self._fsync_failure is not None:
            raise OSError(
                f"an fsync failed ({self._fsync_failure}): look after the disk, then start the registry again"
            )
        for folder in (self._blobs, self._uploads):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"{folder} cannot be written")

    async def close(self) -> None:
        if self._has_own_threads:
            await asyncio.to_thread(self._threads.shutdown)


class UploadFile:
    """Holds the file's lock from `open` on: two requests never write to one upload."""

    offset = 0

    def __init__(self, store: FilesystemStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._lock = FileLock(path)
        self._begun = 0  # bytes that were there before this request
        self._resumed = False
        self._hashed: hashlib._Hash | None = None  # of all bytes, where they came in this request
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def open(self) -> None:
        if _mark(self._path).exists():
            raise UploadEnded
        with _full_disk():
            if not self._lock.acquire(blocking=False):
                raise UploadBusy
        if not self._is_in_place():
            raise UploadBusy  # whoever held the lock before has made it a blob, or removed it: leave that alone
        if _mark(self._path).exists():
            self._remove()
            raise UploadEnded
        self.offset = os.lseek(self._lock.fileno(), 0, os.SEEK_END)
        self._begun = self.offset
        self._resumed = self.offset > 0
        self._hashed = None if self._resumed else hashlib.sha256()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._lock.fileno()))
        except FileNotFoundError:
            return False

    async def write(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._waiting_size += len(piece)
        self.offset += len(piece)
        if self._waiting_size >= PIECE:
            await self._store.in_thread(self._flush)

    def _flush(self) -> None:
        data = self._waiting[0] if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting, self._waiting_size = [], 0
        if self._hashed is not None:
            self._hashed.update(data)
        view = memoryview(data)
        with _full_disk():
            while view:
                view = view[os.write(self._lock.fileno(), view) :]

    async def digest(self, algorithm: str) -> Digest:
        return await self._store.in_thread(self._digest, algorithm)

    def _digest(self, algorithm: str) -> Digest:
        self._flush()
        if algorithm == "sha256" and self._hashed is not None:
            return Digest(f"sha256:{self._hashed.hexdigest()}")
        os.lseek(self._lock.fileno(), 0, os.SEEK_SET)
        hashed = hashlib.new(algorithm)
        while piece := os.read(self._lock.fileno(), PIECE):
            hashed.update(piece)
        return Digest(f"{algorithm}:{hashed.hexdigest()}")

    async def content(self) -> bytes:
        return await self._store.in_thread(self._content)

    def _content(self) -> bytes:
        self._flush()
        os.lseek(self._lock.fileno(), 0, os.SEEK_SET)
        return b"".join(iter(lambda: os.read(self._lock.fileno(), PIECE), b""))

    async def publish(self, digest: Digest) -> str:
        return await self._store.in_thread(self._publish, digest)

    def _publish(self, digest: Digest) -> str:
        self._flush()
        with _full_disk():
            self._store.sync(self._lock.fileno())
            if ON_WINDOWS:
                self._lock.release()  # it renames no open file
            if self._resumed:
                _mark(self._path).touch()  # before its place: where there is no room for it nothing has happened yet
            try:
                return self._store.place(self._path, digest)
            except BaseException:
                _mark(self._path).unlink(missing_ok=True)
                raise

    async def rewind(self, offset: int) -> None:
        await self._store.in_thread(self._rewind, offset)

    def _rewind(self, offset: int) -> None:
        self._waiting, self._waiting_size = [], 0
        os.ftruncate(self._lock.fileno(), offset)
        os.lseek(self._lock.fileno(), 0, os.SEEK_END)
        self._hashed = None if offset else hashlib.sha256()
        self.offset = offset

    async def discard(self) -> None:
        await self._store.in_thread(self._discard)

    def _discard(self) -> None:
        self._rewind(0)  # first: on a full disk it makes the room for the mark
        _mark(self._path).touch()

    async def close(self) -> None:
        await self._store.in_thread(self._close)

    def _close(self) -> None:
        try:
            self._flush_last()
        finally:
            if not self.offset:
                self._remove()
            self.let_go()

    def _flush_last(self) -> None:
        """Of a full disk nothing of this request stays, so that what is there is what the client was told."""
        try:
            if self._waiting:
                self._flush()
        except StorageFull:
            with contextlib.suppress(OSError):  # the refusal is what counts
                self._rewind(self._begun)
            raise

    def _remove(self) -> None:
        """While the lock is held: whoever opened the file meanwhile sees that it is not in its place any more."""
        if ON_WINDOWS:
            self._lock.release()  # it removes no open file
        self._path.unlink(missing_ok=True)

    def let_go(self) -> None:
        self._lock.release()


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ENDED)


def _forget(path: Path) -> bool:
    """Whether an upload went; one that a request is still writing to stays."""
    lock = FileLock(path)
    try:
        if not lock.acquire(blocking=False):
            return False
        if ON_WINDOWS:
            lock.release()  # it removes no open file
        path.unlink(missing_ok=True)
    finally:
        lock.release()
    return not path.name.endswith(ENDED)


def _read(descriptor: int, key: str, length: int) -> bytes:
    try:
        return os.read(descriptor, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Damage(f"its file {key} cannot be read: {error.strerror}") from error  # a bad sector


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull("the disk of the registry is full: nothing can be pushed until there is room") from error


if sys.platform == "darwin":
    import fcntl

    def fsync(descriptor: int) -> None:
        """fsync stops at the drive's cache on macOS, F_FULLFSYNC does not."""
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)

else:
    fsync = os.fsync


def _no_fsync(descriptor: int) -> None:
    """For registries that live as long as a test."""
