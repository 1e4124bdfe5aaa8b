"""Real clients at a registry with users: login, push, pull, logout, and what the terminal says when it is refused.

`charts/*` is open to all: reading needs no login there, and a push begins with a challenge.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import helm_python
import httpx
import pytest

from charthouse.auth.access import Pattern, parse_actions
from charthouse.composition import open_existing
from charthouse.settings import Settings
from support import charts
from support.server import Server, serving
from support.tools import Tool, find, find_installed

pytestmark = pytest.mark.clients

PLAIN = ["--plain-http"]
LOGIN = {
    "helm3.8": ["--insecure"],
    "helm3.14": ["--insecure"],
    "helm3.17": ["--insecure"],
    "helm3": PLAIN,
    "helm4": PLAIN,
}
PASSWORD = "ann's canary9f3b1c"
WRONG = "the user name or the password is not right"
ANN = ("ann", PASSWORD)
GRANTS = {
    ("ann", "team-a/*"): "pull,push,overwrite,delete",
    ("ann", "charts/*"): "pull,push,overwrite,delete",
    ("bob", "team-a/*"): "pull",
    ("anonymous", "charts/*"): "pull",
}


async def close(settings: Settings) -> None:
    """Beside the server, as the command line does."""
    registry = await open_existing(settings)
    try:
        for name in ("root", "ann", "bob"):
            await registry.users.add(name, PASSWORD, administrator=name == "root")
        for (subject, pattern), actions in GRANTS.items():
            await registry.users.grant(subject, Pattern.parse(pattern), parse_actions(actions))
    finally:
        await registry.close()


@pytest.fixture(scope="module")
def closed_server(stored_apart: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("closed"), "--policy", "oci", database=stored_apart) as server:
        asyncio.run(close(server.settings))
        yield server


@pytest.fixture
def host(closed_server: Server) -> str:
    return closed_server.host


@pytest.fixture(params=LOGIN)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def helm(version: str, tmp_path: Path) -> Tool:
    return Tool(find(version), tmp_path / "home")


@pytest.fixture
def plain(version: str) -> list[str]:
    return [] if version == "helm3.8" else PLAIN


def login(helm: Tool, version: str, host: str, name: str = "ann", password: str = PASSWORD, status: int = 0) -> str:
    return helm("registry", "login", host, "-u", name, "-p", password, *LOGIN[version], status=status)


def test_a_wrong_password_fails_at_the_login_and_says_so(helm: Tool, version: str, host: str) -> None:
    assert WRONG in login(helm, version, host, version, "wrong canary9f3b1c", status=1)
    assert "Login Succeeded" in login(helm, version, host)


@pytest.mark.parametrize("place", ["team-a", "charts"])
def test_a_chart_is_pushed_twice_deleted_pushed_again_and_pulled(
    helm: Tool, version: str, plain: list[str], host: str, place: str, namespace: str, work: Path
) -> None:
    """With anonymous reading Helm 3.8 to 3.17 fail here elsewhere: `unexpected EOF`, `cannot reuse body`."""
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{host}/{place}/{namespace}"
    login(helm, version, host)
    helm("push", archive, where, *plain)
    helm("push", archive, where, *plain)
    manifest = f"http://{host}/v2/{place}/{namespace}/app/manifests"
    digest = httpx.head(f"{manifest}/0.1.0", auth=ANN).headers["docker-content-digest"]
    assert httpx.delete(f"{manifest}/{digest}", auth=ANN).status_code == 202
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()


def test_without_a_login_public_charts_are_pulled_and_private_ones_are_refused(
    helm: Tool, version: str, plain: list[str], host: str, namespace: str, work: Path
) -> None:
    archive = charts.pack(work, "app", "0.1.0")
    login(helm, version, host)
    for place in ("team-a", "charts"):
        helm("push", archive, f"oci://{host}/{place}/{namespace}", *plain)
    helm("registry", "logout", host)
    helm("pull", f"oci://{host}/charts/{namespace}/app", "--version", "0.1.0", *plain)
    refused = helm("pull", f"oci://{host}/team-a/{namespace}/app", "--version", "0.1.0", *plain, status=1)
    assert "authoriz" in refused
    if version in ("helm3", "helm4"):
        assert f"to pull from team-a/{namespace}/app, sign in first: helm registry login" in refused
    for place in ("team-a", "charts"):
        refused = helm("push", archive, f"oci://{host}/{place}/other", *plain, status=1)
        assert "authoriz" in refused or "Unauthorized" in refused


def test_who_may_only_pull_is_told_that_he_may_not_push(
    helm: Tool, version: str, plain: list[str], host: str, namespace: str, work: Path
) -> None:
    login(helm, version, host, "bob")
    refused = helm("push", charts.pack(work, "app", "0.1.0"), f"oci://{host}/team-a/{namespace}", *plain, status=1)
    assert "403" in refused


def test_a_dependency_of_a_private_registry_is_downloaded(
    helm: Tool, version: str, plain: list[str], host: str, namespace: str, work: Path
) -> None:
    where = f"oci://{host}/team-a/{namespace}"
    login(helm, version, host)
    archive = charts.pack(work, "library", "1.0.0")
    helm("push", archive, where, *plain)
    dependency = {"name": "library", "version": "1.0.0", "repository": where}
    parent = charts.write(work, "parent", "0.1.0", dependencies=[dependency])
    helm("dependency", "update", parent, *(PLAIN if version in ("helm3", "helm4") else []))
    assert (parent / "charts" / archive.name).read_bytes() == archive.read_bytes()


async def change_password(settings: Settings, name: str, password: str) -> None:
    registry = await open_existing(settings)
    try:
        await registry.users.change(name, password=password)
    finally:
        await registry.close()


@pytest.fixture
def dora(closed_server: Server, namespace: str) -> str:
    """A user whose password a test may change."""

    async def add(name: str) -> None:
        registry = await open_existing(closed_server.settings)
        try:
            await registry.users.add(name, PASSWORD)
            await registry.users.grant(name, Pattern("team-a/*"), parse_actions("pull,push,overwrite"))
        finally:
            await registry.close()

    asyncio.run(add(f"dora-{namespace}"))
    return f"dora-{namespace}"


def test_a_login_lasts_until_the_password_changes_and_then_the_terminal_says_so(
    helm: Tool, version: str, plain: list[str], closed_server: Server, namespace: str, work: Path, dora: str
) -> None:
    """Helm up to 3.17 keeps a refresh token of a login and nothing else, later ones the password.

    Of a refusal by the token service, the former print the status alone.
    """
    host = closed_server.host
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{host}/team-a/{namespace}"
    login(helm, version, host, dora)
    (stored,) = (json.loads(path.read_text())["auths"][host] for path in helm.home.rglob("registry/config.json"))
    if version in ("helm3", "helm4"):
        assert base64.b64decode(stored["auth"]).decode() == f"{dora}:{PASSWORD}"
    else:
        assert stored["identitytoken"].startswith("chr_")
        assert PASSWORD not in base64.b64decode(stored.get("auth", "")).decode()
    helm("push", archive, where, *plain)
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    asyncio.run(change_password(closed_server.settings, dora, "another canary9f3b1c"))
    refused = helm("pull", f"{where}/app", "--version", "0.1.0", *plain, status=1)
    assert (WRONG if version in ("helm3", "helm4") else "failed to authorize") in refused
    assert "401" in refused
    login(helm, version, host, dora, "another canary9f3b1c")
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)


@pytest.mark.parametrize("tool", ["crane", "oras"])
def test_a_refresh_token_in_dockers_configuration_is_what_others_sign_in_with(
    host: str, public: str, tmp_path: Path, tool: str
) -> None:
    """As `docker login` leaves it there: it asks with offline_token."""
    query = {"service": "charthouse", "offline_token": "true", "client_id": "docker"}
    token = httpx.get(f"http://{host}/token", params=query, auth=ANN).json()["refresh_token"]
    client = Tool(find(tool), tmp_path / tool)
    (client.home / ".docker").mkdir()
    nobody = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    auths = {host: {"auth": nobody, "identitytoken": token}}
    (client.home / ".docker/config.json").write_text(json.dumps({"auths": auths}))
    words = {"crane": ["manifest", "--insecure"], "oras": ["manifest", "fetch", *PLAIN]}[tool]
    client(*words, f"{host}/team-a/{public}:0.1.0")


@pytest.fixture(scope="module")
def secret(closed_server: Server) -> str:
    """An API token for all of team-a."""

    async def add() -> str:
        registry = await open_existing(closed_server.settings)
        try:
            rights = parse_actions("pull,push,overwrite")
            return await registry.api_tokens.add("ci", [Pattern("team-a/*")], rights, expires_at=None)
        finally:
            await registry.close()

    return asyncio.run(add())


@pytest.mark.parametrize("user", ["ci", "''"])
def test_an_api_token_is_a_password_with_any_user_name_or_none(
    helm: Tool, version: str, plain: list[str], host: str, namespace: str, work: Path, secret: str, user: str
) -> None:
    """Helm up to 3.17 sends it as a refresh token when the user name is empty."""
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{host}/team-a/{namespace}"
    assert "Login Succeeded" in login(helm, version, host, user.strip("'"), secret)
    helm("push", archive, where, *plain)
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert "403" in helm("push", archive, f"oci://{host}/team-b", *plain, status=1)


@pytest.fixture
def public(closed_server: Server, tmp_path: Path, work: Path, namespace: str) -> str:
    """A chart that everybody may pull, without the host."""
    helm = Tool(find("helm4"), tmp_path / "pusher")
    login(helm, "helm4", closed_server.host)
    for place in ("team-a", "charts"):
        where = f"oci://{closed_server.host}/{place}/{namespace}"
        helm("push", charts.pack(work, "app", "0.1.0"), where, *PLAIN)
    return f"{namespace}/app"


def test_the_sdk_signs_in_pushes_pulls_and_signs_out(
    host: str, namespace: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{host}/team-a/{namespace}"
    with helm_python.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as helm:
        with pytest.raises(helm_python.HelmError, match=WRONG):
            helm.login(host, "sdk", "wrong canary9f3b1c", plain_http=True)
        helm.login(host, "ann", PASSWORD, plain_http=True)
        helm.push(archive, where, plain_http=True)
        helm.pull(f"{where}/app", version="0.1.0", destination=tmp_path, plain_http=True)
        assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
        helm.logout(host)
    with (
        helm_python.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as helm,
        pytest.raises(helm_python.HelmError, match="sign in first"),
    ):
        helm.pull(f"{where}/app", version="0.1.0", destination=tmp_path, plain_http=True)


def test_oras_signs_in_reads_writes_deletes_and_signs_out(host: str, public: str, tmp_path: Path) -> None:
    oras = Tool(find("oras"), tmp_path / "oras")
    (oras.home / "file.txt").write_text("content")
    target = f"{host}/team-a/{public}-oras:1"
    assert WRONG in oras("login", host, "-u", "oras", "-p", "wrong canary9f3b1c", *PLAIN, status=1)
    oras("login", host, "-u", "ann", "-p", PASSWORD, *PLAIN)
    oras("push", *PLAIN, target, "file.txt")
    oras("pull", *PLAIN, target)
    assert f"team-a/{public}" in oras("repo", "ls", *PLAIN, host)
    oras("manifest", "delete", *PLAIN, "-f", target)
    assert "403" in oras("push", *PLAIN, f"{host}/team-b/app:1", "file.txt", status=1)
    oras("logout", host)
    oras("manifest", "fetch", *PLAIN, f"{host}/charts/{public}:0.1.0")
    refused = oras("manifest", "fetch", *PLAIN, f"{host}/team-a/{public}:0.1.0", status=1)
    assert f"to pull from team-a/{public}, sign in first" in refused
    assert f"team-a/{public}" not in oras("repo", "ls", *PLAIN, host)


def test_crane_signs_in_copies_deletes_and_signs_out(host: str, public: str, tmp_path: Path) -> None:
    crane = Tool(find("crane"), tmp_path / "crane")
    copy = f"{host}/team-a/crane/{public}:0.1.0"
    crane("auth", "login", host, "-u", "ann", "-p", PASSWORD)
    crane("copy", "--insecure", f"{host}/team-a/{public}:0.1.0", copy)  # mounts the blobs
    crane("delete", "--insecure", copy)
    assert "403" in crane("copy", "--insecure", f"{host}/team-a/{public}:0.1.0", f"{host}/team-b/app:1", status=1)
    crane("auth", "logout", host)
    crane("manifest", "--insecure", f"{host}/charts/{public}:0.1.0")
    refused = crane("manifest", "--insecure", f"{host}/team-a/{public}:0.1.0", status=1)
    assert f"UNAUTHORIZED: to pull from team-a/{public}, sign in first" in refused


def test_regctl_signs_in_copies_deletes_and_signs_out(host: str, public: str, tmp_path: Path) -> None:
    regctl = Tool(find("regctl"), tmp_path / "regctl")
    copy = f"{host}/team-a/regctl/{public}:0.1.0"
    regctl("registry", "set", "--tls", "disabled", host)
    assert "unauthorized" in regctl("registry", "login", host, "-u", "regctl", "-p", "wrong canary9f3b1c", status=1)
    regctl("registry", "login", host, "-u", "ann", "-p", PASSWORD)
    regctl("image", "copy", f"{host}/team-a/{public}:0.1.0", copy)
    regctl("tag", "delete", copy)
    regctl("registry", "logout", host)
    regctl("manifest", "get", f"{host}/charts/{public}:0.1.0")
    assert "unauthorized" in regctl("manifest", "get", f"{host}/team-a/{public}:0.1.0", status=1)


def test_skopeo_signs_in_copies_deletes_and_signs_out(host: str, public: str, tmp_path: Path) -> None:
    skopeo = Tool(find_installed("skopeo"), tmp_path / "skopeo", {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})
    copy, plain = f"docker://{host}/team-a/skopeo/{public}:0.1.0", "--tls-verify=false"
    assert "invalid username/password" in skopeo(
        "login", plain, "-u", "skopeo", "-p", "wrong canary9f3b1c", host, status=1
    )
    skopeo("login", plain, "-u", "ann", "-p", PASSWORD, host)
    both = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    skopeo("copy", *both, f"docker://{host}/team-a/{public}:0.1.0", copy)
    skopeo("delete", plain, copy)
    skopeo("logout", host)
    skopeo("inspect", "--raw", plain, f"docker://{host}/charts/{public}:0.1.0")
    refused = skopeo("inspect", "--raw", plain, f"docker://{host}/team-a/{public}:0.1.0", status=1)
    assert f"to pull from team-a/{public}, sign in first" in refused
