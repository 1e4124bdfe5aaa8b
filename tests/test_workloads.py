"""Login of a pipeline or a pod by its own identity: its token is changed at `/token`, under rules on its claims."""

import base64
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from charthouse.app import Application, create_app
from charthouse.auth import issuers
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.key_sets import FRESH, PAUSE
from charthouse.auth.tokens import LEEWAY, LIFETIME
from charthouse.settings import Settings
from support.issuer import GONE, Issuer, KeyServer, SigningKey
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import Remote, image, running

pytestmark = pytest.mark.usefixtures("quick_passwords")

NOW = 1_800_000_000
HERE = "charts.example.com"
PASSWORD = "root's canary9f3b1c"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT, ID_TOKEN, ACCESS_TOKEN = (
    f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("jwt", "id_token", "access_token")
)
PUSH = "repository:team-a/app:pull,push"
SUBJECT = "repo:acme/app:ref:refs/heads/main"

# As GitHub Actions, GitLab and Kubernetes write them.
GITHUB = {
    "sub": SUBJECT,
    "aud": HERE,
    "iat": NOW,
    "nbf": NOW - 300,
    "exp": NOW + 600,
    "jti": "1",
    "repository": "acme/app",
    "repository_owner": "acme",
    "repository_owner_id": "65",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
    "run_attempt": "1",
}
GITLAB = {
    "sub": "project_path:acme/app:ref_type:branch:ref:main",
    "aud": HERE,
    "iat": NOW,
    "nbf": NOW - 5,
    "exp": NOW + 3600,
    "jti": "1",
    "namespace_path": "acme",
    "project_path": "acme/app",
    "ref": "main",
    "ref_protected": "true",
}
KUBERNETES = {
    "sub": "system:serviceaccount:team-a:deployer",
    "aud": [HERE],
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 3607,
    "kubernetes.io": {"namespace": "team-a", "serviceaccount": {"name": "deployer", "uid": "1"}},
}
RULES = {
    "github": [
        {"claims": {"repository": "acme/*"}, "repositories": "charts/*", "actions": "pull"},
        {
            "claims": {"repository": "acme/app", "ref": ["refs/heads/main", "refs/tags/v*"]},
            "repositories": ["team-a/*"],
            "actions": "pull,push",
        },
        {"claims": {"repository": "partner/app"}, "user": "ann"},
    ],
    "gitlab": [
        {
            "claims": {"project_path": "acme/app", "ref_protected": "true"},
            "repositories": "team-a/*",
            "actions": "pull,push",
        }
    ],
    "kubernetes": [
        {"claims": {"sub": "system:serviceaccount:team-a:*"}, "repositories": "team-a/*", "actions": ["pull"]}
    ],
}


KEYS = {
    "github": SigningKey("first", "RS256"),
    "gitlab": SigningKey("first", "RS256"),
    "kubernetes": SigningKey("first"),
}


@pytest.fixture
def github() -> Issuer:
    return Issuer("https://token.actions.githubusercontent.com", GITHUB, key=KEYS["github"])


@pytest.fixture
def tables(github: Issuer, tmp_path: Path) -> list[dict]:
    others = {
        "gitlab": Issuer("https://gitlab.com", GITLAB, key=KEYS["gitlab"]),
        "kubernetes": Issuer("https://kubernetes.default.svc.cluster.local", KUBERNETES, key=KEYS["kubernetes"]),
    }
    return [
        {
            "name": name,
            "issuer": issuer.url,
            "audience": HERE,
            "jwks": str(issuer.write(tmp_path / f"{name}.json")),
            "rules": RULES[name],
        }
        for name, issuer in {"github": github, **others}.items()
    ]


@pytest.fixture
def settings(make_settings, tables: list[dict]) -> Settings:
    return dataclasses.replace(make_settings(policy="oci"), issuers=issuers.parse(tables))


def basic(password: str, name: str = "oidc") -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def get(client: httpx.AsyncClient, token: str, scope: str = PUSH, **more: str) -> httpx.Response:
    return await client.get("/token", params={"service": "charthouse", "scope": scope, **more}, headers=basic(token))


async def exchange(client: httpx.AsyncClient, token: str, scope: str = PUSH, **more: str) -> httpx.Response:
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT, "scope": scope}
    return await client.post("/token", data={name: value for name, value in (form | more).items() if value})


async def push(client: httpx.AsyncClient, token: str, repository: str = "team-a/app") -> int:
    return (await client.post(f"/v2/{repository}/blobs/uploads/", headers=bearer(token))).status_code


