"""What answers for a registry for tests, in the event loop that all of a process share."""

import asyncio
import dataclasses
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from charthouse import core, transfer
from charthouse.at_once import Layer
from charthouse.auth.access import ANONYMOUS, EVERYTHING, PULL, Pattern
from charthouse.collection import Report
from charthouse.core import Caller
from charthouse.http_protocol import State
from charthouse.names import RepositoryName, parse_reference
from charthouse.queries import Chart
from charthouse.testing import shared
from charthouse.testing.basic import BasicAlone
from charthouse.testing.clock import MovableClock
from charthouse.testing.connection import Connection
from charthouse.testing.options import rules_of
from charthouse.testing.place import Place
from charthouse.testing.pushing import Pushable, PushedChart, read
from charthouse.testing.records import Request
from charthouse.testing.site import Site, open_site

T = TypeVar("T")
Front = Callable[[Layer], Layer]

PAGE = 1000


class Inside:
    """Started by `start`, ended by `end`. All but those in the loop may be called from any thread."""

    def __init__(self, place: Place, clock: MovableClock, told: Callable[[Request], None], front: Front | None) -> None:
        """`told` hears of each request that is over, `front` is a layer for all that is not the registry's."""
        self.place = place
        self.state = State(place.tls)
        self.has_control = front is not None
        self._clock = clock
        self._told = told
        self._front = front or (lambda app: app)
        self._site: Site | None = None
        self._servers: list[asyncio.Server] = []

    def start(self) -> Self:
        self._shared = shared.join(self)
        try:
            self._shared.call(self._start())
        except BaseException:
            self.end()
            raise
        return self

    def end(self) -> None:
        try:
            self._shared.call(self._end())
        finally:
            shared.leave(self)

    def reset(self) -> None:
        self._shared.call(self._reset())

    def push(self, chart: Pushable, namespace: str = "") -> PushedChart:
        """What `helm push` does with an archive, or with the words for `make_chart`. Raises what a push raises."""
        archive, provenance, created = read(chart)

        async def push(registry: core.Registry) -> PushedChart:
            repository, pushed = await transfer.push_chart(registry, namespace, archive, provenance, created, Caller())
            return PushedChart(repository, pushed.tags[0], pushed.digest)

        return self._with(push)

    def seed(self, folder: str | os.PathLike[str], namespace: str = "") -> list[str]:
        """Pushes all archives of a folder and of those below it, which become namespaces. Returns their names here."""
        files = transfer.find_archives([Path(folder)], namespace)

        async def push(registry: core.Registry) -> list[str]:
            names = []
            async for file, name, error in transfer.push_files(registry, files, Caller()):
                if error:
                    error.add_note(f"in {file.path}")
                    raise error
                names.append(name)
            return names

        return self._with(push)

    def charts(self, repository: str | None = None) -> list[Chart]:
        """All charts, or those of one repository."""
        name = RepositoryName.parse(repository) if repository else None
        return self._with(lambda registry: registry.list_charts(name))

    def tags(self, repository: str) -> list[str]:
        name = RepositoryName.parse(repository)

        async def tags(registry: core.Registry) -> list[str]:
            found: list[str] = []
            more = True
            while more:
                page, more = await registry.list_tags(name, found[-1] if found else "", PAGE)
                found += page
            return found

        return self._with(tags)

    def manifest(self, repository: str, reference: str) -> dict[str, Any]:
        """By tag or digest. A version's + is _ in its tag."""
        name, parsed = RepositoryName.parse(repository), parse_reference(reference.replace("+", "_"))
        found: dict[str, Any] = json.loads(
            self._with(lambda registry: registry.pulls.get_manifest(name, parsed)).content
        )
        return found

    def requests(self) -> list[Request]:
        """Asked in the loop, so that a request whose answer a client has is over."""

        async def requests() -> list[Request]:
            return list(self.site.records.requests)

        return self._shared.call(requests())

    def collect(self) -> Report:
        """Garbage collection, now by the registry's clock: what it removed. Without it, it keeps all."""
        return self._with(lambda registry: registry.collector.run())

    def _with(self, work: Callable[[core.Registry], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            try:
                return await work(self.site.registry)
            finally:
                self.rest_when_alone()

        return self._shared.call(run())

    @property
    def site(self) -> Site:
        assert self._site is not None  # noqa: S101 - from its start to its end
        return self._site

    @property
    def app(self) -> Layer:
        return self.site.app

    # --- in the loop ------------------------------------------------------------------------------------------------

    def rest_when_alone(self) -> None:
        """Without connections it holds nothing but its sockets."""
        if self._site is not None and not self.state.connections:
            self._site.registry.rest()

    async def _start(self) -> None:
        process = self._shared
        self._site = await self._open()
        self.state.default_headers = shared.default_headers()
        for bound in self.place.sockets:
            self._servers.append(await process.loop.create_server(lambda: Connection(self, process), sock=bound))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._cut_off()
        if self._site is not None:
            await self._site.close()
        self._site = None

    async def _reset(self) -> None:
        before = self.site
        self._clock.reset()
        await self._cut_off()
        self._site = await self._open()
        await before.close()

    async def _open(self) -> Site:
        settings = self.place.settings
        front = BasicAlone if settings.auth == "basic" else (lambda app: app)
        site = await open_site(self.place, self._clock, self._shared.threads, self._shared.helper, self._told, front)
        if settings.anonymous_pull:
            await site.registry.users.grant(ANONYMOUS, Pattern(EVERYTHING), frozenset([PULL]))
        site.faults.add(rules_of(settings.personality))
        return dataclasses.replace(site, app=self._front(site.app))

    async def _cut_off(self) -> None:
        connections = [each for each in self.state.connections if isinstance(each, Connection)]
        spared = {each.controlling for each in connections}
        for connection in connections:
            if connection.controlling is None:
                (connection.transport.abort if connection.unanswered else connection.transport.close)()
        running = [task for task in self.state.tasks if task not in spared]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
