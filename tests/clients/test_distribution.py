"""Our access tokens in front of distribution v3: it knows our published keys from a file, and nothing else of us."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from charthouse.auth import keys, scope, tokens
from charthouse.auth.keys import TokenKeys
from charthouse.manifest import OCI_MANIFEST
from support.distribution import serving

pytestmark = pytest.mark.clients

CONFIGURATION = """
version: 0.1
log: {{formatter: json}}
storage: {{inmemory: {{}}}}
http: {{addr: "127.0.0.1:0"}}
auth:
  token:
    realm: http://localhost/token
    service: charthouse
    issuer: charthouse
    jwks: {jwks}
    signingalgorithms: [ES256]
"""
PUSH = "repository:team-a/app:pull,push"
DAY = 24 * 3600


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "token-keys.json"


@pytest.fixture(scope="module")
def distribution(key_file: Path) -> Iterator[str]:
    """Its URL. It reads our published keys when it starts, as `curl` has saved them."""
    published, configuration = key_file.with_name("jwks.json"), key_file.with_name("configuration.yml")
    published.write_text(json.dumps(TokenKeys(key_file).published))
    configuration.write_text(CONFIGURATION.format(jwks=published))
    with serving(configuration) as host:
        yield f"http://{host}"


def ask(url: str, method: str, path: str, token: str, **options) -> httpx.Response:
    headers = options.pop("headers", {}) | {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{url}/v2/{path}" if path.startswith("team") else path, headers=headers, **options)


def made(key_file: Path, scopes: str = PUSH, ago: float = 0) -> str:
    return tokens.make(TokenKeys(key_file).signing, "ann", "1", scope.parse([scopes]), time.time() - ago)


def start_upload(url: str, token: str) -> int:
    return ask(url, "POST", "team-a/app/blobs/uploads/", token).status_code


def test_a_manifest_is_pushed_and_pulled_with_our_token(distribution: str, key_file: Path) -> None:
    token, content = made(key_file), b"{}"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = ask(distribution, "POST", "team-a/app/blobs/uploads/", token)
    assert upload.status_code == 202
    finished = ask(distribution, "PUT", upload.headers["location"] + f"&digest={digest}", token, content=content)
    assert finished.status_code == 201
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(content)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [config]}
    types = {"Content-Type": OCI_MANIFEST, "Accept": OCI_MANIFEST}
    path = "team-a/app/manifests/1.0.0"
    assert ask(distribution, "PUT", path, token, json=manifest, headers=types).status_code == 201
    reader = made(key_file, "repository:team-a/app:pull")
    assert ask(distribution, "GET", path, reader, headers=types).json() == manifest
    assert start_upload(distribution, reader) == 401  # to push it needs both
    assert ask(distribution, "DELETE", path, token).status_code == 401
    assert ask(distribution, "GET", f"{distribution}/v2/_catalog", made(key_file, scope.CATALOG)).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "ago", "status"),
    [
        ("repository:team-a/app:*", 0, 202),  # ours spells the actions out
        ("repository:team-a/app:push", 0, 401),
        ("repository:team-a/other:pull,push", 0, 401),
        (PUSH, -30, 202),  # its clock is behind ours
        (PUSH, tokens.LIFETIME + 30, 202),
        (PUSH, tokens.LIFETIME + tokens.LEEWAY + 30, 401),
        (PUSH, DAY, 401),
    ],
)
def test_what_the_token_says_counts_and_for_how_long(
    distribution: str, key_file: Path, scopes: str, ago: float, status: int
) -> None:
    assert start_upload(distribution, made(key_file, scopes, ago)) == status


def test_a_token_of_another_installation_is_refused(distribution: str, tmp_path: Path) -> None:
    assert start_upload(distribution, made(tmp_path / "other.json")) == 401


def test_after_a_rotation_it_takes_the_new_key_from_the_file_of_before(distribution: str, key_file: Path) -> None:
    before = made(key_file)
    keys.rotate(key_file, time.time())
    assert start_upload(distribution, made(key_file)) == 202
    assert start_upload(distribution, before) == 202
