"""Registries with a fault on purpose, to show that the tests of durability find it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charthouse.blobs.filesystem import FilesystemStore
from charthouse.collection import Collector, Report
from charthouse.core import Registry
from charthouse.database import Connection
from charthouse.database.sqlite_writer import Writer
from charthouse.names import Digest
from charthouse.pull_cache import PullCache
from charthouse.queries.collection import Taken


def apply(name: str) -> None:
    """Changes the registry of this process."""
    if name:
        MUTANTS[name]()


def without_the_file_fsync() -> None:
    sync = FilesystemStore.sync

    def sync_folders_only(self: FilesystemStore, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            sync(self, descriptor)

    FilesystemStore.sync = sync_folders_only  # type: ignore[method-assign]


def without_the_folder_fsync() -> None:
    FilesystemStore.sync_folder = lambda *_: None  # type: ignore[method-assign]


def answers_before_commit() -> None:
    together = Writer._together

    def answer_first(self: Writer, batch: list[Any], *, apart: bool = False) -> list[Any]:
        """What is refused goes the right way."""
        self._raw.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [self._plain(write) for write in batch]
        except Exception:  # noqa: BLE001 - whatever it is, it is found again
            self._raw.execute("ROLLBACK")
            return together(self, batch, apart=apart)
        self._answer(outcomes)
        self._raw.execute("COMMIT")
        return outcomes

    Writer._together = answer_first  # type: ignore[method-assign]


def names_before_the_rename() -> None:
    """The row is committed, then the file comes to its place; the answer waits for both."""
    name_file = Registry._name_file
    waiting: dict[str, Path | str] = {}

    def place_later(self: FilesystemStore, path: Path | str, digest: Digest) -> str:
        key = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{self._unique()}"
        (self._blobs / key).parent.mkdir(exist_ok=True)
        waiting[str(self._blobs / key)] = path
        return key

    async def name_first(self: Registry, *arguments: Any, **options: Any) -> bool:
        added = await name_file(self, *arguments, **options)
        while waiting:
            target, path = waiting.popitem()
            os.rename(path, target)  # noqa: PTH104 - no method of a path in a coroutine
        return added

    FilesystemStore.place = place_later  # type: ignore[method-assign]
    Registry._name_file = name_first  # type: ignore[method-assign]


def answers_from_a_stale_cache() -> None:
    async def always(*_: object) -> bool:
        return True

    PullCache._holds = always  # type: ignore[method-assign]
    PullCache.at_once = lambda *_: None  # type: ignore[method-assign]


def forgets_the_grace() -> None:
    Collector._cutoff = lambda _, moment: moment.now + 1  # type: ignore[method-assign]


def collects_before_commit() -> None:
    """The file of a blob goes within the transaction that forgets its row."""
    take = Collector._take

    async def unlink_first(self: Collector, report: Report, query: Callable[..., Taken], *arguments: object) -> int:
        def query_and_unlink(connection: Connection, *arguments: object) -> Taken:
            taken = query(connection, *arguments)
            for key in taken.keys:
                (self._settings.data / "blobs" / key).unlink(missing_ok=True)
            return taken

        return await take(self, report, query_and_unlink, *arguments)

    Collector._take = unlink_first  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "without the file fsync": without_the_file_fsync,
    "without the folder fsync": without_the_folder_fsync,
    "answers before COMMIT": answers_before_commit,
    "names before the rename": names_before_the_rename,
    "answers from a stale cache": answers_from_a_stale_cache,
    "collects before COMMIT": collects_before_commit,
    "forgets the grace": forgets_the_grace,
}
