"""Clients inside TLS: with the registry's own authority on a port that also speaks plain HTTP, and with given files."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from charthouse.certificates import Files, self_signed
from support import charts, helm_page
from support.kubernetes import Kubernetes
from support.server import Server, serving
from support.tools import Tool, find, find_installed

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Speaks TLS and plain HTTP."""
    folder = tmp_path_factory.mktemp("both")
    with serving(folder, "--tls", "self-signed", authority=folder / "data/tls/ca.pem") as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return self_signed(tmp_path_factory.mktemp("files"), [], time.time())


@pytest.fixture(scope="module")
def server(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Speaks nothing but TLS."""
    flags = ("--tls-cert", str(files.server), "--tls-key", str(files.server))
    with serving(tmp_path_factory.mktemp("server"), *flags, authority=files.authority) as server:
        yield server


# Helm


@pytest.mark.parametrize("version", ["helm3.8", "helm3.14", "helm3.17", "helm3", "helm4"])
def test_every_helm_pushes_and_pulls_without_a_flag_where_the_authority_is_trusted(
    both: Server, namespace: str, work: Path, tmp_path: Path, version: str
) -> None:
    """Up to 3.17 it speaks plain HTTP to localhost, and from 3.18 on TLS; 3.14 both, in one command."""
    helm = Tool(find(version), tmp_path / "home", {"SSL_CERT_FILE": str(both.authority)})
    where = f"oci://{both.host}/{namespace}"
    archive = charts.pack(work, "app", "0.1.0")
    helm("push", archive, where)
    helm("push", archive, where)
    helm("pull", f"{where}/app", "--version", "0.1.0")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    (helm.home / archive.name).unlink()
    helm("pull", f"{where}/app", "--version", "^0.1")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert "hello from app" in helm("show", "values", f"{where}/app", "--version", "0.1.0")
    dependency = {"name": "app", "version": "^0.1", "repository": where}
    parent = charts.write(work, "parent", "1.0.0", dependencies=[dependency])
    helm("dependency", "update", parent)
    assert (parent / "charts" / archive.name).read_bytes() == archive.read_bytes()


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


def test_every_command_of_helms_page_about_registries_with_a_file_of_authorities(
    helm: Tool, server: Server, kubernetes: Kubernetes, namespace: str, work: Path
) -> None:
    helm_page.run(helm, kubernetes, server.host, namespace, work, "--ca-file", server.authority)


def test_what_helm_says_of_an_authority_that_it_does_not_know(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    where = f"oci://{server.host}/{namespace}"
    answer = helm("push", charts.pack(work, "app", "0.1.0"), where, status=1)
    assert "certificate signed by unknown authority" in answer
    plain = helm("pull", f"{where}/app", "--version", "0.1.0", "--plain-http", status=1)
    assert "this port speaks TLS: leave --plain-http out" in plain


# The others


def test_oras(server: Server, namespace: str, tmp_path: Path) -> None:
    """To localhost it speaks plain HTTP unless it is told otherwise."""
    oras = Tool(find("oras"), tmp_path / "home")
    (oras.home / "notes.txt").write_text("what was built\n" * 100_000)
    target = f"{server.host}/{namespace}/notes:1"
    inside_tls = ("--plain-http=false", "--ca-file", server.authority)
    oras("push", target, "notes.txt:text/plain", *inside_tls)
    oras("pull", target, "-o", tmp_path / "pulled", *inside_tls)
    assert (tmp_path / "pulled/notes.txt").read_bytes() == (oras.home / "notes.txt").read_bytes()
    source = ("--from-plain-http=false", "--from-ca-file", server.authority)
    destination = ("--to-plain-http=false", "--to-ca-file", server.authority)
    oras("cp", target, f"{server.host}/{namespace}/copied:1", *source, *destination)
    assert server.digest(f"{namespace}/copied", "1") == server.digest(f"{namespace}/notes", "1")


@pytest.fixture
def crane(server: Server, tmp_path: Path) -> Tool:
    """It has no flag for an authority."""
    return Tool(find("crane"), tmp_path / "crane", {"SSL_CERT_FILE": str(server.authority)})


@pytest.fixture
def image(crane: Tool, server: Server, namespace: str, work: Path) -> str:
    reference = f"{server.host}/{namespace}/image:1"
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", reference)
    return reference


def test_crane(crane: Tool, server: Server, namespace: str, image: str) -> None:
    assert "PASS" in crane("validate", "--remote", image)
    crane("copy", image, f"{server.host}/{namespace}/copied:1")
    assert server.digest(f"{namespace}/copied", "1") == server.digest(f"{namespace}/image", "1")


def test_regctl(server: Server, namespace: str, image: str, tmp_path: Path) -> None:
    assert server.authority
    regctl = Tool(find("regctl"), tmp_path / "regctl")
    regctl("registry", "set", server.host, "--cacert", server.authority.read_text())
    regctl("image", "copy", image, f"{server.host}/{namespace}/copied:1")
    assert regctl("tag", "ls", f"{server.host}/{namespace}/copied").split() == ["1"]


def test_skopeo(server: Server, namespace: str, image: str, tmp_path: Path) -> None:
    assert server.authority
    skopeo = Tool(find_installed("skopeo"), tmp_path / "skopeo", {"TMPDIR": str(tmp_path)})
    (skopeo.home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (skopeo.home / "trusted").mkdir()
    (skopeo.home / "trusted/ca.crt").write_bytes(server.authority.read_bytes())
    copied = f"docker://{server.host}/{namespace}/copied:1"
    trusted = ("--src-cert-dir", "trusted", "--dest-cert-dir", "trusted")
    skopeo("--policy", "policy.json", "copy", *trusted, f"docker://{image}", copied)
    seen = json.loads(skopeo("inspect", "--cert-dir", "trusted", copied))
    assert seen["Digest"] == server.digest(f"{namespace}/image", "1")
