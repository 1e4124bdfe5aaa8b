"""API tokens: what a pipeline has in place of somebody's password."""

import time

import pytest

from charthouse.auth import api_tokens
from charthouse.auth.access import Pattern, parse_actions
from charthouse.core import Registry
from charthouse.errors import GrantInvalid, UserExists, UserUnknown

DAY = 24 * 3600
SCOPE = "repository:team-a/app:pull,push,delete"
REPOSITORY = "/v2/team-a/app"


@pytest.fixture
async def closed(app) -> Registry:
    registry: Registry = app.registry
    await registry.users.add("root", "root's canary9f3b1c", administrator=True)
    return registry


@pytest.fixture
async def secret(closed, clock) -> str:
    ends = int((clock.now + 90 * DAY) * 1000)
    return await closed.api_tokens.add("ci", [Pattern("team-a/*")], parse_actions("pull,push"), ends)


async def ways(client, secret: str) -> dict[str, tuple[int, str]]:
    """Each way to present it, with the status and the scope of the access token that is given."""
    form = {"service": "charthouse", "scope": SCOPE}
    answers = {
        "password": await client.get("/token", params=form, auth=("ci", secret)),
        "password of anybody": await client.get("/token", params=form, auth=("x", secret)),
        "password without a user": await client.get("/token", params=form, auth=("", secret)),
        "password in a form": await client.post(
            "/token", data=form | {"grant_type": "password", "username": "", "password": secret}
        ),
        "refresh token": await client.post(
            "/token", data=form | {"grant_type": "refresh_token", "refresh_token": secret}
        ),
    }
    return {name: (answer.status_code, answer.json().get("scope", answer.text)) for name, answer in answers.items()}


async def test_it_is_taken_in_every_place_where_clients_put_it(closed, client, secret):
    given = await ways(client, secret)
    assert set(given.values()) == {(200, "repository:team-a/app:pull,push")}
    for headers in ({"Authorization": f"Bearer {secret}"}, None):
        auth = None if headers else ("", secret)
        upload = await client.post(f"{REPOSITORY}/blobs/uploads/", headers=headers, auth=auth)
        assert upload.status_code == 202
        other = await client.post("/v2/team-b/app/blobs/uploads/", headers=headers, auth=auth)
        assert other.status_code == 403
        assert (await client.delete(f"{REPOSITORY}/manifests/1", headers=headers, auth=auth)).status_code == 403


async def test_a_refresh_grant_answers_the_token_again_and_a_password_grant_none(closed, client, secret):
    form = {"service": "charthouse", "grant_type": "refresh_token", "refresh_token": secret}
    assert (await client.post("/token", data=form)).json()["refresh_token"] == secret
    assert "refresh_token" not in (await client.get("/token?offline_token=true", auth=("ci", secret))).json()


async def test_revoked_it_is_unknown_at_the_next_request_and_so_is_its_access_token(closed, client, secret):
    access = (await client.get("/token", params={"scope": SCOPE}, auth=("", secret))).json()["token"]
    headers = {"Authorization": f"Bearer {access}"}
    assert (await client.post(f"{REPOSITORY}/blobs/uploads/", headers=headers)).status_code == 202
    await closed.api_tokens.revoke("ci")
    assert (await client.post(f"{REPOSITORY}/blobs/uploads/", headers=headers)).status_code == 401
    assert {status for status, _ in (await ways(client, secret)).values()} == {401}
    again = await closed.api_tokens.add("ci", [Pattern("team-a/*")], parse_actions("pull,push"), None)
    assert (await client.post(f"{REPOSITORY}/blobs/uploads/", headers=headers)).status_code == 401
    assert {status for status, _ in (await ways(client, again)).values()} == {200}


async def test_one_that_has_ended_is_named_with_its_date(closed, client, clock, secret):
    access = (await client.get("/token", params={"scope": SCOPE}, auth=("", secret))).json()["token"]
    clock.now += 90 * DAY
    ended = time.strftime("%Y-%m-%d", time.gmtime(clock.now))
    for status, text in (await ways(client, secret)).values():
        assert status == 401
        assert f"the API token ci ended on {ended}: make another one" in text
    headers = {"Authorization": f"Bearer {access}"}
    assert (await client.post(f"{REPOSITORY}/blobs/uploads/", headers=headers)).status_code == 401


@pytest.mark.parametrize("spoil", [lambda s: s[:-1], lambda s: s + "x", lambda s: s.swapcase(), lambda _: "cht_"])
async def test_one_that_was_cut_or_mistyped_is_told_from_one_that_was_revoked(closed, client, secret, spoil):
    spoilt = spoil(secret) if spoil(secret).startswith("cht_") else "cht_" + spoil(secret)[4:]
    for status, text in (await ways(client, spoilt)).values():
        assert (status, "cut or mistyped" in text) == (401, True)
    unknown = api_tokens.new(api_tokens.API)
    for status, text in (await ways(client, unknown)).values():
        assert (status, "it was revoked, or is of another registry" in text) == (401, True)


async def test_only_its_hash_is_kept(closed, secret):
    (kept,) = await closed.api_tokens.list()
    assert kept.hash == api_tokens.hashed(secret)
    assert secret not in repr(kept)


async def test_its_last_use_is_noted_once_a_minute_and_changes_nobodys_rights(closed, client, clock, secret):
    async def used() -> int | None:
        (kept,) = await closed.api_tokens.list()
        return kept.used_at

    generation = (await closed.users.directory()).generation
    assert await used() is None
    await client.get("/v2/", auth=("", secret))
    first = int(clock.now * 1000)
    assert await used() == first
    clock.now += 59
    await client.get("/v2/", auth=("", secret))
    assert await used() == first
    clock.now += 1
    await client.get("/v2/", auth=("", secret))
    assert await used() == first + 60_000
    assert (await closed.users.directory()).generation == generation


async def test_what_it_pushes_is_not_a_users_who_is_called_alike(closed, client, secret):
    await closed.users.add("ci", "ci's canary9f3b1c")
    upload = await client.post(f"{REPOSITORY}/blobs/uploads/", auth=("ci", secret))
    await closed.users.grant("ci", Pattern("team-a/*"), parse_actions("pull,push"))
    assert (await client.get(upload.headers["location"], auth=("ci", "ci's canary9f3b1c"))).status_code == 404
    assert (await client.get(upload.headers["location"], auth=("ci", secret))).status_code == 204


async def test_what_cannot_be_is_refused(registry):
    add = registry.api_tokens.add
    with pytest.raises(GrantInvalid, match="charthouse init"):
        await add("ci", [Pattern("*")], parse_actions("pull"), None)
    await registry.users.add("root", "root's canary9f3b1c", administrator=True)
    await add("ci", [Pattern("*")], parse_actions("pull"), None)
    with pytest.raises(UserExists, match="there is a token ci already"):
        await add("ci", [Pattern("*")], parse_actions("pull"), None)
    with pytest.raises(GrantInvalid, match="cannot be a token's name"):
        await add("c i", [Pattern("*")], parse_actions("pull"), None)
    with pytest.raises(UserUnknown, match="no token 'x'"):
        await registry.api_tokens.revoke("x")
