"""What answers beside the API: probes, and one small page for whoever opens the registry in a browser."""

import html
import logging
from functools import cache

from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charthouse import __version__, api
from charthouse.addressee import addressee
from charthouse.auth import endpoint
from charthouse.oci.errors import NO_SNIFFING
from charthouse.origin import Origin
from charthouse.request_log import log_fault

log = logging.getLogger(__name__)
router = APIRouter()

_PAGE = """<!doctype html>
<meta charset="utf-8"><title>Charthouse</title>
<style>body {{ font: 1rem/1.5 system-ui; max-width: 45rem; margin: 3rem auto; padding: 0 1rem }}
pre {{ background: #f2f2f2; padding: 1rem; overflow-x: auto }}</style>
<h1>Charthouse</h1>
<p>A registry for Helm charts, version {version}. This is its address for clients:</p>
<pre>helm push mychart-1.0.0.tgz oci://{host}{flag}
helm install myrelease oci://{host}/mychart --version 1.0.0{flag}</pre>
"""


@cache
def application() -> FastAPI:
    """These, and the token service's. Nothing leads elsewhere: behind a proxy that is not trusted a redirect would name
    plain HTTP, and a client would send its password there."""
    app = FastAPI(title="Charthouse", version=__version__, openapi_url=None, redirect_slashes=False)
    app.include_router(router)
    app.include_router(endpoint.router)
    app.add_exception_handler(HTTPException, api.no_route)
    app.mount(api.PREFIX, api.application())
    app.add_middleware(NoSniffing)
    return app


class NoSniffing:
    """For each answer beside /v2/, those that the framework makes too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(NO_SNIFFING)
            await send(message)

        await self._app(scope, receive, mark)


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def alive() -> Response:
    return PlainTextResponse("alive\n")


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def ready(request: Request) -> Response:
    """The database and the blob store answer."""
    try:
        await addressee(request.scope).registry.check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and answered
        log_fault(log, "not ready", error)
        return PlainTextResponse("not ready: see the log\n", status_code=503)
    return PlainTextResponse("ready\n")


def _origin(request: Request) -> Origin:
    return addressee(request.scope).origins.of(request.scope)


@router.get("/")
async def front(request: Request) -> Response:
    origin = _origin(request)
    flag = " --plain-http" if origin.scheme == "http" else ""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    return HTMLResponse(_PAGE.format(version=__version__, host=html.escape(origin.host), flag=flag), headers=headers)


@router.get("/index.yaml")
async def index(request: Request) -> Response:
    host = _origin(request).host
    line = f"this is an OCI registry, no classic repository: helm pull oci://{host}/<chart> needs no helm repo add"
    log.warning("GET /index.yaml: %s", line)
    return PlainTextResponse(line + "\n", status_code=404)
