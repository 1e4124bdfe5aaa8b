"""The token service: `/token` as its specification has it, and Bearer tokens in front of the registry."""

import base64
import json
from urllib.parse import urlencode

import httpx
import pytest

from charthouse.auth import keys
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.tokens import LEEWAY, LIFETIME
from charthouse.core import Registry
from charthouse.settings import Settings
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.requests import OCI_MANIFEST, descriptor, image

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORDS = {"root": "root's canary9f3b1c", "ann": "ann's canary9f3b1c", "bob": "bob's canary9f3b1c"}
GRANTS = {
    ("ann", "team-a/*"): "pull,push,overwrite",
    ("bob", "team-a/*"): "pull",
    ("anonymous", "charts/*"): "pull",
}
PUSH = "repository:team-a/app:pull,push"


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(policy="oci")


@pytest.fixture
async def users(app) -> Registry:
    registry: Registry = app.registry
    for name, password in PASSWORDS.items():
        await registry.users.add(name, password, administrator=name == "root")
    for (subject, pattern), actions in GRANTS.items():
        await registry.users.grant(subject, Pattern.parse(pattern), parse_actions(actions))
    return registry


def basic(name: str, password: str | None = None) -> dict[str, str]:
    pair = f"{name}:{PASSWORDS.get(name, '') if password is None else password}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def get(client: httpx.AsyncClient, name: str = "", *scopes: str, **more: str) -> httpx.Response:
    query = urlencode([("service", "charthouse"), *(("scope", scope) for scope in scopes), *more.items()])
    return await client.get(f"/token?{query}", headers=basic(name) if name else {})


async def post(client: httpx.AsyncClient, name: str, scope: str = "", **more: str) -> httpx.Response:
    form = {
        "grant_type": "password",
        "username": name,
        "password": PASSWORDS.get(name, "wrong canary9f3b1c"),
        "scope": scope,
    }
    return await client.post("/token", data=form | {"service": "charthouse", "client_id": "helm"} | more)


async def bearer(client: httpx.AsyncClient, name: str, *scopes: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await get(client, name, *scopes)).json()['token']}"}


def claims(token: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def challenge(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 401
    assert response.json()["errors"][0]["code"] == "UNAUTHORIZED"
    (header,) = response.headers.get_list("www-authenticate")
    assert header.startswith("Bearer ")
    return {name: value.strip('"') for name, value in (part.split("=", 1) for part in header[7:].split('",'))}


async def test_get_and_post_give_the_same_fields(users, client):
    for response in (await get(client, "ann", PUSH), await post(client, "ann", PUSH)):
        assert response.status_code == 200
        answer = response.json()
        assert set(answer) == {"token", "access_token", "expires_in", "scope"}
        assert answer["token"] == answer["access_token"]
        assert answer["expires_in"] == LIFETIME >= 60
        assert answer["scope"] == PUSH
        said = claims(answer["token"])
        assert (said["sub"], said["iss"], said["aud"]) == ("ann", "charthouse", "charthouse")
        assert said["access"] == [{"type": "repository", "name": "team-a/app", "actions": ["pull", "push"]}]
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "scopes", "given"),
    [
        ("bob", [PUSH], "repository:team-a/app:pull"),
        ("bob", ["repository:team-b/app:pull"], ""),
        ("bob", [], ""),
        ("", ["repository:charts/app:pull,push", PUSH], "repository:charts/app:pull"),
        ("ann", ["repository:team-a/app:*"], PUSH),
        ("ann", ["repository:team-a/app:pull", "repository:team-a/app:pull,push"], PUSH),
        ("ann", ["repository:team-a/app:pull repository:team-a/app:push"], PUSH),
        ("ann", [PUSH, "repository:user/Image:pull", "registry:other:*", "nonsense"], PUSH),
        ("root", ["repository:x:*", "registry:catalog:*"], "repository:x:pull,push,delete registry:catalog:*"),
    ],
)
async def test_a_token_allows_what_is_asked_and_allowed_and_lacking_a_right_is_no_error(
    users, client, name, scopes, given
):
    response = await get(client, name, *scopes)
    assert response.status_code == 200
    assert response.json()["scope"] == given
    if name:
        assert (await post(client, name, " ".join(scopes))).json()["scope"] == given


@pytest.mark.parametrize("token", ["", "x", "cht_x"])
async def test_a_refresh_token_that_is_none_is_401_so_that_clients_use_get(users, client, token):
    form = {"grant_type": "refresh_token", "service": "charthouse", "refresh_token": token}
    assert (await client.post("/token", data=form)).status_code == 401


