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
UNTRUE = {"loki-0.25.3.tgz", "loki-stack-0.33.0.tgz", "promtail-0.19.2.tgz"}  # their .prov has another archive's digest


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
        push = ("push", archive, f"oci://{server.host}/{namespace}", "--plain-http")
        if archive.name in UNTRUE:
            refused = helm(*push, status=1)
            assert f"the provenance file says that {archive.name} is 'sha256:" in refused
            continue
        helm(*push)
        pull = ("pull", f"oci://{server.host}/{namespace}/{name}", "--version", number, "--plain-http")
        helm(*pull, *(["--prov"] if signed else []))
    wanted = {
        name: content
        for name, content in _contents(CHARTS / folder).items()
        if name.removesuffix(".prov") not in UNTRUE
    }
    assert _contents(helm.home) == wanted
    print(f"{len(archives)} charts, {len(wanted)} files, {sum(map(len, wanted.values())):,} bytes")


def _name_and_version(archive: Path) -> tuple[str, str]:
    with tarfile.open(archive) as tar:
        entry = next(entry for entry in tar if re.fullmatch(r"(\./)?[^/]+/Chart\.yaml", entry.name))
        chart = yaml.safe_load(tar.extractfile(entry))
    return chart["name"], str(chart["version"])


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tgz", ".prov")}
