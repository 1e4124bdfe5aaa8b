"""What `charthouse export` writes, as another tool reads it, and the folder of another registry, taken over."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from charthouse import layouts
from charthouse.composition import open_registry
from charthouse.core import Caller
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.settings import load
from charthouse.transfer import push_chart
from support import distribution
from support.charts import pack
from support.server import Server, serving
from support.tools import Tool, find

pytestmark = pytest.mark.clients


async def test_oras_reads_an_export(tmp_path: Path) -> None:
    archive = pack(tmp_path, "app", "1.0.0")
    registry = await open_registry(load({"data": tmp_path / "data"}, environ={}), durable=False)
    try:
        _, pushed = await push_chart(registry, "team-a", archive.read_bytes(), None, datetime.now(UTC), Caller())
        selection = await layouts.select(registry, ())
        assert [each.fault async for each in layouts.export(registry, selection, tmp_path / "out")] == [""]
    finally:
        await registry.close()
    oras = Tool(find("oras"), tmp_path / "home")
    layout = tmp_path / "out/team-a/app"
    assert oras("repo", "tags", "--oci-layout", layout).split() == ["1.0.0"]
    assert oras("resolve", "--oci-layout", f"{layout}:1.0.0").strip() == pushed.digest
    oras("copy", "--from-oci-layout", f"{layout}:1.0.0", "--to-oci-layout", f"{tmp_path}/copy:1.0.0")


DISTRIBUTION = """
version: 0.1
log: {{formatter: json}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:0"}}
"""


def push_to(host: str, work: Path) -> None:
    """Two charts, an artifact and what refers to it, which distribution keeps under a tag of its own."""
    helm, oras = Tool(find("helm4"), work / "helm"), Tool(find("oras"), work / "oras")
    for version in ("1.0.0", "1.1.0+build.5"):
        helm("push", pack(work, "app", version), f"oci://{host}/team-a", "--plain-http")
    (oras.home / "notes.txt").write_text("what was built\n" * 1000)
    (oras.home / "bill.json").write_text('{"parts": []}\n')
    oras("push", f"{host}/tools/notes:1", "--artifact-type", "application/vnd.notes", "notes.txt", "--plain-http")
    bill = ("--artifact-type", "application/vnd.bill", "bill.json:application/json")
    oras("attach", f"{host}/tools/notes:1", *bill, "--plain-http")


def import_folder(server: Server, folder: Path) -> str:
    data = [
        "--data",
        server.settings.data,
        *(["--database", server.settings.database] if server.settings.database else []),
    ]
    command = [sys.executable, "-m", "charthouse", "import", folder, *data]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_the_folder_of_a_distribution_is_taken_over(tmp_path: Path, database_url: str) -> None:
    """By what the same clients pull from both: the same bytes, the same digests."""
    configuration, root = tmp_path / "configuration.yml", tmp_path / "registry"
    configuration.write_text(DISTRIBUTION.format(root=root))
    with (
        distribution.serving(configuration) as host,
        serving(tmp_path, "--policy", "oci", database=database_url) as server,
    ):
        push_to(host, tmp_path)
        print(import_folder(server, root))
        helm, oras = Tool(find("helm4"), tmp_path / "helm"), Tool(find("oras"), tmp_path / "oras")
        for version in ("1.0.0", "1.1.0+build.5"):
            for place, of in (("theirs", host), ("ours", server.host)):
                (tmp_path / place).mkdir(exist_ok=True)
                helm("pull", f"oci://{of}/team-a/app", "--version", version, "-d", tmp_path / place, "--plain-http")
            name = f"app-{version}.tgz"
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
        for repository in ("team-a/app", "tools/notes"):
            tags = httpx.get(f"http://{host}/v2/{repository}/tags/list").json()["tags"]
            assert server.tags(repository) == sorted(tags)
            for tag in tags:
                theirs, ours = (
                    httpx.get(
                        f"http://{of}/v2/{repository}/manifests/{tag}",
                        headers={"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"},
                    )
                    for of in (host, server.host)
                )
                assert (ours.status_code, ours.content) == (200, theirs.content)
                for header in ("content-type", "docker-content-digest"):
                    assert ours.headers[header] == theirs.headers[header]
        found = oras("discover", f"{server.host}/tools/notes:1", "--plain-http", "--format", "json")
        assert "application/vnd.bill" in found
        digest = server.digest("tools/notes", "1")
        referrers = server.request("GET", f"tools/notes/referrers/{digest}").json()["manifests"]
        assert [each["artifactType"] for each in referrers] == ["application/vnd.bill"]
        oras("copy", f"{server.host}/tools/notes:1", "--from-plain-http", "-r", "--to-oci-layout", f"{tmp_path}/copy:1")
