"""Who may do what, over HTTP: nothing that no grant gives. Every route for every caller: test_matrix.py."""

import asyncio
import base64
import json
import logging
from collections.abc import Callable

import httpx
import pytest
from hypothesis import HealthCheck, given, settings as tuned, strategies as st

from charthouse import queries
from charthouse.app import Application, create_app
from charthouse.auth import methods, passwords
from charthouse.auth.access import ACTIONS, Directory, Grant, Pattern, Rights, User, parse_actions
from charthouse.core import Registry
from charthouse.database import Connection
from charthouse.errors import (
    AdministratorMissing,
    GrantInvalid,
    PasswordInvalid,
    UserExists,
    UserNameInvalid,
    UserUnknown,
)
from charthouse.names import Digest, RepositoryName, Tag
from charthouse.settings import Settings
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import Remote, error_of, image, running
from test_pull_cache import scope_of

PASSWORD = "correct horse canary9f3b1c"
MINE, OTHERS, PUBLIC = "team-a/app", "team-b/app", "charts/app"
DIGEST = Digest.of(image())
BLOB = Digest.of(b"{}")


class Basic(httpx.BasicAuth):
    def __init__(self, name: str, password: str = PASSWORD) -> None:
        super().__init__(name, password)


# The users of a registry with three repositories, by what they may do with those of team-a.
ROLES: dict[str, str] = {
    "puller": "pull",
    "pusher": "pull,push",
    "overwriter": "pull,push,overwrite",
    "deleter": "delete",
    "stranger": "",
}


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Images are pushed here as well, and nothing but rights keeps a tag from moving."""
    return make_settings(policy="oci", versions="mutable")


@pytest.fixture
async def closed(app: Application, client: httpx.AsyncClient, quick_passwords: None) -> Registry:  # noqa: F811
    registry = app.registry
    for name in (MINE, OTHERS, PUBLIC):
        await Remote(client, name).push_image("1")
    await registry.users.add("admin", PASSWORD, administrator=True)
    for name, actions in ROLES.items():
        await registry.users.add(name, PASSWORD)
        if actions:
            await registry.users.grant(name, Pattern.parse("team-a/*"), parse_actions(actions))
    await registry.users.grant("anonymous", Pattern.parse("charts/*"), parse_actions("pull"))
    return registry


def as_(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.AsyncClient:
    """The same application, with a name and a password in each request; nobody's is empty."""
    auth = Basic(name, password) if name else None
    return httpx.AsyncClient(transport=client._transport, base_url=client.base_url, auth=auth)


# What a pattern covers


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("*", ["a", "a/b"], []),
        ("team-a/*", ["team-a/b", "team-a/b/c"], ["team-a", "team-ab/c", "team-b/team-a/c"]),
        ("a_b/*", ["a_b/c"], ["axb/c", "a-b/c"]),
        ("team-a/app", ["team-a/app"], ["team-a/app/b", "team-a/apps", "team-a"]),
    ],
)
def test_what_a_pattern_covers(pattern: str, covered: list[str], not_covered: list[str]):
    parsed = Pattern.parse(pattern)
    assert [name for name in covered + not_covered if parsed.covers(name)] == covered


@pytest.mark.parametrize("text", ["", "team-*", "*/app", "team-a/**", "Team/*", "/*", "a/../b", "a%"])
def test_what_is_no_pattern_is_refused_with_the_way_to_write_one(text: str):
    with pytest.raises(GrantInvalid, match=r"is no pattern of repositories: write team-a/app, team-a/\* for all below"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["", "read", "pull,read", ","])
def test_what_is_no_action_is_refused_with_those_there_are(text: str):
    with pytest.raises(GrantInvalid, match="write some of pull, push, overwrite, delete"):
        parse_actions(text)


