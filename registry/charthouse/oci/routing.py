"""Which handler answers which method on which path of the API.

A table of its own in place of the framework's: a push asks ten times, and FastAPI's routing and dependency solving cost
it 0.5 ms each time (docs/performance.md).
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charthouse.at_once import Finished, header_lines
from charthouse.core import Registry
from charthouse.errors import Denied, NameUnknown, RegistryError, Unsupported
from charthouse.names import Digest, RepositoryName, parse_reference, shown
from charthouse.oci.call import Call
from charthouse.oci.errors import render

Handler = Callable[..., Awaitable[Response]]
AtOnce = Callable[..., Response | None]  # the same without waiting; None, having changed nothing, where it has to

ROUTE = "charthouse.route"  # where a call's route is kept once it was found
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it but the request log

# What stands in braces in a route, and how it is parsed. A repository may itself have a component `blobs`, so it takes
# as much of the path as it can.
_PARTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "repository": (r".+", RepositoryName.parse),
    "digest": (r"[^/]+", Digest.parse),
    "reference": (r"[^/]+", parse_reference),
    "upload_id": (r"[^/]+", str),
}


class Right(Enum):
    """What a route asks of its caller, in a word."""

    PING = auto()
    CATALOG = auto()
    LOOK = auto()  # whether something is there
    PULL = auto()
    PUSH = auto()
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: who answers it, what it asks of its caller, and the parts of its path, not parsed yet."""

    handler: Handler
    at_once: AtOnce | None
    right: Right
    parts: Mapping[str, str]

    @property
    def repository(self) -> str | None:
        return self.parts.get("repository")

    @property
    def is_of_blob(self) -> bool:
        return "digest" in self.parts


class Chapter:
    """The routes of one chapter of the specification, in the order in which they are tried."""

    def __init__(self) -> None:
        self.routes: list[tuple[str, str, Right, Handler, AtOnce | None]] = []

    def route(
        self, method: str, path: str, right: Right, at_once: AtOnce | None = None
    ) -> Callable[[Handler], Handler]:
        """`at_once` answers what it can in the handler's place."""

        def add(handler: Handler) -> Handler:
            self.routes.append((method, path, right, handler, at_once))
            return handler

        return add


class Api:
    """The ASGI application under /v2/."""

    def __init__(self, *chapters: Chapter) -> None:
        self.registry: Registry | None = None  # there once the application has started
        self._resources: dict[re.Pattern[str], dict[str, tuple[Handler, AtOnce | None, Right]]] = {}
        for chapter in chapters:
            for method, path, right, handler, at_once in chapter.routes:
                self._resources.setdefault(_pattern(path), {})[method] = handler, at_once, right

    def at_once(self, scope: Scope) -> Finished | None:
        scope["charthouse.registry"] = self.registry
        try:
            route = self.route(scope)
            if route.at_once is None:
                return None
            response = route.at_once(Call(scope), **_parsed(route))
        except RegistryError as error:
            response = render(error)
        if response is None:
            return None
        body = b"" if scope["method"] == "HEAD" else bytes(response.body)
        return Finished(response.status_code, header_lines(response.raw_headers), body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["charthouse.registry"] = self.registry
        try:
            response = await self._answer(Call(scope, receive, send))
            await response(scope, receive, send)
        except RegistryError as error:
            self._note_refusal(scope, error)
            await render(error)(scope, receive, send)
        except ClientDisconnect:
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)

    def _note_refusal(self, scope: Scope, error: RegistryError) -> None:
        """Of a right, where only the operation finds out that it takes it: to overwrite."""
        caller = scope.get("charthouse.caller")
        if type(error) is Denied and caller is not None and caller.name and self.registry is not None:
            what = f"{scope['method']} {scope['path']}"
            self.registry.audit.refuse(caller.name, what, caller.actor.address)

    def route(self, scope: Scope) -> Route:
        """Found once for each call. Raises UNSUPPORTED (405), NAME_UNKNOWN."""
        found: Route | None = scope.get(ROUTE)
        if found is None:
            found = scope[ROUTE] = self._find(scope["method"], scope["path"])
        return found

    def _find(self, method: str, path: str) -> Route:
        for pattern, handlers in self._resources.items():
            if match := pattern.fullmatch(path):
                if method not in handlers:
                    allowed = ", ".join(sorted(handlers))
                    raise Unsupported(f"{method} is not possible on {shown(path)}", headers={"Allow": allowed})
                return Route(*handlers[method], match.groupdict())
        raise NameUnknown(f"{shown(path)} is no address of the distribution API")

    async def _answer(self, call: Call) -> Response:
        route = self.route(call.scope)
        return await route.handler(call, **_parsed(route))


def _parsed(route: Route) -> dict[str, Any]:
    return {name: _PARTS[name][1](text) for name, text in route.parts.items()}


def _pattern(path: str) -> re.Pattern[str]:
    """`/{repository}/blobs/{digest}` as a pattern of the whole path."""
    return re.compile(
        "/v2" + re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_PARTS[part[1]][0]})", path), re.DOTALL
    )
