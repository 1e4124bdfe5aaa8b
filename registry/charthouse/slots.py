"""Places for what may happen so many times at once, for all processes of a data folder.

A place is a locked file, which the kernel lets go of when its process ends, and this one when the connection does.
"""

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from charthouse.errors import TooManyUploads
from charthouse.locks import FileLock
from charthouse.quotas import user_of, whose

PATIENCE = 10.0  # seconds that a body waits for a place, unread: Helm pushes the blobs of one chart at once
POLL = 0.05  # seconds; the place may be let go of by another process


class Slots:
    def __init__(self, data: Path, patience: float = PATIENCE) -> None:
        self._folder = data / "slots"
        self._patience = patience
        self._own: dict[str, set[int]] = defaultdict(set)  # places that this process has

    @contextlib.asynccontextmanager
    async def taken(self, wanted: Sequence[tuple[str, int]]) -> AsyncIterator[None]:
        """A place in each namespace, and one of the pusher's. Raises DENIED where none is let go of in time."""
        async with contextlib.AsyncExitStack() as places:
            for name, count in wanted:
                places.callback(self._let_go, name, *await self._take(name, count))
            yield

    async def _take(self, name: str, count: int) -> tuple[int, FileLock]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while (place := self._free_one(name, count)) is None:
            if loop.time() >= end:
                where = f"{'from' if user_of(name) else 'to'} {whose(name)}"
                raise TooManyUploads(
                    f"{count:,} blobs are coming in {where}, and more may not at once (uploads_at_once): push again"
                    " when others are done",
                    detail=f"uploads: used {count}, limit {count}, wanted 1",
                )
            await asyncio.sleep(POLL)
        return place

    def _free_one(self, name: str, count: int) -> tuple[int, FileLock] | None:
        own = self._own[name]
        for number in range(count):
            if number not in own:
                lock = FileLock(self._path(name, number))
                if lock.acquire(blocking=False):
                    own.add(number)
                    return number, lock
        return None

    def _let_go(self, name: str, number: int, lock: FileLock) -> None:
        lock.release()
        self._own[name].discard(number)

    def _path(self, name: str, number: int) -> Path:
        """A namespace may be longer than a file's name."""
        self._folder.mkdir(exist_ok=True)
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.{number}"
