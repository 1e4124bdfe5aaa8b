"""Clients that push, overwrite, refer, mount and delete, all at once, and write down what was acknowledged."""

import itertools
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from charthouse.testing.charts import make_chart
from durability.client import Client, NoAnswer
from durability.ledger import Image, Ledger
from support.requests import descriptor, encoded, image

HELM_CONFIG, HELM_LAYER = (
    "application/vnd.cncf.helm.config.v1+json",
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
)
COMMON = [bytes([65 + number]) * 6000 for number in range(6)]  # layers that all repositories share
PATIENCE = 120  # seconds for what takes tenths of one


class Refused(Exception):
    """An answer that nobody expected."""


class Pusher:
    """Has a repository of its own; what it does is what its dice say."""

    def __init__(self, load: "Load", name: str, dice: random.Random) -> None:
        self._load = load
        self._ledger = load.ledger
        self.repository = name
        self._dice = dice
        self._numbers = itertools.count()
        self._subjects: list[Digest] = []

    def step(self, client: Client) -> None:
        kinds: dict[Callable[[], tuple[Image, str | None]], int]
        kinds = {self.new: 4, self._overwrite: 3, self._refer: 2, self._chart: 1}
        (kind,) = self._dice.choices(list(kinds), list(kinds.values()))
        made, tag = kind()
        self.push(client, made, tag)
        if kind == self.new:
            self._subjects = [*self._subjects, made.digest][-5:]
            if self._dice.random() < 0.5:
                self._load.offer(self.repository, made.digest, tag if self._dice.random() < 0.5 else None)

    def push(self, client: Client, made: Image, tag: str | None) -> None:
        for content in made.blobs:
            self.push_blob(client, content)
        self._ledger.begin_push(self.repository, made, tag)
        answer = client(
            "PUT", f"/v2/{self.repository}/manifests/{tag or made.digest}", made.body, content_type=OCI_MANIFEST
        )
        if answer.status != 201:
            raise Refused(f"PUT of a manifest: {answer}")
        self._ledger.pushed(self.repository, made, tag)

    def push_blob(self, client: Client, content: bytes) -> None:
        """In one request, in two, or in pieces; or mounted from a neighbour, who may have it."""
        digest, url = Digest.of(content), f"/v2/{self.repository}/blobs/uploads/"
        way = self._dice.choice(["post", "put", "patch", "mount"])
        if way == "mount":
            answer = client("POST", f"{url}?mount={digest}&from={self._load.neighbour(self._dice)}")
            if answer.status == 201:
                return
        else:
            answer = client("POST", f"{url}?digest={digest}", content) if way == "post" else client("POST", url)
        if way != "post":
            location = answer.headers["location"]
            if way == "patch":
                half = len(content) // 2
                location = client("PATCH", location, content[:half]).headers["location"]
                content = content[half:]
            answer = client("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", content)
        if answer.status != 201:
            raise Refused(f"push of a blob by {way}: {answer}")

    def _unique(self) -> bytes:
        """Small enough to be a row, or large enough to be a file."""
        return self._dice.randbytes(self._dice.choice([100, 5000, 20_000]))

    def new(self) -> tuple[Image, str | None]:
        return self._image(), f"v{next(self._numbers)}"

    def _overwrite(self) -> tuple[Image, str | None]:
        return self._image(), f"latest-{self._dice.randrange(3)}"

    def _refer(self) -> tuple[Image, str | None]:
        subject = self._dice.choice(self._subjects or [Digest.of(b"what comes later")])
        return self._image(subject), None

    def _image(self, subject: Digest | None = None) -> Image:
        config = json.dumps({"made": self._dice.random()}).encode()
        layers = (self._unique(), self._dice.choice(COMMON))
        fields = {"subject": descriptor(b"", digest=subject)} if subject else {}
        return Image(image(config, *layers, **fields), (config, *layers), subject)

    def _chart(self) -> tuple[Image, str | None]:
        name, version = self.repository.rpartition("/")[2], f"1.0.{next(self._numbers)}"
        chart = make_chart(name, version, files={"README.md": "# A chart\n" * 500})
        config = json.dumps({"name": name, "version": version, "apiVersion": "v2"}).encode()
        layers = [descriptor(chart.content, HELM_LAYER)]
        body = encoded({"schemaVersion": 2, "config": descriptor(config, HELM_CONFIG), "layers": layers})
        return Image(body, (config, chart.content)), version


