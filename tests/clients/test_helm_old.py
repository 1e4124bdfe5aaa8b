"""Helm 3.8 to 3.17, whose pushes and pulls are containerd's: what was deleted is pushed again, with what they need.

They fail when `Docker-Content-Digest` is missing from the answer to a PUT. Helm 3.8 knows no --plain-http: it speaks
plain HTTP to localhost by itself.
"""

from pathlib import Path

import pytest

from support import charts
from support.recorder import Recorder
from support.server import Server
from support.tools import Tool, find

pytestmark = pytest.mark.clients

FLAGS = {"helm3.8": [], "helm3.14": ["--plain-http"], "helm3.17": ["--plain-http"]}


@pytest.fixture(params=FLAGS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def plain(version: str) -> list[str]:
    return FLAGS[version]


@pytest.fixture
def helm(version: str, tmp_path: Path) -> Tool:
    return Tool(find(version), tmp_path / "home")


def test_a_new_chart_is_eight_requests_and_a_version_four(
    helm: Tool, plain: list[str], server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    archive, app = charts.pack(work, "app", "0.1.0"), f"{namespace}/app"
    helm("push", archive, f"oci://{recorder.host}/{namespace}", *plain)
    digests = server.digests(app, "0.1.0")
    assert recorder.take(**digests) == [
        f"HEAD {app}/blobs/<chart> 404",
        f"HEAD {app}/blobs/<config> 404",
        f"POST {app}/blobs/uploads/ 202",
        f"POST {app}/blobs/uploads/ 202",
        f"PUT {app}/blobs/uploads/<id>?digest=<chart> 201",
        f"PUT {app}/blobs/uploads/<id>?digest=<config> 201",
        f"HEAD {app}/manifests/0.1.0 404",
        f"PUT {app}/manifests/0.1.0 201",
    ]
    helm("pull", f"oci://{recorder.host}/{app}", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == [
        f"HEAD {app}/manifests/0.1.0 200",
        f"GET {app}/manifests/<manifest> 200",
        f"GET {app}/blobs/<chart> 200",
        f"GET {app}/blobs/<config> 200",
    ]


def test_a_chart_is_pushed_twice_deleted_and_pushed_again(
    helm: Tool, plain: list[str], server: Server, namespace: str, work: Path
) -> None:
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, *plain)
    helm("push", archive, where, *plain)
    digests = server.digests(f"{namespace}/app", "0.1.0")
    server.request("DELETE", f"{namespace}/app/manifests/{digests['manifest']}")
    assert "not found" in helm("pull", f"{where}/app", "--version", "0.1.0", *plain, status=1)
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()


def test_a_chart_whose_blobs_were_deleted_too_is_pushed_again(
    helm: Tool, plain: list[str], server: Server, namespace: str, work: Path
) -> None:
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, *plain)
    digests = server.digests(f"{namespace}/app", "0.1.0")
    server.request("DELETE", f"{namespace}/app/manifests/{digests['manifest']}")
    for blob in ("config", "chart"):
        server.request("DELETE", f"{namespace}/app/blobs/{digests[blob]}")
    helm("push", archive, where, *plain)
    helm("pull", f"{where}/app", "--version", "0.1.0", *plain)
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()


def test_a_range_finds_the_newest_version_and_a_plus_survives(
    helm: Tool, plain: list[str], server: Server, namespace: str, work: Path
) -> None:
    where = f"oci://{server.host}/{namespace}"
    for version in ("1.2.0", "1.10.0+build.5", "2.0.0"):
        helm("push", charts.pack(work, "app", version), where, *plain)
    assert server.tags(f"{namespace}/app") == ["1.10.0_build.5", "1.2.0", "2.0.0"]
    helm("pull", f"{where}/app", "--version", "^1.0", *plain)
    assert (helm.home / "app-1.10.0+build.5.tgz").read_bytes() == (work / "app-1.10.0+build.5.tgz").read_bytes()
    helm("pull", f"{where}/app", "--version", "1.10.0+build.5", "--destination", work / "..", *plain)


def test_a_dependency_is_downloaded(helm: Tool, plain: list[str], server: Server, namespace: str, work: Path) -> None:
    where = f"oci://{server.host}/{namespace}"
    archive = charts.pack(work, "library", "1.0.0")
    helm("push", archive, where, *plain)
    dependency = {"name": "library", "version": "1.0.0", "repository": where}
    parent = charts.write(work, "parent", "0.1.0", dependencies=[dependency])
    helm("dependency", "update", parent)
    assert (parent / "charts" / archive.name).read_bytes() == archive.read_bytes()
