"""Pulls from finished headers and bytes, never older than the last acknowledged change.

An entry is good while its repository's generation is the one that was read in the same snapshot as its content. On
SQLite that is certain, without asking, as long as nothing at all was committed; otherwise the generation is asked for,
by a query that starts after the request arrived: at once on SQLite, elsewhere one for all requests that wait.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charthouse.at_once import STAMP, Finished
from charthouse.core import Registry
from charthouse.names import RepositoryName

ENTRY_LIMIT = 256 * 1024  # bytes of a body that is kept
ENTRY_OVERHEAD = 1024  # bytes that an entry costs beside its body
HELD = "charthouse.held"  # where a handler leaves the repository and the generation that its answer is good for

_CONDITIONAL = {b"range", b"if-none-match"}
Key = tuple[str, str]


@dataclass(slots=True)
class Entry:
    repository: RepositoryName
    generation: int
    finished: Finished
    start: Message
    stamp: int | None = None  # the database's, when the generation was last seen to hold

    @property
    def cost(self) -> int:
        return len(self.finished.body) + ENTRY_OVERHEAD


class PullCache:
    """Answers GET and HEAD of manifests and small blobs and passes everything else on. `limit` in bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.registry: Registry | None = None  # there once the application has started
        self._app = app
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._asked: _Question | None = None

    def at_once(self, scope: Scope) -> Finished | None:
        """Where it is certain without waiting: nothing was committed since the entry was seen to hold, or not to its
        repository."""
        entry = self._entries.get((scope["method"], scope["path"]))
        stamp = scope.get(STAMP)
        if entry is None or stamp is None or not _is_pull(scope):
            return None
        assert self.registry is not None  # noqa: S101 - an entry came from it
        if stamp != entry.stamp:
            if self.registry.generation_at_once(entry.repository) != entry.generation:
                return None
            entry.stamp = stamp
        self._entries.move_to_end((scope["method"], scope["path"]))
        return entry.finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_pull(scope):
            await self._app(scope, receive, send)
            return
        key = (scope["method"], scope["path"])
        entry = await self._current(key, scope.get(STAMP))
        if entry is None:
            await self._ask_and_keep(key, scope, receive, send)
        else:
            await send(entry.start)
            await send({"type": "http.response.body", "body": entry.finished.body})

    async def _current(self, key: Key, stamp: int | None) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        holds = await self._holds(entry, stamp)
        if self._entries.get(key) is entry:  # while we asked, somebody else may have forgotten or replaced it
            self._entries.move_to_end(key)
            if not holds:
                self._forget(key)
        return entry if holds else None

    async def _holds(self, entry: Entry, stamp: int | None) -> bool:
        """`stamp` is the database's since the request arrived, where it was asked for already."""
        assert self.registry is not None  # noqa: S101 - an entry came from it
        stamp = self.registry.stamp() if stamp is None else stamp
        if stamp is None:
            return await self._generation(entry.repository) == entry.generation
        if stamp != entry.stamp:
            if await self.registry.generation(entry.repository) != entry.generation:
                return False
            entry.stamp = stamp
        return True

    async def _generation(self, repository: RepositoryName) -> int | None:
        """From the next question that is not on its way yet: an answer to one that is may be older than the request."""
        assert self.registry is not None  # noqa: S101 - an entry came from it
        if self._asked is None or self._asked.is_sent:
            self._asked = _Question(self.registry, after=self._asked)
        question = self._asked
        question.repositories.add(repository)
        return (await asyncio.shield(question.answer)).get(repository)

    async def _ask_and_keep(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        started: list[Message] = []
        pieces: list[bytes] = []
        size = 0

        async def listen(message: Message) -> None:
            nonlocal size
            if message["type"] == "http.response.start":
                started.append(message)
            else:
                size += len(message.get("body", b""))
                if size <= ENTRY_LIMIT:
                    pieces.append(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, listen)
        held = scope.get(HELD)
        if held and started and started[0]["status"] == 200 and size <= ENTRY_LIMIT:  # noqa: PLR2004 - OK
            headers = b"".join(name + b": " + value + b"\r\n" for name, value in started[0]["headers"])
            repository, generation = held
            self._keep(key, Entry(repository, generation, Finished(headers, b"".join(pieces)), started[0]))

    def _keep(self, key: Key, entry: Entry) -> None:
        self._forget(key)
        self._entries[key] = entry
        self._size += entry.cost
        while self._size > self._limit and self._entries:
            self._size -= self._entries.popitem(last=False)[1].cost

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry.cost


class _Question:
    """One query for the generations of all repositories that were named before it was sent."""

    def __init__(self, registry: Registry, after: "_Question | None") -> None:
        self.repositories: set[RepositoryName] = set()
        self.is_sent = False
        self.answer = asyncio.ensure_future(self._ask(registry, after))

    async def _ask(self, registry: Registry, after: "_Question | None") -> dict[str, int]:
        if after is not None:
            await asyncio.wait([after.answer])
        self.is_sent = True
        return await registry.generations(self.repositories)


def _is_pull(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path = scope["path"]
    if "/manifests/" not in path and "/blobs/sha" not in path:
        return False
    return all(name not in _CONDITIONAL for name, _ in scope["headers"])
