"""The layer before a registry for tests that has `/_test/`."""

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.http_protocol import PLAIN_HINT
from charthouse.testing.registries import PREFIX

if TYPE_CHECKING:
    from charthouse.testing.registries import Registries
    from charthouse.testing.registry import Registry

_HEALTH = ("/healthz", "/readyz")  # of a container, whose checks know of no certificate
_PLAIN = JSONResponse({"errors": [{"code": "UNSUPPORTED", "message": PLAIN_HINT}]}, 400)


class Front:
    """What is under `/_test/` is about the registry behind it."""

    def __init__(self, app: Layer, registries: "Registries", registry: "Registry") -> None:
        self._app = app
        self._registries = registries
        self._registry = registry

    def at_once(self, scope: Scope) -> Finished | None:
        return None if scope["path"].startswith(PREFIX) else self._app.at_once(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(PREFIX):
            is_refused = scope["state"]["connection"].is_plain_for_control_alone and scope["path"] not in _HEALTH
            await (_PLAIN if is_refused else self._app)(scope, receive, send)
            return
        scope["state"]["registry"] = self._registry
        scope["state"]["connection"].controlling = asyncio.current_task()  # a reset must not cut off who asked for it
        try:
            await self._registries.control()(scope, receive, send)
        finally:
            scope["state"]["connection"].controlling = None
