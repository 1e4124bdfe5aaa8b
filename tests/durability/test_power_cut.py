"""The power goes at the moment of an acknowledgement, and the disk has what was written to it by then."""

import contextlib
import copy
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from charthouse.database.sqlite_writer import WAL_LIMIT
from charthouse.settings import DATABASE_NAME
from durability import disk
from durability.ledger import Ledger
from durability.load import Load
from durability.report import said, tell
from durability.server import Server, family
from durability.sizes import Size
from durability.stored import look
from support import postgres

CLIENTS = (4, 1)
MEGABYTES = 256  # and one for each cut; what is not written takes no room
Serve = Callable[..., Server]


@dataclass(frozen=True)
class Machine:
    """A server whose blobs and whose database are on one disk; `others` are the processes of the database."""

    server: Server
    others: Callable[[], list[int]]

    def processes(self) -> list[int]:
        """The database first: what it does after the rest stood still would be no loss of power."""
        return [*self.others(), *self.server.processes()]


@contextlib.contextmanager
def with_sqlite(folder: Path, serve: Serve) -> Iterator[Machine]:
    server = serve(folder)
    try:
        yield Machine(server, list)
    finally:
        server.stop()


@contextlib.contextmanager
def with_postgres(folder: Path, serve: Serve) -> Iterator[Machine]:
    place = folder / "postgres"
    place.mkdir(exist_ok=True)
    with postgres.durable(place) as database:
        server = serve(folder, database=database.url)
        try:
            yield Machine(server, lambda: family(database.pid))
        finally:
            server.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where PostgreSQL's user gets to, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="charthouse-cut-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@dataclass
class Bench:
    """A disk, what was pushed to the machine on it, and what was pushed after a cut."""

    place: Path
    serve: Serve
    dice: random.Random
    starts: Callable[[Path, Serve], contextlib.AbstractContextManager[Machine]]

    def __post_init__(self) -> None:
        self.load, self.again = Load(self.dice, *CLIENTS), Ledger()

    def cut(self, cuts: int, fill: Callable[[Server, Load], None]) -> None:
        disk.demand(self.place)
        image = self.place / "disk"
        disk.make(image, MEGABYTES + cuts)
        with disk.mounted(image, self.place / "mounted") as folder, self.starts(folder, self.serve) as machine:
            fill(machine.server, self.load)
            for number in range(cuts):
                ledger = self._cut_once(machine, image)
                lost = self._look_at(ledger)
                self.again.counts["lost"] += len(lost)
                assert not lost, tell(f"cut {number + 1}", ledger, lost)

    def _cut_once(self, machine: Machine, image: Path) -> Ledger:
        """Leaves the disk as it was at an acknowledgement, and returns what was known then."""
        frozen: list[int] = []

        def freeze() -> None:
            frozen.extend(machine.processes())
            disk.freeze(*frozen)

        with self.load.run(machine.server.port) as running:
            running.wait_for(self.dice.randint(1, 15), freeze)
            try:
                disk.wait_until_frozen(*frozen)
                ledger = copy.deepcopy(self.load.ledger)
                disk.copy(image, self.place / "copy")
            finally:
                disk.thaw(*frozen)
        return ledger

    def _look_at(self, ledger: Ledger) -> list[str]:
        """Starts a machine on that disk. What is lost or damaged; `again` counts what was pushed to it afterwards."""
        with (
            disk.mounted(self.place / "copy", self.place / "after") as folder,
            self.starts(folder, self.serve) as machine,
        ):
            lost = machine.server.lost(ledger)
            with Load(random.Random(1), pushers=1, deleters=0).run(machine.server.port) as running:
                running.wait_for(2)
            self.again.counts["pushes after a cut"] += 2
            machine.server.end()
            without_bytes = look(machine.server.settings).damaged
        return [*lost, *(f"named without its bytes: {key}" for key in without_bytes)]


def test_what_was_acknowledged_survives_a_power_cut(serve: Serve, place: Path, dice: random.Random, size: Size, did):
    bench = Bench(place, serve, dice, with_sqlite)
    try:
        bench.cut(size.cuts, fill_log)
    finally:
        did(f"power cut: {size.cuts} cuts, {said(bench.load.ledger)} {said(bench.again)}")


def fill_log(server: Server, load: Load) -> None:
    """Until SQLite writes over its log, as it does from then on: a log that grows takes the rest of the journal along
    to the disk, and hides what was not synced."""
    log = server.data / f"{DATABASE_NAME}-wal"
    with load.run(server.port) as running:
        running.wait_for(1)
        while log.stat().st_size <= WAL_LIMIT:
            running.wait_for(10)
        running.wait_for(10)


def test_what_was_acknowledged_survives_a_power_cut_of_a_postgres_on_the_same_disk(
    serve: Serve, place: Path, dice: random.Random, size: Size, did
):
    bench = Bench(place, serve, dice, with_postgres)
    try:
        bench.cut(size.cuts_postgres, push_some)
    finally:
        did(f"power cut with PostgreSQL: {size.cuts_postgres} cuts, {said(bench.load.ledger)} {said(bench.again)}")


def push_some(server: Server, load: Load) -> None:
    """PostgreSQL makes files of its log before it needs them: a cut falls between two of them."""
    with load.run(server.port) as running:
        running.wait_for(20)
