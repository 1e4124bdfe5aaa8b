"""What all registries of a process share: a thread with an event loop, a few threads for what blocks, the process that
reads charts, the protocol's configuration, and the bytes of the empty database that each of them begins with.

It is there from the first registry's start to the last one's end. After a fork the child begins anew.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from charthouse import http_protocol
from charthouse.composition import open_registry
from charthouse.helm.helper import Helper
from charthouse.migrate import migrate_sqlite
from charthouse.processes import http_config
from charthouse.settings import DATABASE_NAME, load
from charthouse.testing.home import in_memory
from charthouse.testing.options import User

T = TypeVar("T")

THREADS = 6  # for all that blocks, of all registries
NAME = "charthouse-testing"


class Member(Protocol):
    """A registry that answers in the shared loop."""

    state: http_protocol.State


class Shared:
    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix=NAME)
        self.helper = Helper()
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
        self.helper.close()


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


_closed: dict[User, bytes] = {}


async def closed_database(user: User) -> bytes:
    """With that user, and for the rest empty."""
    if user not in _closed:
        folder = Path(tempfile.mkdtemp(prefix="charthouse-", dir=in_memory()))
        try:
            (folder / DATABASE_NAME).write_bytes(empty_database())
            registry = await open_registry(load({"data": folder}, environ={}), durable=False)
            await registry.users.add(user.name, user.password, administrator=True)
            await registry.close()
            _closed[user] = (folder / DATABASE_NAME).read_bytes()
        finally:
            shutil.rmtree(folder)
    return _closed[user]


@cache
def empty_database() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="charthouse-", dir=in_memory()))
    try:
        migrate_sqlite(folder / "empty.db")
        return (folder / "empty.db").read_bytes()
    finally:
        shutil.rmtree(folder)
