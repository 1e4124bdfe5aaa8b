"""Users and rights as real clients meet them: login, push, pull, and what the terminal says when the answer is no."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from charthouse.auth.access import Pattern, parse_actions
from charthouse.composition import open_existing
from support.charts import pack
from support.server import Server, serving
from support.tools import Tool, find

pytestmark = pytest.mark.clients

_numbers = itertools.count()

PASSWORD = "correct horse battery"
LOGIN = ("registry", "login", "--password", PASSWORD, "--username")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Closed: `ann` may push to team-a, `bob` may pull from it, everybody may pull from charts."""

    async def close(server: Server) -> None:
        registry = await open_existing(server.settings)
        users = registry.users
        await users.add("admin", PASSWORD, administrator=True)
        for name, actions in (("ann", "pull,push"), ("bob", "pull")):
            await users.add(name, PASSWORD)
            await users.grant(name, Pattern("team-a/*"), parse_actions(actions))
        await users.grant("ann", Pattern("charts/*"), parse_actions("pull,push"))
        await users.grant("anonymous", Pattern("charts/*"), parse_actions("pull"))
        await registry.close()

    with serving(tmp_path_factory.mktemp("closed")) as server:
        asyncio.run(close(server))
        yield server


@pytest.fixture(params=["helm4", "helm3", "helm3.17", "helm3.14", "helm3.8"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "helm")


def flags(helm: Tool) -> list[str]:
    """Helm up to 3.12 speaks plain HTTP to localhost by itself and has no flag for it."""
    return ["--plain-http"] if "--plain-http" in helm("push", "--help") else []


def login_flags(helm: Tool) -> list[str]:
    return ["--plain-http"] if "--plain-http" in helm("registry", "login", "--help") else ["--insecure"]


def test_helm_signs_in_pushes_twice_and_pulls_what_it_may(helm: Tool, server: Server, tmp_path: Path) -> None:
    """The same chart again, and after its manifest was deleted: 3.8 to 3.17 begin with HEAD of its blobs then."""
    version = f"1.0.{next(_numbers)}"
    archive = pack(tmp_path, "app", version)
    helm(*LOGIN, "ann", server.host, *login_flags(helm))
    for _ in range(2):
        assert f"Pushed: {server.host}/team-a/app:{version}" in helm(
            "push", archive, f"oci://{server.host}/team-a", *flags(helm)
        )
    pull = ("pull", f"oci://{server.host}/team-a/app", "--version", version, *flags(helm))
    assert "Pulled: " in helm(*pull)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    helm("registry", "logout", server.host)
    said = helm(*pull, status=1)
    assert "sign in first" in said or "authorization failed" in said  # from 3.18 on, and before


def test_a_wrong_password_fails_at_login(helm: Tool, server: Server) -> None:
    said = helm(
        "registry", "login", server.host, "--username", "ann", "--password", "wrong", *login_flags(helm), status=1
    )
    assert "401" in said or "unauthorized" in said.lower()


def test_who_may_only_pull_is_told_so_when_he_pushes(helm: Tool, server: Server, tmp_path: Path) -> None:
    helm(*LOGIN, "bob", server.host, *login_flags(helm))
    said = helm("push", pack(tmp_path, "app", "9.0.0"), f"oci://{server.host}/team-a", *flags(helm), status=1)
    assert "bob may not push to team-a/app" in said or "403 Forbidden" in said  # up to 3.17 only the status is shown


def test_a_public_chart_is_pulled_without_a_login_and_pushed_with_one(
    helm: Tool, server: Server, tmp_path: Path
) -> None:
    version = f"2.0.{next(_numbers)}"
    archive = pack(tmp_path, "app", version)
    helm(*LOGIN, "ann", server.host, *login_flags(helm))
    for _ in range(2):
        helm("push", archive, f"oci://{server.host}/charts", *flags(helm))
    helm("registry", "logout", server.host)
    assert "Pulled: " in helm("pull", f"oci://{server.host}/charts/app", "--version", version, *flags(helm))


def test_oras_and_crane_sign_in_and_are_told_why_not(server: Server, tmp_path: Path) -> None:
    oras, crane = (Tool(find(name), tmp_path / name) for name in ("oras", "crane"))
    oras("login", server.host, "--username", "bob", "--password", PASSWORD, "--plain-http")
    (oras.home / "note.txt").write_text("a note")
    said = oras("push", f"{server.host}/team-a/note:1", "note.txt", "--plain-http", status=1)
    assert "bob may not push to team-a/note" in said
    crane("auth", "login", server.host, "--username", "bob", "--password", PASSWORD)
    listed = crane("catalog", server.host, "--insecure").split()
    assert not [name for name in listed if not name.startswith(("team-a/", "charts/"))]