async def test_no_access_token_is_given_for_an_access_token(users, client):
    """It would live for ever."""
    headers = await bearer(client, "ann", PUSH)
    assert (await client.get("/token", headers=headers)).status_code == 401


async def test_without_credentials_the_token_is_nobodys(users, client):
    assert claims((await get(client)).json()["token"])["sub"] == ""


async def test_wrong_credentials_are_401_whoever_they_are_of(users, client):
    """And the words are those that Helm prints after a login."""
    answers = [await client.get("/token", headers=basic(name, "wrong canary9f3b1c")) for name in ("ann", "nobody")]
    answers += [await post(client, name, password="wrong canary9f3b1c") for name in ("ann", "nobody")]
    assert {(each.status_code, each.text) for each in answers} == {(401, answers[0].text)}
    assert "the user name or the password is not right" in answers[0].text
    assert answers[0].headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "query",
    [
        "service=other",
        "service=charthouse&service=other",
        "service=charthouse&" + "&".join(["scope=repository:a:pull"] * 65),
        "&".join(["a=1"] * 81),
        "scope=" + "x" * 9000,
    ],
)
async def test_what_is_no_request_for_a_token_is_400(users, client, query):
    assert (await client.get(f"/token?{query}")).status_code == 400
    assert (
        await client.post("/token", content=f"grant_type=password&username=a&password=b&{query}")
    ).status_code == 400


@pytest.mark.parametrize("body", [b"", b"\xff\x00=%ff", b"grant_type=x", b"&" * 16385])
async def test_a_grant_that_is_not_given_here_is_400_so_that_clients_use_get(users, client, body):
    assert (await client.post("/token", content=body)).status_code == 400


@pytest.mark.parametrize("header", ["", "Basic", "Basic !", "Basic YQ==", "Bearer x", "Digest x", "Basic \xff"])
async def test_credentials_of_another_form_are_401(users, client, header):
    response = await client.get("/token", headers={"Authorization": header.encode("latin-1")})
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/", None),
        ("GET", "/v2/team-a/app/manifests/1.0.0", "repository:team-a/app:pull"),
        ("HEAD", "/v2/team-a/app/manifests/1.0.0", "repository:team-a/app:pull"),
        ("GET", "/v2/team-a/app/tags/list", "repository:team-a/app:pull"),
        ("POST", "/v2/team-a/app/blobs/uploads/", PUSH),
        ("PATCH", "/v2/team-a/app/blobs/uploads/x", PUSH),
        ("PUT", "/v2/team-a/app/manifests/1.0.0", PUSH),
        ("DELETE", "/v2/team-a/app/manifests/1.0.0", "repository:team-a/app:delete"),
        ("GET", "/v2/nowhere", None),
        ("PUT", '/v2/a"%0d%0aX: b/manifests/1', None),
    ],
)
async def test_a_challenge_names_realm_service_and_what_is_needed(users, client, method, path, scope):
    response = await client.request(method, path)
    if method == "HEAD":
        assert response.status_code == 401
        return
    found = challenge(response)
    assert found.pop("realm") == "http://localhost:5000/token"
    assert found.pop("service") == "charthouse"
    assert found == ({"scope": scope} if scope else {})


async def test_the_catalog_needs_its_scope_and_shows_what_the_subject_may_pull(users, client):
    found = challenge(await client.get("/v2/_catalog", headers=await bearer(client, "ann", PUSH)))
    assert (found["scope"], found["error"]) == ("registry:catalog:*", "insufficient_scope")
    response = await client.get("/v2/_catalog", headers=await bearer(client, "ann", "registry:catalog:*"))
    assert (response.status_code, response.json()) == (200, {"repositories": []})


async def push(client: httpx.AsyncClient, headers: dict[str, str], repository: str = "team-a/app") -> int:
    upload = await client.post(f"/v2/{repository}/blobs/uploads/", headers=headers)
    return upload.status_code


async def test_a_token_is_taken_for_what_it_says_and_no_more(users, client):
    pull = await bearer(client, "ann", "repository:team-a/app:pull")
    full = await bearer(client, "ann", PUSH)
    assert (await client.get("/v2/", headers=pull)).status_code == 200
    assert await push(client, full) == 202
    upload = await client.post("/v2/team-a/app/blobs/uploads/", headers=pull)
    assert challenge(upload)["error"] == "insufficient_scope"  # she would get the right: a client asks again
    other = await client.post("/v2/team-a/other/blobs/uploads/", headers=full)
    assert challenge(other)["scope"] == "repository:team-a/other:pull,push"


