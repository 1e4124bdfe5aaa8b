"""A server that is killed, or whose disk fails or is full, at each system call with which it changes its folder."""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from durability import calls
from durability.calls import Point, Watched
from durability.client import Answer, Client, NoAnswer
from durability.ledger import Image, Ledger
from durability.report import said, tell
from durability.server import Server
from durability.sizes import Size
from durability.stored import look
from support.requests import image
from support.tools import find_installed

HERE, THERE = "team/app", "team/other"
FAULTS = {"kill": "signal=SIGKILL", "EIO": "error=EIO", "ENOSPC": "error=ENOSPC"}
SYNCS = ("fsync", "fdatasync")


class Operations:
    """What a client does to one repository, each time with bytes that were never there. A step that is refused ends
    the operation, as it does a client."""

    def __init__(self, ledger: Ledger, dice: random.Random) -> None:
        self._ledger = ledger
        self._dice = dice
        self._numbers = itertools.count()
        self.all = {
            "push": lambda client: self.push(client, self._tag(), "post"),
            "push in pieces": lambda client: self.push(client, self._tag(), "patch"),
            "overwrite": lambda client: self.push(client, "latest", "put"),
            "delete of a tag": lambda client: self._delete(client, by_tag=True),
            "delete of a manifest": lambda client: self._delete(client, by_tag=False),
            "mount": self._mount,
        }
        self._deletable: list[tuple[str, Digest]] = []

    def prepare(self, client: Client) -> None:
        """What the operation needs: all threads of the server, and something to delete."""
        made, tag = self._image(), self._tag()
        assert self._push(client, HERE, made, tag, "patch").status == 201
        self._deletable.append((tag, made.digest))

    def push(self, client: Client, tag: str, way: str) -> Answer:
        return self._push(client, HERE, self._image(), tag, way)

    def _mount(self, client: Client) -> Answer:
        made = self._image()
        answer = self._push(client, HERE, made, self._tag(), "post")
        return answer if answer.status != 201 else self._push(client, THERE, made, self._tag(), "mount")

    def _delete(self, client: Client, *, by_tag: bool) -> Answer:
        tag, digest = self._deletable.pop()
        self._ledger.begin_delete(HERE, digest, tag if by_tag else None)
        answer = client("DELETE", f"/v2/{HERE}/manifests/{tag if by_tag else digest}")
        if answer.status == 202:
            self._ledger.deleted(HERE, digest, tag if by_tag else None)
        return answer

    def _push(self, client: Client, repository: str, made: Image, tag: str, way: str) -> Answer:
        for content in made.blobs:
            answer = self._push_blob(client, repository, content, way)
            if answer.status != 201:
                return answer
        self._ledger.begin_push(repository, made, tag)
        answer = client("PUT", f"/v2/{repository}/manifests/{tag}", made.body, content_type=OCI_MANIFEST)
        if answer.status == 201:
            self._ledger.pushed(repository, made, tag)
        return answer

    def _push_blob(self, client: Client, repository: str, content: bytes, way: str) -> Answer:
        digest, url = Digest.of(content), f"/v2/{repository}/blobs/uploads/"
        if way == "post":
            return client("POST", f"{url}?digest={digest}", content)
        if way == "mount":
            return client("POST", f"{url}?mount={digest}&from={HERE}")
        location = client("POST", url).headers["location"]
        half = len(content) // 2 if way == "patch" else 0
        if half:
            answer = client("PATCH", location, content[:half])
            if answer.status != 202:
                return answer
        return client("PUT", f"{location}?digest={digest}", content[half:])

    def _image(self) -> Image:
        blobs = (self._dice.randbytes(40), self._dice.randbytes(20_000))
        return Image(image(*blobs), blobs)

    def _tag(self) -> str:
        return f"v{next(self._numbers)}"


