"""The same tests on both databases: whatever asks for `database_url` runs on SQLite and on PostgreSQL."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse.app import Application, create_app
from charthouse.composition import open_registry
from charthouse.core import Registry
from charthouse.helm.helper import Helper
from charthouse.settings import Settings, load
from support import postgres
from support.process import Running, stop

pytest_plugins = ("support.unhandled", "support.built")

DATABASES = ("sqlite", "postgres")
STEP_LIMIT = 200_000  # of SQLite's virtual machine: a read that takes more is unbounded
DID = "did"  # the property of a test that says what it did, in numbers


class Clock:
    """Time that a test moves. Unix seconds."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    from support import canaries  # a plugin is imported as one, which is after this file

    with postgres.running() as url:
        yield url
        canaries.look_through_postgres(url.format(name="postgres"), postgres.written)


@pytest.fixture(params=DATABASES)
async def database_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A database without rows: "" for SQLite in the data folder, else a PostgreSQL URL."""
    if request.param == "sqlite":
        yield ""
        return
    server = request.getfixturevalue("postgres_server")
    if request.node.get_closest_marker("no_tables") is not None:
        yield await postgres.make_database(server)
        return
    url = await postgres.take(server)
    yield url
    await postgres.give_back(server, url)


@pytest.fixture(params=DATABASES)
async def target_url(request: pytest.FixtureRequest) -> str:
    """Another one, without tables, for what goes from one to the other."""
    if request.param == "sqlite":
        return ""
    return await postgres.make_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_settings(tmp_path: Path, database_url: str) -> Callable[..., Settings]:
    """Settings as from the command line, over the test's own folder and database."""
    return lambda **flags: load({"data": tmp_path / "data", "database": database_url, **flags}, environ={})


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture(scope="session")
def helper() -> Iterator[Helper]:
    """Looks into charts, for all registries of the process that have none of their own."""
    with contextlib.closing(Helper()) as helper:
        yield helper


@pytest.fixture
async def registry(settings: Settings, clock: Clock, helper: Helper) -> AsyncIterator[Registry]:
    registry = await open_registry(settings, clock=clock, durable=False, step_limit=STEP_LIMIT, helper=helper)
    yield registry
    await registry.close()


@pytest.fixture
async def app(settings: Settings, clock: Clock, helper: Helper) -> AsyncIterator[Application]:
    app = create_app(settings, clock=clock, durable=False, step_limit=STEP_LIMIT, helper=helper)
    async with app.lifespan():
        yield app


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """Requests that go straight into the application."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5000") as client:
        yield client


@pytest.fixture
def did(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a sentence that is shown at the end, whether the test passes or not."""

    def did(sentence: str) -> None:
        print(sentence)
        record_property(DID, sentence)

    return did


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    servers: list[Running] = []

    def start(limits: dict[str, float] | None = None, **flags: Any) -> Running:
        servers.append(Running(tmp_path, limits or {}, **flags))
        return servers[-1]

    yield start
    stop(*servers)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing runs on one database only."""
    counts = Counter(item.callspec.params["database_url"] for item in items if "database_url" in _parameters(item))
    if len(set(counts.values())) > 1:
        raise pytest.UsageError(f"the databases differ in their number of tests: {dict(counts)}")


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many tests ran on each database, and what those did that are told in numbers."""
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    counts = Counter(
        name for report in reports for name in DATABASES if f"[{name}" in report.nodeid or f"-{name}" in report.nodeid
    )
    for line in (value for report in reports for name, value in report.user_properties if name == DID):
        terminalreporter.write_line(line)
    terminalreporter.write_line("tests on " + ", ".join(f"{name}: {counts[name]}" for name in DATABASES))
