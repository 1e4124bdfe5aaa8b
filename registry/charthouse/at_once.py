"""Answers that wait for nothing: from the pull cache straight to the connection.

A task, its context and six coroutines cost a pull more than all that is done for it (docs/performance.md). So whoever
can tell without waiting that a finished answer is right gives it here; None sends the request the long way, through the
same layers as ASGI applications, and is never wrong. A layer's `at_once` refuses at least what its `__call__` does.
"""

from typing import NamedTuple, Protocol

from starlette.types import Receive, Scope, Send

STAMP = "charthouse.stamp"  # where the database's stamp is left for whoever comes after: read since the request arrived


class Finished(NamedTuple):
    """A 200. `headers` are lines with their ends; the body is empty for HEAD."""

    headers: bytes
    body: bytes


class Layer(Protocol):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def at_once(self, scope: Scope) -> Finished | None: ...
