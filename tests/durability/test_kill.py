"""kill -9 of the server, of a worker, and of all, while eight clients push, two delete, and garbage is collected."""

import random
from collections.abc import Callable

import pytest

from durability.load import Load
from durability.report import said, tell
from durability.server import Server
from durability.sizes import Size
from durability.stored import look

COLLECTS = {"gc_every": 1, "gc_grace": 15}  # seconds; no client takes so long from its blobs to its manifest
STEPS = (5, 60)  # acknowledged before a kill


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_acknowledged_survives_kill_9(
    workers: int, serve: Callable[..., Server], database_url: str, dice: random.Random, size: Size, did
):
    cycles = size.kills_postgres if database_url else size.kills
    server = serve(database=database_url, workers=workers, **COLLECTS)
    load = Load(dice)
    for cycle in range(cycles):
        kill_once(server, load, dice)
        lost = server.lost(load.ledger, dice)
        assert not lost, tell(f"cycle {cycle + 1}", load.ledger, lost)
    lost = server.lost(load.ledger)
    server.end()
    stored = look(server.settings)
    did(
        f"kill -9, {'PostgreSQL' if database_url else 'SQLite'}, {workers} worker(s): {cycles} cycles, "
        f"{said(load.ledger)} {len(stored.unnamed)} unnamed files, {stored.uploads} unfinished uploads"
    )
    assert not lost, tell("at the end", load.ledger, lost)
    assert not stored.damaged
    assert not stored.uploads_left
    assert not stored.unnamed_left
    assert len(stored.unnamed) <= 8 * cycles  # one for each client that was pushing


def kill_once(server: Server, load: Load, dice: random.Random) -> None:
    """And back at once on the same port; a worker alone is replaced by its parent while the clients go on."""
    with load.run(server.port) as running:
        running.wait_for(dice.randint(*STEPS))
        processes = server.processes()
        who = dice.choice(["parent", "worker", "all"] if len(processes) > 1 else ["parent"])
        load.ledger.counts[f"kills of {who}"] += 1
        killed = {
            "parent": processes[:1],
            "worker": dice.sample(processes[1:], min(len(processes) - 1, 1)),
            "all": processes,
        }
        server.kill(*killed[who])
        if who == "worker":
            running.wait_for(20)
        else:
            server.start()
