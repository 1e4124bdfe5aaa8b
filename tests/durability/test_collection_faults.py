"""Garbage collection that is killed, or whose disk fails or is full, at each system call that changes the folder."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from durability import calls
from durability.calls import Point, Watched
from durability.client import Client
from durability.collector import CollectorProcess
from durability.ledger import Image, Ledger
from durability.report import said, tell
from durability.server import Server
from durability.sizes import Size
from durability.stored import Stored, damaged, look
from durability.test_faults import FAULTS, SYNCS, some_of_each
from support.requests import image
from support.tools import find_installed

HERE = "team/app"


class Rubbish:
    """One thing of each kind that collection removes, beside what it must not touch."""

    def __init__(self, server: Server, ledger: Ledger, dice: random.Random) -> None:
        self._server = server
        self._ledger = ledger
        self._dice = dice
        self._numbers = iter(range(10**9))
        self._doomed: list[Digest] = []  # manifests without a tag: whether they are there is known after the next pass

    def leave(self) -> None:
        """Blobs as rows and as files that no manifest names, an expired manifest, an upload, a file without a row."""
        with self._server.client() as client:
            shared = self._dice.randbytes(6_000)
            self._push(client, self._image(shared), f"kept{next(self._numbers)}")
            gone = self._push(client, self._image(shared), f"gone{next(self._numbers)}")
            self._ledger.begin_delete(HERE, gone, None)
            assert client("DELETE", f"/v2/{HERE}/manifests/{gone}").status == 202
            self._ledger.deleted(HERE, gone, None)
            untagged = self._push(client, self._image(shared), None)
            self._ledger.begin_delete(HERE, untagged, None)
            self._doomed.append(untagged)
            location = client("POST", f"/v2/{HERE}/blobs/uploads/").headers["location"]
            assert client("PATCH", location, self._dice.randbytes(5_000)).status == 202
        digest = Digest.of(self._dice.randbytes(10))
        file = self._server.data / f"blobs/sha256/{digest.hex[:2]}/{digest.hex}.cafe"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"left by a crash")
        os.utime(file, (0, 0))

    def _push(self, client: Client, made: Image, tag: str | None) -> Digest:
        for content in made.blobs:
            url = f"/v2/{HERE}/blobs/uploads/?digest={Digest.of(content)}"
            assert client("POST", url, content).status == 201
        self._ledger.begin_push(HERE, made, tag)
        path = f"/v2/{HERE}/manifests/{tag or made.digest}"
        assert client("PUT", path, made.body, content_type=OCI_MANIFEST).status == 201
        self._ledger.pushed(HERE, made, tag)
        return made.digest

    def _image(self, shared: bytes) -> Image:
        blobs = (self._dice.randbytes(40), self._dice.randbytes(20_000), shared)
        return Image(image(*blobs), blobs)

    def is_collected(self) -> None:
        """A pass went to its end."""
        for digest in self._doomed:
            self._ledger.deleted(HERE, digest, None)
        self._doomed.clear()


class Bench:
    """A server that nobody disturbs, and a collection that is spoiled beside it."""

    def __init__(self, server: Server, rubbish: Rubbish, folder: Path) -> None:
        self.server = server
        self.rubbish = rubbish
        self._folder = folder
        self._collector: CollectorProcess | None = None

    @property
    def collector(self) -> CollectorProcess:
        if self._collector is None:
            self._collector = CollectorProcess(self.server.settings, self._folder / "collector.log")
        return self._collector

    def stop(self) -> None:
        if self._collector is not None:
            self._collector.stop()
            self._collector = None

    def watch(self) -> dict[int, calls.Calls]:
        """What the threads of a pass call, with everything there that it removes."""
        collector = self.collector  # whose first pass takes what the one before left
        self.rubbish.leave()
        found = calls.watch(collector.pid, self._folder, lambda: self._whole(collector))
        self.rubbish.is_collected()
        return found

    def _whole(self, collector: CollectorProcess) -> None:
        done = collector.run()
        assert done.startswith("removed "), done
        assert all(word in done for word in ("blobs", "1 manifest", "1 unfinished upload", "1 file")), done

    def points(self) -> Iterator[Point]:
        for found in self.watch().values():
            if kind := calls.kind_of(found):
                yield from calls.points(found, kind, self.server.data)

    def finish(self) -> None:
        """The next pass; of a process anew where the last one is of no use any more."""
        done = self.collector.run()
        assert done.startswith("removed "), done
        self.rubbish.is_collected()

    def spoil(self, point: Point, fault: str) -> tuple[str, bool]:
        """What became of the pass, and whether the call was reached."""
        threads = [thread for thread, found in self.watch().items() if calls.kind_of(found) == point.thread]
        self.rubbish.leave()
        spoiled = Watched(threads[0], self._folder / "strace", f"{point.call}:{FAULTS[fault]}:when={point.count}")
        done = self.collector.run()
        found = spoiled.end()
        is_reached = not done or any("INJECTED" in result for _, _, result in found)
        if not done or point.call in SYNCS:  # after an fsync that failed nobody writes on
            self.stop()
        return done, is_reached


@pytest.fixture
def bench(
    serve: Callable[..., Server], database_url: str, tmp_path: Path, ledger: Ledger, dice: random.Random
) -> Iterator[Bench]:
    find_installed("strace")
    server = serve(database=database_url, gc_every=0)
    bench = Bench(server, Rubbish(server, ledger, dice), tmp_path)
    yield bench
    bench.stop()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_a_fault_at_any_call_of_a_collection_costs_nothing_and_the_next_one_finishes_it(
    bench: Bench, database_url: str, ledger: Ledger, dice: random.Random, size: Size, did
):
    counts = Counter[str]()
    everywhere = [("collection", point, fault) for point in bench.points() for fault in FAULTS]
    chosen = some_of_each(everywhere, dice)[: size.points]
    try:
        for _, point, fault in chosen:
            where = f"{fault} at {point}"
            done, is_reached = bench.spoil(point, fault)
            counts[f"{point.call} {fault}" if is_reached else "not reached"] += 1
            assert not is_reached or not done.startswith("removed") or fault != "kill", f"{where}: {done}"
            lost = [*bench.server.lost(ledger, dice), *damaged(bench.server.settings)]
            assert not lost, tell(where, ledger, lost)
            bench.finish()
            assert_whole(look(bench.server.settings), where)
            lost = bench.server.lost(ledger, dice)
            assert not lost, tell(f"{where}, and the next collection", ledger, lost)
    finally:
        did(
            f"faults of a collection, {'PostgreSQL' if database_url else 'SQLite'}: {len(chosen)} of"
            f" {len(everywhere)} points, {dict(sorted(counts.items()))}, {said(ledger)}"
        )


def assert_whole(stored: Stored, where: str) -> None:
    assert not stored.damaged, f"{where}: named without its bytes: {stored.damaged}"
    assert not stored.unnamed, f"{where}: {stored.unnamed} are left"
    assert not stored.uploads, f"{where}: {stored.uploads} uploads are left"
