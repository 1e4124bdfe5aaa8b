"""Registry tokens of another issuer: they give what they say within its table, until they expire."""

import dataclasses
import hmac
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from charthouse.app import Application
from charthouse.auth import issuers
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.external import ExternalTokens
from charthouse.auth.tokens import LEEWAY
from charthouse.composition import open_registry
from charthouse.errors import Unauthorized
from charthouse.server import is_closed
from charthouse.settings import Settings
from support.issuer import GONE, Issuer, SigningKey, encoded
from support.requests import Remote, image

NOW = 1_800_000_000
URL = "https://auth.example.com"
HERE = "charts.example.com"
PASSWORD = "root's canary9f3b1c"


def access(*names: str, actions: tuple[str, ...] = ("pull", "push")) -> list[dict]:
    return [{"type": "repository", "name": name, "actions": list(actions)} for name in names]


CLAIMS = {
    "sub": "ann",
    "aud": HERE,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 3600,
    "access": access("team-a/app"),
}


@pytest.fixture
def corp() -> Issuer:
    return Issuer(URL, CLAIMS)


@pytest.fixture
def other() -> Issuer:
    return Issuer("https://other.example.com", CLAIMS)


def table(issuer: Issuer, file: Path, repositories: str = "team-a/*", actions: str = "pull,push,delete") -> dict:
    """Of the configuration, with the issuer's keys in that file."""
    keys = {"jwks": str(issuer.write(file)), "repositories": repositories, "actions": actions}
    return {"name": file.stem, "issuer": issuer.url, "audience": ["another", HERE], **keys}


@pytest.fixture
def settings(make_settings, corp: Issuer, other: Issuer, tmp_path: Path) -> Settings:
    tables = [
        table(corp, tmp_path / "corp.json"),
        table(other, tmp_path / "other.json", "open/*", "pull,push,overwrite"),
    ]
    return dataclasses.replace(make_settings(policy="oci", versions="mutable"), issuers=issuers.parse(tables))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def push(client: httpx.AsyncClient, token: str, repository: str = "team-a/app") -> int:
    return (await client.post(f"/v2/{repository}/blobs/uploads/", headers=bearer(token))).status_code


async def test_with_an_issuer_the_registry_is_closed_before_there_is_a_user(settings):
    assert is_closed(settings)


async def test_what_may_be_pushed_is_then_what_may_be_with_users(make_settings, settings: Settings):
    for trusted, due in ((settings.issuers, ("charts", "releases-immutable")), ((), ("oci", "mutable"))):
        registry = await open_registry(dataclasses.replace(make_settings(), issuers=trusted), durable=False)
        values = await registry.namespaces.show("team-a")
        await registry.close()
        assert (values["policy"].value, values["versions"].value) == due


async def test_a_registry_that_trusts_an_issuer_is_not_open_to_whoever_shows_nothing(client):
    assert (await client.get("/v2/")).status_code == 401
    assert (await client.post("/v2/team-a/app/blobs/uploads/")).status_code == 401


async def test_what_its_token_says_is_allowed_and_nothing_else(client, corp):
    assert (await client.get("/v2/", headers=bearer(corp.token()))).status_code == 200
    assert await push(client, corp.token()) == 202
    assert await push(client, corp.token(access=access("team-a/app", actions=("*",)))) == 202
    assert await push(client, corp.token(), "team-a/other") == 401  # it may get another token
    assert await push(client, corp.token(access=access("team-a/app", actions=("pull",)))) == 401
    assert await push(client, corp.token(access=GONE)) == 401
    answer = await client.get("/v2/team-a/app/tags/list", headers=bearer(corp.token(access=[])))
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_its_tokens_give_nothing_beyond_the_table(client, corp):
    everywhere = corp.token(access=access("team-b/app", "team-a/app", actions=("pull", "push", "delete")))
    answer = await client.post("/v2/team-b/app/blobs/uploads/", headers=bearer(everywhere))
    assert (answer.status_code, "www-authenticate" in answer.headers) == (403, False)
    assert answer.json()["errors"][0]["message"] == "corp:ann may not push to team-b/app"
    assert await push(client, everywhere) == 202


