"""What SQLite says went wrong, by its codes, and the words for whoever keeps the registry."""

import sqlite3
from pathlib import Path
from typing import NoReturn

from charthouse.database import DatabaseError, full

FSYNC_FAILED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
UNUSABLE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN)


def error_code(error: BaseException) -> int:
    """SQLite's extended result code; 0 for what is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0)


def _primary(error: BaseException) -> int:
    return error_code(error) & 0xFF


def is_busy(error: BaseException) -> bool:
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translated(error: BaseException, path: Path) -> BaseException:
    """StorageFull or DatabaseError for what the disk and the file are to blame for, else the same error."""
    if _primary(error) == sqlite3.SQLITE_FULL or error_code(error) == sqlite3.SQLITE_IOERR_SHMSIZE:
        found: BaseException = full()
    elif _primary(error) in DAMAGED:
        found = damaged(str(error), path)
    elif _primary(error) in UNUSABLE:
        found = DatabaseError(f"the database {path.absolute()} could not be read or written: {error}")
    else:
        return error
    found.__cause__ = error
    return found


def damaged(how: str, path: Path) -> DatabaseError:
    return DatabaseError(
        f"the database {path.absolute()} is damaged, {how}: restore the last backup with `charthouse restore`, or save"
        " what `sqlite3` can still read of it, with .recover or .dump (docs/storage.md, A damaged database)"
    )


def fail(error: BaseException, path: Path) -> NoReturn:
    """Raises the translation."""
    raise translated(error, path)
