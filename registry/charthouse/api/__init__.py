"""`/api/v1`: what the command line does to users, rights and tokens, over HTTP, for administrators.

The same operations stand beneath both, and say the same. Whoever calls shows his password with each request; no token
counts here, and what a browser would send by itself, without JSON's media type, changes nothing.
"""

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from charthouse import __version__
from charthouse.api import routes
from charthouse.auth.guard import Guard
from charthouse.core import Registry
from charthouse.errors import RegistryError
from charthouse.oci.errors import render

PREFIX = "/api/v1"
_DESCRIPTION = __doc__


def create(registry: Registry, guard: Guard) -> FastAPI:
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
    app.state.registry, app.state.guard = registry, guard
    app.include_router(routes.router, dependencies=[Depends(routes.administrator)])
    app.add_exception_handler(RegistryError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)  # noqa: S101 - what it is registered for
    return render(error)


async def _invalid(_: Request, error: Exception) -> Response:
    """A line for each fault. What was sent is not repeated: it may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - likewise
    lines = [f"{'.'.join(map(str, each['loc'][1:])) or 'the body'}: {each['msg']}" for each in error.errors()]
    return _error(422, "UNSUPPORTED", "\n".join(lines))


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    return _error(error.status_code, "UNSUPPORTED", str(error.detail), dict(error.headers or {}))


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status, headers)
