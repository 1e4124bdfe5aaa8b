"""skopeo, as the distribution has it: an image to and fro."""

import json
from pathlib import Path

import pytest

from support import charts
from support.server import Server
from support.tools import Tool, find, find_installed

pytestmark = pytest.mark.clients


@pytest.fixture
def skopeo(tmp_path: Path) -> Tool:
    """Without the system's policy file, which a bare machine may lack."""
    tool = Tool(find_installed("skopeo"), tmp_path / "home", {"TMPDIR": str(tmp_path)})
    (tool.home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return tool


def test_an_image_is_copied_in_and_out_and_keeps_its_digest(
    skopeo: Tool, server: Server, namespace: str, work: Path, tmp_path: Path
) -> None:
    crane = Tool(find("crane"), work / "crane")
    source, target = f"{server.host}/{namespace}/image:1", f"{server.host}/{namespace}/copied:1"
    crane("append", "--oci-empty-base", "-f", charts.layer(work, "one"), "-t", source)
    copy = ("--policy", "policy.json", "copy")
    layout = f"oci:{tmp_path / 'layout'}:1"
    skopeo(*copy, "--src-tls-verify=false", f"docker://{source}", layout)
    skopeo(*copy, "--dest-tls-verify=false", layout, f"docker://{target}")
    assert server.digest(f"{namespace}/copied", "1") == server.digest(f"{namespace}/image", "1")

    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{target}"))
    assert seen["Digest"] == server.digest(f"{namespace}/copied", "1")
    assert seen["RepoTags"] == ["1"]
    skopeo("delete", "--tls-verify=false", f"docker://{target}")
    assert server.tags(f"{namespace}/copied") == []
