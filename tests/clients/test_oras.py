"""oras: anything as an artifact, what refers to it, and copies of both."""

import json
from pathlib import Path

import pytest

from support import charts
from support.recorder import Recorder
from support.server import Server
from support.tools import Tool, find

pytestmark = pytest.mark.clients


@pytest.fixture
def oras(tmp_path: Path) -> Tool:
    tool = Tool(find("oras"), tmp_path / "home")
    (tool.home / "notes.txt").write_text("what was built\n" * 1000)
    (tool.home / "bill.json").write_text('{"parts": []}\n')
    return tool


def _referrers(answer: str) -> list[str]:
    return sorted(referrer["artifactType"] for referrer in json.loads(answer)["referrers"])


def test_an_artifact_comes_back_as_it_was_pushed(oras: Tool, server: Server, namespace: str, tmp_path: Path) -> None:
    target = f"{server.host}/{namespace}/notes:1"
    oras("push", target, "--artifact-type", "application/vnd.notes", "notes.txt:text/plain", "--plain-http")
    oras("pull", target, "-o", tmp_path / "pulled", "--plain-http")
    assert (tmp_path / "pulled/notes.txt").read_bytes() == (oras.home / "notes.txt").read_bytes()
    assert oras("repo", "tags", f"{server.host}/{namespace}/notes", "--plain-http").split() == ["1"]


def test_what_is_attached_to_an_artifact_is_discovered_by_the_referrers_api(
    oras: Tool, recorder: Recorder, namespace: str
) -> None:
    notes = f"{namespace}/notes"
    target = f"{recorder.host}/{notes}:1"
    oras("push", target, "notes.txt", "--plain-http")
    for kind in ("application/vnd.bill", "application/vnd.signature"):
        oras("attach", target, "--artifact-type", kind, "bill.json:application/json", "--plain-http")
    recorder.take()
    found = oras("discover", target, "--format", "json", "--plain-http")
    assert _referrers(found) == ["application/vnd.bill", "application/vnd.signature"]
    assert any(line.startswith(f"GET {notes}/referrers/sha256:") for line in recorder.take())
    filtered = oras("discover", target, "--artifact-type", "application/vnd.bill", "--format", "json", "--plain-http")
    assert _referrers(filtered) == ["application/vnd.bill"]
    assert all(not tag.startswith("sha256-") for tag in oras("repo", "tags", target, "--plain-http").split())


def test_a_client_that_keeps_referrers_under_a_tag_is_understood(oras: Tool, server: Server, namespace: str) -> None:
    target = f"{server.host}/{namespace}/notes:1"
    oras("push", target, "notes.txt", "--plain-http")
    by_tag = ("--distribution-spec", "v1.1-referrers-tag", "--plain-http")
    oras("attach", target, "--artifact-type", "application/vnd.bill", "bill.json:application/json", *by_tag)
    assert _referrers(oras("discover", target, "--format", "json", *by_tag)) == ["application/vnd.bill"]
    assert _referrers(oras("discover", target, "--format", "json", "--plain-http")) == ["application/vnd.bill"]


def test_a_copy_takes_the_referrers_along(oras: Tool, server: Server, namespace: str) -> None:
    source, target = f"{server.host}/{namespace}/notes:1", f"{server.host}/{namespace}/copied:1"
    oras("push", source, "notes.txt", "--plain-http")
    oras("attach", source, "--artifact-type", "application/vnd.bill", "bill.json:application/json", "--plain-http")
    oras("copy", "-r", source, target, "--from-plain-http", "--to-plain-http")
    assert server.digest(f"{namespace}/copied", "1") == server.digest(f"{namespace}/notes", "1")
    assert _referrers(oras("discover", target, "--format", "json", "--plain-http")) == ["application/vnd.bill"]


def test_something_is_attached_to_a_chart_and_helm_still_pulls_it(
    oras: Tool, server: Server, namespace: str, work: Path, tmp_path: Path
) -> None:
    helm = Tool(find("helm4"), tmp_path / "helm")
    archive = charts.pack(work, "app", "0.1.0")
    helm("push", archive, f"oci://{server.host}/{namespace}", "--plain-http")
    target = f"{server.host}/{namespace}/app:0.1.0"
    oras("attach", target, "--artifact-type", "application/vnd.bill", "bill.json:application/json", "--plain-http")
    helm("pull", f"oci://{server.host}/{namespace}/app", "--plain-http")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert server.tags(f"{namespace}/app") == ["0.1.0"]


def test_a_tag_and_a_manifest_are_deleted(oras: Tool, server: Server, namespace: str) -> None:
    target = f"{server.host}/{namespace}/notes"
    oras("push", f"{target}:1,2", "notes.txt", "--plain-http")
    digest = server.digest(f"{namespace}/notes", "1")
    oras("manifest", "delete", f"{target}@{digest}", "--force", "--plain-http")
    assert server.tags(f"{namespace}/notes") == []
    assert "not found" in oras("manifest", "fetch", f"{target}:2", "--plain-http", status=1)
