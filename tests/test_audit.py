"""The audit: a row for every change, in its transaction, and for what was refused to whoever showed something."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from charthouse import audit
from charthouse.__main__ import command
from charthouse.audit import ON_THE_MACHINE, Actor, Entry
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.issued import ApiTokens
from charthouse.auth.logins import Logins
from charthouse.auth.users import Users
from charthouse.core import Registry
from charthouse.errors import AdministratorMissing, RegistryError, UserExists
from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest, Namespace, RepositoryName
from charthouse.namespaces import Namespaces
from charthouse.settings import Settings
from support.charts import Signer
from support.requests import Remote, image

PASSWORD = "correct horse canary9f3b1c"
ANN = Actor("ann", "192.0.2.1", "0123")
APP = RepositoryName("team-a/app")
BLOB = Digest.of(b"{}")

Operation = Callable[[Registry, Any], Awaitable[Any]]


async def rows(registry: Registry, **options: Any) -> list[Entry]:
    await registry.audit.flush()
    return await registry.audit.list(**options)


async def words(registry: Registry) -> list[str]:
    return [f"{row.action} {row.target}" for row in await rows(registry)]


@pytest.fixture
async def closed(registry: Registry) -> Registry:
    """With an administrator and ben, who has a group, a grant, a token, a login and a namespace."""
    await registry.users.add("admin", PASSWORD, administrator=True)
    await registry.users.add("ben", PASSWORD)
    await registry.users.add_to_group("devs", "ben")
    await registry.users.grant("ben", Pattern("team-a/*"), parse_actions("pull"))
    await registry.api_tokens.add("ci", [Pattern("team-a/*")], parse_actions("pull"), None)
    await registry.logins.add("ben", "helm", await registry.users.directory())
    await registry.namespaces.set(Namespace("team-a"), {"images": "immutable"})
    await registry.audit.flush()
    return registry


# Each operation that takes `by`: what it is called with, and the row that it leaves.
CHANGES: dict[Callable[..., Any], tuple[Operation, str]] = {
    Users.add: (lambda r, by: r.users.add("cia", PASSWORD, by=by), "user add cia"),
    Users.change: (lambda r, by: r.users.change("ben", password=PASSWORD[::-1], by=by), "user passwd ben"),
    Users.remove: (lambda r, by: r.users.remove("ben", by), "user remove ben"),
    Users.add_to_group: (lambda r, by: r.users.add_to_group("ops", "ben", by), "group add @ops ben"),
    Users.remove_from_group: (lambda r, by: r.users.remove_from_group("devs", "ben", by), "group remove @devs ben"),
    Users.grant: (
        lambda r, by: r.users.grant("@devs", Pattern("*"), parse_actions("push,pull"), by),
        "grant set @devs * pull,push",
    ),
    Users.limit: (
        lambda r, by: r.users.limit("ben", {"quota_bytes": "1GiB", "blob_limit": None}, by),
        "user limit ben quota_bytes=1GiB blob_limit",
    ),
    Users.keys_changed: (lambda r, by: r.users.keys_changed("new key", by), "token-keys rotate new key"),
    Users.revoke: (lambda r, by: r.users.revoke("ben", Pattern("team-a/*"), by), "grant remove ben team-a/*"),
    Users.limit: (
        lambda r, by: r.users.limit("ben", {"quota_manifests": "10"}, by),
        "user limit ben quota_manifests=10",
    ),
    Users.keys_changed: (lambda r, by: r.users.keys_changed("kid", by), "token-keys rotate kid"),
    ApiTokens.add: (
        lambda r, by: r.api_tokens.add("cd", [Pattern("a"), Pattern("b/*")], parse_actions("pull"), None, by),
        "token add cd a b/* pull",
    ),
    ApiTokens.revoke: (lambda r, by: r.api_tokens.revoke("ci", by), "token revoke ci"),
    Logins.end: (lambda r, by: r.logins.end("ben", by=by), "user logout ben"),
    Namespaces.add: (lambda r, by: r.namespaces.add(Namespace("team-b"), by), "namespace add team-b"),
    Namespaces.remove: (lambda r, by: r.namespaces.remove(Namespace("team-a"), by), "namespace remove team-a"),
    Namespaces.set: (
        lambda r, by: r.namespaces.set(Namespace("team-a"), {"policy": "oci"}, by),
        "namespace set team-a policy=oci",
    ),
    Namespaces.unset: (
        lambda r, by: r.namespaces.unset(Namespace("team-a"), "images", by),
        "namespace unset team-a images",
    ),
}


def test_every_operation_that_somebody_does_is_in_this_test():
    own = {Namespaces.add_keys, Namespaces.remove_key}  # with a keyring, below
    by = {
        method
        for kind in (Users, ApiTokens, Logins, Namespaces)
        for _, method in inspect.getmembers(kind, inspect.isfunction)
        if "by" in inspect.signature(method).parameters and not method.__name__.startswith("_")
    }
    assert by == set(CHANGES) | own


@pytest.mark.parametrize("operation", CHANGES.values(), ids=lambda case: case[1])
async def test_every_change_leaves_one_row_of_who_and_what_and_from_where(closed, clock, operation):
    change, expected = operation
    before = await rows(closed)
    clock.now += 60
    await change(closed, ANN)
    (row,) = (await rows(closed))[len(before) :]
    assert f"{row.action} {row.target}" == expected
    assert (row.who, row.address, row.request_id, row.count) == ("ann", "192.0.2.1", "0123", 1)
    assert row.at == int(clock.now * 1000)


async def test_a_user_who_is_changed_in_two_ways_leaves_two_rows(closed):
    await closed.users.change("ben", disabled=True, password=PASSWORD[::-1], by=ANN)
    await closed.users.change("ben", disabled=False)
    await closed.users.change("ben")
    assert (await words(closed))[-3:] == ["user passwd ben", "user disable ben", "user enable ben"]


async def test_a_keyring_leaves_its_fingerprints(closed, tmp_path):
    keys = await closed.namespaces.add_keys(Namespace("team-a"), Signer(tmp_path).public_key, ANN)
    await closed.namespaces.remove_key(Namespace("team-a"), keys[0].fingerprint.lower(), ANN)
    added, removed = (await words(closed))[-2:]
    assert added == f"keyring add team-a {keys[0].fingerprint}"
    assert removed == f"keyring remove team-a {keys[0].fingerprint}"


async def test_a_change_that_is_refused_leaves_none_and_neither_does_one_that_changes_nothing(closed):
    before = await rows(closed)
    with pytest.raises(UserExists):
        await closed.users.add("ben", PASSWORD, by=ANN)
    with pytest.raises(AdministratorMissing):
        await closed.users.remove("admin", ANN)
    with pytest.raises(AdministratorMissing):
        await closed.users.change("admin", password=PASSWORD[::-1], disabled=True, by=ANN)
    with pytest.raises(RegistryError):
        await closed.namespaces.unset(Namespace("team-a"), "policy", ANN)
    assert not await closed.namespaces.add(Namespace("team-a"), ANN)
    assert await rows(closed) == before


async def test_the_command_line_is_on_the_machine(closed):
    assert {row.who for row in await rows(closed)} == {ON_THE_MACHINE.name}


async def test_no_secret_is_in_it(closed):
    secret = await closed.api_tokens.add("x", [Pattern("*")], parse_actions("pull"), None)
    everything = repr(await rows(closed))
    assert PASSWORD not in everything
    assert secret not in everything
    assert "argon2" not in everything


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_pushes_and_deletes_are_rows_with_the_request_that_made_them(app, client):
    remote = Remote(client, str(APP))
    first, other = await remote.push_image("1"), image(annotations={"other": "image"})
    await remote.push_image("1")  # the same again changes nothing
    await remote.call("PUT", "manifests/1", content=other, headers={"Content-Type": OCI_MANIFEST})
    await remote.call("DELETE", "manifests/1")
    await remote.call("DELETE", f"manifests/{Digest.of(first)}")
    await app.registry.delete_repository(APP)
    assert await words(app.registry) == [
        "push team-a/app:1",
        "overwrite team-a/app:1",
        "delete tag team-a/app:1",
        f"delete manifest team-a/app@{Digest.of(first)}",
        "delete repository team-a/app",
    ]
    found = await rows(app.registry)
    assert {row.who for row in found} == {"anonymous", ON_THE_MACHINE.name}
    assert found[0].address == "127.0.0.1"


@pytest.fixture
async def users(app) -> Registry:
    registry: Registry = app.registry
    await registry.users.add("admin", PASSWORD, administrator=True)
    await registry.users.add("ben", PASSWORD)
    await registry.users.grant("ben", Pattern("team-a/*"), parse_actions("pull,push"))
    return registry


async def refusals(registry: Registry) -> list[tuple[str, str, str, int]]:
    return [(r.who, r.target, r.address, r.count) for r in await rows(registry) if r.action == audit.REFUSED]


async def test_wrong_passwords_are_one_row_with_their_number_and_no_name_that_nobody_has(users, client, monkeypatch):
    monkeypatch.setattr(audit, "GATHERED_FOR", 3600)  # until they are asked for
    for _ in range(3):
        assert (await client.get("/v2/", auth=("ben", "wrong canary9f3b1c"))).status_code == 401
    assert (await client.get("/v2/", auth=("canary9f3b1c typed here", "x"))).status_code == 401
    assert (await client.get("/token", auth=("ben", "wrong canary9f3b1c"))).status_code == 401
    assert (await client.get("/v2/", headers={"Authorization": "Bearer a.b.c"})).status_code == 401
    assert await refusals(users) == [("ben", "sign in", "127.0.0.1", 4), ("(unknown)", "sign in", "127.0.0.1", 2)]


async def test_a_challenge_leaves_none(users, client):
    assert (await client.get("/v2/")).status_code == 401
    assert (await client.get("/v2/team-a/app/tags/list")).status_code == 401
    assert await refusals(users) == []


async def test_a_right_that_is_missing_is_a_row_wherever_that_is_found_out(users, client):
    ben = httpx.BasicAuth("ben", PASSWORD)
    assert (await client.get("/v2/team-b/app/tags/list", auth=ben)).status_code == 403
    client.auth = ben
    remote = Remote(client, "team-a/app")
    await users.namespaces.set(Namespace("team-a"), {"policy": "oci", "versions": "mutable"})
    await remote.push_image("1")
    refused = await remote.call(
        "PUT",
        "manifests/1",
        content=image(annotations={"another": "one"}),
        headers={"Content-Type": OCI_MANIFEST},
    )
    assert refused.status_code == 403
    assert await refusals(users) == [
        ("ben", "pull from team-b/app", "127.0.0.1", 1),
        ("ben", "PUT /v2/team-a/app/manifests/1", "127.0.0.1", 1),
    ]


async def test_refusals_are_bounded_and_none_is_lost_from_the_count(registry, monkeypatch):
    monkeypatch.setattr(audit, "MOST_GATHERED", 10)
    for number in range(25):
        registry.audit.refuse("ben", f"pull from team-b/{number}", "192.0.2.1")
    found = await refusals(registry)
    assert len(found) == 11
    assert found[-1] == (audit.FURTHER, "", "", 15)


async def test_refusals_are_written_without_anybody_asking(registry, monkeypatch):
    monkeypatch.setattr(audit, "GATHERED_FOR", 0.0)
    registry.audit.refuse("ben", "sign in", "192.0.2.1")
    await registry.audit._writing
    assert len(await registry.audit.list()) == 1


async def test_rows_go_after_the_days_of_the_setting(closed, clock):
    before = len(await rows(closed))
    clock.now += 179 * 24 * 3600
    await closed.users.change("ben", password=PASSWORD[::-1])
    assert await closed.audit.forget_old() == 0
    clock.now += 2 * 24 * 3600
    assert await closed.audit.forget_old() == before
    assert await words(closed) == ["user passwd ben"]


async def test_pages_together_are_the_whole_and_one_caller_is_found_alone(closed):
    await closed.users.add("cia", PASSWORD, by=ANN)
    everything, pages, after = await rows(closed), [], 0
    while page := await closed.audit.list(after=after, limit=2):
        pages += page
        after = page[-1].id
    assert pages == everything
    assert [row.target for row in await closed.audit.list(name="ann")] == ["cia"]
    assert await closed.audit.list(since=everything[-1].at + 1) == []


# --- the command ------------------------------------------------------------------------------------------------------


def run(settings: Settings, *arguments: str) -> Result:
    where = ["--data", str(settings.data), *(["--database", settings.database] if settings.database else [])]
    return CliRunner().invoke(command, [*arguments, *where])


async def test_the_command_says_who_did_what(settings, registry):
    await registry.users.add("admin", PASSWORD, administrator=True, by=ANN)
    registry.audit.refuse("ben", "sign in", "192.0.2.7")
    registry.audit.refuse("ben", "sign in", "192.0.2.7")
    await registry.audit.flush()
    shown = await asyncio.to_thread(run, settings, "audit", "--since", "7d")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        "2027-01-15 08:00:00Z  ann                  192.0.2.1       user add admin (administrator)",
        "2027-01-15 08:00:00Z  ben                  192.0.2.7       refused sign in (2 times)",
    ]
    of_ben = await asyncio.to_thread(run, settings, "audit", "--user", "ben", "--json")
    assert json.loads(of_ben.stdout)["count"] == 2


async def test_a_rotation_of_the_keys_is_a_row(settings, registry):
    assert registry.access_tokens.keys.published  # the first that asks for them makes them
    rotated = await asyncio.to_thread(run, settings, "token-keys", "rotate")
    assert rotated.exit_code == 0, rotated.output
    (row,) = await registry.audit.list()
    assert (row.action, rotated.stdout.split()[-1]) == ("token-keys rotate", row.target)


@pytest.mark.parametrize("period", ["", "1", "d", "0d", "1w", "-1d", "99999d"])
def test_a_period_that_is_none_is_refused_in_one_line(tmp_path, period):
    refused = CliRunner().invoke(command, ["audit", "--since", period, "--data", str(tmp_path)])
    assert str(refused.exception) == f"--since on the command line is {period!r}: give 30m, 12h, 90d, 1y"
