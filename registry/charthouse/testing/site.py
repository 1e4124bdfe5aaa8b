"""What is behind the address of a registry for tests, from one reset to the next."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

from charthouse import core
from charthouse.app import create_app
from charthouse.at_once import Layer
from charthouse.helm.helper import Helper
from charthouse.request_log import LineWriter, RequestLog
from charthouse.settings import DATABASE_NAME, Settings
from charthouse.testing import shared
from charthouse.testing.clock import MovableClock
from charthouse.testing.faults import Faults
from charthouse.testing.place import Place
from charthouse.testing.records import Records, Request


@dataclass(frozen=True, slots=True)
class Site:
    """A registry with its folder, its record and the layers in front of it: what `reset` makes anew."""

    settings: Settings
    registry: core.Registry
    records: Records
    faults: Faults
    app: Layer
    _opened: AsyncExitStack

    async def close(self) -> None:
        await self._opened.aclose()


async def open_site(
    place: Place,
    clock: MovableClock,
    threads: ThreadPoolExecutor,
    helper: Helper,
    told: Callable[[Request], None],
    front: Callable[[Layer], Layer],
) -> Site:
    async with AsyncExitStack() as opened:
        folder = place.home.new_folder()
        opened.callback(shutil.rmtree, folder)
        database = await shared.closed_database(place.user) if place.user else shared.empty_database()
        (folder / DATABASE_NAME).write_bytes(database)
        settings = dataclasses.replace(place.settings, data=folder)
        app = create_app(settings, clock=clock, durable=False, threads=threads, helper=helper)
        registry = await opened.enter_async_context(app.lifespan())
        faults = Faults(front(app), clock)
        records = Records(faults, clock, told)
        layers = RequestLog(records, lines=_NoLines(), clock=clock)
        return Site(settings, registry, records, faults, layers, opened.pop_all())


class _NoLines(LineWriter):
    """The record takes the log's place."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())

    def later(self, line: str) -> None:
        pass
