"""The clock is set forward and back, by a day and by a year, while the server runs, collects and is restarted."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from charthouse.manifest import OCI_MANIFEST
from durability.load import Load
from durability.report import said, tell
from durability.server import Server, set_clock
from durability.sizes import Size
from durability.stored import collect
from support.process import eventually

DAY = 24 * 3600
JUMPS = {"+1 day": DAY, "-1 day": -DAY, "+1 year": 365 * DAY}
SAID = "the clock was set"  # by the collection that found it out


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_what_was_acknowledged_survives_a_clock_that_is_set(
    serve: Callable[..., Server], database_url: str, tmp_path: Path, dice: random.Random, size: Size, did
):
    file = tmp_path / "clock"
    set_clock(file, 0)
    ahead, counts, load = 0.0, Counter[str](), Load(dice, pushers=4, deleters=1)
    server = serve(database=database_url, clock=file, gc_every=1, gc_grace=DAY // 2)
    ways = dice.sample(list(JUMPS), len(JUMPS))  # so that few of them are not always the same
    collect(server.settings)  # a clock is compared with what it was at the last collection: there is one
    try:
        for jump in range(size.jumps):
            work(server, load)
            how = ways[jump % len(ways)]
            counts[how] += 1
            ahead += JUMPS[how]
            jump_between_blobs_and_manifest(server, load, lambda ahead=ahead: set_clock(file, ahead))
            work(server, load)
            if dice.random() < 0.5:
                counts["restarts"] += 1
                server.end()
                server.start()
            lost = server.lost(load.ledger, dice)
            assert not lost, tell(f"after {how}", load.ledger, lost)
    finally:
        did(f"clock, {'PostgreSQL' if database_url else 'SQLite'}: {dict(sorted(counts.items()))}, {said(load.ledger)}")


def work(server: Server, load: Load) -> None:
    with load.run(server.port) as running:
        running.wait_for(10)


def jump_between_blobs_and_manifest(server: Server, load: Load, jump: Callable[[], None]) -> None:
    """The blobs were answered a moment ago, whatever the clock says: no collection takes them."""
    pusher = load.pushers[0]
    made, tag = pusher.new()
    with server.client() as client:
        for content in made.blobs:
            pusher.push_blob(client, content)
        before = server.log.read_text().count(SAID)
        jump()
        eventually(lambda: server.log.read_text().count(SAID) > before)
        load.ledger.begin_push(pusher.repository, made, tag)
        answer = client("PUT", f"/v2/{pusher.repository}/manifests/{tag}", made.body, content_type=OCI_MANIFEST)
        assert answer.status == 201, answer
        load.ledger.pushed(pusher.repository, made, tag)
