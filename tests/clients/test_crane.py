"""crane: container images, in parts and as a whole."""

from pathlib import Path

import pytest

from support import charts
from support.recorder import Recorder
from support.server import Server
from support.tools import Tool, find

pytestmark = pytest.mark.clients


@pytest.fixture
def crane(tmp_path: Path) -> Tool:
    return Tool(find("crane"), tmp_path / "home")


def test_an_image_grows_layer_by_layer_and_validates(crane: Tool, server: Server, namespace: str, work: Path) -> None:
    image = f"{server.host}/{namespace}/image"
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", f"{image}:1")
    crane("append", "-b", f"{image}:1", "-f", charts.layer(work, "two"), "-t", f"{image}:2")
    assert crane("ls", image).split() == ["1", "2"]
    assert crane("digest", f"{image}:2").strip() == server.digest(f"{namespace}/image", "2")
    assert "PASS" in crane("validate", "--remote", f"{image}:2")


def test_a_copy_within_the_registry_mounts_its_blobs(
    crane: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    source, target = f"{recorder.host}/{namespace}/image", f"{recorder.host}/{namespace}/copied"
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", f"{source}:1")
    recorder.take()
    crane("copy", f"{source}:1", f"{target}:1")
    requests = recorder.take()
    mounts = [line for line in requests if line.startswith("POST ") and "mount=" in line]
    assert [line.rsplit(" ", 1)[1] for line in mounts] == ["201", "201"]
    assert not [line for line in requests if line.startswith(("PATCH", "PUT")) and "/blobs/" in line]
    assert server.digest(f"{namespace}/copied", "1") == server.digest(f"{namespace}/image", "1")


def test_an_image_of_dockers_own_types_is_kept_as_it_is(
    crane: Tool, server: Server, namespace: str, work: Path
) -> None:
    image = f"{server.host}/{namespace}/image"
    crane("append", "-f", charts.layer(work, "one"), "-t", f"{image}:1")
    assert "application/vnd.docker.distribution.manifest.v2+json" in crane("manifest", f"{image}:1")
    assert "PASS" in crane("validate", "--remote", f"{image}:1")


def test_repositories_are_listed_and_an_image_is_deleted(
    crane: Tool, server: Server, namespace: str, work: Path
) -> None:
    image = f"{server.host}/{namespace}/image"
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", f"{image}:1")
    crane("tag", f"{image}:1", "latest")
    assert f"{namespace}/image" in crane("catalog", server.host).split()
    crane("delete", f"{image}:latest")
    assert crane("ls", image).split() == ["1"]
    crane("delete", f"{image}@{server.digest(f'{namespace}/image', '1')}")
    assert crane("ls", image).split() == []
    assert f"{namespace}/image" not in crane("catalog", server.host).split()
