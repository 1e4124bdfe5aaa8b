"""One registry for a file of tests, on each database: starting one costs more than most requests.

Each test has a repository of its own, `remote`, so none sees another. Whoever needs an empty registry, a setting or a
clock takes `client`.
"""

import itertools
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from charthouse.app import create_app
from charthouse.settings import load
from support import postgres
from support.requests import Remote, running

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
async def shared_client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    database = "" if request.param == "sqlite" else await postgres.take(request.getfixturevalue("postgres_server"))
    settings = load({"data": tmp_path_factory.mktemp("shared"), "database": database}, environ={})
    async with running(create_app(settings, durable=False, step_limit=200_000)) as client:
        yield client


@pytest.fixture
def remote(shared_client: httpx.AsyncClient, request: pytest.FixtureRequest) -> Remote:
    """A repository that is not there yet, named after the test."""
    name = re.sub("[^a-z0-9]+", "-", request.function.__name__)[:200]
    return Remote(shared_client, f"{name}/n{next(_numbers)}")