@dataclass
class Bench:
    """A server, what it was told, and one fault after the other."""

    server: Server
    ledger: Ledger
    operations: Operations
    folder: Path

    def spoil(self, operation: str, point: Point, fault: str) -> tuple[Answer | None, bool]:
        """The operation's last answer, and whether the call was reached."""
        with self.server.client() as client:
            self.operations.prepare(client)  # all threads are there then, and what each of them does is seen
            watched = calls.watch(self.server.pid, self.folder, lambda: self.operations.prepare(client))
            (thread,) = (thread for thread, found in watched.items() if calls.kind_of(found) == point.thread)
            inject = f"{point.call}:{FAULTS[fault]}:when={point.count}"
            spoiled = Watched(thread, self.folder / "strace", inject)
            try:
                answer = self.operations.all[operation](client)
            except NoAnswer:
                answer = None
            found = spoiled.end()
        return answer, answer is None or any("INJECTED" in result for _, _, result in found)

    def watch(self, operation: str) -> list[Point]:
        """Where it can be spoiled."""
        with self.server.client() as client:
            self.operations.prepare(client)
            watched = calls.watch(self.server.pid, self.folder, lambda: self.operations.all[operation](client))
        return [
            point
            for found in watched.values()
            if (kind := calls.kind_of(found))
            for point in calls.points(found, kind, self.server.data)
        ]

    def recover(self, fault: str, point: Point) -> None:
        """After a kill the server is started anew, and after an fsync that failed it wants to be."""
        if fault == "kill":
            self.server.wait()
        elif point.call not in SYNCS:
            return
        else:
            with self.server.client() as client:
                assert client("GET", "/readyz").status == 503, f"an fsync failed, and it is ready: {point}"
            self.server.kill(self.server.pid)
        self.server.start()


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_a_fault_at_any_call_loses_nothing_acknowledged(
    serve: Callable[..., Server], database_url: str, tmp_path: Path, dice: random.Random, size: Size, did
):
    find_installed("strace")
    ledger, counts = Ledger(), Counter[str]()
    bench = Bench(serve(database=database_url, one_thread=True), ledger, Operations(ledger, dice), tmp_path)
    everywhere = [
        (operation, point, fault)
        for operation in bench.operations.all
        for point in bench.watch(operation)
        for fault in FAULTS
    ]
    chosen = some_of_each(everywhere, dice)[: size.points]
    try:
        for operation, point, fault in chosen:
            once(bench, operation, point, fault, counts, dice)
    finally:
        did(
            f"faults, {'PostgreSQL' if database_url else 'SQLite'}: {len(chosen)} of {len(everywhere)} points, "
            f"{dict(sorted(counts.items()))}, {said(ledger)}"
        )
    lost = bench.server.lost(ledger)
    bench.server.end()
    stored = look(bench.server.settings)
    assert not lost, tell("at the end", ledger, lost)
    assert not stored.damaged
    assert not stored.uploads_left
    assert not stored.unnamed_left


def some_of_each(everywhere: list[tuple[str, Point, str]], dice: random.Random) -> list[tuple[str, Point, str]]:
    """All, in such an order that the first hold every call and fault: most by far are writes to the database."""
    kinds: dict[tuple[str, str, str], list[tuple[str, Point, str]]] = {}
    for each in dice.sample(everywhere, len(everywhere)):
        kinds.setdefault((each[1].thread, each[1].call, each[2]), []).append(each)
    rounds = itertools.zip_longest(*dice.sample(list(kinds.values()), len(kinds)))
    return [each for one in rounds for each in one if each]


def once(bench: Bench, operation: str, point: Point, fault: str, counts: Counter[str], dice: random.Random) -> None:
    where = f"{operation}, {fault} at {point}"
    answer, is_reached = bench.spoil(operation, point, fault)
    counts[f"{point.call} {fault}" if is_reached else "not reached"] += 1
    if is_reached:
        if answer is not None:
            is_sync = point.call in SYNCS
            assert answer.status >= 500 or not is_sync, f"{where}: an fsync failed, and the answer is {answer}"
            assert answer.status < 500 or b"Traceback" not in answer.body, where
        bench.recover(fault, point)
    lost = bench.server.lost(bench.ledger, dice)
    assert not lost, tell(where, bench.ledger, lost)
    with bench.server.client() as client:
        again = bench.operations.push(client, "again", "post")
    assert again.status == 201, f"{where}: the next push is answered with {again}"
