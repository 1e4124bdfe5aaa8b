"""What clients asked, in order: a layer that writes down each request and what became of it."""

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charthouse.at_once import Finished
from charthouse.clocks import Clock

RECORD = "charthouse.record"  # in a request's scope


@dataclass(slots=True)
class Request:
    """Headers by their lower-case names, several of one name joined by a comma, as they are defined to mean.

    `status` is 0 while there is no answer, or when the connection was cut before one.
    """

    time: float  # Unix seconds
    method: str
    path: str
    query: str
    headers: dict[str, str]
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)  # its headers
    user: str = ""
    scopes: list[str] = field(default_factory=list)
    bytes: int = 0  # of the answer's body
    milliseconds: float = 0.0
    fault: str = ""  # what a rule did to it

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' + self.query if self.query else ''} {self.status}"


class Records:
    """The layer. `requests` is in the order in which they arrived."""

    def __init__(self, app: ASGIApp, clock: Clock, told: Callable[[Request], None]) -> None:
        """`told` hears of each request that is over."""
        self._app = app
        self._clock = clock
        self._told = told
        self.requests: list[Request] = []

    def at_once(self, scope: Scope) -> Finished | None:
        """Every request goes the long way, so that it is seen."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(
            self._clock(),
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            _joined(scope["headers"]),
        )
        request.scopes = _scopes(request)
        scope[RECORD] = request
        self.requests.append(request)
        began = time.perf_counter()

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status, request.answer = message["status"], _joined(message["headers"])
                request.user = str(scope.get("state", {}).get("user") or "")
            else:
                request.bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            request.milliseconds = (time.perf_counter() - began) * 1000
            self._told(request)


def _scopes(request: Request) -> list[str]:
    """What a token says that it is for, as it was sent; or what a token is asked for."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.count(".") == 2:  # noqa: PLR2004 - the parts of a JWT
        claims = token.split(".")[1]
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # no token of ours
            access = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["access"]
            return [f"{each['type']}:{each['name']}:{','.join(each['actions'])}" for each in access]
    return [each for name, value in parse_qsl(request.query) if name == "scope" for each in value.split()]


def query_of(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


_SECRET = ("authorization", "cookie", "proxy-authorization")


def public(request: Request) -> dict[str, Any]:
    """As it may be written to a file: without credentials."""
    entry = asdict(request)
    for name in _SECRET:
        if name in entry["headers"]:
            entry["headers"][name] = entry["headers"][name].partition(" ")[0] + " …"
    return entry


def as_json_line(request: Request) -> str:
    return json.dumps(public(request), ensure_ascii=False)
