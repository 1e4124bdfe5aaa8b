"""Behind nginx as docs/recipes.md configures it: TLS in front, and nothing of it here but X-Forwarded-*."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from charthouse.auth.access import Pattern, parse_actions
from charthouse.certificates import self_signed
from charthouse.composition import open_existing
from support import charts
from support.nginx import Nginx, in_front
from support.server import Server, serving
from support.tools import Tool, find

pytestmark = pytest.mark.clients

SETTINGS = {
    "proxies": ["--trusted-proxies", "127.0.0.1"],
    "url": ["--public-url", "https://charts.example.com", "--open-to-everyone"],
}
PASSWORD = "ann's canary9f3b1c"


@pytest.fixture(scope="module", params=SETTINGS)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("behind"), *SETTINGS[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(behind: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    with in_front(behind.port, folder, self_signed(folder / "tls", [], time.time())) as nginx:
        yield nginx


@pytest.mark.parametrize("version", ["helm3", "helm4"])
def test_helm_pushes_and_pulls_through_it(
    nginx: Nginx, namespace: str, work: Path, tmp_path: Path, version: str
) -> None:
    helm = Tool(find(version), tmp_path / "home")
    where, trust = f"oci://{nginx.host}/{namespace}", ("--ca-file", nginx.authority)
    archive = charts.pack(work, "app", "0.1.0+build.5")
    helm("push", archive, where, *trust)
    helm("push", archive, where, *trust)
    helm("pull", f"{where}/app", "--version", "^0.1", *trust)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()


def test_addresses_in_answers_stay_relative(nginx: Nginx, namespace: str) -> None:
    content = os.urandom(2_000_000)  # nginx takes one million by itself
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with nginx.client() as client:
        started = client.post(f"/v2/{namespace}/app/blobs/uploads/")
        assert started.headers["location"].startswith(f"/v2/{namespace}/app/blobs/uploads/")
        pushed = client.put(started.headers["location"], params={"digest": digest}, content=content)
        assert pushed.status_code == 201
        assert pushed.headers["location"] == f"/v2/{namespace}/app/blobs/{digest}"
        assert client.get(pushed.headers["location"]).content == content
        for tag in ("one", "two"):
            index = json.dumps({"schemaVersion": 2, "manifests": [], "annotations": {"tag": tag}})
            media_type = "application/vnd.oci.image.index.v1+json"
            put = client.put(
                f"/v2/{namespace}/app/manifests/{tag}", content=index, headers={"Content-Type": media_type}
            )
            assert put.status_code == 201
            assert put.headers["location"].startswith(f"/v2/{namespace}/app/manifests/")
        page = client.get(f"/v2/{namespace}/app/tags/list?n=1")
        assert page.headers["link"].startswith(f"</v2/{namespace}/app/tags/list?")
        assert client.get(page.links["next"]["url"]).json()["tags"] == ["two"]


def test_a_body_is_not_held_back(nginx: Nginx, namespace: str) -> None:
    """A manifest that says it is too large is refused before it has come; nginx would wait for all of it."""
    head = f"PUT /v2/{namespace}/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
    with nginx.connect() as client:
        client.sendall(head.encode() + b"{")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_the_page_shows_what_the_client_used(nginx: Nginx, request: pytest.FixtureRequest) -> None:
    host = {"proxies": nginx.host, "url": "charts.example.com"}[request.node.callspec.params["behind"]]
    with nginx.client() as client:
        page = client.get("/").text
    assert f"helm push mychart-1.0.0.tgz oci://{host}\n" in page


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """In front of a registry with users."""

    async def close(server: Server) -> None:
        registry = await open_existing(server.settings)
        try:
            await registry.users.add("root", PASSWORD, administrator=True)
            await registry.users.add("ann", PASSWORD)
            await registry.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push,overwrite"))
        finally:
            await registry.close()

    folder = tmp_path_factory.mktemp("closed")
    with (
        serving(folder, *SETTINGS["proxies"]) as server,
        in_front(server.port, folder, self_signed(folder / "tls", [], time.time())) as nginx,
    ):
        asyncio.run(close(server))
        yield nginx


@pytest.mark.parametrize("version", ["helm3", "helm4"])
def test_helm_signs_in_pushes_and_pulls_through_it(closed: Nginx, work: Path, tmp_path: Path, version: str) -> None:
    """The token service is found at the address that the client knows, https and nginx's port."""
    helm = Tool(find(version), tmp_path / "home")
    where, trust = f"oci://{closed.host}/team-a/{version}", ("--ca-file", closed.authority)
    archive = charts.pack(work, "app", "0.1.0")
    assert "401" in helm("push", archive, where, *trust, status=1)
    signed_in = ("registry", "login", closed.host, "-u", "ann", *trust)
    assert "not right" in helm(*signed_in, "-p", "wrong canary9f3b1c", status=1)
    assert "Login Succeeded" in helm(*signed_in, "-p", PASSWORD)
    helm("push", archive, where, *trust)
    helm("pull", f"{where}/app", "--version", "^0.1", *trust)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert "403" in helm("push", archive, f"oci://{closed.host}/team-b", *trust, status=1)
