"""Every route, every method, every kind of caller: a table, compared with the routes that there are."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route

from charthouse import api, oci
from charthouse.app import Application, load_pages
from charthouse.auth import issuers, methods
from charthouse.auth.access import Pattern, parse_actions
from charthouse.core import Registry
from charthouse.names import Digest
from charthouse.settings import Settings
from charthouse.testing import control
from charthouse.testing.registries import Registries
from support.issuer import Issuer
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import Remote
from test_api import example, operations

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse canary9f3b1c"
CONTROL_TOKEN = "sesame"
MINE, OTHERS, PUBLIC = "team-a/app", "team-b/app", "charts/app"
BLOB = Digest.of(b"{}")

# What each route asks of its caller. "look" is to ask whether something is there, which clients do before they push.
ROWS: dict[str, dict[str, str]] = {
    "/v2": {"GET": "sign in"},
    "/v2/": {"GET": "sign in", "HEAD": "sign in"},
    "/v2/_catalog": {"GET": "list", "HEAD": "list"},
    "/v2/{repository}/tags/list": {"GET": "pull", "HEAD": "pull"},
    "/v2/{repository}/referrers/{digest}": {"GET": "pull", "HEAD": "pull"},
    "/v2/{repository}/manifests/{reference}": {"GET": "pull", "HEAD": "look", "PUT": "push", "DELETE": "delete"},
    "/v2/{repository}/blobs/{digest}": {"GET": "pull", "HEAD": "look", "DELETE": "delete"},
    "/v2/{repository}/blobs/uploads": {"POST": "push"},
    "/v2/{repository}/blobs/uploads/": {"POST": "push"},
    "/v2/{repository}/blobs/uploads/{upload_id}": dict.fromkeys(("GET", "PATCH", "PUT", "DELETE"), "push"),
    "/token": {"GET": "a token", "POST": "a token by a form"},
    "/.well-known/jwks.json": {"GET": "nothing"},
    "/": {"GET": "nothing"},
    "/healthz": {"GET": "nothing", "HEAD": "nothing"},
    "/readyz": {"GET": "nothing", "HEAD": "nothing"},
    "/index.yaml": {"GET": "nothing"},
    "/api/v1/openapi.json": {"GET": "nothing", "HEAD": "nothing"},
    "/api/v1/whoami": {"GET": "administrate"},
    "/api/v1/users": {"GET": "administrate", "POST": "administrate"},
    "/api/v1/users/{name}": dict.fromkeys(("GET", "PATCH", "DELETE"), "administrate"),
    "/api/v1/users/{name}/limits": {"GET": "administrate", "PUT": "administrate"},
    "/api/v1/groups": {"GET": "administrate"},
    "/api/v1/groups/{group}/members/{name}": {"PUT": "administrate", "DELETE": "administrate"},
    "/api/v1/grants": dict.fromkeys(("GET", "PUT", "DELETE"), "administrate"),
    "/api/v1/grants/test": {"GET": "administrate"},
    "/api/v1/tokens": {"GET": "administrate", "POST": "administrate"},
    "/api/v1/tokens/{name}": {"DELETE": "administrate"},
    "/api/v1/audit": {"GET": "administrate"},
}
# Of registries for tests alone.
CONTROL_ROWS: dict[str, dict[str, str]] = {
    "/_test/openapi.json": {"GET": "nothing", "HEAD": "nothing"},
    "/_test/registry": {"GET": "control"},
    "/_test/reset": {"POST": "control"},
    "/_test/seed": {"POST": "control"},
    "/_test/requests": {"GET": "control"},
    "/_test/faults": dict.fromkeys(("GET", "POST", "DELETE"), "control"),
    "/_test/clock": {"POST": "control"},
    "/_test/collect": {"POST": "control"},
    "/_test/registries": {"POST": "control"},
    "/_test/registries/{number}": {"DELETE": "control"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PARTS = {
    "digest": BLOB,
    "reference": "1",
    "upload_id": "none",
    "group": "none",
    "name": "none",
    "number": "none",
}

# Who may do what with the repositories of team-a. Anybody may pull from charts.
USERS = {
    "puller": {"pull"},
    "pusher": {"pull", "push"},
    "overwriter": {"pull", "push", "overwrite"},
    "deleter": {"delete"},
    "stranger": set(),
}
EVERYTHING = {"admin", "an API token for everything", "the administrator's access token"}
# Of other issuers: what those that have rules say who somebody is, and what one of registry tokens gives by itself.
OUTSIDE = {
    "a pipeline": {"pull", "push"},
    "a pipeline's access token": {"pull", "push"},
    "another issuer's access token": {"pull", "push", "delete"},
}
NO_CREDENTIALS = {
    *("a wrong password", "a user who is not there", "a disabled administrator", "another token"),
    *("a pipeline that no rule lets in", "a pipeline's token as bearer", "a token of nobody's issuer"),
}
CALLERS = ["nobody", *USERS, *OUTSIDE, *sorted(EVERYTHING | NO_CREDENTIALS)]
ENOUGH = {"pull": {"pull"}, "look": {"pull", "push"}, "push": {"push"}, "delete": {"delete"}}
IN = 0


def expected(need: str, caller: str, repository: str, path: str) -> int:
    """The refusal's status, or IN for who gets past it: by the words of docs/rights.md, and not from the code."""
    if may(need, caller, repository, path):
        return IN
    is_known = caller in USERS or (caller in OUTSIDE and need != "administrate" and not need.startswith("a token"))
    return 403 if is_known else 401


