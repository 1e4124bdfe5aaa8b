"""Garbage collection in a loop, with hardly any grace, while ten clients push, pull back and delete."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from charthouse.collection import Collector
from charthouse.composition import open_existing
from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from charthouse.settings import Settings
from durability.client import Answer, Client
from durability.load import Refused
from durability.server import Server
from durability.sizes import Size
from durability.stored import look
from support.requests import image

CLIENTS = 10
GRACE = 1  # seconds
COMMON = [bytes([65 + number]) * 6000 for number in range(20)]  # of a client each comes back about when its grace ends
PATIENCE = 120  # seconds beyond those that were asked for
KEPT = 50  # manifests of a client that are not deleted


@dataclass
class Found:
    """What the clients did, and what should not have been."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def has_seen_enough(self) -> bool:
        """A slow machine is given the time to collect what its clients pushed."""
        return self.counts["pushes"] >= CLIENTS and self.counts["blobs collected"] > 0

    def fault(self, what: str) -> None:
        self.faults.append(what)
        self.is_over.set()

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))


class Pusher:
    """As Helm: HEAD, and POST and PUT of what is not here; or a mount; then the manifest, which is pulled back."""

    def __init__(self, found: Found, number: int, dice: random.Random, client: Client) -> None:
        self._found = found
        self._number = number
        self._dice = dice
        self._client = client
        self._kept: list[tuple[str, bytes, tuple[bytes, ...]]] = []
        self._gone: list[bytes] = []

    def run(self) -> None:
        try:
            for number in itertools.count():
                if self._found.is_over.is_set():
                    break
                self._step(f"v{number}")
            for kept in self._kept:
                self._pull(*kept)
        except Exception as error:
            self._found.fault(f"client {self._number}: {error!r}")
            raise
        finally:
            self._client.close()

    def _step(self, tag: str) -> None:
        config = json.dumps({"made": self._dice.random()}).encode()
        blobs = (config, self._dice.choice(COMMON), self._dice.randbytes(self._dice.choice([100, 5000])))
        body = image(config, *blobs[1:])
        while not self._push(tag, body, blobs):
            self._found.counts["pushes that took longer than the grace"] += 1
        self._pull(tag, body, blobs)
        if self._dice.random() < 0.1 and len(self._kept) < KEPT:
            self._kept.append((tag, body, blobs))
        else:
            self._expect(self._call("DELETE", f"manifests/{Digest.of(body)}"), 202)
            self._found.counts["deletes"] += 1
            self._gone = [*self._gone, blobs[-1]][-20:]
        self._probe()

    def _push(self, tag: str, body: bytes, blobs: tuple[bytes, ...]) -> bool:
        """False when it took longer than the grace, so that it may be told to send a blob again."""
        asked = min(self._push_blob(content) for content in blobs)
        answer = self._call("PUT", f"manifests/{tag}", body, content_type=OCI_MANIFEST)
        took = time.monotonic() - asked
        if answer.status == 404:
            if took < 0.9 * GRACE:  # an answer within a tenth of the last one is not recorded anew
                self._found.fault(f"{took:.3f} s after it was told that all is here: {answer.body.decode()}")
            return False
        self._expect(answer, 201)
        self._found.counts["pushes"] += 1
        return True

    def _push_blob(self, content: bytes) -> float:
        """When the request was sent whose answer was that the blob is here."""
        digest = Digest.of(content)
        asked = time.monotonic()
        if self._call("HEAD", f"blobs/{digest}").status == 200:
            self._found.counts["blobs that were here"] += 1
            return asked
        neighbour = self._dice.randrange(CLIENTS)
        asked = time.monotonic()
        answer = self._call("POST", f"blobs/uploads/?mount={digest}&from=load/{neighbour}")
        if answer.status == 201:
            self._found.counts["blobs mounted"] += 1
            return asked
        self._expect(answer, 202)
        asked = time.monotonic()
        self._expect(self._client("PUT", f"{answer.headers['location']}?digest={digest}", content), 201)
        self._found.counts["blobs sent"] += 1
        return asked

    def _pull(self, tag: str, body: bytes, blobs: tuple[bytes, ...]) -> None:
        """What was acknowledged is here, byte for byte."""
        answers = [self._call("GET", f"manifests/{tag}", accept=OCI_MANIFEST)]
        answers += [self._call("GET", f"blobs/{Digest.of(content)}") for content in blobs]
        for answer, content in zip(answers, (body, *blobs), strict=True):
            if (answer.status, answer.body) != (200, content):
                self._found.counts["lost"] += 1
                self._found.fault(f"of {tag} {Digest.of(content)} is {answer.status} {answer.body[:200]!r}")

    def _probe(self) -> None:
        """What nothing names is whole or gone, and a pull that meets the collection of it is no error."""
        content = self._dice.choice(self._gone or [b""])
        answer = self._call("GET", f"blobs/{Digest.of(content)}")
        if answer.status != 404 and (answer.status, answer.body) != (200, content):
            self._found.fault(f"an unnamed blob is {answer.status} {answer.body[:200]!r}")

    def _call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        return self._client(method, f"/v2/load/{self._number}/{path}", body, **headers)

    def _expect(self, answer: Answer, status: int) -> None:
        if answer.status != status:
            raise Refused(f"{status} was expected: {answer}")