def test_rights_are_the_union_of_all_grants_and_groups():
    directory = Directory(
        users={name: User(name, "", name == "root", name == "gone") for name in ("ann", "bob", "root", "gone")},
        groups={"dev": frozenset({"ann", "gone"})},
        grants=[
            Grant("ann", Pattern("a/x"), frozenset({"push"})),
            Grant("@dev", Pattern("a/*"), frozenset({"pull"})),
            Grant("anonymous", Pattern("open/*"), frozenset({"pull"})),
            Grant("gone", Pattern("*"), frozenset(ACTIONS)),
        ],
    )
    ann, bob, root = (directory.rights_of(name) for name in ("ann", "bob", "root"))
    assert (ann.allows("push", "a/x"), ann.allows("pull", "a/x"), ann.allows("push", "a/y")) == (True, True, False)
    assert (bob.allows("pull", "a/x"), bob.allows("pull", "open/x")) == (False, True)
    assert all(root.allows(action, "any/thing") for action in ACTIONS)
    assert directory.rights_of("gone") == Rights()
    assert ann.readable == ["a/*", "open/*"]
    assert root.readable is None


# What is not to be seen


@pytest.mark.parametrize("role", ["", "stranger"])
async def test_what_may_not_be_seen_answers_the_same_whether_it_is_there_or_not(closed, client, role):
    """Byte for byte, but for the name that was asked for."""
    async with as_(client, role) as caller:
        for path in ("manifests/1", f"blobs/{BLOB}", "tags/list", f"referrers/{DIGEST}"):
            answers = [await caller.get(f"/v2/{name}/{path}") for name in (OTHERS, "team-b/not")]
            there, absent = ((each.status_code, each.text, sorted(each.headers.items())) for each in answers)
            assert json.dumps(there).replace("team-b/app", "X") == json.dumps(absent).replace("team-b/not", "X")


async def test_the_catalog_lists_only_what_may_be_pulled_and_its_pages_are_whole(closed, client):
    for number in range(7):
        await Remote(as_(client, "admin"), f"team-a/n{number}").push_image()
        await Remote(as_(client, "admin"), f"team-b/n{number}").push_image()
    token = (await client.get("/token?scope=registry:catalog:*")).json()["token"]
    nobodys = await client.get("/v2/_catalog", headers={"Authorization": f"Bearer {token}"})
    assert nobodys.json()["repositories"] == [PUBLIC]
    for role, names in {
        "stranger": [PUBLIC],
        "puller": [PUBLIC, MINE, *(f"team-a/n{number}" for number in range(7))],
    }.items():
        async with as_(client, role) as caller:
            found, url = [], "/v2/_catalog?n=3"
            while url:
                response = await caller.get(url)
                found += response.json()["repositories"]
                url = response.links.get("next", {}).get("url")
        assert found == names
    async with as_(client, "admin") as caller:
        assert len((await caller.get("/v2/_catalog")).json()["repositories"]) == 17


async def test_a_mount_from_what_may_not_be_pulled_is_as_if_it_were_not_there(closed, client):
    async with as_(client, "pusher") as caller:
        answers = [
            await caller.post(f"/v2/team-a/new/blobs/uploads/?mount={digest}&from={name}")
            for digest, name in ((BLOB, OTHERS), (Digest.of(b"none"), OTHERS), (BLOB, "team-b/none"))
        ]
        assert {answer.status_code for answer in answers} == {202}
        assert (await caller.post(f"/v2/team-a/new/blobs/uploads/?mount={BLOB}&from={MINE}")).status_code == 201


# Push and overwrite


async def test_who_may_push_may_not_overwrite_and_is_told_which(closed, client):
    other = image(annotations={"n": "2"})
    async with as_(client, "pusher") as caller:
        remote = Remote(caller, MINE)
        for reference, query in (("1", ""), (None, "?tag=1")):
            text = error_of(await remote.put_manifest(other, reference, query=query), 403, "DENIED")
            assert f"{MINE} has 1 already" in text
            assert "pusher may push but not overwrite" in text
        assert (await remote.put_manifest(image(), "1")).status_code == 201  # the same again changes nothing
        assert (await remote.put_manifest(other, "2")).status_code == 201
    async with as_(client, "overwriter") as caller:
        assert (await Remote(caller, MINE).put_manifest(other, "1")).status_code == 201


