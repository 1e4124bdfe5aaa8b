"""Addresses: all that the settings name, bound on one port before anything answers there."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from charthouse.settings import FIELDS, Settings, SettingsError

PORT_TRIES = 20  # for a port that is free on all addresses


def bind(settings: Settings) -> list[socket.socket]:
    """Sockets on one port, not listening yet: until everything is ready, nothing answers."""
    for tries_left in reversed(range(PORT_TRIES if settings.port == 0 else 1)):
        with ExitStack() as bound:
            try:
                sockets = _bind_all(settings, bound)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not tries_left:
                    raise SettingsError(_cannot_listen(settings, error)) from None
            else:
                bound.pop_all()
                return sockets
    raise AssertionError("the last try returns or raises")


def _bind_all(settings: Settings, bound: ExitStack) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = settings.port
    for address, may_be_missing in _addresses(settings):
        try:
            sockets.append(bound.enter_context(_bind_one(address, port)))
        except OSError as error:
            if may_be_missing and sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            error.filename = address
            raise
        port = sockets[-1].getsockname()[1]
    return sockets


def _addresses(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Each with whether a machine without IPv6 may do without it: nobody asked for ::1 by name."""
    for address in settings.host:
        if address == "localhost":
            yield from (("127.0.0.1", False), ("::1", True))
        else:
            yield address, address == "::1" and settings.host == FIELDS["host"].default


def _bind_one(address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        if sys.platform == "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


def _cannot_listen(settings: Settings, error: OSError) -> str:
    where = f"port {settings.port} on {error.filename}"
    if error.errno == errno.EADDRINUSE:
        airplay = " (on macOS, AirPlay Receiver holds port 5000)" if settings.port == 5000 else ""  # noqa: PLR2004
        return f"{where} is taken{airplay}: choose another with --port or CHARTHOUSE_PORT, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user: choose one above 1023 with --port or CHARTHOUSE_PORT"
    return f"cannot listen on {where}: {error.strerror} (--host or CHARTHOUSE_HOST, --port or CHARTHOUSE_PORT)"


def url_of(bound: socket.socket, scheme: str) -> str:
    """As a client on this machine reaches it."""
    address, port = bound.getsockname()[:2]
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"
