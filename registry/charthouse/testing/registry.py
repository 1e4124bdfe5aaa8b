"""A registry of a test's own."""

import asyncio
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from charthouse import core, transfer
from charthouse.addresses import bind, url_of
from charthouse.at_once import Layer
from charthouse.auth.access import ANONYMOUS, EVERYTHING, PULL, Pattern
from charthouse.collection import Report
from charthouse.core import Caller
from charthouse.errors import RegistryError
from charthouse.http_protocol import State
from charthouse.names import RepositoryName, parse_reference
from charthouse.queries import Chart
from charthouse.settings import Settings, SettingsError
from charthouse.testing import shared
from charthouse.testing.basic import BasicAlone
from charthouse.testing.clock import MovableClock
from charthouse.testing.connection import Connection
from charthouse.testing.options import checked, load_options, rules_of, user_for
from charthouse.testing.pushing import Pushable, PushedChart, read
from charthouse.testing.records import Request
from charthouse.testing.shared import Shared
from charthouse.testing.site import Site, open_site
from charthouse.tls import Tls, open_tls

if TYPE_CHECKING:
    from charthouse.certificates import ClientFiles
    from charthouse.testing.rules import Rule

T = TypeVar("T")
Front = Callable[[Layer, "Registry"], Layer]

PAGE = 1000


