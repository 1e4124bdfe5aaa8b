"""Pulls and a repository's listings from finished headers and bytes, never older than the last acknowledged change.

An entry is good while its repository's generation is the one that was read in the same snapshot as its content. On
SQLite that is certain, without asking, as long as nothing at all was committed; otherwise the generation is asked for,
by a query that starts after the request arrived: at once on SQLite, elsewhere one for all requests that wait.

When memory is short, bodies go first that the blob store has as well: who asks for them gets them from there, and all
else from here.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from charthouse.at_once import OK, STAMP, Finished, Layer, header_lines
from charthouse.core import Registry
from charthouse.names import RepositoryName

ENTRY_LIMIT = 256 * 1024  # bytes of a body that is kept
LIST_LIMIT = 1024 * 1024  # likewise, of a list, which is made and not found: 1,000 referrers are 350 KiB
ENTRY_OVERHEAD = 768  # bytes that an entry costs beside its headers and its body
REPOSITORIES = 16_384  # whose generations are remembered
HELD = "charthouse.held"  # where a handler leaves what its answer is good for, a `Held`

_CONDITIONAL = {b"range", b"if-none-match"}
_LISTS = ("/tags/list", "/referrers/")
_PARTS = ("/manifests/", "/blobs/sha", *_LISTS)  # of the paths of what is kept
Key = tuple[str, str, bytes]  # method, path, query string


@dataclass(frozen=True, slots=True)
class Held:
    """`again` gives the body anew, where the blob store has it; None when that takes waiting."""

    repository: RepositoryName
    generation: int
    again: Callable[[], bytes | None] | None = None


@dataclass(slots=True)
class Entry:
    held: Held
    headers: bytes
    body: bytes | None  # None while only the blob store has it

    @property
    def cost(self) -> int:
        return ENTRY_OVERHEAD + len(self.headers) + len(self.body or b"")


class PullCache:
    """Answers GET and HEAD of manifests, small blobs and lists of them, passes everything else on. `limit` in bytes."""

    def __init__(self, app: Layer, limit: int) -> None:
        self.registry: Registry | None = None  # there once the application has started
        self._app = app
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._spare: OrderedDict[Key, Entry] = OrderedDict()  # those of them whose body the blob store has as well
        # By repository: its generation, and the database's stamp with which it was asked for. Asked for each entry, it
        # would cost every pull of a large repository a query after each commit in any other.
        self._generations: dict[RepositoryName, tuple[int, bytes]] = {}
        self._asked: _Question | None = None

    def at_once(self, scope: Scope) -> Finished | None:
        """Where it is certain without waiting: nothing was committed since the entry was seen to hold, or not to its
        repository; and where whoever answers in its place does so at once."""
        if not _is_pull(scope):
            return self._app.at_once(scope)
        key, stamp = _key(scope), scope.get(STAMP)
        if stamp is None:
            return None
        entry = self._entries.get(key)
        if entry is not None and self._holds_at_once(entry, stamp) and (body := self._body(key, entry)) is not None:
            return Finished(OK, entry.headers, body)
        finished = self._app.at_once(scope)
        if finished is not None:
            self._keep(key, scope, finished)
        return finished

    def _holds_at_once(self, entry: Entry, stamp: bytes) -> bool:
        assert self.registry is not None  # noqa: S101 - an entry came from it
        repository = entry.held.repository
        known = self._generations.get(repository)
        if known is None or known[1] != stamp:
            generation = self.registry.generation_at_once(repository)
            if generation is None:
                return False
            known = self._know(repository, generation, stamp)
        return known[0] == entry.held.generation

    def _know(self, repository: RepositoryName, generation: int, stamp: bytes) -> tuple[int, bytes]:
        """`stamp` is older than the generation: where it is the same later, nothing was committed in between."""
        if len(self._generations) >= REPOSITORIES:
            self._generations.clear()
        known = self._generations[repository] = generation, stamp
        return known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_pull(scope):
            await self._app(scope, receive, send)
            return
        key = _key(scope)
        entry = await self._current(key, scope.get(STAMP))
        body = None if entry is None else self._body(key, entry)
        if entry is None or body is None:
            await self._ask_and_keep(key, scope, receive, send)
            return
        lines = entry.headers.split(b"\r\n")[:-1]
        headers = [tuple(line.split(b": ", 1)) for line in lines]
        await send({"type": "http.response.start", "status": OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _current(self, key: Key, stamp: bytes | None) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        holds = await self._holds(entry, stamp)
        if not holds and self._entries.get(key) is entry:  # while we asked, somebody else may have replaced it
            self._forget(key)
        return entry if holds else None

    async def _holds(self, entry: Entry, stamp: bytes | None) -> bool:
        """`stamp` is the database's since the request arrived, where it was asked for already."""
        assert self.registry is not None  # noqa: S101 - an entry came from it
        held = entry.held
        stamp = self.registry.stamp() if stamp is None else stamp
        if stamp is None:
            return await self._generation(held.repository) == held.generation
        known = self._generations.get(held.repository)
        if known is None or known[1] != stamp:
            known = self._know(held.repository, await self.registry.generation(held.repository), stamp)
        return known[0] == held.generation

    async def _generation(self, repository: RepositoryName) -> int | None:
        """From the next question that is not on its way yet: an answer to one that is may be older than the request."""
        assert self.registry is not None  # noqa: S101 - an entry came from it
        if self._asked is None or self._asked.is_sent:
            self._asked = _Question(self.registry, after=self._asked)
        question = self._asked
        question.repositories.add(repository)
        return (await asyncio.shield(question.answer)).get(repository)

    async def _ask_and_keep(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        limit = _entry_limit(scope["path"])
        started: list[Message] = []
        pieces: list[bytes] = []
        size = 0

        async def listen(message: Message) -> None:
            nonlocal size
            if message["type"] == "http.response.start":
                started.append(message)
            else:
                size += len(message.get("body", b""))
                if size <= limit:
                    pieces.append(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, listen)
        if started and size <= limit:
            headers = header_lines(started[0]["headers"])
            self._keep(key, scope, Finished(started[0]["status"], headers, b"".join(pieces)))

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _body(self, key: Key, entry: Entry) -> bytes | None:
        """The entry's, which is used now. None when it is to be had by waiting only."""
        body = entry.body
        if body is None and entry.held.again is not None:
            body = entry.held.again()
        if body is not None and self._entries.get(key) is entry:
            if entry.body is None:
                entry.body = body
                self._size += len(body)
            self._entries.move_to_end(key)
            if entry.held.again is not None:
                self._spare[key] = entry
                self._spare.move_to_end(key)
            self._make_room()
        return body

    def _keep(self, key: Key, scope: Scope, finished: Finished) -> None:
        """What a handler said to be good."""
        held: Held | None = scope.get(HELD)
        if held is None or finished.status != OK or len(finished.body) > _entry_limit(scope["path"]):
            return
        self._forget(key)
        entry = self._entries[key] = Entry(held, finished.headers, finished.body)
        if held.again is not None:
            self._spare[key] = entry
        self._size += entry.cost
        self._make_room()

    def _make_room(self) -> None:
        while self._size > self._limit:
            if self._spare:
                _, entry = self._spare.popitem(last=False)
                self._size -= len(entry.body or b"")
                entry.body = None
            else:
                self._size -= self._entries.popitem(last=False)[1].cost

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        self._spare.pop(key, None)
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


def _key(scope: Scope) -> Key:
    return scope["method"], scope["path"], scope["query_string"]


def _entry_limit(path: str) -> int:
    return LIST_LIMIT if any(part in path for part in _LISTS) else ENTRY_LIMIT


def _is_pull(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path = scope["path"]
    if not any(part in path for part in _PARTS):
        return False
    return all(name not in _CONDITIONAL for name, _ in scope["headers"])
