"""Who may is decided once for a head that a connection sends again, and anew as soon as it might be otherwise."""

import base64

import httpx
import pytest

from charthouse.app import Application
from charthouse.auth import keys, tokens
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.guard import DECISION_LIFETIME, DECISIONS
from charthouse.core import Registry
from support.connection import Connection
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import Remote

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse battery"
MINE, OTHERS = "team-a/app", "team-b/app"


@pytest.fixture
async def closed(app: Application, client: httpx.AsyncClient) -> Registry:
    for name in (MINE, OTHERS):
        await Remote(client, name).push_image("1")
    users = app.registry.users
    await users.add("root", PASSWORD, administrator=True)
    await users.add("ann", PASSWORD)
    await users.grant("ann", Pattern("team-a/*"), parse_actions("pull"))
    return app.registry


async def header_of(kind: str, client: httpx.AsyncClient) -> str:
    """Of a caller who was seen before."""
    if kind == "basic":
        header = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    else:
        asked = {"service": "charthouse", "scope": f"repository:{MINE}:pull"}
        header = "Bearer " + (await client.get("/token", params=asked, auth=("ann", PASSWORD))).json()["token"]
    assert (await client.get(f"/v2/{MINE}/manifests/1", headers={"Authorization": header})).status_code == 200
    return header


class Caller:
    """Somebody on a connection of his own."""

    def __init__(self, app: Application, header: str) -> None:
        self.connection = Connection(app)
        self._header = header

    async def ask(self, path: str = f"{MINE}/manifests/1") -> tuple[int, bool]:
        """The status, and whether it came at once."""
        lines = [f"GET /v2/{path} HTTP/1.1", "Host: localhost:5000", f"Authorization: {self._header}", "", ""]
        answer, at_once = await self.connection.answer("\r\n".join(lines).encode())
        return int(answer[9:12]), at_once


@pytest.fixture(params=["basic", "bearer"])
async def caller(
    request: pytest.FixtureRequest, closed: Registry, app: Application, client: httpx.AsyncClient
) -> Caller:
    """Whose head was sent before. `closed` is there first."""
    caller = Caller(app, await header_of(request.param, client))
    for _ in range(3):
        assert (await caller.ask())[0] == 200
    return caller


async def change_password(registry: Registry) -> None:
    await registry.users.change("ann", password="another correct horse")


async def disable(registry: Registry) -> None:
    await registry.users.change("ann", disabled=True)


async def take_away(registry: Registry) -> None:
    await registry.users.revoke("ann", Pattern("team-a/*"))


async def remove(registry: Registry) -> None:
    await registry.users.remove("ann")


@pytest.mark.parametrize("change", [change_password, disable, take_away, remove])
async def test_a_change_counts_at_the_next_request_of_a_connection(closed, caller, change, database_url):
    assert await caller.ask() == (200, not database_url)
    await change(closed)
    for _ in range(3):
        status, at_once = await caller.ask()
        assert (status in (401, 403), at_once) == (True, False)


async def test_a_decision_is_for_its_path(caller):
    for _ in range(3):
        assert [(await caller.ask(f"{name}/manifests/1"))[0] in (401, 403) for name in (MINE, OTHERS)] == [False, True]


async def test_a_token_ends_at_most_a_decisions_lifetime_late(closed, app, client, clock):
    caller = Caller(app, await header_of("bearer", client))
    clock.now += 299
    for _ in range(4):
        assert (await caller.ask())[0] == 200
    clock.now += tokens.LIFETIME - 299 + tokens.LEEWAY + DECISION_LIFETIME
    assert (await caller.ask())[0] == 401


async def test_keys_that_are_forgotten_count_at_the_next_request(closed, app, client, clock):
    """As `charthouse token-keys rotate --forget` says it to the database."""
    caller = Caller(app, await header_of("bearer", client))
    for _ in range(4):
        assert (await caller.ask())[0] == 200
    keys.rotate(closed.settings.key_file, clock.now, forget=True)
    await closed.users.keys_changed("another, forgetting those before")
    assert [(await caller.ask())[0] for _ in range(3)] == [401] * 3


async def test_few_decisions_are_kept(caller):
    for number in range(2 * DECISIONS):
        await caller.ask(f"{MINE}/manifests/{number}")
    assert all(len(remembered) <= DECISIONS for _, remembered in caller.connection.protocol.heads.values())