def may(need: str, caller: str, repository: str, path: str) -> bool:
    if need in ("nothing", "administrate"):  # which no token may
        return need == "nothing" or caller == "admin"
    if caller in NO_CREDENTIALS:
        return False
    if need.startswith("a token"):
        return "access token" not in caller and (need == "a token" or caller != "nobody")  # it would live for ever
    if need in ("sign in", "list"):  # something is public, but clients would not say who they are
        return caller != "nobody"
    if caller == "nobody" and need == "look" and "{digest}" in path:  # Helm 3.8 to 3.17 demand it
        return False
    public = set() if caller == "another issuer's access token" else {"pull"}  # no grant of here is mixed in
    own = (USERS | OUTSIDE).get(caller, set())
    granted = public if repository == PUBLIC else own if repository == MINE else set()
    return caller in EVERYTHING or bool(granted & ENOUGH[need])


# The routes that there are


def framework_routes(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Methods and paths. What is of no known kind fails, so that it is not overlooked."""
    for route in routes:
        if isinstance(route, Mount):
            yield from framework_routes(route.routes, prefix + route.path)
        elif isinstance(route, Route) or hasattr(route, "methods"):
            yield from ((method, prefix + route.path) for method in route.methods or ())
        else:
            included: Any = route
            assert included.include_context.prefix == ""
            yield from framework_routes(included.original_router.routes, prefix)


def v2_routes() -> set[tuple[str, str]]:
    chapters = (oci.push, oci.pull, oci.discovery, oci.management)
    return {(method, f"/v2{path}") for chapter in chapters for method, path, *_ in chapter.chapter.routes}


def listed(rows: Mapping[str, Mapping[str, str]]) -> set[tuple[str, str]]:
    return {(method, path) for path, by_method in rows.items() for method in by_method}


async def test_the_table_has_every_route_and_no_other(app: Application):
    assert v2_routes() | set(framework_routes(load_pages().routes)) == listed(ROWS)
    assert sum(map(len, app._api._resources.values())) == len(v2_routes())
    assert set(framework_routes(control.application(None, "").routes)) == listed(CONTROL_ROWS)


def test_no_unsafe_method_asks_for_a_right_to_read():
    for path, by_method in (ROWS | CONTROL_ROWS).items():
        for method, need in by_method.items():
            is_upload = "uploads/{upload_id}" in path  # whose offset only who may push is told
            changes = need in ("push", "delete", "administrate", "control")
            is_safe = method in ("GET", "HEAD") and (need not in ("push", "delete") or is_upload)
            assert changes or is_safe or path == "/token", (method, path)


# The table, tried


TIMES = {"iat": 1_800_000_000, "exp": 1_800_003_600}
ACCESS = [
    *({"type": "repository", "name": name, "actions": ["pull", "push", "delete"]} for name in (MINE, OTHERS, PUBLIC)),
    {"type": "registry", "name": "catalog", "actions": ["*"]},
]
PIPELINES = Issuer("https://ci.test", {"aud": "here", "sub": "job", **TIMES})
REGISTRY = Issuer("https://auth.test", {"aud": "here", "sub": "ann", "access": ACCESS, **TIMES})
OTHER = Issuer("https://other.test", {"aud": "here", "sub": "job", "access": ACCESS, **TIMES})


@pytest.fixture
def settings(make_settings, tmp_path: Path) -> Settings:
    grant = {"repositories": "team-a/*", "actions": "pull,push"}
    rules = {"rules": [{"claims": {"sub": "job"}, **grant}]}
    tables = [
        {"name": name, "issuer": issuer.url, "audience": "here", "jwks": str(issuer.write(tmp_path / name)), **given}
        for name, issuer, given in (
            ("ci", PIPELINES, rules),
            ("auth", REGISTRY, {**grant, "actions": "pull,push,delete"}),
        )
    ]
    return dataclasses.replace(make_settings(policy="oci", versions="mutable"), issuers=issuers.parse(tables))


@pytest.fixture
async def closed(app: Application, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(methods, "FREE_TRIES", 10_000)
    registry = app.registry
    for name in ("admin", "off"):
        await registry.users.add(name, PASSWORD, administrator=True)
    client.auth = ("admin", PASSWORD)
    for name in (MINE, OTHERS, PUBLIC):
        await Remote(client, name).push_image("1")
    client.auth = None
    await registry.users.change("off", disabled=True)
    for name, actions in USERS.items():
        await registry.users.add(name, PASSWORD)
        if actions:
            await registry.users.grant(name, Pattern("team-a/*"), parse_actions(",".join(actions)))
    await registry.users.grant("anonymous", Pattern("charts/*"), parse_actions("pull"))
    return registry


@dataclass(frozen=True)
class Shown:
    """What a caller sends: with each request, and in the form of the token service."""

    auth: httpx.Auth | None
    form: dict[str, str]


def basic(name: str, password: str) -> Shown:
    form = {"grant_type": "password", "username": name, "password": password}
    return Shown(httpx.BasicAuth(name, password), form)


def bearer(token: str) -> Shown:
    return Shown(Bearer(token), {"grant_type": "refresh_token", "refresh_token": token})


class Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


async def shown_by(caller: str, registry: Registry, client: httpx.AsyncClient) -> Shown:
    if caller == "an API token for everything":
        actions = parse_actions("pull,push,overwrite,delete")
        return basic("", await registry.api_tokens.add("ci", [Pattern("*")], actions, None))
    if caller in ("the administrator's access token", "a pipeline's access token"):
        scopes = [f"repository:{name}:pull,push,delete" for name in (MINE, OTHERS, PUBLIC)]
        asked = {"service": "charthouse", "scope": " ".join([*scopes, "registry:catalog:*"])}
        auth = ("admin", PASSWORD) if "administrator" in caller else ("", PIPELINES.token())
        return bearer((await client.get("/token", params=asked, auth=auth)).json()["token"])
    pairs = {
        "a pipeline": basic("", PIPELINES.token()),
        "another issuer's access token": bearer(REGISTRY.token()),
        "a pipeline that no rule lets in": basic("", PIPELINES.token(sub="other")),
        "a pipeline's token as bearer": Shown(Bearer(PIPELINES.token(sub="other")), bearer("other").form),
        "a token of nobody's issuer": bearer(OTHER.token()),
        "a wrong password": basic("admin", "wrong canary9f3b1c"),
        "a user who is not there": basic("none", PASSWORD),
        "a disabled administrator": basic("off", PASSWORD),
        "another token": bearer(CONTROL_TOKEN),
        "nobody": Shown(None, {"grant_type": "password"}),
    }
    return pairs.get(caller, basic(caller, PASSWORD))


EXAMPLES = {(method, api.PREFIX + path): example(operation, path) for method, path, operation in operations()}


def request_to(method: str, path: str, repository: str = MINE, *, as_example: bool = False) -> dict[str, Any]:
    """With the description's own example where it is not to succeed, or else of what there is not."""
    if as_example and (method, path) in EXAMPLES:
        return EXAMPLES[method, path]
    parts = PARTS | {"repository": repository}
    return {"url": re.sub(r"\{(\w+)\}", lambda part: parts[part[1]], path)}


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_route_lets_in_who_may_and_nobody_else(closed, app, client, caller):
    """Also at once, where it is answered so."""
    shown, tried, at_once = await shown_by(caller, closed, client), 0, 0
    before = await closed.users.directory()
    async with asking(client, shown) as theirs:
        for path, by_method in ROWS.items():
            for method, need in by_method.items():
                for repository in (MINE, OTHERS, PUBLIC) if "{repository}" in path else ("",):
                    due = expected(need, caller, repository, path)
                    request = request_to(method, path, repository, as_example=due != IN)
                    form = {"data": shown.form} if (method, path) == ("POST", "/token") else {}
                    response = await theirs.request(method, **request, **form)
                    assert response.status_code < 500, (method, path)
                    refused = response.status_code if response.status_code in (401, 403) else IN
                    assert refused == due, (method, path, repository, response.text)
                    assert ("www-authenticate" in response.headers) == (due == 401)
                    assert not opened_to_others(response)
                    is_answered = app.at_once(scope_of(response.request)) is not None
                    assert not is_answered or due == IN, (method, path, repository)
                    tried, at_once = tried + 1, at_once + is_answered
    print(f"{caller}: {tried} requests, {at_once} of them answered at once as well")
    if caller != "admin":
        assert await closed.users.directory() == before


def scope_of(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "method": request.method,
        "path": request.url.path,
        "query_string": request.url.query,
        "client": ("127.0.0.1", 1),
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }


def asking(client: httpx.AsyncClient, shown: Shown) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=client._transport, base_url=client.base_url, auth=shown.auth)


