"""What all registries of a process share: a thread with an event loop, a few threads for what blocks, the protocol's
configuration, and the bytes of the empty database that each of them begins with.

It is there from the first registry's start to the last one's end. After a fork the child begins anew.
"""

import asyncio
import atexit
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from charthouse import http_protocol
from charthouse.composition import open_registry
from charthouse.errors import PasswordInvalid
from charthouse.locks import FileLock
from charthouse.migrate import migrate_sqlite
from charthouse.processes import http_config
from charthouse.settings import DATABASE_NAME, SettingsError, load

T = TypeVar("T")

THREADS = 6  # for all that blocks, of all registries
ROOM = 256 * 1024 * 1024  # bytes that must be free where data is kept in memory
SETTLED = 60.0  # seconds after which a folder that nobody holds was left by somebody
NAME = "charthouse-testing"
HOME, LOCK = "charthouse-tests-", "in-use"


class Member(Protocol):
    """A registry that answers in the shared loop."""

    state: http_protocol.State


class Shared:
    def __init__(self) -> None:
        self.home = Home()
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix=NAME)
        self.config = http_config(_nobody)
        self.config.load()
        self.sites: set[Member] = set()
        self.loop = _new_loop()
        self.loop.set_default_executor(self.threads)
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        ticking = self.loop.create_task(self._tick())
        try:
            self.loop.run_forever()
        finally:
            ticking.cancel()
            self.loop.run_until_complete(asyncio.gather(ticking, return_exceptions=True))
            self.loop.close()

    async def _tick(self) -> None:
        """What uvicorn's server does each second."""
        while True:
            now = self.loop.time()
            for site in list(self.sites):
                site.state.default_headers = default_headers()
                http_protocol.sweep(site.state.connections, now)
            await asyncio.sleep(1)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Carries it out in the loop, from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.threads.shutdown()
        self.home.end()


def default_headers() -> list[tuple[bytes, bytes]]:
    return [(b"date", formatdate(usegmt=True).encode())]


async def _nobody(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - the ASGI signature
    raise AssertionError("each connection has the application of its own registry")


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


_guard = threading.Lock()
_shared: Shared | None = None


def join(site: Member) -> Shared:
    """The first one starts the thread."""
    global _shared  # noqa: PLW0603 - one for the process
    with _guard:
        _shared = _shared or Shared()
        _shared.sites.add(site)
        return _shared


def leave(site: Member) -> None:
    """The last one ends the thread."""
    global _shared  # noqa: PLW0603 - one for the process
    with _guard:
        if _shared is not None:
            _shared.sites.discard(site)
            if not _shared.sites:
                _shared.end()
                _shared = None


def _forget() -> None:
    global _guard, _shared
    _guard, _shared = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@atexit.register
def _remove_home() -> None:
    """Registries that nobody has ended leave nothing behind. Their threads take no more work by now."""
    if _shared is not None:
        _shared.home.end()


class Home:
    """A folder that all of the process is in: in memory, where there is room. Locked for as long as it is used, so that
    the next process removes what one that was killed has left."""

    def __init__(self) -> None:
        place = _memory() or Path(tempfile.gettempdir())
        _remove_what_was_left(place)
        self.folder = Path(tempfile.mkdtemp(prefix=HOME, dir=place))
        self._lock = FileLock(self.folder / LOCK)
        self._lock.acquire()

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=sys.platform == "win32")  # where the lock is an open file
        self._lock.release()


def _memory() -> Path | None:
    folder = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder in it that only its owner may enter
    if sys.platform == "linux" and os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > ROOM:
        return folder
    return None


def _remove_what_was_left(place: Path) -> None:
    for folder in place.glob(f"{HOME}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - folder.stat().st_mtime < SETTLED:
                continue
            lock = FileLock(folder / LOCK)
            try:
                if lock.acquire(blocking=False):
                    shutil.rmtree(folder)
            finally:
                lock.release()


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password: str


@cache
def user(password: str = "") -> User:
    """The administrator of all closed registries of the process: hashing a password for each would take 30 ms. Without
    a password, one is made."""
    return User("tester", password or secrets.token_urlsafe(12))


_closed: dict[User, bytes] = {}


async def closed_database(user: User) -> bytes:
    """With that user, and for the rest empty."""
    if user not in _closed:
        folder = Path(tempfile.mkdtemp(prefix="charthouse-", dir=_memory()))
        try:
            (folder / DATABASE_NAME).write_bytes(empty_database())
            registry = await open_registry(load({"data": folder}, environ={}), durable=False)
            try:
                await registry.users.add(user.name, user.password, administrator=True)
            except PasswordInvalid as error:
                raise SettingsError(f"tester_password: {error.message}") from None
            finally:
                await registry.close()
            _closed[user] = (folder / DATABASE_NAME).read_bytes()
        finally:
            shutil.rmtree(folder)
    return _closed[user]


@cache
def empty_database() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="charthouse-", dir=_memory()))
    try:
        migrate_sqlite(folder / "empty.db")
        return (folder / "empty.db").read_bytes()
    finally:
        shutil.rmtree(folder)
