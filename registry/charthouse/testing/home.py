"""Where the registries of a process keep what they have: in a folder of its own, in memory where there is room.

It is there from the first registry's start to the last one's end. After a fork the child has another one.
"""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from charthouse.locks import FileLock

ROOM = 256 * 1024 * 1024  # bytes that must be free where data is kept in memory
SETTLED = 60.0  # seconds after which a folder that nobody holds was left by somebody
PREFIX, LOCK = "charthouse-tests-", "in-use"


class Home:
    """A folder that all of the process is in: in memory, where there is room. Locked for as long as it is used, so that
    the next process removes what one that was killed has left."""

    def __init__(self) -> None:
        place = in_memory() or Path(tempfile.gettempdir())
        _remove_what_was_left(place)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        self._lock = FileLock(self.folder / LOCK)
        self._lock.acquire()

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=sys.platform == "win32")  # where the lock is an open file
        self._lock.release()


def in_memory() -> Path | None:
    folder = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder in it that only its owner may enter
    if sys.platform == "linux" and os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > ROOM:
        return folder
    return None


def _remove_what_was_left(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - folder.stat().st_mtime < SETTLED:
                continue
            lock = FileLock(folder / LOCK)
            try:
                if lock.acquire(blocking=False):
                    shutil.rmtree(folder)
            finally:
                lock.release()


_guard = threading.Lock()
_home: Home | None = None
_registries = 0  # that are in it


def join() -> Home:
    """The first one makes it."""
    global _home, _registries  # noqa: PLW0603 - one for the process
    with _guard:
        _home = _home or Home()
        _registries += 1
        return _home


def leave() -> None:
    """The last one removes it."""
    global _home, _registries  # noqa: PLW0603 - one for the process
    with _guard:
        _registries -= 1
        if _home is not None and not _registries:
            _home.end()
            _home = None


def _forget() -> None:
    global _guard, _home, _registries
    _guard, _home, _registries = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@atexit.register
def _remove() -> None:
    """Registries that nobody has ended leave nothing behind. Their threads take no more work by now."""
    if _home is not None:
        _home.end()
