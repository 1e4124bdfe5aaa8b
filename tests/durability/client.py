"""A client on one connection that says plainly when no answer came: then nobody knows whether the request counts."""

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

PATIENCE = 60  # seconds for an answer on a machine with other work


class NoAnswer(Exception):
    """The server ended, or does not listen yet."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Header names with _ for -. Raises NoAnswer."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
                self._connection.connect()
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            self._connection.request(method, path, body=body, headers=named)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswer(f"{method} {path}: {error!r}") from None
        answered = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Answer(response.status, answered, content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
