"""The web application: where the registry meets HTTP. Everything else takes what it needs as an argument."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from charthouse import __version__, pages
from charthouse.composition import open_registry
from charthouse.core import Clock, Registry
from charthouse.hosts import HostCheck
from charthouse.oci import create_api
from charthouse.origin import Origins, TrustedProxies
from charthouse.pull_cache import PullCache
from charthouse.settings import Settings

log = logging.getLogger(__name__)

HOUSEKEEPING_EVERY = 3600  # seconds


def create_app(
    settings: Settings, *, clock: Clock = time.time, durable: bool = True, step_limit: int | None = None
) -> FastAPI:
    """The registry is opened when the application starts, with `open_registry`, and closed when it ends."""
    api = create_api()
    cache = PullCache(api, settings.pull_cache)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        registry = await open_registry(settings, clock=clock, durable=durable, step_limit=step_limit)
        api.registry = cache.registry = app.state.registry = registry
        housekeeping = asyncio.create_task(_keep_house(registry))
        try:
            yield
        finally:
            housekeeping.cancel()
            await registry.close()

    app = FastAPI(title="Charthouse", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.origins = Origins(settings.public_url)
    app.include_router(pages.router)
    # From inside to outside.
    app.add_middleware(AtV2, api=cache if settings.pull_cache else api)
    is_checked = settings.on_loopback or bool(settings.host_name)
    if settings.trusted_proxies:
        if is_checked:
            app.add_middleware(HostCheck, host_names=settings.own_names)  # the name that the proxy says
        app.add_middleware(TrustedProxies, networks=settings.trusted_proxies)
    if is_checked:
        app.add_middleware(HostCheck, host_names=settings.own_names)
    return app


class AtV2:
    """Gives what is under /v2/ to the API, before the framework looks at it."""

    def __init__(self, app: ASGIApp, api: ASGIApp) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["path"].startswith("/v2/") or scope["path"] == "/v2"):
            await self._api(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _keep_house(registry: Registry) -> None:
    while True:
        try:
            forgotten = await registry.forget_stale_uploads()
            if forgotten:
                log.info("removed %d unfinished uploads", forgotten)
        except Exception:
            log.exception("housekeeping failed")
        await asyncio.sleep(HOUSEKEEPING_EVERY)
