"""Users of an htpasswd file, beside those of the database: read again when the file changes.

A line is `name:hash`, with a hash of bcrypt (`htpasswd -B`) or argon2. What is neither, or costs more than a login may,
is refused and said once, by its number: a line may hold a password by mistake.
"""

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path

from charthouse.auth.access import ANONYMOUS, User
from charthouse.settings import SettingsError

log = logging.getLogger(__name__)

SIZE_LIMIT = 4 * 1024 * 1024  # bytes
SETTLED = 2.0  # seconds after which a file that is written again gets another time, on every file system

BCRYPT_COST = 15  # 2 s of a processor
ARGON2_MEMORY, ARGON2_PASSES, ARGON2_LANES = 256 * 1024, 16, 16  # KiB

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_ARGON2 = re.compile(r"\$argon2(?:id|i|d)\$v=\d+\$m=(\d+),t=(\d+),p=(\d+)\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", re.ASCII)

Stamp = tuple[int, ...]


class Htpasswd:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp = (-1,)
        self._content: bytes | None = None
        self._users: Mapping[str, User] = {}

    @property
    def users(self) -> Mapping[str, User]:
        """As the file has them now; the same mapping as long as it does.

        None while it cannot be read: whoever took the file away wants nobody of it to sign in.
        """
        if not self.is_unchanged():
            self._follow()
        return self._users

    def is_unchanged(self) -> bool:
        return self._stamp == _stamp(self.path) != ()

    def check(self) -> None:
        """Before a server starts. Raises SettingsError."""
        try:
            _read(self.path)
        except OSError as error:
            raise SettingsError(f"--htpasswd {self.path} cannot be read: {error.strerror or error}") from None

    def _follow(self) -> None:
        stamp = _stamp(self.path)
        try:
            content = _read(self.path)
        except OSError as error:
            if self._stamp != ():
                log.error(  # noqa: TRY400 - one line
                    "the htpasswd file %s cannot be read, and nobody of it may sign in: %s", self.path, error
                )
            self._stamp, self._content, self._users = (), None, {}
            return
        # Of a file that was written just now, the next look may find another content with the same time and size.
        self._stamp = stamp if time.time() - stamp[-1] / 1e9 > SETTLED else (-1,)
        if content != self._content:
            self._content = content
            self._users = parse(content, self.path)


def parse(content: bytes, path: Path) -> Mapping[str, User]:
    users: dict[str, User] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        name, _, hashed = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        fault = "this name is in a line before" if name in users else _fault(name, hashed)
        if fault:
            log.warning("line %d of the htpasswd file %s is refused: %s", number, path, fault)
        else:
            users[name] = User(name, hashed, is_administrator=False, is_disabled=False, is_from_file=True)
    return users


def _fault(name: str, hashed: str) -> str:
    """Why a line is none that counts; empty for one that does."""
    if not NAME.fullmatch(name) or name == ANONYMOUS:
        return "the name is none of at most 64 letters, digits, '.', '_' and '-'"
    if bcrypt := _BCRYPT.fullmatch(hashed):
        return f"bcrypt of a cost above {BCRYPT_COST}" if int(bcrypt[1]) > BCRYPT_COST else ""
    if argon2 := _ARGON2.fullmatch(hashed):
        memory, passes, lanes = map(int, argon2.groups())
        is_costly = memory > ARGON2_MEMORY or passes > ARGON2_PASSES or lanes > ARGON2_LANES
        return f"argon2 of more than {ARGON2_MEMORY // 1024} MiB or {ARGON2_PASSES} passes" if is_costly else ""
    return "the password is hashed with neither bcrypt nor argon2: htpasswd -B makes such lines"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(SIZE_LIMIT + 1)
    if len(content) > SIZE_LIMIT:
        raise OSError(f"it has more than {SIZE_LIMIT:,} bytes")
    return content


def _stamp(path: Path) -> Stamp:
    """Another one for another content, its last word the time of that; empty for no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
