"""The address that a client knows the registry by, and the client's own: as the connection has them, or as a proxy in
front says, when it is one of `trusted_proxies`.

The proxy's words are put into the ASGI scope (`scheme`, `client`, the Host header), so that the request log, the host
check and whatever else reads the scope needs to know nothing of proxies.
"""

import ipaddress
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from charthouse.at_once import Finished, Layer

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

_HOST = re.compile(r"(?:[a-z0-9_][a-z0-9_.-]*|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE | re.ASCII)
# X-Forwarded-For gives addresses, and with some proxies a port behind them: 192.0.2.1:443, [2001:db8::1]:443.
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[^:]*):\d+")


@dataclass(frozen=True, slots=True)
class Origin:
    scheme: str
    host: str  # with a port where it is not the scheme's own

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"{self.scheme}://{self.host}"


class Origins:
    """Gives each request's origin: what its client calls this registry."""

    def __init__(self, public_url: str) -> None:
        url = urlsplit(public_url)
        self._public = Origin(url.scheme, url.netloc) if public_url else None
        self._has_warned = False

    def of(self, scope: Scope) -> Origin:
        """`public_url` if there is one. The host is one by its form, and else the address of the connection."""
        if self._public:
            return self._public
        if scope["scheme"] == "http" and first_value(scope, b"x-forwarded-proto") == "https":
            self._warn(scope)
        host = first_value(scope, b"host")
        return Origin(scope["scheme"], host if is_host(host) else _address(scope))

    def _warn(self, scope: Scope) -> None:
        """Clients that came by https refuse to log in at an http address, and do not say that a proxy is the cause."""
        if not self._has_warned:
            self._has_warned = True
            client = scope["client"][0] if scope.get("client") else "a socket"
            log.warning(
                "a request from %s says X-Forwarded-Proto: https and is not believed, so clients are sent to an http"
                " address: start the registry with --public-url https://NAME, or with --trusted-proxies %s if that is"
                " your proxy",
                client,
                client,
            )


class TrustedProxies:
    """Takes X-Forwarded-Proto, -Host and -For from these networks, and from nobody else.

    The proxy has to set Proto and Host, whatever the client sent; of a list, the first counts. To For it may add: the
    client is the last address that is no trusted proxy's.
    """

    def __init__(self, app: Layer, networks: Sequence[Network]) -> None:
        self._app = app
        self._is_trusted = lru_cache(maxsize=1024)(lambda address: _is_within(address, networks))

    def at_once(self, scope: Scope) -> Finished | None:
        """The scope is as it was where the request has to go the long way."""
        rewritten = dict(scope)
        if self._comes_from_proxy(scope):
            self._rewrite(rewritten)
        finished = self._app.at_once(rewritten)
        if finished:
            scope.update(rewritten)
        return finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._comes_from_proxy(scope):
            self._rewrite(scope)
        await self._app(scope, receive, send)

    def _comes_from_proxy(self, scope: Scope) -> bool:
        client = scope.get("client")
        return client is not None and self._is_trusted(client[0])

    def _rewrite(self, scope: Scope) -> None:
        proto = first_value(scope, b"x-forwarded-proto").lower()
        if proto in ("http", "https"):
            scope["scheme"] = proto
        host = first_value(scope, b"x-forwarded-host")
        if is_host(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", host.encode()), *others]
        client = self._client(scope, scope["client"][0])
        if client != scope["client"][0]:
            scope["client"] = (client, 0)  # its port is not known

    def _client(self, scope: Scope, client: str) -> str:
        """What is no address cannot be followed further: the one who said it is the client."""
        for word in reversed(list(_values(scope, b"x-forwarded-for"))):
            address = _address_in(word)
            if address is None or not self._is_trusted(client):
                break
            client = str(address)
        return client


def is_host(text: str) -> bool:
    """Whether a Host header has the form of one: a name or an address, with or without a port."""
    return bool(_HOST.fullmatch(text))


def first_value(scope: Scope, header: bytes) -> str:
    return next(_values(scope, header), "")


def _values(scope: Scope, header: bytes) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == header:
            yield from (word.strip() for word in value.decode("latin-1").split(","))


def _address(scope: Scope) -> str:
    address, port = scope.get("server") or ("localhost", None)
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if port else host


def _is_within(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address_in(word: str) -> IPv4Address | IPv6Address | None:
    match = _WITH_PORT.fullmatch(word)
    return _parse(match["v6"] or match["v4"] or "" if match else word)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None
