"""A registry of a test's own."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from charthouse.errors import RegistryError
from charthouse.settings import Settings, SettingsError
from charthouse.testing.clock import MovableClock
from charthouse.testing.options import checked, load_options, rules_of
from charthouse.testing.place import Place
from charthouse.testing.pushing import Pushable, PushedChart
from charthouse.testing.records import Request

if TYPE_CHECKING:
    from charthouse.at_once import Layer
    from charthouse.collection import Report
    from charthouse.queries import Chart
    from charthouse.testing.inside import Inside
    from charthouse.testing.rules import Rule

Front = Callable[["Layer", "Registry"], "Layer"]


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
        self._front = front
        self._place: Place | None = None
        self._inside: Inside | None = None

    # --- its life ---------------------------------------------------------------------------------------------------

    def reserve(self) -> Self:
        """It has its address, and what opens it, before it starts: clients may connect, and wait."""
        self._place = self._place or Place(self._given, self.clock())
        return self

    def start(self) -> Self:
        """Ready when this returns."""
        place = self.reserve().place
        try:
            from charthouse.testing.inside import (
                Inside,
            )  # most of what there is to import: `exec` runs its command before

            front = self._front
            layer = None if front is None else lambda app: front(app, self)
            self._inside = Inside(place, self.clock, self._told, layer).start()
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
        inside, place, self._inside, self._place = self._inside, self._place, None, None
        try:
            if inside is not None:
                inside.end()
        finally:
            if place is not None:
                place.close()

    def reset(self) -> None:
        """As if it had just been started, at the same address."""
        self._running.reset()

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
        return self.place.port

    @property
    def host(self) -> str:
        """As it stands in a reference: `oci://{registry.host}/team-a/app`."""
        return self.place.host

    @property
    def url(self) -> str:
        return self.place.url

    @property
    def username(self) -> str:
        """Of the administrator; empty where everybody may do everything."""
        return self.place.username

    @property
    def password(self) -> str:
        return self.place.password

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens."""
        return self.place.addresses

    @property
    def ca_file(self) -> Path:
        """What clients are told to trust, in PEM."""
        return self.place.ca_file

    @property
    def client_cert_file(self) -> Path:
        """The certificate that clients show, in PEM."""
        return self.place.client_cert_file

    @property
    def client_key_file(self) -> Path:
        return self.place.client_key_file

    @property
    def demands_certificates(self) -> bool:
        return self.place.demands_certificates

    @property
    def speaks_tls(self) -> bool:
        return self.place.speaks_tls

    @property
    def scheme(self) -> str:
        return self.place.scheme

    @property
    def place(self) -> Place:
        if self._place is None:
            raise RuntimeError("the registry has not been started")
        return self._place

    # --- what is in it ----------------------------------------------------------------------------------------------

    def push(self, chart: Pushable, namespace: str = "") -> PushedChart:
        """What `helm push` does with an archive, or with the words for `make_chart`. Raises what a push raises."""
        return self._running.push(chart, namespace)

    def seed(self, folder: str | os.PathLike[str], namespace: str = "") -> list[str]:
        """Pushes all archives of a folder and of those below it, which become namespaces. Returns their names here."""
        return self._running.seed(folder, namespace)

    def charts(self, repository: str | None = None) -> "list[Chart]":
        """All charts, or those of one repository."""
        return self._running.charts(repository)

    def tags(self, repository: str) -> list[str]:
        return self._running.tags(repository)

    def manifest(self, repository: str, reference: str) -> dict[str, Any]:
        """By tag or digest. A version's + is _ in its tag."""
        return self._running.manifest(repository, reference)

    def collect(self) -> "Report":
        """Garbage collection, now by the registry's clock: what it removed. Without it, it keeps all."""
        return self._running.collect()

    # --- what was asked ---------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Since the start or the last reset."""
        return self._running.requests()

    # --- what goes wrong --------------------------------------------------------------------------------------------

    def fail(self, **rule: Any) -> None:
        """From now on, until the next reset, requests meet this `Rule`: `registry.fail(status=502, times=2)`."""
        from charthouse.testing.rules import Rule

        self.add_faults([Rule(**rule)])

    def add_faults(self, rules: "Iterable[Rule]") -> None:
        self._running.site.faults.add(rules)

    def imitate(self, personality: str) -> None:
        """The registry behaves as another one does, as far as `personalities.py` knows."""
        self.add_faults(rules_of(personality))

    @property
    def faults(self) -> "list[Rule]":
        return self._running.site.faults.rules

    def clear_faults(self) -> None:
        """Personality included."""
        self._running.site.faults.clear()

    @property
    def _running(self) -> "Inside":
        if self._inside is None:
            raise RuntimeError("the registry has not been started")
        return self._inside

    @property
    def _settings(self) -> Settings:
        return self._running.site.settings

    def _told(self, request: Request) -> None:
        if self.listener is not None:
            self.listener(request)