async def test_who_would_not_get_the_right_is_refused_and_not_asked_again(users, client):
    headers = await bearer(client, "bob", PUSH)
    response = await client.post("/v2/team-a/app/blobs/uploads/", headers=headers)
    assert (response.status_code, "www-authenticate" in response.headers) == (403, False)
    assert response.json()["errors"][0]["message"] == "bob may not push to team-a/app"


async def test_scheme_names_have_no_case(users, client):
    token = (await get(client, "ann", PUSH)).json()["token"]
    assert await push(client, {"Authorization": f"bearer  {token}"}) == 202


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "..", "e30.e30.e30", "\xff", "cht_" + "0" * 49, "a" * 9000])
async def test_a_token_that_is_none_is_401_and_says_so(users, client, token):
    response = await client.get("/v2/", headers={"Authorization": f"Bearer {token}".encode("latin-1")})
    assert challenge(response)["error"] == "invalid_token"


async def test_a_token_ends_after_its_time(users, client, clock):
    headers = await bearer(client, "ann", PUSH)
    assert await push(client, headers) == 202
    clock.now += LIFETIME + LEEWAY
    assert await push(client, headers) == 202
    clock.now += 1
    response = await client.post("/v2/team-a/app/blobs/uploads/", headers=headers)
    assert challenge(response)["error"] == "invalid_token"
    assert "expired" in response.text


async def test_a_change_counts_at_the_next_request_for_tokens_too(users, client):
    headers = await bearer(client, "ann", PUSH)
    assert await push(client, headers) == 202
    await users.users.revoke("ann", Pattern("team-a/*"))
    assert await push(client, headers) == 403
    await users.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push"))
    assert await push(client, headers) == 202
    await users.users.change("ann", disabled=True)
    assert await push(client, headers) == 401
    assert (await client.get("/v2/", headers=headers)).status_code == 401
    await users.users.change("ann", disabled=False)
    await users.users.change("ann", password="another canary9f3b1c")
    assert await push(client, headers) == 401


async def test_who_gets_the_name_of_somebody_removed_gets_no_token_of_his(users, client):
    headers = await bearer(client, "ann", PUSH)
    await users.users.remove("ann")
    assert await push(client, headers) == 401
    await users.users.add("ann", PASSWORDS["ann"])
    await users.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push"))
    assert await push(client, headers) == 401


async def test_keys_are_rotated_while_the_server_runs_and_forgotten_at_once(users, client, clock):
    headers = await bearer(client, "ann", PUSH)
    assert await push(client, headers) == 202
    keys.rotate(users.settings.key_file, clock.now)
    assert await push(client, headers) == 202
    keys.rotate(users.settings.key_file, clock.now, forget=True)
    assert await push(client, headers) == 401
    assert await push(client, await bearer(client, "ann", PUSH)) == 202


async def test_the_published_keys_verify_and_have_no_private_part(users, client):
    published = (await client.get("/.well-known/jwks.json")).json()["keys"]
    token = (await get(client, "ann")).json()["token"]
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert header["kid"] in [each["kid"] for each in published]
    assert not any("d" in each for each in published)


async def test_public_charts_are_read_without_a_token_and_pushes_begin_with_a_challenge(users, client):
    """Helm 3.8 to 3.17 begin a push with HEAD of blobs, and cannot repeat a manifest's body after a 401."""
    root = basic("root")
    content = b"{}"
    config = descriptor(content)
    upload = await client.post("/v2/charts/app/blobs/uploads/", headers=root)
    await client.put(f"{upload.headers['location']}?digest={config['digest']}", content=content, headers=root)
    headers = root | {"Content-Type": OCI_MANIFEST}
    pushed = await client.put("/v2/charts/app/manifests/1", content=image(content), headers=headers)
    assert pushed.status_code == 201
    for path in ("manifests/1", "tags/list", f"blobs/{config['digest']}"):
        assert (await client.get(f"/v2/charts/app/{path}")).status_code == 200
    blob = f"/v2/charts/app/blobs/{config['digest']}"
    assert (await client.head(blob)).status_code == 401
    nobody = await bearer(client, "", "repository:charts/app:pull")
    assert (await client.head(blob, headers=nobody)).status_code == 200
    assert (await client.get("/v2/", headers=nobody)).status_code == 200
    assert challenge(await client.post("/v2/charts/app/blobs/uploads/", headers=nobody))
