"""Advisory locks on files, between threads and between processes; the kernel lets go of them when a process ends."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class FileLock:
    """Each object opens the file anew, so that two objects exclude each other within a process as well."""

    def __init__(self, path: Path, inherited: Any = None) -> None:
        self.path = path
        self._descriptor: int | None = inherited.detach() if inherited else None
        self._held = inherited is not None

    def acquire(self, *, blocking: bool = True) -> bool:
        """False when somebody else holds it and `blocking` is off. A held lock may be acquired again."""
        if self._held:
            return True
        try:
            self._held = _lock(self.fileno(), blocking=blocking)
        finally:
            if not self._held:
                self.release()
        return self._held

    def unlock(self) -> None:
        """Lets go and keeps the file open: for a lock that is taken often, and not to fail for want of descriptors."""
        if self._descriptor is not None and self._held:
            _unlock(self._descriptor)
            self._held = False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._held = False

    def fileno(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        return self._descriptor

    def __reduce__(self) -> tuple[type["FileLock"], tuple[Path, Any]]:
        """For a process that multiprocessing spawns: from its first moment it holds what is held here, and the lock is
        free when both have released it. On Windows the parent alone holds it."""
        from multiprocessing import reduction  # not in a process that spawns none

        held = None if sys.platform == "win32" or not self._held else reduction.DupFd(self.fileno())
        return FileLock, (self.path, held)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def server_lock(data: Path) -> FileLock:
    """Held by the server on this data folder, with workers by their parent."""
    return FileLock(data / "start.lock")


def family_lock(data: Path) -> FileLock:
    """Held by every process of the server on this data folder: workers outlive a parent that was killed, for a
    moment, and have the port."""
    return FileLock(data / "serve.lock")


if sys.platform == "win32":
    import errno
    import msvcrt

    def _lock(descriptor: int, *, blocking: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if blocking else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if not blocking:
                    return False
                if error.errno != errno.EDEADLOCK:  # LK_LOCK gives up after ten seconds; we do not
                    raise
            else:
                return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int, *, blocking: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
