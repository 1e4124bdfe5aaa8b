"""`/api/v1`: what the command line does to users, rights and tokens, over HTTP, for administrators.

The same operations stand beneath both, and say the same. Whoever calls shows his password with each request; no token
counts here, and what a browser would send by itself, without JSON's media type, changes nothing.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charthouse import __version__
from charthouse.addressee import addressee
from charthouse.api import routes
from charthouse.errors import RegistryError
from charthouse.oci.errors import render

PREFIX = "/api/v1"
BODY_LIMIT = 64 * 1024  # bytes
_DESCRIBED = f"{PREFIX}/openapi.json"
_DESCRIPTION = __doc__


def application() -> FastAPI:
    app = FastAPI(
        title="Charthouse's administration",
        description=_DESCRIPTION,
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        strict_content_type=True,
        servers=[{"url": PREFIX}],
        root_path_in_servers=False,
        redirect_slashes=False,
    )
    app.include_router(routes.router)
    app.add_exception_handler(RegistryError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, no_route)
    app.add_middleware(Administrators)
    return app


class Administrators:
    """Lets in who may administrate, before anything of a body is read, which the framework does before all else; and of
    a body at most BODY_LIMIT. The description is for everybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self._app
        if scope["type"] == "http" and scope["path"] != _DESCRIBED:
            try:
                scope[routes.ADMINISTRATOR] = await addressee(scope).guard.administrator(scope)
                body = await _read(receive)
            except RegistryError as error:
                answer = render(error)
            else:
                receive = _again(body, receive)
                if len(body) > BODY_LIMIT:
                    answer = _error(413, "SIZE_INVALID", f"the body has more than {BODY_LIMIT:,} bytes")
        await answer(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    """At most a little more than may be."""
    body = bytearray()
    more = True
    while more and len(body) <= BODY_LIMIT:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, and then what else comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)  # noqa: S101 - what it is registered for
    return render(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """A line for each fault. What was sent is not repeated: it may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - likewise
    lines = [f"{'.'.join(map(str, each['loc'][1:])) or 'the body'}: {each['msg']}" for each in error.errors()]
    return _error(422, "UNSUPPORTED", "\n".join(lines))


async def no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    return _error(error.status_code, "UNSUPPORTED", str(error.detail), dict(error.headers or {}))


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status, headers)