class Load:
    """`pushers` and `deleters` until `stop`. A request that gets no answer is not sent again: the next one is."""

    def __init__(self, dice: random.Random, pushers: int = 8, deleters: int = 2) -> None:
        self.ledger = Ledger()
        self._offered: list[tuple[str, Digest, str | None]] = []
        self._names = [f"load/p{number}" for number in range(pushers)]
        self.pushers = [Pusher(self, name, random.Random(dice.random())) for name in self._names]
        self._deleters = [random.Random(dice.random()) for _ in range(deleters)]
        self._progress = threading.Condition()

    def neighbour(self, dice: random.Random) -> str:
        return dice.choice(self._names)

    def offer(self, repository: str, digest: Digest, tag: str | None) -> None:
        """To whoever deletes."""
        with self._progress:
            self._offered.append((repository, digest, tag))

    def run(self, port: int) -> "Running":
        return Running(self, port)

    def _pusher(self, pusher: Pusher, client: Client) -> bool:
        pusher.step(client)
        return True

    def _deleter(self, dice: random.Random, client: Client) -> bool:
        """False when there is nothing to delete yet."""
        with self._progress:
            if not self._offered:
                self._progress.wait(0.1)
                return False
            repository, digest, tag = self._offered.pop(dice.randrange(len(self._offered)))
        self.ledger.begin_delete(repository, digest, tag)
        answer = client("DELETE", f"/v2/{repository}/manifests/{tag or digest}")
        if answer.status != 202:
            raise Refused(f"DELETE: {answer}")
        self.ledger.deleted(repository, digest, tag)
        return True


class Running:
    """The clients at work, until the end of a `with`, in whatever way that is left.

    What ends one of them in another way than by a killed server comes out of `stop`.
    """

    def __init__(self, load: Load, port: int) -> None:
        self._load = load
        self._port = port
        self._is_over = threading.Event()
        self._done = 0
        self._goals: dict[int, Callable[[], None]] = {}
        workers = [
            *((load._pusher, each) for each in load.pushers),
            *((load._deleter, each) for each in load._deleters),
        ]
        self._threads = ThreadPoolExecutor(len(workers))
        self._futures: list[Future[None]] = [self._threads.submit(self._work, *each) for each in workers]

    def _work(self, step: Callable[..., bool], who: object) -> None:
        client = Client(self._port)
        try:
            while not self._is_over.is_set():
                try:
                    is_done = step(who, client)
                except NoAnswer:
                    self._load.ledger.counts["without an answer"] += 1
                    self._is_over.wait(0.1)  # the port is closed until the server is back
                    continue
                with self._load._progress:
                    self._done += is_done
                    if then := self._goals.pop(self._done, None):
                        then()
                    self._load._progress.notify_all()
        finally:
            client.close()

    def wait_for(self, steps: int, then: Callable[[], None] | None = None) -> None:
        """Until so many more of them were acknowledged, or one was refused. Whoever got the last does `then`."""
        with self._load._progress:
            goal = self._done + steps
            self._goals = {goal: then} if then else {}
            reached = self._load._progress.wait_for(lambda: self._done >= goal or self._failed(), PATIENCE)
        assert reached, f"{goal - self._done} of {steps} steps are still to come after {PATIENCE} s"

    def _failed(self) -> bool:
        return any(future.done() for future in self._futures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What went wrong already is not covered up by what that did to the clients."""
        if kind is None:
            self.stop()
        else:
            self._is_over.set()

    def stop(self) -> None:
        self._is_over.set()
        self._threads.shutdown()
        for future in self._futures:
            future.result()
