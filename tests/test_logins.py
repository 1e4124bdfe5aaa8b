"""Logins that last: the refresh tokens that a client keeps in place of the password."""

import asyncio
import hashlib
import subprocess
import sys

import httpx
import pytest

from charthouse.auth import api_tokens, logins
from charthouse.auth.access import Pattern, parse_actions
from charthouse.composition import open_registry
from charthouse.core import Registry
from charthouse.errors import StorageFull, UserUnknown
from charthouse.settings import load
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import error_of

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "ann's canary9f3b1c"
SCOPE = "repository:team-a/app:pull,push"
FORM = {"service": "charthouse", "scope": SCOPE, "client_id": "helm"}


@pytest.fixture
async def users(app) -> Registry:
    registry: Registry = app.registry
    await registry.users.add("root", "root's canary9f3b1c", administrator=True)
    await registry.users.add("ann", PASSWORD)
    await registry.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push"))
    return registry


async def sign_in(client: httpx.AsyncClient, password: str = PASSWORD) -> str:
    answer = await client.get("/token", params={**FORM, "offline_token": "true"}, auth=("ann", password))
    assert answer.status_code == 200, answer.text
    return answer.json()["refresh_token"]


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/token", data=FORM | {"grant_type": "refresh_token", "refresh_token": token})


async def push(client: httpx.AsyncClient, access_token: str) -> int:
    headers = {"Authorization": f"Bearer {access_token}"}
    return (await client.post("/v2/team-a/app/blobs/uploads/", headers=headers)).status_code


async def test_whoever_asks_gets_a_refresh_token_for_his_password_and_access_tokens_for_that(users, client):
    offline = FORM | {"grant_type": "password", "username": "ann", "password": PASSWORD, "access_type": "offline"}
    by_post = (await client.post("/token", data=offline)).json()["refresh_token"]
    by_get = await sign_in(client)
    assert by_post != by_get
    for token in (by_post, by_get):
        assert api_tokens.is_one(token, api_tokens.REFRESH)
        answer = await refresh(client, token)
        assert (answer.status_code, answer.json()["scope"]) == (200, SCOPE)
        assert answer.json()["refresh_token"] == token  # oauth.md: the same one
        assert await push(client, answer.json()["access_token"]) == 202


async def test_who_does_not_ask_or_is_no_user_gets_none(users, client):
    secret = await users.api_tokens.add("ci", [Pattern("team-a/*")], parse_actions("pull"), None)
    for query, auth in (
        ({}, ("ann", PASSWORD)),
        ({"offline_token": "false"}, ("ann", PASSWORD)),
        ({"offline_token": "true"}, ("ci", secret)),
        ({"offline_token": "true"}, None),
    ):
        answer = await client.get("/token", params=FORM | query, auth=auth)
        assert (answer.status_code, "refresh_token" in answer.json()) == (200, False)


async def test_a_refresh_token_is_for_the_token_service_and_its_refresh_grant_alone(users, client):
    token = await sign_in(client)
    for auth, headers in ((("ann", token), None), (("", token), None), (None, {"Authorization": f"Bearer {token}"})):
        for path in ("/v2/", "/token"):
            answer = await client.get(path, auth=auth, headers=headers)
            assert answer.status_code == 401
            assert "grant_type=refresh_token" in answer.text or (path == "/v2/" and headers)
    other = FORM | {"service": "other", "grant_type": "refresh_token", "refresh_token": token}
    assert (await client.post("/token", data=other)).status_code == 400


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t + "x", lambda t: "chr_" + t[4:].swapcase()])
async def test_one_that_was_cut_or_mistyped_is_told_from_one_that_is_not_known(users, client, spoil):
    token = await sign_in(client)
    assert "cut or mistyped" in error_of(await refresh(client, spoil(token)), 401, "UNAUTHORIZED")
    unknown = api_tokens.new(api_tokens.REFRESH)
    assert "was ended, or is of another registry" in error_of(await refresh(client, unknown), 401, "UNAUTHORIZED")


async def ended_by_password(users):
    await users.users.change("ann", password="another canary9f3b1c")
    return "the password of ann has changed since this login: sign in again"


async def ended_by_removal(users):
    await users.users.remove("ann")
    await users.users.add("ann", PASSWORD)
    return "was ended"


async def ended_by_disabling(users):
    await users.users.change("ann", disabled=True)
    await users.users.change("ann", disabled=False)
    return "was ended"


async def ended_by_hand(users):
    await users.logins.end("ann")
    return "was ended"