async def collect(settings: Settings, found: Found) -> None:
    """As `charthouse gc` in a loop, beside the server."""
    registry = await open_existing(settings)
    try:
        while not found.is_over.is_set():
            report = await registry.collector.run()
            found.counts["collections"] += 1
            found.counts["blobs collected"] += report.blobs
            found.counts["bytes collected"] += report.blob_bytes
    except Exception as error:
        found.fault(f"the collection: {error!r}")
        raise
    finally:
        await registry.close()


def hammer(server: Server, dice: random.Random, seconds: float) -> Found:
    """Until the time is over and there was something to see, or something is found."""
    found = Found()
    pushers = [Pusher(found, number, random.Random(dice.random()), server.client()) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        work = [threads.submit(pusher.run) for pusher in pushers]
        work.append(threads.submit(asyncio.run, collect(server.settings, found)))
        least = time.monotonic() + seconds
        while not found.is_over.wait(0.05) and time.monotonic() < least + PATIENCE:
            if time.monotonic() > least and found.has_seen_enough:
                break
        found.is_over.set()
    assert all(each.done() for each in work)
    return found


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_collection_with_hardly_any_grace_loses_nothing_that_was_acknowledged(
    serve: Callable[..., Server], database_url: str, dice: random.Random, size: Size, did
):
    server = serve(database=database_url, gc_grace=GRACE, gc_every=1, workers=2)
    found = hammer(server, dice, size.seconds_of_collection)
    server.end()
    did(
        f"collection in a loop, {'PostgreSQL' if database_url else 'SQLite'}: {size.seconds_of_collection} s,"
        f" {CLIENTS} clients, {found}, {found.counts['lost']} lost"
    )
    assert not found.faults, "\n".join(found.faults[:20])
    assert found.has_seen_enough
    stored = look(server.settings)
    assert (stored.damaged, stored.unnamed) == ([], [])


@contextmanager
def that_forgets_the_grace(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(Collector, "_cutoff", lambda _self, moment: moment.now)
        yield


@pytest.mark.usefixtures("anyio_backend")
def test_a_collection_that_forgets_the_grace_is_caught(
    serve: Callable[..., Server], database_url: str, dice: random.Random, monkeypatch: pytest.MonkeyPatch, did
):
    server = serve(database=database_url, gc_grace=GRACE, gc_every=0)
    with that_forgets_the_grace(monkeypatch):
        found = hammer(server, dice, 60)
    did(f"a collection that forgets the grace: after {found.counts['pushes']} pushes, {found.faults[:1]}")
    assert any("after it was told that all is here" in fault for fault in found.faults)