def claims(token: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


# Ways in


async def test_a_token_exchange_answers_as_rfc_8693_has_it(client, github):
    for kind in (JWT, ID_TOKEN):
        answer = await exchange(client, github.token(), subject_token_type=kind, requested_token_type=ACCESS_TOKEN)
        assert answer.status_code == 200
        given = answer.json()
        assert given["access_token"] == given.pop("token")
        assert given.pop("access_token")
        assert given == {
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": LIFETIME,
            "scope": PUSH,
        }
        assert answer.headers["cache-control"] == "no-store"


async def test_it_is_a_password_with_any_user_name_so_that_every_client_signs_in_unchanged(client, github):
    form = {"service": "charthouse", "client_id": "helm", "scope": PUSH, "access_type": "offline"}
    answers = [
        await get(client, github.token(), offline_token="true"),
        await client.get("/token", params={"scope": PUSH}, headers=basic(github.token(), "")),
        await client.post(
            "/token", data={**form, "grant_type": "password", "username": "x", "password": github.token()}
        ),
        await client.post("/token", data={**form, "grant_type": "refresh_token", "refresh_token": github.token()}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert set(answer.json()) == {"token", "access_token", "expires_in", "scope"}  # no refresh token
        assert answer.json()["scope"] == PUSH
        assert await push(client, answer.json()["token"]) == 202
    assert (await client.get("/v2/", headers=basic(github.token()))).status_code == 200
    assert (await client.post("/v2/team-a/app/blobs/uploads/", headers=basic(github.token()))).status_code == 202


async def test_it_is_exchanged_and_never_shown_to_the_registry_as_bearer_nor_taken_by_the_administration(
    client, github
):
    answer = await client.get("/v2/", headers=bearer(github.token()))
    assert (answer.status_code, 'error="invalid_token"' in answer.headers["www-authenticate"]) == (401, True)
    assert (await client.get("/api/v1/users", headers=bearer(github.token()))).status_code == 401


@pytest.mark.parametrize(
    "form",
    [
        {"subject_token": ""},
        {"subject_token_type": ""},
        {"subject_token_type": ACCESS_TOKEN},
        {"subject_token_type": "jwt"},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"service": "other"},
    ],
)
async def test_an_exchange_of_another_form_is_400(client, github, form):
    assert (await exchange(client, github.token(), **form)).status_code == 400


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "cht_" + "0" * 49, "chr_x", "\0", "é", "x" * 9000])
async def test_what_is_no_token_of_an_issuer_is_401_however_it_is_shown(client, token):
    assert (await exchange(client, token)).status_code == 401
    assert (await get(client, token)).status_code == 401


async def test_neither_api_tokens_nor_passwords_nor_our_own_tokens_are_exchanged(client, github, app: Application):
    await app.registry.users.add("root", PASSWORD, administrator=True)
    secret = await app.registry.api_tokens.add("ci", [Pattern("*")], parse_actions("pull"), None)
    own = (await exchange(client, github.token())).json()["token"]
    for token in (secret, PASSWORD, own):
        assert (await exchange(client, token)).status_code == 401
        assert (await get(client, own)).status_code == 401


# Rules


@pytest.mark.parametrize(
    ("said", "asked", "given"),
    [
        ({}, PUSH, PUSH),
        ({}, "repository:charts/app:pull,push", "repository:charts/app:pull"),  # of the other rule
        ({}, "repository:team-b/app:pull", ""),
        ({}, "repository:team-a/app:delete", ""),
        ({}, "repository:open/app:pull,push", "repository:open/app:pull"),  # as everybody
        ({"ref": "refs/tags/v1.0"}, PUSH, PUSH),
        ({"ref": "refs/heads/feature"}, PUSH, ""),
        ({"ref": GONE}, PUSH, ""),
        ({"repository": "acme/other"}, PUSH, ""),
        ({"repository": "acme/other"}, "repository:charts/app:pull", "repository:charts/app:pull"),
        ({"repository": "partner/app"}, "repository:ann/app:pull,push", "repository:ann/app:pull,push"),
        ({"repository": "partner/app"}, "repository:group/app:pull", "repository:group/app:pull"),
        (
            {"access": [{"type": "repository", "name": "team-b/app", "actions": ["pull"]}]},
            "repository:team-b/app:pull",
            "",
        ),
    ],
)
async def test_what_is_given_is_the_union_of_the_rules_that_fit(client, github, app: Application, said, asked, given):
    users = app.registry.users
    for name in ("root", "ann"):
        await users.add(name, PASSWORD, administrator=name == "root")
    await users.add_to_group("group", "ann")
    grants = {"ann": "pull,push", "@group": "pull", "anonymous": "pull"}
    for subject, pattern in (("ann", "ann/*"), ("@group", "group/*"), ("anonymous", "open/*")):
        await users.grant(subject, Pattern(pattern), parse_actions(grants[subject]))
    answer = await exchange(client, github.token(**said), asked)
    assert (answer.status_code, answer.json()["scope"]) == (200, given)


