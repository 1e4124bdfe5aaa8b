"""What is behind the address of a registry for tests, from one reset to the next."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from charthouse import core
from charthouse.app import create_app
from charthouse.at_once import Layer
from charthouse.request_log import LineWriter, RequestLog
from charthouse.settings import DATABASE_NAME, Settings
from charthouse.testing import shared
from charthouse.testing.clock import MovableClock
from charthouse.testing.faults import Faults
from charthouse.testing.records import Records, Request
from charthouse.testing.shared import Shared, User


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
    given: Settings,
    user: User | None,
    clock: MovableClock,
    process: Shared,
    told: Callable[[Request], None],
    front: Callable[[Layer], Layer],
) -> Site:
    async with AsyncExitStack() as opened:
        folder = process.home.new_folder()
        opened.callback(shutil.rmtree, folder)
        (folder / DATABASE_NAME).write_bytes(await shared.closed_database(user) if user else shared.empty_database())
        settings = dataclasses.replace(given, data=folder)
        app = create_app(settings, clock=clock, durable=False, threads=process.threads)
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
