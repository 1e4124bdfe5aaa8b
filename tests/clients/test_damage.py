"""Damaged bytes and the real Helm: what is damaged is an error, and `helm push` of the same chart heals it."""

import os
import sys
from pathlib import Path

import httpx
import pytest

from support import charts
from support.charts import Signer
from support.server import serving
from support.tools import Tool, find

pytestmark = pytest.mark.clients


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


def file_of(data: Path, digest: str) -> Path:
    (path,) = (data / "blobs").rglob(f"{digest.partition(':')[2]}.*")
    return path


def test_what_a_pull_found_damaged_the_next_push_heals(
    helm: Tool, tmp_path: Path, work: Path, anyio_backend: str, database_url: str
) -> None:
    archive = charts.pack(work, "app", "0.1.0")
    with serving(tmp_path, "--inline-blobs", "0", database=database_url) as server:
        pull = ("pull", f"oci://{server.host}/team-a/app", "--version", "0.1.0", "--plain-http")
        push = ("push", archive, f"oci://{server.host}/team-a", "--plain-http")
        helm(*push)
        os.truncate(file_of(server.settings.data, server.digests("team-a/app", "0.1.0")["chart"]), 3)
        helm(*pull, status=1)
        helm(*push)
        helm(*pull)
        assert (helm.home / "app-0.1.0.tgz").read_bytes() == archive.read_bytes()
        assert server.log.read_text().count("has 3 bytes in place of") == 1  # one alarm


@pytest.mark.parametrize("part", ["chart", "prov"])
def test_what_verify_found_damaged_the_next_push_heals(
    helm: Tool, tmp_path: Path, work: Path, anyio_backend: str, database_url: str, signer: Signer, part: str
) -> None:
    """Not one byte more or fewer, so that nobody but `--deep` notices; the server runs all the time."""
    archive = charts.pack(work, "app", "0.1.0")
    provenance = signer.sign(archive)
    with serving(tmp_path, "--inline-blobs", "0", database=database_url) as server:
        push = ("push", archive, f"oci://{server.host}/team-a", "--plain-http")
        helm(*push)
        digests = server.digests("team-a/app", "0.1.0")
        file = file_of(server.settings.data, digests[part])
        file.write_bytes(bytes(file.stat().st_size))
        verify = Tool(Path(sys.executable).with_name("charthouse"), tmp_path / "verify")
        stored = ("--data", server.settings.data, *(("--database", database_url) if database_url else ()))
        verify("verify", *stored)
        said = verify("verify", "--deep", *stored, status=1)
        assert f"damaged: blob {digests[part]}, its bytes have the digest" in said
        assert "  team-a/app:0.1.0\n" in said
        for reference in ("0.1.0", digests["manifest"]):
            url = f"http://{server.host}/v2/team-a/app/manifests/{reference}"
            assert httpx.head(url, trust_env=False).status_code == 404
        helm(*push)
        helm("pull", f"oci://{server.host}/team-a/app", "--version", "0.1.0", "--plain-http", "--prov")
        assert (helm.home / "app-0.1.0.tgz").read_bytes() == archive.read_bytes()
        assert (helm.home / "app-0.1.0.tgz.prov").read_bytes() == provenance.read_bytes()
        assert verify("verify", "--deep", *stored).endswith(": 0 damaged\n")
