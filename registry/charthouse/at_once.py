"""Answers that wait for nothing: straight from whoever knows them to the connection.

A task, its context and six coroutines cost a request more than all that is done for most of them (docs/performance.md).
So whoever can tell without waiting what the answer is gives it here; None sends the request the long way, through the
same layers as ASGI applications, and is never wrong. A layer's `at_once` refuses at least what its `__call__` does, and
has changed nothing where it gives None.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

STAMP = "charthouse.stamp"  # where the database's stamp is left for whoever comes after: read since the request arrived
# Where a layer may leave what it found out about a head and a path: a dict that is there where the connection knows the
# head, and as long.
REMEMBERED = "charthouse.remembered"
OK = 200


class Finished(NamedTuple):
    """An answer. `headers` are lines with their ends; the body is empty for HEAD."""

    status: int
    headers: bytes
    body: bytes


class Layer(Protocol):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def at_once(self, scope: Scope) -> Finished | None: ...


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([part for name, value in headers for part in (name, b": ", value, b"\r\n")])
