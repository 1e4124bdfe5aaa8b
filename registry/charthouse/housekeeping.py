"""What a server does by itself, one chore at a time, so that a start takes one connection of the database for all."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from charthouse.core import Registry
from charthouse.request_log import log_fault

log = logging.getLogger(__name__)

EVERY = 3600  # seconds
QUIET_START = 60  # seconds without garbage collection: clients have waited for the registry


@dataclass(frozen=True, slots=True)
class Chore:
    """Done `after` seconds from the start, and again and again, each time `every` seconds after its end."""

    work: Callable[[], Awaitable[object]]
    every: float = EVERY
    after: float = 0


async def keep_house(chores: Sequence[Chore]) -> None:
    """For ever. What fails is logged, and done again at its next time."""
    clock = asyncio.get_running_loop().time
    due = {chore: clock() + chore.after for chore in chores}
    while due:
        chore = min(due, key=lambda each: due[each])
        await asyncio.sleep(due[chore] - clock())
        try:
            await chore.work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and done again
            log_fault(log, "housekeeping failed", error)
        due[chore] = clock() + chore.every


def chores_of(registry: Registry) -> Iterator[Chore]:
    if registry.settings.ephemeral:
        yield Chore(registry.forget_stale_uploads, after=EVERY)  # it begins empty
        return
    every = registry.settings.gc_every
    if every:
        yield Chore(registry.collector.begin)
    yield Chore(registry.extraction.catch_up)
    yield Chore(registry.audit.forget_old)
    if every:
        yield Chore(partial(collect_when_due, registry), every, after=min(every, QUIET_START))


async def collect_when_due(registry: Registry) -> None:
    report = await registry.collector.run_when_due()
    if report is not None and not report.is_empty:
        log.info("garbage collection removed %s", report)
