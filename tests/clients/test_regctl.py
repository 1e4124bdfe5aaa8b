"""regctl: tags, referrers, deletion, and copies with all that belongs to an image."""

from pathlib import Path

import pytest

from support import charts
from support.server import Server
from support.tools import Tool, find

pytestmark = pytest.mark.clients


@pytest.fixture
def regctl(tmp_path: Path, server: Server) -> Tool:
    tool = Tool(find("regctl"), tmp_path / "home")
    tool("registry", "set", server.host, "--tls", "disabled")
    (tool.home / "bill.json").write_text('{"parts": []}\n')
    return tool


@pytest.fixture
def image(regctl: Tool, server: Server, namespace: str, work: Path) -> str:
    """An image with a bill that refers to it and a signature under a digest tag. Returns its reference."""
    reference = f"{server.host}/{namespace}/image:1"
    crane = Tool(find("crane"), work / "crane")
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", reference)
    put = ("artifact", "put", "--file", "bill.json", "--file-media-type", "application/json")
    regctl(*put, "--artifact-type", "application/vnd.bill", "--subject", reference)
    digest_tag = server.digest(f"{namespace}/image", "1").replace(":", "-") + ".sig"
    regctl(*put, "--artifact-type", "application/vnd.signature", f"{server.host}/{namespace}/image:{digest_tag}")
    return reference


def _artifact_types(regctl: Tool, reference: str, *flags: str) -> list[str]:
    answer = regctl(
        "artifact", "list", reference, "--format", "{{range .Descriptors}}{{println .ArtifactType}}{{end}}", *flags
    )
    return answer.split()


def test_tags_are_listed_page_by_page(regctl: Tool, server: Server, namespace: str, image: str) -> None:
    repository = f"{server.host}/{namespace}/image"
    assert regctl("tag", "ls", repository).split() == server.tags(f"{namespace}/image")
    assert regctl("tag", "ls", repository, "--limit", "1").split() == ["1"]
    assert regctl("tag", "ls", repository, "--limit", "1", "--last", "1").strip().startswith("sha256-")


def test_what_refers_to_an_image_is_listed_and_filtered(regctl: Tool, image: str) -> None:
    assert _artifact_types(regctl, image) == ["application/vnd.bill"]
    assert _artifact_types(regctl, image, "--filter-artifact-type", "application/vnd.other") == []


def test_a_copy_takes_referrers_and_digest_tags_along(regctl: Tool, server: Server, namespace: str, image: str) -> None:
    target = f"{server.host}/{namespace}/copied:1"
    regctl("image", "copy", "--referrers", "--digest-tags", image, target)
    assert server.tags(f"{namespace}/copied") == server.tags(f"{namespace}/image")
    assert _artifact_types(regctl, target) == ["application/vnd.bill"]


def test_a_deleted_tag_leaves_the_manifest_and_a_deleted_manifest_no_tag(
    regctl: Tool, server: Server, namespace: str, image: str
) -> None:
    repository = f"{server.host}/{namespace}/image"
    digest = server.digest(f"{namespace}/image", "1")
    regctl("image", "copy", image, f"{repository}:2")
    regctl("image", "copy", image, f"{repository}:3")
    regctl("tag", "delete", f"{repository}:2")
    assert regctl("manifest", "head", f"{repository}@{digest}").strip() == digest
    assert [tag for tag in server.tags(f"{namespace}/image") if "-" not in tag] == ["1", "3"]
    regctl("manifest", "delete", f"{repository}@{digest}")
    assert [tag for tag in server.tags(f"{namespace}/image") if "-" not in tag] == []