async def test_of_those_who_race_for_a_new_tag_without_overwrite_one_wins(closed, client):
    bodies = [image(annotations={"n": str(number)}) for number in range(8)]
    async with as_(client, "pusher") as caller:
        remote = Remote(caller, MINE)
        answers = await asyncio.gather(*(remote.put_manifest(body, "race") for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] + [403] * 7


async def test_the_manifest_says_who_pushed_it(closed, client):
    async with as_(client, "pusher") as caller:
        await Remote(caller, MINE).put_manifest(image(annotations={"n": "2"}), "2")

    def tagged(connection: Connection) -> queries.Tagged | None:
        return queries.tagged(connection, queries.repository_id(connection, RepositoryName(MINE)) or 0, Tag("2"))

    assert (await closed._database.read(tagged)).pushed_by == "pusher"


# When a change counts


async def test_every_change_counts_at_the_next_request(closed, client, database_url):
    users, name = closed.users, "puller"
    async with as_(client, name) as caller:
        path = f"/v2/{MINE}/manifests/1"
        assert (await caller.get(path)).status_code == (await caller.get(path)).status_code == 200
        await users.revoke(name, Pattern("team-a/*"))
        assert (await caller.get(path)).status_code == 403
        await users.grant(name, Pattern("team-a/app"), frozenset({"pull"}))
        assert (await caller.get(path)).status_code == 200
        await users.change(name, disabled=True)
        assert (await caller.get(path)).status_code == 401
        await users.change(name, disabled=False)
        await users.change(name, password="another canary9f3b1c")
        assert (await caller.get(path)).status_code == 401
    async with as_(client, name, "another canary9f3b1c") as caller:
        assert (await caller.get(path)).status_code == 200
        await users.remove(name)
        assert (await caller.get(path)).status_code == 401
    await users.add(name, PASSWORD)  # of the same name, and nobody that was
    async with as_(client, name) as caller:
        assert (await caller.get(path)).status_code == 403


async def test_a_change_on_one_server_counts_on_the_other(settings, closed, client, clock):
    async with running(create_app(settings, clock=clock, durable=False)) as other, as_(other, "puller") as caller:
        path = f"/v2/{MINE}/manifests/1"
        assert [(await caller.get(path)).status_code for _ in range(3)] == [200] * 3
        await closed.users.revoke("puller", Pattern("team-a/*"))
        assert (await caller.get(path)).status_code == 403


async def test_a_pull_is_answered_at_once_only_to_who_may(closed, client, app, database_url):
    async with as_(client, "puller") as caller:
        for _ in range(3):
            await caller.get(f"/v2/{MINE}/manifests/1")
    header = "Basic " + base64.b64encode(f"puller:{PASSWORD}".encode()).decode()
    wrong = "Basic " + base64.b64encode(b"puller:wrong").decode()
    assert (app.at_once(scope_of("manifests/1", authorization=header)) is not None) == (not database_url)
    assert app.at_once(scope_of("manifests/1")) is None
    assert app.at_once(scope_of("manifests/1", authorization=wrong)) is None
    assert app.at_once(scope_of("manifests/1", authorization="Bearer x")) is None
    await closed.users.revoke("puller", Pattern("team-a/*"))
    assert app.at_once(scope_of("manifests/1", authorization=header)) is None


# Credentials


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !",
        "Basic " + base64.b64encode(b"admin").decode(),
        "Bearer x",
        "Basic " + "A" * 9000,
        "x" * 9,
    ],
)
async def test_credentials_that_are_none_are_401_with_a_challenge_and_never_a_500(closed, client, header):
    response = await client.get(f"/v2/{PUBLIC}/manifests/1", headers={"Authorization": header})
    assert error_of(response, 401, "UNAUTHORIZED")
    assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_a_wrong_password_and_a_user_who_is_not_there_are_told_the_same(closed, client):
    answers = [await as_(client, name, "wrong canary9f3b1c").get("/v2/") for name in ("admin", "nobody")]
    texts = {(answer.status_code, answer.text) for answer in answers}
    assert texts == {(401, answers[0].text)}
    assert methods.WRONG in answers[0].text


