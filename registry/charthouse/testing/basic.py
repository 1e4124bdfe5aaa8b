"""A registry that knows Basic authentication and nothing else, as one behind nginx with an htpasswd file does."""

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from charthouse.at_once import Finished, Layer

CHALLENGE = 'Basic realm="Registry"'
_TOKENS = ("/token", "/.well-known/jwks.json")


class BasicAlone:
    """The layer: its challenge in place of the registry's, no token service, and no token that counts."""

    def __init__(self, app: Layer) -> None:
        self._app = app

    def at_once(self, scope: Scope) -> Finished | None:
        return self._app.at_once(_without_token(scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def challenge(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:  # noqa: PLR2004 - Unauthorized
                headers = MutableHeaders(raw=list(message["headers"]))
                headers["WWW-Authenticate"] = CHALLENGE
                message = {**message, "headers": headers.raw}
            await send(message)

        if scope["path"] in _TOKENS:
            await PlainTextResponse("404 page not found\n", 404)(scope, receive, send)
            return
        await self._app(_without_token(scope), receive, challenge)


def _without_token(scope: Scope) -> Scope:
    """The same scope: layers behind it leave words there for those before it."""
    scope["headers"] = [
        (name, value) for name, value in scope["headers"] if name != b"authorization" or value[:6].lower() == b"basic "
    ]
    return scope
