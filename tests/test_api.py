"""`/api/v1`, as OpenAPI says it. That it is for administrators alone: test_matrix.py."""

import functools
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from charthouse import api
from charthouse.auth.access import Pattern, parse_actions
from charthouse.core import Registry
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.server import serving
from support.tools import ROOT

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse canary9f3b1c"
API = "/api/v1"
NEW_PASSWORD = "another horse, other staples"


@pytest.fixture
async def closed(app) -> Registry:
    """An administrator, and ann, who is in devs and has a grant; a token ci."""
    registry: Registry = app.registry
    await registry.users.add("admin", PASSWORD, administrator=True)
    await registry.users.add("ann", PASSWORD)
    await registry.users.add_to_group("devs", "ann")
    await registry.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push"))
    await registry.api_tokens.add("ci", [Pattern("*")], parse_actions("pull,push,overwrite,delete"), None)
    return registry


@pytest.fixture
async def admin(closed: Registry, client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.auth = httpx.BasicAuth("admin", PASSWORD)
    return client


@functools.cache
def described() -> dict[str, Any]:
    """OpenAPI's description, which is the same whatever the registry."""
    from charthouse import api

    document: dict[str, Any] = api.application().openapi()
    return document


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
    ]


def example(operation: dict[str, Any], path: str) -> dict[str, Any]:
    """A request made of the description's own examples."""
    query: dict[str, Any] = {}
    for parameter in operation.get("parameters", []):
        found = parameter["schema"].get("examples") or parameter.get("examples")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", found[0])
        elif parameter["required"]:
            query[parameter["name"]] = found[0]
    request: dict[str, Any] = {"url": API + path, "params": query}
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        properties = described()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        request["json"] = {name: value["examples"][0] for name, value in properties.items() if "examples" in value}
    return request


OPERATIONS = operations()
named = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=lambda case: str(case)[:40])


@named
async def test_the_example_of_each_operation_is_answered_as_it_says(closed, admin, method, path, operation):
    if (method, path) == ("POST", "/users"):
        await closed.users.remove("ann")
    if (method, path) == ("POST", "/tokens"):
        await closed.api_tokens.revoke("ci")
    response = await admin.request(method, **example(operation, path))
    (promised,) = [int(status) for status in operation["responses"] if status.startswith("2")]
    assert response.status_code == promised, response.text
    assert (promised == 204) == (response.content == b"")


async def test_an_open_registry_says_how_to_close_it(client):
    response = await client.get(f"{API}/users")
    assert response.status_code == 409
    assert "charthouse init" in response.json()["errors"][0]["message"]


@pytest.mark.parametrize("field", ["administrator", "is_administrator", "has_admin_role", "groups", "name"])
async def test_a_field_that_there_is_not_is_refused_and_changes_nothing(closed, admin, field):
    response = await admin.patch(f"{API}/users/ann", json={"disabled": True, field: True})
    assert response.status_code == 422
    assert field in response.json()["errors"][0]["message"]
    assert not (await closed.users.directory()).users["ann"].is_disabled


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_what_a_page_of_another_site_can_send_changes_nothing(closed, admin, media_type):
    """It has no application/json without asking first (CVE-2021-32677)."""
    headers = {} if media_type is None else {"Content-Type": media_type}
    body = json.dumps({"name": "eve", "password": PASSWORD, "administrator": True}).encode()
    response = await admin.post(f"{API}/users", content=body, headers=headers)
    assert response.status_code == 422
    assert "eve" not in (await closed.users.directory()).users


async def test_a_refusal_does_not_repeat_a_password(admin):
    response = await admin.post(f"{API}/users", json={"name": "x", "password": ["hunter2"], "more": "hunter2"})
    assert response.status_code == 422
    assert "hunter2" not in response.text
    short = await admin.post(f"{API}/users", json={"name": "x", "password": "hunter2"})
    assert short.status_code in (400, 401)
    assert "hunter2" not in short.text


async def test_it_says_what_the_command_says(closed, admin):
    refusals = [
        (await admin.post(f"{API}/users", json={"name": "ann", "password": NEW_PASSWORD}), 409, "user ann already"),
        (await admin.delete(f"{API}/users/bob"), 404, "no user bob"),
        (await admin.delete(f"{API}/users/admin"), 409, "last administrator"),
        (await admin.patch(f"{API}/users/admin", json={"disabled": True}), 409, "last administrator"),
        (
            await admin.put(f"{API}/grants", json={"subject": "ann", "pattern": "A/*", "actions": ["pull"]}),
            400,
            "is no pattern",
        ),
        (await admin.delete(f"{API}/tokens/none"), 404, "no token"),
        (await admin.get(f"{API}/nothing"), 404, "Not Found"),
        (await admin.put(f"{API}/users"), 405, "Not Allowed"),
    ]
    for response, status, words in refusals:
        assert response.status_code == status, response.text
        assert words in response.json()["errors"][0]["message"]


async def test_a_change_of_a_user_in_two_ways_is_made_whole_or_not_at_all(admin):
    both = {"password": NEW_PASSWORD, "disabled": True}
    assert (await admin.patch(f"{API}/users/admin", json=both)).status_code == 409
    assert (await admin.get(f"{API}/users/admin")).status_code == 200  # with the password of before