async def test_many_wrong_passwords_slow_that_user_from_that_address_alone(closed, client, app):
    basic, now = app._guard._sign_in._basic, [0.0]
    basic._clock = lambda: now[0]
    for _ in range(methods.FREE_TRIES):
        assert (await as_(client, "puller", "wrong canary9f3b1c").get("/v2/")).status_code == 401
    held = await as_(client, "puller").get("/v2/")
    assert (held.status_code, held.headers["retry-after"]) == (429, "2")
    assert (await as_(client, "pusher").get("/v2/")).status_code == 200  # others go on
    now[0] += 1
    assert (await as_(client, "puller").get("/v2/")).status_code == 200  # and so does he, and is clean again
    assert (await as_(client, "puller", "wrong canary9f3b1c").get("/v2/")).status_code == 401


async def test_who_is_known_already_is_not_held_back(closed, client, app):
    """A client in the middle of a push is no victim of somebody who guesses."""
    async with as_(client, "pusher") as caller:
        assert (await caller.get("/v2/")).status_code == 200
        for _ in range(methods.FREE_TRIES + 1):
            await as_(client, "pusher", "wrong canary9f3b1c").get("/v2/")
        assert (await caller.post(f"/v2/{MINE}/blobs/uploads/")).status_code == 202


async def test_more_logins_at_once_than_can_wait_are_told_to_come_again(closed, client, app):
    basic = app._guard._sign_in._basic
    await as_(client, "admin").get("/v2/")
    basic._door()._waiting = passwords.QUEUE_LIMIT
    response = await as_(client, "puller").get("/v2/")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")


async def test_a_password_is_hashed_once_and_then_known(closed, client, app, monkeypatch: pytest.MonkeyPatch):
    async with as_(client, "puller") as caller:
        assert (await caller.get("/v2/")).status_code == 200
        monkeypatch.setattr(app._guard._sign_in._basic._door(), "_verify", pytest.fail)
        assert [(await caller.get("/v2/")).status_code for _ in range(3)] == [200] * 3


def test_a_password_is_kept_as_argon2id_with_19_mib():
    hashed = passwords.Passwords().hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("password", ["short", "x" * 1025, "\u00e9" * 600])
def test_a_password_that_is_too_short_or_too_long_is_refused(password: str):
    with pytest.raises(PasswordInvalid):
        passwords.Passwords().hash(password)


async def test_the_same_letters_are_the_same_password_whatever_keyboard_typed_them():
    door = passwords.Passwords()
    hashed = door.hash("caf\u00e9 au lait")
    assert await door.verify("cafe\u0301 au lait", hashed)
    assert not await door.verify("cafe au lait", hashed)
    assert not await door.verify("caf\u00e9 au lait", "$2y$05$notahash")
    assert not await door.verify("x" * 2000, hashed)


# Users


async def test_users_groups_and_grants_are_refused_when_they_cannot_be(
    registry: Registry,
    quick_passwords,  # noqa: F811
):
    users = registry.users
    with pytest.raises(AdministratorMissing, match="charthouse init"):
        await users.add("ann", PASSWORD)
    with pytest.raises(GrantInvalid, match="there are no users"):
        await users.grant("anonymous", Pattern("*"), frozenset({"pull"}))
    await users.add("admin", PASSWORD, administrator=True)
    await users.add("ann", PASSWORD)
    with pytest.raises(UserExists):
        await users.add("ann", PASSWORD)
    for name in ("", "anonymous", "@dev", "a:b", "x" * 65, "a\nb", "-a"):
        with pytest.raises(UserNameInvalid):
            await users.add(name, PASSWORD)
    for refused in (
        users.grant("bob", Pattern("*"), frozenset({"pull"})),
        users.grant("@dev", Pattern("*"), frozenset({"pull"})),
        users.add_to_group("dev", "bob"),
        users.remove_from_group("dev", "ann"),
        users.revoke("ann", Pattern("*")),
        users.change("bob", password=PASSWORD),
        users.remove("bob"),
    ):
        with pytest.raises(UserUnknown):
            await refused
    for last in (users.remove("admin"), users.change("admin", disabled=True)):
        with pytest.raises(AdministratorMissing, match="admin is the last administrator"):
            await last
    assert set((await users.directory()).users) == {"admin", "ann"}


