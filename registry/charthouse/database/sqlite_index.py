"""SQLite's own count of commits, read where SQLite keeps it for all processes: no system call, no statement.

The WAL's index (`charthouse.db-shm`) begins with a head of 48 bytes: how many transactions there were, the length of
the log, its checksums. A commit writes them last, and a reader sees a commit by nothing else. `PRAGMA data_version`,
which compares the same bytes, begins a transaction for it, with two system calls (docs/performance.md).
Source: sqlite.org/walformat.html, "The WAL-Index Header".
"""

import contextlib
import mmap
import os
from pathlib import Path

HEAD = 48  # bytes


class WalIndex:
    """Of a database to which this process has a connection, that has read something, for as long as this is open.

    To be closed after the last connection of the process: to close any descriptor of a file drops all POSIX locks that
    the process holds on it, SQLite's as well. Raises OSError, also where this cannot be had.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(mmap, "MAP_SHARED"):
            raise OSError("Windows shares no file like this")
        self._descriptor = os.open(f"{path}-shm", os.O_RDONLY)
        self._bytes = mmap.mmap(self._descriptor, HEAD, mmap.MAP_SHARED, mmap.PROT_READ)

    def head(self) -> bytes:
        """The same only while nothing was committed, by whomever."""
        return self._bytes[:HEAD]

    def close(self) -> None:
        self._bytes.close()
        os.close(self._descriptor)


def find_index(path: Path) -> WalIndex | None:
    with contextlib.suppress(OSError):
        return WalIndex(path)
    return None