class Registry:
    """Started by `start` or `with`, ended by `end`; every call may come from any thread, and from any event loop's.

    `settings` are those of the server by their names (`policy="charts"`), or all of them are `given`. It listens on
    loopback; with `host="0.0.0.0"` containers and clusters reach it, by the names of `san` too. With `tls` it has a
    certificate for those and for this machine's, and answers plain HTTP on the same port; with `mtls` clients have to
    show one too, and plain HTTP is refused. With `auth="bearer"` clients sign in as `username`, who may do everything,
    and have tokens; with `auth="basic"` there are none; with `anonymous_pull` pulls need neither.
    """

    def __init__(
        self,
        *,
        host: str | Sequence[str] | None = None,
        auth: str | None = None,
        anonymous_pull: bool | str | None = None,
        tls: bool | str | None = None,
        mtls: bool | str | None = None,
        san: str | Sequence[str] | None = None,
        personality: str | None = None,
        front: Front | None = None,
        given: Settings | None = None,
        **settings: Any,
    ) -> None:
        self.clock = MovableClock()
        self.listener: Callable[[Request], None] | None = None  # told of each request that is over
        options = {
            "host": host,
            "auth": auth,
            "anonymous_pull": anonymous_pull,
            "tls": tls,
            "mtls": mtls,
            "san": san,
            "personality": personality,
            **settings,
        }
        self._given = checked(given or load_options(options))
        self._user = user_for(self._given)
        self._front = front
        self._shared: Shared | None = None
        self.state = State()
        self._site: Site | None = None
        self._client: ClientFiles | None = None
        self._kept = ExitStack()  # what outlives a reset
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    # --- its life ---------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Ready when this returns."""
        self._shared = shared.join(self)
        try:
            self._call(self._start(self._shared))
            if self._given.seed is not None:
                self._begin_with(self._given.seed)
        except BaseException:
            self.end()
            raise
        return self

    def _begin_with(self, folder: Path) -> None:
        try:
            self.seed(folder)
        except OSError as error:
            raise SettingsError(f"the seed {folder} cannot be read: {error.strerror}") from None
        except RegistryError as error:
            words = [error.message, *getattr(error, "__notes__", ())]
            raise SettingsError(f"the seed {folder}: {'; '.join(words)}") from None

    def end(self) -> None:
        """Nothing of it is left. Ending it again does nothing."""
        if self._shared is None:
            return
        try:
            self._call(self._end())
        finally:
            self._shared = None
            shared.leave(self)

    def reset(self) -> None:
        """As if it had just been started, at the same address."""
        self._call(self._reset())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        """Under any event loop: it waits some milliseconds for the registry's own, and never the other way round."""
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    # --- where it is ------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        if not self._sockets:
            raise RuntimeError("the registry has not been started")
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def host(self) -> str:
        """As it stands in a reference: `oci://{registry.host}/team-a/app`."""
        if self._settings.on_loopback:
            return f"localhost:{self.port}"
        return url_of(self._sockets[0], self.scheme).partition("//")[2]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def username(self) -> str:
        """Of the administrator; empty where everybody may do everything."""
        return self._user.name if self._user else ""

    @property
    def password(self) -> str:
        return self._user.password if self._user else ""

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens."""
        return self._given.host

    @property
    def ca_file(self) -> Path:
        """What clients are told to trust, in PEM."""
        if self.state.tls is None or self.state.tls.authority is None:
            raise RuntimeError("the registry speaks plain HTTP: give tls=True")
        return self.state.tls.authority

    @property
    def client_cert_file(self) -> Path:
        """The certificate that clients show, in PEM."""
        return self._pair.certificate

    @property
    def client_key_file(self) -> Path:
        return self._pair.key

    @property
    def _pair(self) -> "ClientFiles":
        if self._client is None:
            raise RuntimeError("the registry demands no certificate of its clients: give mtls=True")
        return self._client

    @property
    def demands_certificates(self) -> bool:
        return self._given.mtls

    @property
    def speaks_tls(self) -> bool:
        return self._given.mtls or self._given.tls != "off"

    @property
    def has_control(self) -> bool:
        """Whether there is `/_test/`."""
        return self._front is not None

    @property
    def scheme(self) -> str:
        return "https" if self.speaks_tls else "http"

    # --- what is in it ----------------------------------------------------------------------------------------------

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

    def collect(self) -> Report:
        """Garbage collection, now by the registry's clock: what it removed. Without it, it keeps all."""
        return self._with(lambda registry: registry.collector.run())

    # --- what was asked ---------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Since the start or the last reset."""
        return list(self._running.records.requests)

    # --- what goes wrong --------------------------------------------------------------------------------------------

    def fail(self, **rule: Any) -> None:
        """From now on, until the next reset, requests meet this `Rule`: `registry.fail(status=502, times=2)`."""
        from charthouse.testing.rules import Rule

        self.add_faults([Rule(**rule)])

    def add_faults(self, rules: "Iterable[Rule]") -> None:
        self._running.faults.add(rules)

    def imitate(self, personality: str) -> None:
        """The registry behaves as another one does, as far as `personalities.py` knows."""
        self.add_faults(rules_of(personality))

    @property
    def faults(self) -> "list[Rule]":
        return self._running.faults.rules

    def clear_faults(self) -> None:
        """Personality included."""
        self._running.faults.clear()

    # --- inside, in the shared loop ---------------------------------------------------------------------------------

    @property
    def _running(self) -> Site:
        if self._site is None:
            raise RuntimeError("the registry has not been started")
        return self._site

    @property
    def _settings(self) -> Settings:
        return self._running.settings

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._shared is None:
            work.close()
            raise RuntimeError("the registry has not been started")
        return self._shared.call(work)

    def _with(self, work: Callable[[core.Registry], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            try:
                return await work(self._running.registry)
            finally:
                self.rest_when_alone()

        return self._call(run())

    @property
    def app(self) -> Layer:
        return self._running.app

    def rest_when_alone(self) -> None:
        """Without connections it holds nothing but its sockets."""
        if self._site is not None and not self.state.connections:
            self._site.registry.rest()

    async def _start(self, process: Shared) -> None:
        self._site = await self._open(process)
        self.state = State(self._make_tls(process) if self.speaks_tls else None)
        self.state.default_headers = shared.default_headers()
        self._sockets = bind(self._settings)
        self._servers = [
            await process.loop.create_server(lambda: Connection(self, process), sock=bound) for bound in self._sockets
        ]

    def _make_tls(self, process: Shared) -> Tls | None:
        folder = process.home.new_folder()
        self._kept.callback(shutil.rmtree, folder)
        names = dict.fromkeys((*self._given.host_name, *self._given.san))
        given = dataclasses.replace(self._given, tls="self-signed", data=folder, host_name=tuple(names))
        if not self.demands_certificates:
            return open_tls(given)
        from charthouse.certificates import client_files  # as for every certificate, only where there is one

        made = open_tls(given)
        assert made is not None  # noqa: S101 - as it was given
        assert made.authority is not None  # noqa: S101 - likewise
        self._client = client_files(made.authority.parent, self.clock())
        return made.demanding(made.authority)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        await self._cut_off()
        if self._site is not None:
            await self._site.close()
        self._servers, self._sockets, self._site = [], [], None
        self._kept.close()

    async def _reset(self) -> None:
        before = self._running
        assert self._shared is not None  # noqa: S101 - `_call` has seen it
        self.clock.reset()
        await self._cut_off()
        self._site = await self._open(self._shared)
        await before.close()

    async def _open(self, process: Shared) -> Site:
        front = BasicAlone if self._given.auth == "basic" else (lambda app: app)
        site = await open_site(self._given, self._user, self.clock, process, self._told, front)
        if self._given.anonymous_pull:
            await site.registry.users.grant(ANONYMOUS, Pattern(EVERYTHING), frozenset([PULL]))
        site.faults.add(rules_of(self._given.personality))
        return site if self._front is None else dataclasses.replace(site, app=self._front(site.app, self))

    def _told(self, request: Request) -> None:
        if self.listener is not None:
            self.listener(request)

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
