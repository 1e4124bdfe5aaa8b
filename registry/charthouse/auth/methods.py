"""The ways to show who one is: a function each, which gives a name, or None when the words are not its own."""

import base64
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from charthouse.auth.access import Directory
from charthouse.auth.passwords import Passwords
from charthouse.errors import TooManyRequests, Unauthorized

K = TypeVar("K")
V = TypeVar("V")

REMEMBERED = 1000  # passwords that were right, by their keyed hash
WATCHED = 10_000  # users at addresses, of whom wrong passwords are counted
FREE_TRIES = 5
LONGEST_WAIT = 60.0  # seconds

Method = Callable[[str, Directory, str], Awaitable[str | None]]  # the header's value, and the client's address

WRONG = "the user name or the password is not right"


class Basic:
    """A user's name and password with each request (RFC 7617): hashed once, and then known by a hash of our own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, threads: ThreadPoolExecutor | None = None) -> None:
        self._clock = clock
        self._threads = threads
        self._passwords: Passwords | None = None
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, tuple[str, tuple[int, int]]] = OrderedDict()  # who it was, at which version
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = (
            OrderedDict()
        )  # how often, and until when to wait

    async def __call__(self, header: str, directory: Directory, address: str) -> str | None:
        """Raises UNAUTHORIZED, and TOOMANYREQUESTS after many wrong passwords of that user from that address."""
        if (name := self.known(header, directory)) is not None:
            return name
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        name, password = decoded(encoded)
        self._hold_back(name, address)
        user = directory.users.get(name)
        hashed = user.password if user else self._decoy(name, directory)
        is_right = await self._door().verify(password, hashed)
        if not is_right or user is None or user.is_disabled:
            self._count_wrong(name, address)
            raise Unauthorized(WRONG)
        self._wrong.pop((name, address), None)
        remember(self._right, self._mark(header), (name, directory.version), REMEMBERED)
        return name

    def known(self, header: str, directory: Directory) -> str | None:
        """The name, when that very header was right before and nothing has changed since."""
        name, version = self._right.get(self._mark(header), ("", (-1, -1)))
        return name if version == directory.version else None

    def _decoy(self, name: str, directory: Directory) -> str | None:
        """For who is not there: the hash of one who is, always the same for that name. Hashes of htpasswd files take
        other times than our own, and a time of its own would tell that there is no such user."""
        hashes = [user.password for user in directory.users.values()]
        number = int.from_bytes(self._mark(name)[:8])
        return hashes[number % len(hashes)] if hashes else None

    def _mark(self, header: str) -> bytes:
        """What is remembered of a header: no dump of memory has the password."""
        return hashlib.blake2b(header.encode("utf-8", "surrogatepass"), key=self._key).digest()

    def close(self) -> None:
        if self._passwords:
            self._passwords.close()

    def _door(self) -> Passwords:
        self._passwords = self._passwords or Passwords(self._threads)
        return self._passwords

    def _hold_back(self, name: str, address: str) -> None:
        _, until = self._wrong.get((name, address), (0, 0.0))
        left = until - self._clock()
        if left > 0:
            raise TooManyRequests(
                f"too many wrong passwords: try again in {left:.0f} seconds", headers={"Retry-After": f"{left + 1:.0f}"}
            )

    def _count_wrong(self, name: str, address: str) -> None:
        count = self._wrong.get((name, address), (0, 0.0))[0] + 1
        wait = min(2.0 ** (count - FREE_TRIES), LONGEST_WAIT) if count >= FREE_TRIES else 0.0
        remember(self._wrong, (name, address), (count, self._clock() + wait), WATCHED)


def decoded(encoded: str) -> tuple[str, str]:
    """Raises UNAUTHORIZED."""
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Unauthorized("the Authorization header is not of the form Basic <base64 of user:password>") from None
    if not colon:
        raise Unauthorized("the Authorization header has no password")
    return name, password


def remember(known: "OrderedDict[K, V]", key: K, value: V, limit: int) -> None:
    """The last `limit` of them."""
    known[key] = value
    known.move_to_end(key)
    while len(known) > limit:
        known.popitem(last=False)