@pytest.mark.parametrize(
    "said",
    [
        {"repository": "evil/app"},
        {"repository": "acme-2/app"},
        {"repository": "ACME/app"},
        {"repository": GONE},
        {"repository": ["evil/app"]},
        {"repository": "evil/app", "repository_owner": "acme"},
    ],
)
async def test_whom_no_rule_lets_in_is_told_so_and_named_in_the_audit(client, github, app: Application, said):
    for answer in (await exchange(client, github.token(**said)), await get(client, github.token(**said))):
        assert answer.status_code == 401
        assert f"no rule of the issuer github lets {SUBJECT} in" in answer.text
        assert "acme/*" not in answer.text
    await app.registry.audit.flush()
    (row,) = await app.registry.audit.list()
    assert (row.who, row.action, row.target, row.count) == (f"github:{SUBJECT}", "refused", "sign in", 2)


async def test_a_rule_of_a_user_gives_nothing_without_him(client, github, app: Application):
    users, token, asked = app.registry.users, github.token(repository="partner/app"), "repository:ann/app:pull,push"
    assert (await exchange(client, token, asked)).status_code == 401
    await users.add("root", PASSWORD, administrator=True)
    await users.add("ann", PASSWORD)
    await users.grant("ann", Pattern("ann/*"), parse_actions("pull,push"))
    given = (await exchange(client, token, asked)).json()["token"]
    assert await push(client, given, "ann/app") == 202
    await users.revoke("ann", Pattern("ann/*"))
    assert await push(client, given, "ann/app") == 403
    await users.grant("ann", Pattern("ann/*"), parse_actions("pull,push"))
    assert await push(client, given, "ann/app") == 202
    await users.change("ann", disabled=True)
    assert await push(client, given, "ann/app") == 401
    assert (await exchange(client, token, asked)).status_code == 401


@pytest.mark.parametrize(("name", "said"), [("gitlab", GITLAB), ("kubernetes", KUBERNETES)])
async def test_gitlab_and_kubernetes_sign_in_with_what_their_tokens_say(make_settings, tables, tmp_path, name, said):
    table = next(each for each in tables if each["name"] == name)
    issuer = Issuer(table["issuer"], said, "RS256" if name == "gitlab" else "ES256")
    issuer.write(Path(table["jwks"]))
    settings = dataclasses.replace(make_settings(policy="oci"), issuers=issuers.parse(tables))
    async with running(create_app(settings, clock=lambda: NOW, durable=False)) as client:
        given = (await get(client, issuer.token())).json()["scope"]
        assert given == (PUSH if name == "gitlab" else "repository:team-a/app:pull")
        for other in ({"ref_protected": "false"}, {"sub": "system:serviceaccount:team-b:deployer"}):
            if next(iter(other)) in table["rules"][0]["claims"]:
                assert (await get(client, issuer.token(**other))).status_code == 401


# What is given


async def test_the_access_token_never_outlives_the_workloads_own(client, github, clock):
    answer = (await exchange(client, github.token(exp=NOW + 100))).json()
    assert answer["expires_in"] == 100
    assert claims(answer["token"])["exp"] == NOW + 100
    assert (await exchange(client, github.token(exp=NOW + 30))).json()["expires_in"] == 60  # with the leeway it is
    clock.now = NOW + 100 + LEEWAY
    assert await push(client, answer["token"]) == 202
    clock.now += 1
    assert await push(client, answer["token"]) == 401
    assert claims((await exchange(client, github.token(exp=NOW + 3600))).json()["token"])["exp"] == clock.now + LIFETIME


async def test_who_it_was_stands_in_the_access_token_and_in_the_audit(client, github, app: Application):
    token = (await exchange(client, github.token(), f"{PUSH} repository:team-b/app:push")).json()["token"]
    said = claims(token)
    assert said["sub"] == f"github:{SUBJECT}"
    client.headers.update(bearer(token))
    await Remote(client, "team-a/app").push_image("1.0.0")
    assert await push(client, token, "team-b/app") == 403
    await app.registry.audit.flush()
    rows = await app.registry.audit.list()
    assert [(row.who, row.action, row.target) for row in rows] == [
        (f"github:{SUBJECT}", "push", "team-a/app:1.0.0"),
        (f"github:{SUBJECT}", "refused", "push to team-b/app"),
    ]


async def test_to_overwrite_has_to_be_in_the_rule(client, github):
    client.headers.update(bearer((await exchange(client, github.token())).json()["token"]))
    remote = Remote(client, "team-a/app")
    await remote.push_image("1.0.0")
    assert (await remote.put_manifest(image(annotations={"a": "b"}), "1.0.0")).status_code == 403


@pytest.fixture
async def later(make_settings, tables: list[dict], app: Application, clock) -> AsyncIterator[httpx.AsyncClient]:
    """The same registry, started again with other rules: without the last word of the second one."""
    tables[0] = {**tables[0], "rules": [RULES["github"][0], {**RULES["github"][1], "actions": "pull"}]}
    settings = dataclasses.replace(make_settings(policy="oci"), issuers=issuers.parse(tables))
    async with running(create_app(settings, clock=clock, durable=False)) as client:
        yield client


