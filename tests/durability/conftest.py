"""Servers that end with their test, whatever happened to them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durability import sizes
from durability.server import Server
from durability.sizes import Size


@pytest.fixture
def dice(did: Callable[[str], None], request: pytest.FixtureRequest) -> random.Random:
    seed = sizes.seed()
    did(f"{request.node.name}: CHARTHOUSE_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def size() -> Size:
    return sizes.size()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(folder: Path = tmp_path, **options: Any) -> Server:
        servers.append(Server(folder, **options))
        return servers[-1].start()

    yield serve
    for server in servers:
        server.stop()