async def test_a_change_counts_at_the_next_request_and_is_in_the_audit_with_its_caller(closed, admin, client):
    assert (await client.get("/v2/", auth=("ann", PASSWORD))).status_code == 200
    assert (await admin.patch(f"{API}/users/ann", json={"disabled": True})).status_code == 200
    assert (await client.get("/v2/", auth=("ann", PASSWORD))).status_code == 401
    assert (
        await admin.patch(f"{API}/users/ann", json={"disabled": False, "password": NEW_PASSWORD})
    ).status_code == 200
    assert (await client.get("/v2/", auth=("ann", NEW_PASSWORD))).status_code == 200
    found = (await admin.get(f"{API}/audit", params={"who": "admin"})).json()["entries"]
    assert [(row["action"], row["target"]) for row in found] == [
        ("user disable", "ann"),
        ("user passwd", "ann"),
        ("user enable", "ann"),
    ]
    assert {row["address"] for row in found} == {"127.0.0.1"}


async def test_the_audit_comes_in_pages(closed, admin):
    whole = (await admin.get(f"{API}/audit")).json()
    assert whole["after"] is None
    pages: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = (await admin.get(f"{API}/audit", params={"after": after, "limit": 2})).json()
        pages += page["entries"]
        after = page["after"]
    assert pages == whole["entries"]


async def test_the_description_is_there_for_whoever_asks_and_loads_nothing(closed, client):
    response = await client.get(f"{API}/openapi.json")
    assert response.status_code == 200
    assert response.json()["paths"].keys() == described()["paths"].keys()
    assert (await client.get(f"{API}/docs", auth=("admin", PASSWORD))).status_code == 404


async def test_nothing_of_a_body_is_read_before_it_is_known_who_sends_it_and_little_then(closed, client):
    """The framework would read and parse it first, whole, whoever sent it."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1024
            yield bytes(1024)

    for credentials, status in ((None, 401), (("ann", PASSWORD), 403), (("admin", PASSWORD), 413)):
        response = await client.post(f"{API}/users", content=endless(), auth=credentials)
        assert response.status_code == status
        assert response.json()["errors"][0]["message"]
        assert read == 0 or (status == 413 and read <= api.BODY_LIMIT + 1024)


@pytest.mark.parametrize("body", [b"{", b"", b"[" * 60_000, b"\xff", b'{"name": "x"' + b" " * 60_000])
async def test_a_body_that_is_no_json_is_refused_in_the_words_of_the_api(closed, admin, body):
    response = await admin.post(f"{API}/users", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["errors"][0]["message"]


HOSTILE = ["\0", "a\0b", "%00", "\ud800", "é", "a" * 300, "-1", str(2**63), str(2**70), "", " ", "*", "@", "../x", "[]"]


def hostile(body: dict[str, Any]) -> list[dict[str, Any]]:
    """It with each value in turn in the place of each field, and in a list of one."""
    wrong = [*HOSTILE, *([value] for value in HOSTILE), 2**63, [2**63]]
    return [{**body, field: value} for field in body for value in wrong]


async def test_no_input_is_a_fault_of_the_server(closed, admin):
    """Each value in turn, in every place of every operation that takes one."""
    for method, path, operation in OPERATIONS:
        names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
        for value in HOSTILE:
            sent = quote(value.encode("utf-8", "surrogatepass"), safe="")
            request = example(operation, re.sub(r"\{\w+\}", sent, path))
            url = f"{request['url']}?{'&'.join(f'{name}={sent}' for name in names)}"
            await is_no_fault(admin, method, url, request.get("json"))
        request = example(operation, path)
        for body in hostile(request.get("json", {})):
            await is_no_fault(admin, method, str(httpx.URL(request["url"], params=request["params"])), body)


async def is_no_fault(admin: httpx.AsyncClient, method: str, url: str, body: dict[str, Any] | None) -> None:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
    response = await admin.request(method, url, content=content, headers=headers)
    assert response.status_code < 500, (url, body, response.text)


async def test_wrong_passwords_are_slowed_here_too(closed, client):
    statuses = [(await client.get(f"{API}/whoami", auth=("admin", "wrong canary9f3b1c"))).status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2


def test_the_page_of_documentation_does_what_it_shows(tmp_path: Path, start_closed: Callable[[Path], str]):
    """Each block of docs/api.md, as it stands, one after the other."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/api.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 3
    script = "set -eu\n" + "\n".join(blocks).replace("http://localhost:5000", start_closed(tmp_path))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture
def start_closed():
    """A real server, whose administrator has the page's password."""
    import contextlib

    with contextlib.ExitStack() as running_servers:

        def begin(folder: Path) -> str:
            server = running_servers.enter_context(serving(folder))
            command = [
                str(Path(ROOT) / ".venv/bin/charthouse"),
                "init",
                "--password-stdin",
                "--data",
                str(server.settings.data),
            ]
            subprocess.run(command, input="correct horse battery staple\n", text=True, check=True, capture_output=True)
            return f"http://127.0.0.1:{server.port}"

        yield begin
