"""Damaged bytes and the real Helm: what is damaged is an error, and `helm push` of the same chart heals it."""

import os
from pathlib import Path

import pytest

from support import charts
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