def opened_to_others(response: httpx.Response) -> bool:
    """Whether a page of another site may read it, or whoever asked is sent somewhere else."""
    says_who_may_read = any(name.startswith("access-control") for name in response.headers)
    leads_away = response.is_redirect or not response.headers.get("location", "/v2/").startswith("/v2/")
    return says_who_may_read or leads_away


@pytest.mark.parametrize("caller", ["nobody", "admin", "an API token for everything"])
async def test_no_other_method_and_no_other_spelling_does_anything(closed, client, caller):
    """Nor does a registry that is none for tests have `/_test/`."""
    shown = await shown_by(caller, closed, client)
    before = await closed.users.directory()
    others = [(method, path, path) for path in ROWS for method in METHODS if method not in ROWS[path]]
    slashed = {path: path[:-1] if path.endswith("/") else f"{path}/" for path in ROWS if path != "/"}
    others += [(method, path, url) for path, url in slashed.items() if url not in ROWS for method in ROWS[path]]
    others += [(method, path, path) for method, path in listed(CONTROL_ROWS)]
    async with asking(client, shown) as theirs:
        for method, path, url in others:
            request = {**request_to(method, path, as_example=True), **request_to(method, url)}
            response = await theirs.request(method, **request)
            assert response.status_code in (401, 404, 405), (method, url, response.text)
            assert not opened_to_others(response), (method, url)
    assert await closed.users.directory() == before


@pytest.fixture(scope="module")
def controlled() -> Iterator[Any]:
    registries = Registries(CONTROL_TOKEN)
    yield registries.start(auth="bearer")
    registries.end_all()


@pytest.mark.parametrize("caller", ["nobody", "the user", "the token as a password", "another token", "the token"])
def test_control_is_for_its_token_alone(controlled, caller):
    shown = {
        "nobody": Shown(None, {}),
        "the user": basic(controlled.username, controlled.password),
        "the token as a password": basic("", CONTROL_TOKEN),
        "another token": bearer("other"),
        "the token": bearer(CONTROL_TOKEN),
    }
    with httpx.Client(base_url=controlled.url, auth=shown[caller].auth, trust_env=False) as client:
        for path, by_method in CONTROL_ROWS.items():
            for method in METHODS:
                response = client.request(method, **request_to(method, path), json={})
                need = by_method.get(method)
                due = 405 if need is None else 401 if need == "control" and caller != "the token" else IN
                refused = response.status_code if response.status_code in (401, 403, 405) else IN
                assert refused == due, (method, path, response.text)
                assert not opened_to_others(response)
                if response.status_code == 201 and path == "/_test/registries":
                    client.delete(f"/_test/registries/{json.loads(response.text)['id']}")
