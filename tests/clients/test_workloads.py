"""A pipeline signs in with its own identity: the token of its job is the password, and no client knows the difference.

The issuer is the test's own, and gives its keys over HTTP.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import helm_python
import pytest

from support import charts
from support.issuer import Issuer, KeyServer
from support.process import eventually
from support.server import Server, serving
from support.tools import Tool, find

PLAIN = ["--plain-http"]
LOGIN = {"helm3.8": ["--insecure"], "helm3.17": ["--insecure"], "helm3": PLAIN, "helm4": PLAIN}
CONFIGURATION = """
policy = "oci"

[[issuers]]
name = "github"
issuer = "https://token.actions.githubusercontent.com"
audience = "charts.example.com"
jwks = "{url}"

[[issuers.rules]]
claims = {{ repository = "acme/app", ref = "refs/tags/v*" }}
repositories = ["team-a/*"]
actions = ["pull", "push"]
"""


@pytest.fixture(scope="module")
def github() -> Issuer:
    """As of a job that GitHub Actions runs for a tag."""
    now = int(time.time())
    said = {"sub": "repo:acme/app:ref:refs/tags/v1.0.0", "repository": "acme/app", "ref": "refs/tags/v1.0.0"}
    times = {"iat": now, "nbf": now - 300, "exp": now + 3600}
    return Issuer(
        "https://token.actions.githubusercontent.com", {"aud": "charts.example.com", **said, **times}, "RS256"
    )


@pytest.fixture(scope="module")
def trusting(github: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("trusting")
    with KeyServer(github.jwks).running() as url:
        (folder / "charthouse.toml").write_text(CONFIGURATION.format(url=url))
        with serving(folder, "--config", str(folder / "charthouse.toml")) as server:
            yield server


@pytest.mark.clients
@pytest.mark.parametrize("version", LOGIN)
def test_every_helm_signs_in_with_it_pushes_and_pulls(
    version: str, trusting: Server, github: Issuer, namespace: str, work: Path, tmp_path: Path
) -> None:
    helm, plain = Tool(find(version), tmp_path / "home"), [] if version == "helm3.8" else PLAIN
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{trusting.host}/team-a/{namespace}"
    login = ["registry", "login", trusting.host, "-u", "oidc", *LOGIN[version], "-p"]
    refused = helm(*login, github.token(ref="refs/heads/main"), status=1)
    assert "no rule of the issuer github lets repo:acme/app:ref:refs/tags/v1.0.0 in" in refused
    assert "Login Succeeded" in helm(*login, github.token())
    helm("push", archive, where, *plain)
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert "403" in helm("push", archive, f"oci://{trusting.host}/team-b", *plain, status=1)


@pytest.mark.clients
def test_oras_and_crane_sign_in_with_it(trusting: Server, github: Issuer, namespace: str, tmp_path: Path) -> None:
    oras, crane = Tool(find("oras"), tmp_path / "oras"), Tool(find("crane"), tmp_path / "crane")
    (oras.home / "file.txt").write_text("content")
    image, copy = (f"{trusting.host}/team-a/{namespace}:{tag}" for tag in ("1", "2"))
    oras("login", trusting.host, "-u", "oidc", "-p", github.token(), *PLAIN)
    oras("push", *PLAIN, image, "file.txt")
    crane("auth", "login", trusting.host, "-u", "oidc", "-p", github.token())
    crane("copy", "--insecure", image, copy)


def test_the_sdk_signs_in_with_it_pushes_and_pulls(
    trusting: Server, github: Issuer, namespace: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{trusting.host}/team-a/{namespace}"
    with helm_python.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as helm:
        with pytest.raises(helm_python.HelmError, match="no rule of the issuer github"):
            helm.login(trusting.host, "oidc", github.token(repository="acme/other"), plain_http=True)
        helm.login(trusting.host, "oidc", github.token(), plain_http=True)
        helm.push(archive, where, plain_http=True)
        helm.pull(f"{where}/app", version="0.1.0", destination=tmp_path, plain_http=True)
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
    eventually(lambda: "github:repo:acme/app:ref:refs/tags/v1.0.0" in trusting.log.read_text())
    assert github.token().partition(".")[0] not in trusting.log.read_text()
