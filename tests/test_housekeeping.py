"""What a server does by itself."""

import asyncio
from collections import Counter

import pytest

from charthouse.collection import Report
from charthouse.composition import open_registry
from charthouse.errors import DatabaseError
from charthouse.housekeeping import Chore, chores_of, keep_house

PATIENCE = 30  # seconds

pytestmark = pytest.mark.anyio


@pytest.mark.provokes("housekeeping failed: RuntimeError: a fault of our own")
async def test_a_chore_that_fails_is_logged_and_done_again_and_keeps_no_other_from_its_time(caplog):
    done: Counter[str] = Counter()
    again = asyncio.Event()

    async def fail() -> None:
        done["fail"] += 1
        raise RuntimeError("a fault of our own")

    async def lose_the_database() -> None:
        done["lose"] += 1
        raise DatabaseError("the database cannot be reached")

    async def work() -> None:
        done["work"] += 1
        if min(done[name] for name in ("fail", "lose", "work")) > 1:
            again.set()

    keeping = asyncio.create_task(keep_house([Chore(each, every=0) for each in (fail, lose_the_database, work)]))
    async with asyncio.timeout(PATIENCE):
        await again.wait()
    keeping.cancel()
    lines = {record.getMessage() for record in caplog.records}
    assert lines == {"housekeeping failed", "housekeeping failed: the database cannot be reached"}


async def test_a_collection_that_is_under_way_ends_with_the_server(make_settings, clock, monkeypatch, caplog):
    registry = await open_registry(make_settings(gc_every=60), clock=clock, durable=False)
    under_way = asyncio.Event()

    async def remove(report: Report, _: object) -> None:
        report.files += 1
        under_way.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(registry.collector, "_remove", remove)
    keeping = asyncio.create_task(keep_house([Chore(registry.collector.run)]))
    async with asyncio.timeout(PATIENCE):
        await under_way.wait()
    await registry.close()
    keeping.cancel()
    await asyncio.wait([keeping], timeout=PATIENCE)
    assert keeping.cancelled()
    assert caplog.records == []


async def test_one_chore_is_done_at_a_time():
    running, most, times = 0, 0, 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal running, most, times
        running, times = running + 1, times + 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if times > 10:
            enough.set()

    keeping = asyncio.create_task(keep_house([Chore(work, every=0), Chore(work, every=0, after=0.001)]))
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    keeping.cancel()
    assert most == 1


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({"gc_every": 60}, ["begin", "catch_up", "forget_old", "collect_when_due"]),
        ({"gc_every": 0}, ["catch_up", "forget_old"]),
    ],
    ids=["collecting", "not collecting"],
)
async def test_each_chore_of_a_server_can_be_done(make_settings, clock, flags, names):
    registry = await open_registry(make_settings(**flags), clock=clock, durable=False)
    chores = list(chores_of(registry))
    assert [getattr(each.work, "func", each.work).__name__ for each in chores] == names
    for each in chores:
        await each.work()
    await registry.close()
