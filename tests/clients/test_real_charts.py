"""Real charts of real projects, where they lie beside the repository: pushed and pulled back byte for byte."""

import re
import tarfile
from pathlib import Path

import pytest
import yaml

from support.server import Server
from support.tools import ROOT, Tool, find, missing

pytestmark = pytest.mark.clients

CHARTS = ROOT.parent / "shared/charts"


@pytest.mark.parametrize("version", ["helm3", "helm4"])
@pytest.mark.parametrize("folder", ["plain", "signed"])
def test_every_chart_comes_back_byte_for_byte(
    version: str, folder: str, server: Server, namespace: str, tmp_path: Path
) -> None:
    helm = Tool(find(version), tmp_path / "home")
    archives = sorted((CHARTS / folder).glob("*.tgz"))
    if not archives:
        missing("charts", f"there are none in {CHARTS / folder}")
    for archive in archives:
        name, number = _name_and_version(archive)
        signed = archive.with_name(f"{archive.name}.prov").exists()
        helm("push", archive, f"oci://{server.host}/{namespace}", "--plain-http")
        pull = ("pull", f"oci://{server.host}/{namespace}/{name}", "--version", number, "--plain-http")
        helm(*pull, *(["--prov"] if signed else []))
    wanted = _contents(CHARTS / folder)
    assert _contents(helm.home) == wanted
    print(f"{len(archives)} charts, {len(wanted)} files, {sum(map(len, wanted.values())):,} bytes")


def _name_and_version(archive: Path) -> tuple[str, str]:
    with tarfile.open(archive) as tar:
        entry = next(entry for entry in tar if re.fullmatch(r"(\./)?[^/]+/Chart\.yaml", entry.name))
        chart = yaml.safe_load(tar.extractfile(entry))
    return chart["name"], str(chart["version"])


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tgz", ".prov")}