async def test_a_rule_that_changed_ends_what_was_given_under_it(client, later, github):
    token = (await exchange(client, github.token())).json()["token"]
    other = (await exchange(client, github.token(ref="x"), "repository:charts/app:pull")).json()["token"]
    assert await push(client, token) == 202
    assert await push(later, token) == 401
    for each in (client, later):
        assert (await each.get("/v2/charts/app/tags/list", headers=bearer(other))).status_code == 404


async def test_it_is_remembered_as_any_other_and_its_rights_are_looked_up_once(client, github, app: Application):
    token = (await exchange(client, github.token())).json()["token"]
    for _ in range(3):
        assert await push(client, token) == 202
    assert len(app._guard._known[1]) == 1


# Hostile ones


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"aud": "https://github.com/acme"}, "another service"),
        ({"aud": GONE}, "another service"),
        ({"exp": NOW - 90}, "expired"),
        ({"exp": GONE}, "when it expires"),
        ({"iat": GONE}, "when it was issued"),
        ({"nbf": NOW + 120}, "not valid yet"),
        ({"exp": NOW + 90_000}, "longer than 86,400 seconds"),
        ({"sub": GONE}, "must have the claims sub"),
        ({"sub": ""}, "does not say who shows it"),
        ({"sub": "a\nb"}, "cannot be shown"),
        ({"headers": {}}, "key that is not known"),
        ({"headers": {"kid": "second"}}, "key that is not known"),
        ({"key": SigningKey("first", "RS256")}, "signature"),
        ({"key": SigningKey("first", "ES256")}, "not signed with RS256"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
async def test_a_token_that_is_not_good_is_401_in_one_line_and_stands_nowhere(client, github, caplog, said, why):
    caplog.set_level(logging.DEBUG)
    token = github.token(**said)
    for answer in (await exchange(client, token), await get(client, token)):
        assert answer.status_code == 401
        assert why in answer.json()["errors"][0]["message"]
        assert token.split(".")[2] not in answer.text + caplog.text


async def test_the_key_of_another_issuer_signs_nothing_of_this_one(client, tables, github, tmp_path):
    """Whoever has his own cluster has keys that count, for his own issuer."""
    mine = SigningKey("mine", "RS256")
    other = Issuer(tables[2]["issuer"], KUBERNETES)
    other.published = [mine.public]
    other.write(Path(tables[2]["jwks"]))
    assert (await exchange(client, github.token(key=mine))).status_code == 401
    assert (await exchange(client, other.token(key=mine), "repository:team-a/app:pull")).status_code == 200


async def test_keys_are_fetched_and_rotated_and_without_them_a_token_is_401(make_settings, tables, github, clock):
    server, second = KeyServer(github.jwks, status=503), SigningKey("second")
    with server.running() as tables[0]["jwks"]:
        settings = dataclasses.replace(make_settings(policy="oci"), issuers=issuers.parse(tables))
        async with running(create_app(settings, clock=clock, durable=False)) as client:
            assert (await exchange(client, github.token())).status_code == 401
            server.status = 200
            clock.now += PAUSE
            assert (await exchange(client, github.token())).status_code == 200
            assert (await exchange(client, github.token(key=second))).status_code == 401
            github.published = [github.key.public, second.public]
            server.content = github.jwks
            clock.now += PAUSE
            for key in (github.key, second):
                assert (await exchange(client, github.token(key=key))).status_code == 200
            github.published = [second.public]
            server.content = github.jwks
            clock.now += FRESH + 1
            token = {"exp": clock.now + 60, "iat": clock.now}
            assert (await exchange(client, github.token(**token))).status_code == 401
            assert (await exchange(client, github.token(key=second, **token))).status_code == 200


async def test_no_token_reaches_the_log_an_answer_or_the_database(client, github, app: Application, caplog):
    caplog.set_level(logging.DEBUG)
    shown = [github.token(), github.token(repository="evil/app"), github.token(exp=NOW - 90)]
    text = ""
    for token in shown:
        answers = [await get(client, token), await exchange(client, token)]
        answers += [await client.get("/v2/", headers=headers) for headers in (basic(token), bearer(token))]
        text += "".join(answer.text + str(answer.headers) for answer in answers)
    await app.registry.audit.flush()
    text += caplog.text + str(await app.registry.audit.list())
    for file in app.registry.settings.data.rglob("*"):
        text += file.read_bytes().decode("latin-1") if file.is_file() else ""
    assert f"github:{SUBJECT}" in text
    for token in shown:
        assert token.split(".")[1] not in text
        assert token.split(".")[2] not in text
