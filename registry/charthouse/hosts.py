"""Who may be named in a request's Host: this machine and what `host_name` adds.

A page of a foreign site can have its own name point to 127.0.0.1 and then speak to an open registry there as if it were
its own server (DNS rebinding). Its requests carry that name in Host.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.errors import Misdirected
from charthouse.names import shown
from charthouse.oci.errors import render

LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")


class HostCheck:
    """Refuses with 421 what is addressed to another name: on loopback, and wherever names are given."""

    def __init__(self, app: Layer, host_names: Sequence[str]) -> None:
        self._app = app
        self._is_local = lru_cache(maxsize=256)(lambda host: is_local(host, host_names))

    def at_once(self, scope: Scope) -> Finished | None:
        return self._app.at_once(scope) if self._foreign(scope) is None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (foreign := self._foreign(scope)) is not None:
            await render(_refusal(foreign))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _foreign(self, scope: Scope) -> str | None:
        for name, value in scope["headers"]:
            if name == b"host" and not self._is_local(value.decode("latin-1")):
                return str(value, "latin-1")
        return None


def is_local(host: str, host_names: Sequence[str]) -> bool:
    """Whether a Host header, with or without a port, names this machine or one of `host_names`."""
    name = without_port(host).lower().rstrip(".")
    if name in LOCAL_NAMES or name.endswith(".localhost") or name in {known.lower() for known in host_names}:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _refusal(host: str) -> Misdirected:
    name = without_port(host)
    return Misdirected(
        f"this registry does not answer to the name {shown(name)}:"
        f" start it with --host-name {name if name.isprintable() and ' ' not in name else 'NAME'} to allow it"
    )