@pytest.mark.parametrize("end", [ended_by_password, ended_by_removal, ended_by_disabling, ended_by_hand])
async def test_it_ends_at_the_next_request_with_the_password_the_user_or_by_hand(users, client, end):
    token = await sign_in(client)
    access = (await refresh(client, token)).json()["access_token"]
    assert await push(client, access) == 202
    said = await end(users)
    assert said in error_of(await refresh(client, token), 401, "UNAUTHORIZED")
    if end is not ended_by_disabling:  # who is let in again has what he had
        assert await push(client, access) in (401, 403)


async def test_one_of_several_is_ended_by_its_id_and_the_others_stay(users, client):
    first, second = await sign_in(client), await sign_in(client)
    access = [(await refresh(client, token)).json()["access_token"] for token in (first, second)]
    ids = {each.hash: each.id for each in await users.logins.list()}
    assert await users.logins.end("ann", ids[api_tokens.hashed(first)]) == 1
    assert [(await refresh(client, token)).status_code for token in (first, second)] == [401, 200]
    assert [await push(client, token) for token in access] == [401, 202]
    for name, login in (("ann", ids[api_tokens.hashed(first)]), ("bob", ""), ("ann", "x")):
        with pytest.raises(UserUnknown, match="charthouse user logins"):
            await users.logins.end(name, login)


async def test_what_a_login_allows_is_what_its_user_may_now(users, client):
    token = await sign_in(client)
    await users.users.revoke("ann", Pattern("team-a/*"))
    answer = await refresh(client, token)
    assert (answer.status_code, answer.json()["scope"]) == (200, "")


async def test_a_user_keeps_a_number_of_logins_and_those_unused_for_longest_go(users, client, clock, monkeypatch):
    monkeypatch.setattr(logins, "MOST", 3)
    tokens = []
    for _ in range(3):
        tokens.append(await sign_in(client))
        clock.now += 60
    assert (await refresh(client, tokens[0])).status_code == 200  # used last
    clock.now += 60
    tokens.append(await sign_in(client))
    assert [(await refresh(client, token)).status_code for token in tokens] == [200, 401, 200, 200]


async def test_logins_of_before_a_change_of_password_are_forgotten_with_the_next(users, client):
    await sign_in(client)
    await users.users.change("ann", password="another canary9f3b1c")
    await sign_in(client, "another canary9f3b1c")
    assert len(await users.logins.list()) == 1


async def test_only_its_hash_is_kept_and_its_last_use_to_the_minute(users, client, clock):
    token = await sign_in(client)
    (kept,) = await users.logins.list()
    assert (kept.hash, kept.client, kept.used_at) == (hashlib.sha256(token.encode()).hexdigest(), "helm", None)
    first = int(clock.now * 1000)
    for seconds, used in ((0, first), (59, first), (1, first + 60_000)):
        clock.now += seconds
        await refresh(client, token)
        assert [each.used_at for each in await users.logins.list()] == [used]


async def test_a_login_voids_nothing_that_others_are_remembered_by(users, client):
    generation = (await users.users.directory()).generation
    await refresh(client, await sign_in(client))
    assert (await users.users.directory()).generation == generation


async def test_a_full_disk_refuses_no_login(users, client, monkeypatch):
    """The client then keeps the password, and a refresh goes on."""
    token = await sign_in(client)

    async def full(*_: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(users._database, "write", full)
    answer = await client.get("/token", params=FORM | {"offline_token": "true"}, auth=("ann", PASSWORD))
    assert (answer.status_code, "refresh_token" in answer.json()) == (200, False)
    assert (await refresh(client, token)).status_code == 200


@pytest.fixture
def data(tmp_path):
    async def make() -> None:
        registry = await open_registry(load({"data": tmp_path}, environ={}), durable=False)
        await registry.users.add("root", "root's canary9f3b1c", administrator=True)
        await registry.users.add("ann", PASSWORD)
        for program in ("docker", "helm\x1b[31m"):
            await registry.logins.add("ann", program, await registry.users.directory())
        await registry.close()

    asyncio.run(make())
    return tmp_path


def run(data, *words: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "charthouse", "user", *words, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_logins_are_listed_and_ended_by_command(data):
    listed = [line.split() for line in run(data, "logins").splitlines()[:2]]
    assert {(name, program) for _, name, program, *_ in listed} == {("ann", "docker"), ("ann", "helm31m")}
    assert "ended 1 login of ann" in run(data, "logout", "ann", listed[0][0])
    assert "ended 1 login of ann" in run(data, "logout", "ann")
    assert "there is no login of 'ann' that lasts" in run(data, "logout", "ann", status=1)
