"""Helm 3 and Helm 4, the newest of both: every command that speaks to a registry, and what it sends for it.

The tables of requests are what Helm was seen to do. A new Helm that does something else is noticed here first.
"""

import json
from pathlib import Path

import pytest

from support import charts, helm_page
from support.charts import Signer
from support.kubernetes import Kubernetes
from support.recorder import Recorder
from support.server import Server
from support.tools import Tool, find

pytestmark = pytest.mark.clients

PAGE_SIZE = 4 * 1024 * 1024  # bytes of a page that Helm still reads
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json,"
    " application/vnd.oci.artifact.manifest.v1+json"
)


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


def _pull_requests(repository: str, reference: str) -> list[str]:
    return [
        f"GET {repository}/manifests/{reference} 200",
        f"GET {repository}/blobs/<chart> 200",
        f"GET {repository}/blobs/<config> 200",
    ]


# --- push -------------------------------------------------------------------------------------------------------------


def test_a_new_chart_is_ten_requests(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    answer = helm("push", charts.pack(work, "app", "0.1.0"), f"oci://{recorder.host}/{namespace}", "--plain-http")
    assert f"Pushed: {recorder.host}/{namespace}/app:0.1.0" in answer
    first, *_, last = recorder.exchanges
    assert first.request["accept"] == MANIFEST_TYPES
    assert last.request["content-type"] == "application/vnd.oci.image.manifest.v1+json"

    app = f"{namespace}/app"
    digests = server.digests(app, "0.1.0")
    assert digests["manifest"] in answer
    assert recorder.take(**digests) == [
        f"HEAD {app}/manifests/<manifest> 404",
        f"HEAD {app}/blobs/<chart> 404",
        f"HEAD {app}/blobs/<config> 404",
        f"POST {app}/blobs/uploads/ 202",
        f"POST {app}/blobs/uploads/ 202",
        f"PUT {app}/blobs/uploads/<id>?digest=<chart> 201",
        f"PUT {app}/blobs/uploads/<id>?digest=<config> 201",
        f"PUT {app}/manifests/<manifest> 201",
        f"GET {app}/manifests/<manifest> 200",
        f"PUT {app}/manifests/0.1.0 201",
    ]


def test_a_chart_with_provenance_is_thirteen_requests_and_verifies_when_it_is_pulled(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path, signer: Signer
) -> None:
    archive = charts.pack(work, "app", "0.1.0")
    provenance = signer.sign(archive)
    helm("push", archive, f"oci://{recorder.host}/{namespace}", "--plain-http")
    app = f"{namespace}/app"
    digests = server.digests(app, "0.1.0")
    assert len(recorder.exchanges) == 13
    assert f"PUT {app}/blobs/uploads/<id>?digest=<prov> 201" in recorder.take(**digests)

    where = f"oci://{recorder.host}/{app}"
    answer = helm(
        "pull", where, "--version", "0.1.0", "--verify", "--keyring", signer.keyring, "--prov", "--plain-http"
    )
    assert "Signed by: Charthouse's tests <tests@charthouse.example>" in answer
    assert "Chart Hash Verified: " + digests["chart"] in answer
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert (helm.home / provenance.name).read_bytes() == provenance.read_bytes()
    assert recorder.take(**digests) == [
        *_pull_requests(app, "0.1.0"),
        f"GET {app}/manifests/0.1.0 200",
        f"GET {app}/blobs/<config> 200",
        f"GET {app}/blobs/<prov> 200",
    ]


def test_a_signature_of_another_key_is_refused_by_helm(
    helm: Tool, server: Server, namespace: str, work: Path, tmp_path: Path, signer: Signer
) -> None:
    archive = charts.pack(work, "app", "0.1.0")
    Signer(tmp_path).sign(archive)
    where = f"oci://{server.host}/{namespace}"
    helm("push", archive, where, "--plain-http")
    answer = helm("pull", f"{where}/app", "--verify", "--keyring", signer.keyring, "--plain-http", status=1)
    assert "openpgp: signature made by unknown entity" in answer


def test_the_same_archive_pushed_twice_is_three_requests(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    archive, where = charts.pack(work, "app", "0.1.0"), f"oci://{recorder.host}/{namespace}"
    first = helm("push", archive, where, "--plain-http")
    recorder.take()
    assert helm("push", archive, where, "--plain-http") == first
    app = f"{namespace}/app"
    assert recorder.take(**server.digests(app, "0.1.0")) == [
        f"HEAD {app}/manifests/<manifest> 200",
        f"GET {app}/manifests/<manifest> 200",
        f"PUT {app}/manifests/0.1.0 201",
    ]


def test_another_archive_of_the_same_version_takes_its_place(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    where = f"oci://{server.host}/{namespace}"
    helm("push", charts.pack(work, "app", "0.1.0"), where, "--plain-http")
    second = charts.pack(work, "app", "0.1.0", appVersion="2")
    helm("push", second, where, "--plain-http")
    helm("pull", f"{where}/app", "--version", "0.1.0", "--plain-http")
    assert (helm.home / "app-0.1.0.tgz").read_bytes() == second.read_bytes()


def test_a_plus_in_a_version_is_an_underscore_in_its_tag(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    archive, where = charts.pack(work, "app", "1.2.3+build.5"), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, "--plain-http")
    assert server.tags(f"{namespace}/app") == ["1.2.3_build.5"]
    helm("pull", f"{where}/app", "--version", "1.2.3+build.5", "--plain-http")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert "version: 1.2.3+build.5" in helm("show", "chart", f"{where}/app", "--version", "^1.2", "--plain-http")


def test_a_version_with_a_v_is_found_by_its_name_only(helm: Tool, server: Server, namespace: str, work: Path) -> None:
    archive, where = charts.pack(work, "app", "v1.2.3"), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, "--plain-http")
    helm("pull", f"{where}/app", "--version", "v1.2.3", "--plain-http")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    answer = helm("pull", f"{where}/app", "--version", "^1", "--plain-http", status=1)
    assert "nable to locate any tags" in answer


# --- pull, show, template ---------------------------------------------------------------------------------------------


def test_a_version_is_three_requests(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    archive, app = charts.pack(work, "app", "0.1.0"), f"{namespace}/app"
    helm("push", archive, f"oci://{recorder.host}/{namespace}", "--plain-http")
    digests = server.digests(app, "0.1.0")
    recorder.take()
    helm("pull", f"oci://{recorder.host}/{app}", "--version", "0.1.0", "--plain-http")
    assert (helm.home / archive.name).read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == _pull_requests(app, "0.1.0")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["--version", "^1.0"], "1.10.0"),
        (["--version", "~1.2.0"], "1.2.0"),
        (["--version", ">=1.0.0 <1.5.0"], "1.2.0"),
        ([], "2.0.0"),
        (["--devel"], "3.0.0-rc.1"),
    ],
    ids=["caret", "tilde", "between", "newest", "devel"],
)
def test_a_range_is_the_list_of_tags_and_three_requests(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path, asked: list[str], found: str
) -> None:
    app = f"{namespace}/app"
    for version in ("1.2.0", "1.10.0", "2.0.0", "3.0.0-rc.1"):
        helm("push", charts.pack(work, "app", version), f"oci://{recorder.host}/{namespace}", "--plain-http")
    recorder.take()
    helm("pull", f"oci://{recorder.host}/{app}", *asked, "--plain-http")
    assert [archive.name for archive in helm.home.glob("*.tgz")] == [f"app-{found}.tgz"]
    requests = recorder.take(**server.digests(app, found))
    assert requests == [f"GET {app}/tags/list 200", *_pull_requests(app, found)]