async def test_to_overwrite_is_allowed_where_the_table_says_so(client, corp, other):
    """Their tokens have no word for it: with `push` a tag may move, as far as the table goes."""
    for by, repository, status in ((corp, "team-a/app", 403), (other, "open/app", 201)):
        client.headers.update(bearer(by.token(access=access(repository))))
        remote = Remote(client, repository)
        await remote.push_image("1")
        assert (await remote.put_manifest(image(annotations={"a": "b"}), "1")).status_code == status


async def test_no_grant_of_here_is_mixed_in(client, corp, app: Application):
    await app.registry.users.add("ann", PASSWORD, administrator=True)
    for subject in ("ann", "anonymous"):
        await app.registry.users.grant(subject, Pattern("*"), parse_actions("pull,push"))
    assert await push(client, corp.token(), "team-c/app") == 403
    assert await push(client, corp.token(access=GONE)) == 401


async def test_the_catalog_has_what_the_table_allows_when_the_token_names_it(client, corp, app: Application):
    await app.registry.users.add("root", PASSWORD, administrator=True)
    for name in ("team-a/app", "team-b/app"):
        client.auth = ("root", PASSWORD)
        await Remote(client, name).push_image("1")
    client.auth = None
    assert (await client.get("/v2/_catalog", headers=bearer(corp.token()))).status_code == 401
    token = corp.token(access=[{"type": "registry", "name": "catalog", "actions": ["*"]}])
    assert (await client.get("/v2/_catalog", headers=bearer(token))).json() == {"repositories": ["team-a/app"]}


async def test_it_lives_until_it_expires(client, corp, clock):
    token = corp.token()
    assert await push(client, token) == 202
    clock.now = NOW + 3600 + LEEWAY
    assert await push(client, token) == 202
    clock.now += 1
    answer = await client.get("/v2/", headers=bearer(token))
    assert (answer.status_code, "expired" in answer.text) == (401, True)


async def test_a_key_that_is_taken_away_ends_what_it_signed_at_once(client, corp, tmp_path):
    token, second = corp.token(), SigningKey("second", "RS256")
    assert await push(client, token) == 202
    corp.published = [second.public]
    corp.write(tmp_path / "corp.json")
    assert await push(client, token) == 401
    assert await push(client, corp.token(key=second)) == 202


async def test_whoever_shows_one_is_named_in_the_audit_with_its_issuer(client, corp, app: Application):
    await push(client, corp.token(access=access("team-b/app")), "team-b/app")
    await push(client, corp.token(exp=NOW - 3600))
    await app.registry.audit.flush()
    rows = await app.registry.audit.list()
    assert [(row.who, row.action, row.target) for row in rows] == [
        ("corp:ann", "refused", "push to team-b/app"),
        ("(unknown)", "refused", "sign in"),
    ]


async def test_it_is_no_password_and_opens_nothing_but_the_registry(client, corp):
    token = corp.token()
    assert (await client.get("/token", auth=("ann", token))).status_code == 401
    assert (await client.get("/token", headers=bearer(token))).status_code == 401
    assert (await client.get("/v2/", auth=("ann", token))).status_code == 401
    assert (await client.get("/api/v1/users", headers=bearer(token))).status_code == 401


async def test_a_token_of_nobody_is_a_caller_without_a_name(client, corp, app: Application):
    assert await push(client, corp.token(sub="")) == 202
    assert await push(client, corp.token(sub="", access=[])) == 401
    assert await push(client, corp.token(sub=""), "team-b/app") == 401


# The table