async def test_nothing_is_left_of_a_user_who_was_removed(closed):
    await closed.users.add_to_group("dev", "puller")
    await closed.users.remove("puller")
    directory = await closed.users.directory()
    assert not [grant for grant in directory.grants if grant.subject == "puller"]
    assert "puller" not in directory.groups.get("dev", ())


async def test_with_users_the_policy_is_charts_and_releases_cannot_be_replaced(
    make_settings,
    quick_passwords,  # noqa: F811
):
    async with running(create_app(make_settings(), durable=False)) as client:
        registry = client._transport.app.registry
        assert (await registry.namespaces.show(MINE))["policy"].value == "oci"
        await registry.users.add("admin", PASSWORD, administrator=True)
        found = await registry.namespaces.show(MINE)
        async with as_(client, "admin") as caller:
            await Remote(caller, MINE).push_blob(b"{}")
            error_of(await Remote(caller, MINE).put_manifest(image(), "1"), 400, "MANIFEST_INVALID")
    assert {key: (found[key].value, found[key].origin) for key in ("policy", "versions")} == {
        "policy": ("charts", "by default with users"),
        "versions": ("releases-immutable", "by default with users"),
    }


# Nobody ever gets what no grant gives

NAMES = [f"{a}/{b}" for a in ("a", "a_b", "axb") for b in ("x", "y")]
GRANTS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "@dev", "anonymous"]),
        st.sampled_from(["*", "a/*", "a_b/*", "a/x", "axb/y"]),
        st.sets(st.sampled_from(ACTIONS), min_size=1),
    ),
    max_size=4,
)


def oracle(grants: list[tuple[str, str, set[str]]], subjects: set[str], action: str, name: str) -> bool:
    """By the words of the documentation, in another way than the code."""
    matching = {name, f"{name.split('/', maxsplit=1)[0]}/*", "*"}
    return any(subject in subjects and pattern in matching and action in these for subject, pattern, these in grants)


@given(GRANTS, st.booleans())
@tuned(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nobody_may_what_no_grant_gives(grants: list[tuple[str, str, set[str]]], in_group: bool):
    directory = Directory(
        users={"ann": User("ann", "", False, False)},
        groups={"dev": frozenset({"ann"} if in_group else ())},
        grants=[Grant(subject, Pattern(pattern), frozenset(these)) for subject, pattern, these in grants],
    )
    for caller, subjects in (("", {"anonymous"}), ("ann", {"anonymous", "ann"} | ({"@dev"} if in_group else set()))):
        rights = directory.rights_of(caller)
        for name in NAMES:
            for action in ACTIONS:
                assert rights.allows(action, name) == oracle(grants, subjects, action, name)
            listed = rights.readable is None or any(Pattern(each).covers(name) for each in rights.readable)
            assert listed == oracle(grants, subjects, "pull", name)


# Secrets


async def test_no_password_reaches_a_log_an_answer_or_the_database(closed, client, settings, caplog):
    caplog.set_level(logging.DEBUG)
    canary = "canary9f3b1c-secret"
    await closed.users.change("pusher", password=canary)
    async with as_(client, "pusher", canary) as caller:
        answers = [await caller.get("/v2/"), await caller.put(f"/v2/{OTHERS}/manifests/1", content=b"{}")]
    answers.append(await as_(client, "pusher", canary + "x").get("/v2/"))
    said = "".join(answer.text + str(answer.headers) for answer in answers) + caplog.text
    assert canary not in said
    for path in settings.data.rglob("*"):
        assert path.is_dir() or canary.encode() not in path.read_bytes()


async def test_an_open_registry_asks_nobody(client):
    assert (await client.get("/v2/")).status_code == 200
    await Remote(client, MINE).push_image("1")
