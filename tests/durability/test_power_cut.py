"""The power goes at the moment of an acknowledgement, and the disk has what was written to it by then."""

import copy
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from charthouse.database.sqlite import WAL_LIMIT
from charthouse.settings import DATABASE_NAME
from durability import disk
from durability.ledger import Ledger
from durability.load import Load
from durability.report import said, tell
from durability.server import Server
from durability.sizes import Size
from durability.stored import look

CLIENTS = (4, 1)
MEGABYTES = 256  # and one for each cut; what is not written takes no room


@pytest.fixture
def disk_image(tmp_path: Path, size: Size) -> Path:
    disk.demand(tmp_path)
    image = tmp_path / "disk"
    disk.make(image, MEGABYTES + size.cuts)
    return image


def test_what_was_acknowledged_survives_a_power_cut(
    serve: Callable[..., Server], tmp_path: Path, disk_image: Path, dice: random.Random, size: Size, did
):
    load, again = Load(dice, *CLIENTS), Ledger()
    with disk.mounted(disk_image, tmp_path / "mounted") as folder:
        server = serve(folder)
        try:
            fill(server, load)
            for cut in range(size.cuts):
                ledger = cut_power(server, load, dice, disk_image, tmp_path / "copy")
                lost = look_at(tmp_path / "copy", serve, tmp_path / "after", ledger, again)
                again.counts["lost"] += len(lost)
                assert not lost, tell(f"cut {cut + 1}", ledger, lost)
        finally:
            server.stop()
            did(f"power cut: {size.cuts} cuts, {said(load.ledger)} {said(again)}")


def fill(server: Server, load: Load) -> None:
    """Until SQLite writes over its log, as it does from then on: a log that grows takes the rest of the journal along
    to the disk, and hides what was not synced."""
    running = load.run(server.port)
    log = server.data / f"{DATABASE_NAME}-wal"
    running.wait_for(1)
    while log.stat().st_size <= WAL_LIMIT:
        running.wait_for(10)
    running.wait_for(10)
    running.stop()


def cut_power(server: Server, load: Load, dice: random.Random, image: Path, target: Path) -> Ledger:
    """Leaves the disk as it was at an acknowledgement, and returns what was known then."""
    running = load.run(server.port)
    processes = server.processes()
    running.wait_for(dice.randint(1, 15), lambda: disk.freeze(*processes))
    disk.wait_until_frozen(*processes)
    try:
        ledger = copy.deepcopy(load.ledger)
        disk.copy(image, target)
    finally:
        disk.thaw(*processes)
    running.stop()
    return ledger


def look_at(image: Path, serve: Callable[..., Server], folder: Path, ledger: Ledger, again: Ledger) -> list[str]:
    """Starts a server on that disk. What is lost or damaged; `again` counts what was pushed to it afterwards."""
    with disk.mounted(image, folder):
        server = serve(folder)
        try:
            lost = server.lost(ledger)
            after = Load(random.Random(1), pushers=1, deleters=0)
            running = after.run(server.port)
            running.wait_for(2)
            running.stop()
            again.counts["pushes after a cut"] += 2
            server.end()
        finally:
            server.stop()
        return [*lost, *(f"named without its bytes: {key}" for key in look(server.settings).damaged)]