CORPS = {algorithm: Issuer(URL, CLAIMS, algorithm) for algorithm in ("ES256", "RS256")}
ATTACKER = Issuer(URL, CLAIMS)
LEVELS = {"ES256": "RS256", "RS256": "ES256"}


def header(corp: Issuer, **more: object) -> dict:
    return {"alg": corp.key.algorithm, "typ": "JWT", "kid": corp.key.kid, **more}


def by_an_attacker(corp: Issuer) -> SigningKey:
    return SigningKey(corp.key.kid, corp.key.algorithm)


# What each issuer's token is, and what is wrong with it: None counts, "" is of nobody here.
TABLE: dict[str, tuple[Callable[[Issuer], str], str | None]] = {
    "good": (lambda corp: corp.token(), None),
    "aud as list": (lambda corp: corp.token(aud=["x", HERE]), None),
    "kid missing": (lambda corp: corp.token(headers={}), "key that is not known"),
    "unknown kid": (lambda corp: corp.token(headers={"kid": "x"}), "key that is not known"),
    "kid of no text": (lambda corp: corp.raw(header(corp, kid=["first"]), corp.claims), "key that is not known"),
    "attacker's key with a trusted kid": (lambda corp: corp.token(key=by_an_attacker(corp)), "signature"),
    "and with its jwk": (
        lambda corp: corp.token(key=ATTACKER.key, headers={"kid": "first", "jwk": ATTACKER.key.public}),
        "signature|not signed with",
    ),
    "own key and an attacker's jku": (
        lambda corp: corp.token(headers={"kid": "first", "jku": "https://attacker.test/keys"}),
        None,  # nobody looks at it
    ),
    "crit": (lambda corp: corp.token(headers={"kid": "first", "crit": ["exp"]}), "demands what is not known"),
    "aud wrong": (lambda corp: corp.token(aud="other"), "another service"),
    "aud missing": (lambda corp: corp.token(aud=GONE), "another service"),
    "aud of no text": (lambda corp: corp.token(aud=[[HERE], {}]), "another service"),
    "aud in another case": (lambda corp: corp.token(aud="Charts.example.com"), "another service"),
    "aud is our own": (lambda corp: corp.token(aud="charthouse"), "another service"),
    "iss wrong": (lambda corp: corp.token(iss="https://auth.example.com/"), ""),
    "iss missing": (lambda corp: corp.token(iss=GONE), ""),
    "iss of no text": (lambda corp: corp.token(iss=[URL]), ""),
    "iss is our own": (lambda corp: corp.token(iss="charthouse"), ""),
    "exp 30 s ago": (lambda corp: corp.token(exp=NOW - 30), None),
    "exp 90 s ago": (lambda corp: corp.token(exp=NOW - 90), "expired"),
    "exp missing": (lambda corp: corp.token(exp=GONE), "when it expires"),
    "nbf in 30 s": (lambda corp: corp.token(nbf=NOW + 30), None),
    "nbf in 120 s": (lambda corp: corp.token(nbf=NOW + 120), "not valid yet"),
    "nbf missing": (lambda corp: corp.token(nbf=GONE), None),
    "iat in 1 h": (lambda corp: corp.token(iat=NOW + 3600), "not valid yet"),
    "iat missing": (lambda corp: corp.token(iat=GONE), "when it was issued"),
    "valid for a day and a second": (lambda corp: corp.token(exp=NOW + 86401), "longer than 86,400 seconds"),
    "sub missing": (lambda corp: corp.token(sub=GONE), "claims sub"),
    "sub of no text": (lambda corp: corp.token(sub=7), "claims sub"),
    "sub with a line's end": (lambda corp: corp.token(sub="ann\nroot"), "cannot be shown"),
    "sub with a NUL": (lambda corp: corp.token(sub="ann\0"), "cannot be shown"),
    "sub with half a character": (lambda corp: corp.token(sub="ann\ud800"), "cannot be shown"),
    "a long sub": (lambda corp: corp.token(sub="a" * 513), "more than 512 characters"),
    "jti missing": (lambda corp: corp.token(jti=GONE), None),
    "no access": (lambda corp: corp.token(access=GONE), None),
    "access of another form": (lambda corp: corp.token(access={"team-a/app": ["push"]}), None),
    "alg none": (lambda corp: corp.raw(header(corp, alg="none"), corp.claims), "not signed with"),
    "alg none without signature": (
        lambda corp: f"{encoded(header(corp, alg='none'))}.{encoded(corp.claims)}.",
        "",
    ),
    "alg missing": (lambda corp: corp.raw({"kid": "first"}, corp.claims), "not signed with"),
    "alg of another kind of key": (
        lambda corp: corp.token(key=SigningKey("first", LEVELS[corp.key.algorithm])),
        "not signed with",
    ),
    "HS256 with the public key": (
        lambda corp: mac(corp, corp.key.public_pem),
        "not signed with",
    ),
    "HS256 with the published key": (lambda corp: mac(corp, json.dumps(corp.key.public).encode()), "not signed with"),
    "exp as text": (lambda corp: corp.token(exp=str(NOW + 60)), "no time"),
    "exp not a number": (lambda corp: corp.token(exp=float("nan")), "no time"),
    "exp beyond all floats": (lambda corp: corp.token(exp=10**400), "cannot be read"),
    "claims nested 2,000 deep": (lambda corp: corp.raw(header(corp), b"[" * 2000), ""),
    "claims that are a list": (lambda corp: corp.raw(header(corp), []), ""),
    "a header that is a list": (lambda corp: corp.raw(["alg"], corp.claims), ""),
    "9 KiB": (lambda corp: corp.token(pad="x" * 9000), ""),
    "empty": (lambda _: "", ""),
    "no base64": (lambda _: "a.a.a", ""),
    "no ASCII": (lambda _: "é.é.é", ""),
    "a lone surrogate": (lambda _: "\ud800.a.a", ""),
    "signature cut": (lambda corp: corp.token()[:-3], "signature"),
    "signature of another token": (
        lambda corp: f"{corp.token(sub='root').rpartition('.')[0]}.{corp.token().rpartition('.')[2]}",
        "signature",
    ),
    "another issuer's key of the same name": (lambda corp: corp.token(key=ATTACKER.key), "signature|not signed with"),
}


