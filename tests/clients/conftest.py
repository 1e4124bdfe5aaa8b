"""Real clients against the real server, on both databases.

One server answers a session's tests; each test has a namespace in it and a home for its client of its own.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from support.charts import Signer
from support.kubernetes import Kubernetes
from support.recorder import Recorder
from support.server import Server, serving

_names = itertools.count()


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
async def stored_in(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    """`database_url` for a whole session."""
    return await _database(request)


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
async def stored_apart(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    """Another one, for a registry that has users: they would close the other too."""
    return await _database(request)


async def _database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    server: str = request.getfixturevalue("postgres_server")
    name = f"clients_{os.getpid()}_{next(_names)}"
    connection = await asyncpg.connect(server.format(name="postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    finally:
        await connection.close()
    return server.format(name=name)


@pytest.fixture(scope="session")
def session_server(stored_in: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--policy", "oci", database=stored_in) as server:
        yield server


@pytest.fixture
def server(session_server: Server) -> Iterator[Server]:
    """Its log of this test is shown when the test fails."""
    before = session_server.log.stat().st_size
    yield session_server
    with session_server.log.open() as log:
        log.seek(before)
        print(log.read())


@pytest.fixture
def namespace() -> str:
    return f"team-{os.getpid()}-{next(_names)}"


@pytest.fixture
def recorder(server: Server) -> Iterator[Recorder]:
    with Recorder(server.port).running() as recorder:
        yield recorder


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    with Kubernetes().running() as kubernetes:
        yield kubernetes


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("key"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test makes its charts."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
