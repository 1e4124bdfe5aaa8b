"""The web application: where the registry meets HTTP. Everything else takes what it needs as an argument."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from charthouse.addressee import ADDRESSEE, Addressee
from charthouse.at_once import Finished, Layer
from charthouse.auth.guard import Guard
from charthouse.clocks import Clock
from charthouse.composition import open_registry
from charthouse.core import Registry
from charthouse.helm.helper import Helper
from charthouse.hosts import HostCheck
from charthouse.housekeeping import chores_of, keep_house
from charthouse.oci import create_api
from charthouse.origin import Origins, TrustedProxies
from charthouse.pull_cache import PullCache
from charthouse.settings import Settings


def create_app(
    settings: Settings,
    *,
    clock: Clock = time.time,
    steady: Clock | None = None,
    durable: bool = True,
    step_limit: int | None = None,
    threads: ThreadPoolExecutor | None = None,
    helper: Helper | None = None,
) -> "Application":
    """The registry is opened when the application starts, with `open_registry`, and closed when it ends."""
    opens = partial(
        open_registry,
        settings,
        clock=clock,
        steady=steady,
        durable=durable,
        step_limit=step_limit,
        threads=threads,
        helper=helper,
    )
    return Application(settings, opens, threads)


class Application:
    """The registry as an ASGI application; `lifespan` starts and ends it.

    From outside to inside: who may be addressed, who may call, the pull cache, the API; beside them FastAPI with all
    that is not under /v2/. The framework stands innermost, because each layer of it costs a pull as much as the cache.
    """

    registry: Registry  # there once it has started

    def __init__(
        self,
        settings: Settings,
        open_registry: Callable[[], Awaitable[Registry]],
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        self._open_registry = open_registry
        self._is_ephemeral = settings.ephemeral
        origins = Origins(settings.public_url)
        self._api = create_api()
        self._cache = PullCache(self._api, settings.pull_cache)
        self._guard = Guard(self._cache if settings.pull_cache else self._api, self._api, origins, threads)
        self._pages = Pages(origins, self._guard)
        self._app = _addressed(AtV2(self._pages, api=self._guard), settings)

    def at_once(self, scope: Scope) -> Finished | None:
        return self._app.at_once(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Registry]:
        registry = await self._open_registry()
        self.registry = registry
        for layer in (self._guard, self._api, self._cache, self._pages):
            layer.registry = registry
        if not self._is_ephemeral:
            load_pages()
        by_itself = [asyncio.create_task(keep_house(list(chores_of(registry))))]
        if registry.settings.issuers:
            by_itself.append(asyncio.create_task(registry.external_tokens.begin()))
        try:
            yield registry
        finally:
            for task in by_itself:
                task.cancel()
            await asyncio.wait(by_itself)
            self._guard.close()
            await registry.close()


class Pages:
    """FastAPI with all that is not under /v2/. A registry for tests imports it when it is first asked for: a third of
    what it would begin with otherwise, and most tests do without."""

    registry: Registry

    def __init__(self, origins: Origins, guard: Guard) -> None:
        self._origins = origins
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pages = load_pages()
        scope[ADDRESSEE] = Addressee(self.registry, self._origins, self._guard)
        await pages(scope, receive, send)


def load_pages() -> ASGIApp:
    from charthouse import pages

    return pages.application()


def _addressed(app: Layer, settings: Settings) -> Layer:
    """Behind the checks of who is addressed, by the name that the connection says and by the one that a proxy says."""
    is_checked = settings.on_loopback or bool(settings.host_name)
    if settings.trusted_proxies:
        if is_checked:
            app = HostCheck(app, host_names=settings.own_names)
        app = TrustedProxies(app, networks=settings.trusted_proxies)
    return HostCheck(app, host_names=settings.own_names) if is_checked else app


class AtV2:
    """Gives what is under /v2/ to the API, before the framework looks at it."""

    def __init__(self, app: ASGIApp, api: Layer) -> None:
        self._app = app
        self._api = api

    def at_once(self, scope: Scope) -> Finished | None:
        return self._api.at_once(scope) if _is_at_v2(scope) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._api if _is_at_v2(scope) else self._app)(scope, receive, send)


def _is_at_v2(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith("/v2/") or path == "/v2"
