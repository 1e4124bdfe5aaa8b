"""The load: many connections in few processes, as light as Python can be, so that it is the registry that is measured.

What a connection does is a generator, read from top to bottom: it yields a request's bytes and is sent the response.
One loop over the sockets moves all of a process's generators on.
"""

import selectors
import socket
import time
from array import array
from base64 import b64encode
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from charthouse.settings import SettingsError

PIECE = 256 * 1024  # bytes read at once
PATIENCE = 60  # seconds that a registry may leave all connections without a byte

_END = b"\r\n\r\n"
_WITHOUT_BODY = (204, 304)


class Refused(Exception):
    """A registry's answer that ends a phase: another status than the one that was due, or a wrong body."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """ "" when there is none."""
        at = self.head.lower().find(f"\r\n{name.lower()}:".encode())
        if at < 0:
            return ""
        return self.head[at + 2 :].split(b"\r\n", 1)[0].split(b":", 1)[1].decode().strip()


Operation = Generator[bytes, Response, None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a registry is, and what every request to it carries."""

    host: str
    port: int
    head: str  # the header lines that all requests have

    @classmethod
    def parse(cls, url: str) -> "Origin":
        """Raises SettingsError. A user and password in the URL are sent as Basic credentials."""
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError as error:
            raise SettingsError(f"{url!r} is no URL of a registry: {error}") from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise SettingsError(f"{url!r} is no URL of a registry that can be measured: write http://127.0.0.1:5000")
        lines = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
        if parts.username is not None:
            credentials = f"{parts.username}:{parts.password or ''}".encode()
            lines += f"Authorization: Basic {b64encode(credentials).decode()}\r\n"
        return cls(parts.hostname, port, lines)

    def request(self, method: str, path: str, body: bytes | None = None, headers: str = "") -> bytes:
        """`path` is the one after /v2/, unless it begins with a slash; `headers` are whole lines."""
        target = path if path.startswith("/") else f"/v2/{path}"
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        return f"{method} {target} HTTP/1.1\r\n{self.head}{headers}{length}\r\n".encode() + (body or b"")

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@dataclass(slots=True)
class Tally:
    """How long each operation took, in seconds, and how long all of them together."""

    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    elapsed: float = 0.0


def drive(origin: Origin, loads: Sequence[tuple[Iterator[Operation], int]], seconds: float) -> list[Tally]:
    """Runs each iterator's operations on so many connections until the time is up or none is left.

    What has begun is finished and counted. Raises Refused, and OSError when the registry goes away.
    """
    tallies = [Tally() for _ in loads]
    began = time.perf_counter()
    deadline = began + seconds
    with selectors.DefaultSelector() as selector, ExitStack() as closing:
        for (operations, count), tally in zip(loads, tallies, strict=True):
            for _ in range(count):
                connection = _Connection(origin, selector, _steps(operations, deadline, tally))
                closing.callback(connection.close)
                connection.start()
        _advance_all(selector)
    for tally in tallies:
        tally.elapsed = time.perf_counter() - began
    return tallies


def _steps(operations: Iterator[Operation], deadline: float, tally: Tally) -> Operation:
    """One connection's share of the operations, one after the other."""
    clock, record = time.perf_counter, tally.latencies.append
    for operation in operations:
        began = clock()
        yield from operation
        ended = clock()
        record(ended - began)
        if ended >= deadline:
            return


def _advance_all(selector: selectors.BaseSelector) -> None:
    while selector.get_map():
        ready = selector.select(PATIENCE)
        if not ready:
            raise Refused(f"no answer in {PATIENCE} s")
        for key, _ in ready:
            key.data()


class _Connection:
    def __init__(self, origin: Origin, selector: selectors.BaseSelector, steps: Operation) -> None:
        self._origin = origin
        self._selector = selector
        self._steps = steps
        self._received = b""
        self._is_head = False
        self._socket: socket.socket | None = None

    def start(self) -> None:
        self._send(next(self._steps, b""))

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _send(self, request: bytes) -> None:
        if not request:
            self.close()
            return
        connection = self._socket or self._open()
        self._is_head = request.startswith(b"HEAD")
        connection.sendall(request)  # of a few KB, which a socket takes at once

    def _open(self) -> socket.socket:
        self._socket = self._origin.connect()
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, self._advance)
        return self._socket

    def _advance(self) -> None:
        assert self._socket is not None  # noqa: S101 - it is what was ready
        data = self._socket.recv(PIECE)
        if not data:
            raise ConnectionError("the registry closed the connection before it had answered")
        self._received += data
        response = parse(self._received, is_head=self._is_head)
        if response is None:
            return
        self._received = b""
        if b"\r\nconnection: close" in response.head.lower():
            self.close()
        try:
            request = self._steps.send(response)
        except StopIteration:
            request = b""
        self._send(request)


def parse(received: bytes, *, is_head: bool) -> Response | None:
    """The response, once all of it is there: never two, as the next request is sent after this one's response."""
    end = received.find(_END)
    if end < 0:
        return None
    head = received[: end + 2]
    status = int(head[9:12])
    if is_head or status in _WITHOUT_BODY:
        return Response(status, head, b"")
    body = received[end + 4 :]
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(lower[at + 17 : lower.index(b"\r\n", at + 17)])
        return Response(status, head, body) if len(body) >= length else None
    if b"\r\ntransfer-encoding: chunked" in lower:
        return Response(status, head, _unchunked(body)) if body.endswith(b"0" + _END) else None
    raise Refused("a response has neither Content-Length nor chunks")


def _unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[:size])
        body = body[size + 2 :]