def test_a_digest_is_three_requests(helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path) -> None:
    archive, app = charts.pack(work, "app", "0.1.0"), f"{namespace}/app"
    helm("push", archive, f"oci://{recorder.host}/{namespace}", "--plain-http")
    digests = server.digests(app, "0.1.0")
    recorder.take()
    helm("pull", f"oci://{recorder.host}/{app}@{digests['manifest']}", "--plain-http")
    saved = helm.home / f"app@{digests['manifest'].replace(':', '-')}.tgz"
    assert saved.read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == _pull_requests(app, "<manifest>")


def test_a_tag_with_a_digest_asks_for_the_tag_first(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    app = f"{namespace}/app"
    for version in ("0.1.0", "0.2.0"):
        helm("push", charts.pack(work, "app", version), f"oci://{recorder.host}/{namespace}", "--plain-http")
    digests = server.digests(app, "0.1.0")
    recorder.take()
    helm("pull", f"oci://{recorder.host}/{app}:0.1.0@{digests['manifest']}", "--plain-http")
    assert recorder.take(**digests) == [f"HEAD {app}/manifests/0.1.0 200", *_pull_requests(app, "<manifest>")]
    mismatch = helm("pull", f"oci://{recorder.host}/{app}:0.2.0@{digests['manifest']}", "--plain-http", status=1)
    assert "chart reference digest mismatch" in mismatch


def test_what_is_not_there_is_not_found(helm: Tool, server: Server, namespace: str, work: Path) -> None:
    where = f"oci://{server.host}/{namespace}"
    helm("push", charts.pack(work, "app", "0.1.0"), where, "--plain-http")
    assert "not found" in helm("pull", f"{where}/app", "--version", "0.2.0", "--plain-http", status=1)
    unknown = helm("pull", f"{where}/other", "--plain-http", status=1)
    assert f"name unknown: there is no repository {namespace}/other" in unknown


def test_show_and_template_read_the_chart(helm: Tool, server: Server, namespace: str, work: Path) -> None:
    where = f"oci://{server.host}/{namespace}"
    helm("push", charts.pack(work, "app", "0.1.0"), where, "--plain-http")
    reference = (f"{where}/app", "--version", "0.1.0", "--plain-http")
    shown = helm("show", "all", *reference)
    assert "description: The chart app" in shown
    assert "greeting: hello from app 0.1.0" in shown
    assert "# app" in shown
    assert 'greeting: "hello from app 0.1.0"' in helm("template", "release", *reference)


def test_a_range_over_twelve_thousand_tags_takes_pages_that_helm_can_read(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    app = f"{namespace}/app"
    helm("push", charts.pack(work, "app", "1.11999.0"), f"oci://{recorder.host}/{namespace}", "--plain-http")
    server.add_tags(app, "1.11999.0", [f"1.{minor}.0" for minor in range(11_999)])
    recorder.take()
    helm("pull", f"oci://{recorder.host}/{app}", "--version", "^1.0", "--plain-http")
    assert (helm.home / "app-1.11999.0.tgz").exists()
    pages = [exchange for exchange in recorder.exchanges if "/tags/list" in exchange.target]
    print(f"{len(pages)} pages of at most {max(len(page.body) for page in pages):,} bytes")
    assert sum(len(page_tags(page.body)) for page in pages) == 12_000
    assert max(len(page.body) for page in pages) < PAGE_SIZE
    assert all(page.answer.get("link", "</v2/").startswith("</v2/") for page in pages)


def page_tags(body: bytes) -> list[str]:
    return json.loads(body)["tags"]


# --- dependencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "listed"), [("1.0.0", 0), ("^1.0", 1)], ids=["exact", "range"])
def test_a_dependency_is_three_requests_and_the_list_of_tags_for_a_range(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path, asked: str, listed: int
) -> None:
    where = f"oci://{recorder.host}/{namespace}"
    archive = charts.pack(work, "library", "1.0.0")
    helm("push", archive, where, "--plain-http")
    dependency = {"name": "library", "version": asked, "repository": where}
    parent = charts.write(work, "parent", "0.1.0", dependencies=[dependency])
    library = f"{namespace}/library"
    digests = server.digests(library, "1.0.0")
    recorder.take()

    helm("dependency", "update", parent, "--plain-http")
    assert (parent / "charts" / archive.name).read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == [f"GET {library}/tags/list 200"] * listed + _pull_requests(library, "1.0.0")
    (parent / "charts" / archive.name).unlink()
    helm("dependency", "build", parent, "--plain-http")
    assert (parent / "charts" / archive.name).read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == _pull_requests(library, "1.0.0")


def test_a_range_that_nothing_satisfies_names_it(
    helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path
) -> None:
    where = f"oci://{recorder.host}/{namespace}"
    helm("push", charts.pack(work, "library", "1.0.0"), where, "--plain-http")
    dependency = {"name": "library", "version": "^2.0", "repository": where}
    parent = charts.write(work, "parent", "0.1.0", dependencies=[dependency])
    recorder.take()
    answer = helm("dependency", "update", parent, "--plain-http", status=1)
    assert "ould not locate a version matching provided version string ^2.0" in answer
    assert recorder.take() == [f"GET {namespace}/library/tags/list 200"] * 2


# --- install and upgrade ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)  # Helm 3 asks for the cluster's version all the same
def test_a_dry_run_needs_no_cluster(helm: Tool, server: Server, recorder: Recorder, namespace: str, work: Path) -> None:
    app = f"{namespace}/app"
    helm("push", charts.pack(work, "app", "0.1.0"), f"oci://{recorder.host}/{namespace}", "--plain-http")
    digests = server.digests(app, "0.1.0")
    recorder.take()
    where = f"oci://{recorder.host}/{app}"
    answer = helm("install", "mine", where, "--version", "0.1.0", "--dry-run=client", "--plain-http")
    assert 'greeting: "hello from app 0.1.0"' in answer
    assert recorder.take(**digests) == _pull_requests(app, "0.1.0")


def test_a_chart_is_installed_and_upgraded_from_the_registry(
    helm: Tool, server: Server, kubernetes: Kubernetes, namespace: str, work: Path
) -> None:
    cluster = {"KUBECONFIG": str(kubernetes.write_config(work / "kubeconfig"))}
    where = f"oci://{server.host}/{namespace}"
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        helm("push", charts.pack(work, "app", version), where, "--plain-http")

    helm("install", "mine", f"{where}/app", "--version", "0.1.0", "--plain-http", **cluster)
    assert _greeting(kubernetes, "mine") == "hello from app 0.1.0"
    helm("upgrade", "mine", f"{where}/app", "--version", "0.2.0", "--plain-http", **cluster)
    assert _greeting(kubernetes, "mine") == "hello from app 0.2.0"
    answer = helm("upgrade", "--install", "mine", f"{where}/app", "--version", "^0", "--plain-http", **cluster)
    assert _greeting(kubernetes, "mine") == "hello from app 0.3.0"
    assert "REVISION: 3" in answer
    helm("upgrade", "--install", "other", f"{where}/app", "--plain-http", **cluster)
    assert _greeting(kubernetes, "other") == "hello from app 0.3.0"


def _greeting(kubernetes: Kubernetes, release: str) -> str:
    return kubernetes.config_maps[f"{release}-settings"]["data"]["greeting"]


# --- Helm's page "Use OCI-based registries" ---------------------------------------------------------------------------


def test_every_command_of_helms_page_about_registries(
    helm: Tool, server: Server, kubernetes: Kubernetes, namespace: str, work: Path
) -> None:
    helm_page.run(helm, kubernetes, server.host, namespace, work, "--plain-http")
