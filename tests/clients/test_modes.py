"""The ways to sign in that a registry for tests has, each met by real clients."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from charthouse.testing import Registry, make_chart
from support.tools import Tool, find, find_installed

pytestmark = pytest.mark.clients

APP = make_chart("app", "1.2.3")


@pytest.fixture(params=["helm3.17", "helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def write_credentials(config: Path, registry: Registry) -> None:
    """As `charthouse exec` writes them."""
    credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    config.write_text(json.dumps({"auths": {registry.host: {"auth": credentials}}}))


def paths(registry: Registry) -> set[str]:
    return {request.path for request in registry.requests}


# --- Basic alone ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["closed", "anonymous pull"])
def basic(request: pytest.FixtureRequest) -> Iterator[Registry]:
    with Registry(auth="basic", anonymous_pull=request.param) as registry:
        yield registry
        print(*registry.requests, sep="\n")


def test_helm_sends_its_password_with_each_request_where_there_are_no_tokens(
    basic: Registry, helm: Tool, config: Path, tmp_path: Path
) -> None:
    write_credentials(config, basic)
    archive, where = APP.write(tmp_path), f"oci://{basic.host}/team-a"
    words = ("--plain-http", "--registry-config", config)
    for _ in range(2):
        helm("push", archive, where, *words)
    helm("pull", f"{where}/app", "--version", "1.2.3", *words)
    assert (helm.home / archive.name).read_bytes() == APP.content
    assert "/token" not in paths(basic)
    assert {request.user for request in basic.requests if request.method == "PUT" and request.status == 201} == {
        basic.username
    }


def test_oras_does_too_and_a_login_finds_out_whether_the_password_is_right(basic: Registry, tmp_path: Path) -> None:
    oras = Tool(find("oras"), tmp_path / "oras")
    oras("login", basic.host, "-u", basic.username, "-p", "wrong", "--plain-http", status=1)
    oras("login", basic.host, "-u", basic.username, "-p", basic.password, "--plain-http")
    (oras.home / "note.txt").write_text("note")
    oras("push", "--plain-http", f"{basic.host}/team-a/note:1", "note.txt")
    assert basic.tags("team-a/note") == ["1"]


# --- anonymous pulls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_pulls_without_a_user_and_pushes_with_one(auth: str, helm: Tool, tmp_path: Path) -> None:
    with Registry(auth=auth, anonymous_pull=True) as registry:
        registry.push(APP, "team-a")
        where = f"oci://{registry.host}/team-a"
        helm("pull", f"{where}/app", "--version", "1.2.3", "--plain-http")
        refused = helm("push", make_chart("app", "2.0.0").write(tmp_path), where, "--plain-http", status=1)
        assert "401" in refused or "credential" in refused or "authoriz" in refused
        assert registry.tags("team-a/app") == ["1.2.3"]


# --- refresh tokens ---------------------------------------------------------------------------------------------------


def test_a_login_of_helm_3_17_keeps_a_refresh_token_and_signs_in_with_it(tmp_path: Path, config: Path) -> None:
    """Until a reset, which knows of no login."""
    with Registry(auth="bearer") as registry:
        helm = Tool(find("helm3.17"), tmp_path / "home")
        words = ("--plain-http", "--registry-config", config)
        login = ("registry", "login", registry.host, "-u", registry.username, "-p", registry.password)
        helm(*login, "--insecure", "--registry-config", config)
        (kept,) = json.loads(config.read_text())["auths"].values()
        assert kept["identitytoken"]
        archive, where = APP.write(tmp_path), f"oci://{registry.host}/team-a"
        helm("push", archive, where, *words)
        assert [request.method for request in registry.requests if request.path == "/token"][-1] == "POST"
        assert registry.tags("team-a/app") == ["1.2.3"]
        helm("pull", f"{where}/app", "--version", "1.2.3", *words)
        registry.reset()
        registry.push(APP, "team-a")
        helm("pull", f"{where}/app", "--version", "1.2.3", *words, status=1)


# --- another address of this machine ----------------------------------------------------------------------------------


@pytest.fixture
def address() -> str:
    """By which others reach this machine, as the nodes of kind would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 9))  # sends nothing: it only chooses the address
        except OSError:
            pytest.skip("this machine has no other address than loopback")
        found: str = asking.getsockname()[0]
        return found


def test_helm_trusts_it_at_another_address_that_its_certificate_names(address: str, helm: Tool, tmp_path: Path) -> None:
    for words in ({"host": "0.0.0.0", "san": address}, {"host": address}):
        with Registry(tls=True, **words) as registry:
            where = f"oci://{address}:{registry.port}/team-a"
            trusted = ("--ca-file", registry.ca_file)
            helm("push", APP.write(tmp_path), where, *trusted)
            helm("pull", f"{where}/app", "--version", "1.2.3", *trusted)
            assert {request.headers["host"] for request in registry.requests} == {f"{address}:{registry.port}"}
    with Registry(tls=True, host="0.0.0.0") as registry:
        trusted = ("--ca-file", registry.ca_file)
        refused = helm("push", APP.write(tmp_path), f"oci://{address}:{registry.port}/team-a", *trusted, status=1)
        assert "certificate is valid for" in refused
        assert address in refused


# --- certificates of clients ------------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Iterator[Registry]:
    with Registry(mtls=True) as registry:
        registry.push(APP, "team-a")
        yield registry


@pytest.mark.parametrize("helm", ["helm3", "helm4"], indirect=True)
def test_helm_shows_its_certificate_or_is_refused(strict: Registry, helm: Tool, tmp_path: Path) -> None:
    """Up to 3.17 it speaks plain HTTP to localhost, certificate or not."""
    where, trusted = f"oci://{strict.host}/team-a", ("--ca-file", strict.ca_file)
    shown = ("--cert-file", strict.client_cert_file, "--key-file", strict.client_key_file)
    refused = helm("pull", f"{where}/app", "--version", "1.2.3", *trusted, status=1)
    assert "certificate required" in refused
    helm("pull", f"{where}/app", "--version", "1.2.3", *trusted, *shown)
    helm("push", make_chart("app", "2.0.0").write(tmp_path), where, *trusted, *shown)
    assert strict.tags("team-a/app") == ["1.2.3", "2.0.0"]


def test_oras_regctl_and_curl_show_theirs(strict: Registry, tmp_path: Path) -> None:
    oras = Tool(find("oras"), tmp_path / "oras")
    trusted = ("--plain-http=false", "--ca-file", strict.ca_file)
    shown = ("--cert-file", strict.client_cert_file, "--key-file", strict.client_key_file)
    name = f"{strict.host}/team-a/app:1.2.3"
    assert "certificate required" in oras("manifest", "fetch", *trusted, name, status=1)
    assert json.loads(oras("manifest", "fetch", *trusted, *shown, name))["layers"]
    regctl = Tool(find("regctl"), tmp_path / "regctl")
    certificate, key = strict.client_cert_file.read_text(), strict.client_key_file.read_text()
    authority = ("--cacert", strict.ca_file.read_text())
    regctl("registry", "set", strict.host, *authority, "--client-cert", certificate, "--client-key", key)
    assert regctl("tag", "ls", f"{strict.host}/team-a/app").split() == ["1.2.3"]
    curl = Tool(find_installed("curl"), tmp_path / "curl")
    words = ("--cacert", strict.ca_file, "--cert", strict.client_cert_file, "--key", strict.client_key_file)
    assert curl("-sf", *words, f"{strict.url}/v2/") == "{}"
