"""Control over HTTP, for tests in other languages: under `/_test/` of a registry for tests, on a token of its own.

What it answers is in `control.py`, which is imported for the first request of that kind.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charthouse.testing.registry import Registry

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from charthouse.at_once import Layer

PREFIX = "/_test/"


class Registries:
    """The registries of a process that may be asked for more: each has `/_test/`, and `token` opens them all."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._control: ASGIApp | None = None
        self._running: dict[str, Registry] = {}

    def reserve(self, **words: Any) -> Registry:
        """One that has its address and does not answer yet."""
        registry = Registry(front=self._front, **words).reserve()
        self._running[str(registry.port)] = registry
        return registry

    def start(self, **words: Any) -> Registry:
        registry = self.reserve(**words)
        number = str(registry.port)
        try:
            return registry.start()
        except BaseException:
            self.end(number)
            raise

    def control(self) -> "ASGIApp":
        if self._control is None:
            from charthouse.testing import control  # FastAPI, which few commands make wait

            self._control = control.application(self, self._token)
        return self._control

    def _front(self, app: "Layer", registry: Registry) -> "Layer":
        from charthouse.testing.front import Front  # the protocol with it

        return Front(app, self, registry)

    def end(self, number: str) -> bool:
        registry = self._running.pop(number, None)
        if registry is not None:
            registry.end()
        return registry is not None

    def end_all(self) -> None:
        for number in list(self._running):
            self.end(number)


@dataclass(slots=True)
class StartedRegistry:
    """`id` ends it. `control_url` is plain HTTP, whatever the registry speaks. `ca`, `client_cert` and `client_key` are
    what is in the files, for other machines. What does not apply is empty."""

    id: str
    host: str
    url: str
    control_url: str
    username: str = ""
    password: str = ""
    ca_file: str = ""
    ca: str = ""
    client_cert_file: str = ""
    client_cert: str = ""
    client_key_file: str = ""
    client_key: str = ""


def describe(registry: Registry, host: str = "") -> StartedRegistry:
    """`host` is where whoever asks can reach it, with the port; without, as it is known on this machine."""
    host = host or registry.host
    found = StartedRegistry(
        id=str(registry.port),
        host=host,
        url=f"{registry.scheme}://{host}",
        control_url=f"http://{host}{PREFIX.rstrip('/')}",
        username=registry.username,
        password=registry.password,
    )
    if registry.speaks_tls:
        found.ca_file, found.ca = _file(registry.ca_file)
    if registry.demands_certificates:
        found.client_cert_file, found.client_cert = _file(registry.client_cert_file)
        found.client_key_file, found.client_key = _file(registry.client_key_file)
    return found


def _file(path: Path) -> tuple[str, str]:
    """Its name, and what is in it."""
    return str(path), path.read_text()