def mac(corp: Issuer, secret: bytes) -> str:
    """Algorithm confusion: what is public taken for a shared secret."""
    message = f"{encoded(header(corp, alg='HS256'))}.{encoded(corp.claims)}"
    return f"{message}.{encoded(hmac.digest(secret, message.encode(), 'sha256'))}"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
@pytest.mark.parametrize("row", list(TABLE), ids=list(TABLE))
async def test_a_token_counts_as_the_table_says(tmp_path, algorithm, row):
    """The rows that were tried against distribution v3, and where we are stricter: 401 otherwise, and never 500."""
    make, fault = TABLE[row]
    corp = CORPS[algorithm]
    found = issuers.parse([table(corp, tmp_path / "corp.json")])
    tokens = ExternalTokens(found, lambda: NOW, lambda: NOW)
    text = make(corp)
    if fault is None:
        assert (await tokens.take(text)).name == "corp:ann"
    elif not fault:
        assert await tokens.take(text) is None
    else:
        with pytest.raises(Unauthorized, match=fault):
            await tokens.take(text)


async def test_what_is_no_token_is_401_over_http_and_says_so(client, corp):
    for name, (make, fault) in TABLE.items():
        header = f"Bearer {make(corp)}".encode("utf-8", "surrogatepass")
        answer = await client.get("/v2/", headers={"Authorization": header})
        assert (name, answer.status_code) == (name, 200 if fault is None else 401)
        assert fault is None or 'error="invalid_token"' in answer.headers["www-authenticate"]
