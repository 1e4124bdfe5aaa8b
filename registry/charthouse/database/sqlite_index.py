"""SQLite's own count of commits, read where SQLite keeps it for all processes: no system call, no statement.

The WAL's index (`charthouse.db-shm`) begins with a head of 48 bytes: how many transactions there were, the length of
the log, its checksums. A commit writes them last, and a reader sees a commit by nothing else. `PRAGMA data_version`,
which compares the same bytes, begins a transaction for it, with two system calls (docs/performance.md).
Source: sqlite.org/walformat.html, "The WAL-Index Header".
"""

import contextlib
import mmap
import os
import threading
from pathlib import Path

HEAD = 48  # bytes


class WalIndex:
    """Of a database to which this process has a connection that has read something. Raises OSError, ValueError."""

    def __init__(self, file: str) -> None:
        if not hasattr(mmap, "MAP_SHARED"):
            raise OSError("Windows shares no file like this")
        self._descriptor = os.open(file, os.O_RDONLY)  # what fails below leaves it open: see `leave_indexes`
        self._bytes = mmap.mmap(self._descriptor, HEAD, mmap.MAP_SHARED, mmap.PROT_READ)
        self.users: set[object] = set()

    def head(self) -> bytes:
        """The same only while nothing was committed, by whomever."""
        return self._bytes[:HEAD]

    def close(self) -> None:
        self._bytes.close()
        os.close(self._descriptor)


_indexes: dict[tuple[int, int], WalIndex] = {}  # of this process, by device and inode
_turn = threading.Lock()


def find_index(path: Path, user: object) -> WalIndex | None:
    """For the database at that path, until its `user` leaves; None where it cannot be had."""
    file = f"{path.resolve()}-shm"  # SQLite puts it beside the file that a link leads to
    with _turn, contextlib.suppress(OSError, ValueError):
        status = os.stat(file)  # noqa: PTH116 - a string, as it is opened
        key = status.st_dev, status.st_ino
        index = _indexes.get(key) or _indexes.setdefault(key, WalIndex(file))
        index.users.add(user)
        return index
    return None


def leave_indexes(user: object) -> None:
    """After the user's last connection is closed. To close any descriptor of a file drops all POSIX locks that the
    process holds on it, SQLite's as well: so one that others use in this process stays."""
    with _turn:
        for key, index in list(_indexes.items()):
            index.users.discard(user)
            if not index.users:
                del _indexes[key]
                index.close()
