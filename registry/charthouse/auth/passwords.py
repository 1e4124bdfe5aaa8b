"""Passwords: the one door to passlib. argon2id for our own; bcrypt only to read what an htpasswd file brings.

Hashing takes 19 MiB and tens of milliseconds each time, so it has threads of its own and a queue that ends: more logins
at once than that are told to come again, and nobody else waits for them.
Source: OWASP, "Password Storage Cheat Sheet".
"""

import asyncio
import os
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from charthouse.errors import PasswordInvalid, TooManyRequests

LENGTH_LIMIT = 1024  # bytes; hashing a longer one would cost more than it protects
SHORTEST = 8  # characters; NIST SP 800-63B
QUEUE_LIMIT = 64  # logins that wait to be hashed


def check(password: str) -> None:
    """Raises PASSWORD_INVALID for one that is too short or too long."""
    if len(password) < SHORTEST:
        raise PasswordInvalid(f"the password has {len(password)} characters, it needs at least {SHORTEST}")
    if len(_normal(password)) > LENGTH_LIMIT:
        raise PasswordInvalid(f"the password has more than {LENGTH_LIMIT:,} bytes")


class Passwords:
    """Threads start with the first password; those that are given are shared, and stay when this is closed."""

    def __init__(self, threads: ThreadPoolExecutor | None = None) -> None:
        from passlib.context import CryptContext  # 60 ms that an open registry does without

        self._context = CryptContext(
            schemes=["argon2", "bcrypt"],
            deprecated=["bcrypt"],
            argon2__type="ID",
            argon2__memory_cost=19456,
            argon2__time_cost=2,
            argon2__parallelism=1,
        )
        self._own = None if threads else ThreadPoolExecutor(os.cpu_count() or 1, "charthouse-passwords")
        self._threads = threads or self._own
        self._waiting = 0
        self._nobodys = ""  # a hash that no password has, made when first needed

    def hash(self, password: str) -> str:
        """Raises what `check` does."""
        check(password)
        return str(self._context.hash(_normal(password)))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Without a hash, because there is no such user, it takes as long. Raises TOOMANYREQUESTS."""
        if len(_normal(password)) > LENGTH_LIMIT:
            return False
        if self._waiting >= QUEUE_LIMIT:
            raise TooManyRequests("too many logins at once: try again in a moment", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, password, hashed)
        finally:
            self._waiting -= 1

    def _verify(self, password: str, hashed: str | None) -> bool:
        if hashed is None:
            self._nobodys = self._nobodys or str(self._context.hash(secrets.token_urlsafe(32)))
        try:
            matches = bool(self._context.verify(_normal(password), hashed or self._nobodys))
        except ValueError:  # bcrypt takes no more than 72 bytes and no NUL; passlib knows no such hash
            return False
        return matches and hashed is not None

    def close(self) -> None:
        if self._own:
            self._own.shutdown()


def _normal(password: str) -> bytes:
    """The same letters give the same bytes, whatever keyboard they were typed on."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
