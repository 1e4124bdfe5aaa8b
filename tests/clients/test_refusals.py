"""What a person sees behind `helm push` when the registry says no, word for word, of Helm 3 and Helm 4.

Helm looks at an archive before it pushes, so no push of it reaches every rule: those that none reaches stand at the
end, each with the reason. Over HTTP all are in `../test_charts.py`, on both databases.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from charthouse.composition import open_existing
from charthouse.helm import rules
from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest, Namespace
from charthouse.namespaces import Namespaces
from charthouse.quotas import said
from helm.charts import chart, member, tgz, unsigned
from support.charts import Signer
from support.requests import image
from support.server import Server, serving
from support.tools import Tool, find

pytestmark = pytest.mark.clients

CHART_YAML = b"apiVersion: v2\nname: app\nversion: 1.2.3\n"
HEX = "0" * 64
PUT = (
    'Error: failed to perform "{}" on destination: PUT "http://<host>/v2/<namespace>/{}": response status code {}: {}\n'
)
OLD = (
    'Error: failed commit on ref "manifest-<pushed>": unexpected status from PUT request to'
    " http://<host>/v2/<namespace>/app/manifests/1.2.3: {}\n"
)
SIGN_AGAIN = "; sign this archive again (helm package --sign), or push it without the .prov"


@dataclass(frozen=True)
class Refused:
    rule: rules.Rule
    message: str
    archive: bytes = field(default_factory=lambda: chart(chart_yaml=CHART_YAML))
    provenance: bytes | None = None


CASES = [
    Refused(
        rules.archive_and_chart_yaml_can_be_read,
        "the archive has the device 'app/dev'; leave it out",
        tgz(member("app/Chart.yaml", CHART_YAML), member("app/dev", type=b"3")),
    ),
    Refused(
        rules.archive_and_chart_yaml_can_be_read,
        "the archive's member '../x' is outside of the chart's folder; make it with helm package",
        tgz(member("app/Chart.yaml", CHART_YAML), member("../x", b"x")),
    ),
    Refused(
        rules.archive_and_chart_yaml_can_be_read,
        "the archive's member '/app/x' is absolute; make it with helm package",
        tgz(member("app/Chart.yaml", CHART_YAML), member("/app/x", b"x")),
    ),
    Refused(
        rules.archive_and_chart_yaml_can_be_read,
        "the archive has more than 10,000 members",
        tgz(member("app/Chart.yaml", CHART_YAML), *(member(f"app/{number}") for number in range(10_000))),
    ),
    Refused(
        rules.archive_and_chart_yaml_can_be_read,
        "Chart.yaml: it has 1,048,616 bytes, at most 1,048,576 are allowed",
        chart(chart_yaml=CHART_YAML + b"#" * 1024 * 1024),
    ),
    Refused(
        rules.api_version_is_v1_or_v2,
        "Chart.yaml: apiVersion is 'v9'; write v2 (Helm 3 and newer) or v1",
        chart(chart_yaml=CHART_YAML.replace(b"v2", b"v9")),
    ),
    Refused(
        rules.top_folder_is_the_chart_name,
        "the archive's folder is 'App', the chart's name is 'app'; package it again with helm package",
        chart(chart_yaml=CHART_YAML, top="App"),
    ),
    Refused(
        rules.archive_has_one_top_folder,
        "the archive has 2 top folders ('app', 'b'); package it again with helm package",
        tgz(member("app/Chart.yaml", CHART_YAML), member("b/values.yaml")),
    ),
    Refused(
        rules.provenance_is_of_this_archive,
        f"the provenance file says that app-1.2.3.tgz is 'sha256:{HEX}', the chart layer is <chart>{SIGN_AGAIN}",
        provenance=unsigned(f"  app-1.2.3.tgz: sha256:{HEX}"),
    ),
    Refused(
        rules.provenance_is_of_this_archive,
        f"the provenance file is about 'app-1.2.4.tgz', not app-1.2.3.tgz{SIGN_AGAIN}",
        provenance=unsigned(f"  app-1.2.4.tgz: sha256:{HEX}"),
    ),
    Refused(
        rules.provenance_is_of_this_archive,
        f"the provenance file cannot be read: it is no clear-signed text{SIGN_AGAIN}",
        provenance=b"junk",
    ),
    Refused(  # Helm would show nothing of 8 KiB
        rules.provenance_is_of_this_archive,
        ("the provenance file is about " + ", ".join(f"'{number}.tgz'" for number in range(999)))[:1000] + "…",
        provenance=unsigned("".join(f"  {number}.tgz: sha256:{HEX}\n" for number in range(999))),
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--versions", "immutable") as server:
        yield server


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture
def helm_old(tmp_path: Path) -> Tool:
    return Tool(find("helm3.14"), tmp_path / "home")


def write(folder: Path, content: bytes, provenance: bytes | None = None) -> Path:
    archive = folder / "app-1.2.3.tgz"
    archive.write_bytes(content)
    if provenance is not None:
        archive.with_name(f"{archive.name}.prov").write_bytes(provenance)
    return archive


def refused(helm: Tool, archive: Path, server: Server, path: str) -> str:
    """What Helm writes when it pushes, with placeholders for what differs from time to time."""
    there = _digest_there(server, f"{path}/app")
    text = helm("push", archive, f"oci://{server.host}/{path}", "--plain-http", status=1)
    for value, placeholder in (
        (server.host, "<host>"),
        (path.partition("/")[0], "<namespace>"),
        (Digest.of(archive.read_bytes()), "<chart>"),
        (there, "<there>"),
    ):
        text = text.replace(value, placeholder)
    text = re.sub(r"uploads/[\w=-]+\?digest=sha256%3A[0-9a-f]{64}", "uploads/<upload>", text)
    text = re.sub("(manifests/|manifest-)sha256:[0-9a-f]{64}", r"\1<pushed>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>", text)


def on_registry(server: Server, work: Callable[[Namespaces], Awaitable[object]]) -> None:
    async def run() -> None:
        registry = await open_existing(server.settings)
        await work(registry.namespaces)
        await registry.close()

    asyncio.run(run())


def _digest_there(server: Server, repository: str) -> str:
    try:
        return server.digest(repository, "1.2.3")
    except httpx.HTTPStatusError:
        return "<nothing is there>"


def by_digest(message: str, path: str = "app") -> str:
    """Refused at the first PUT."""
    return PUT.format("Push", f"{path}/manifests/<pushed>", 400, f"manifest invalid: {message}")


def denied(fix: str) -> str:
    fact = "<namespace>/app has version 1.2.3 already, and versions cannot be replaced: <there> was pushed <time>"
    return PUT.format("Push", "app/manifests/<pushed>", 409, f"denied: {fact}\n{fix}")


def tags(server: Server, repository: str) -> dict[str, str]:
    return {tag: server.digest(repository, tag) for tag in server.tags(repository)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule.__name__}-{case.message[:40]}")
def test_a_rule_speaks_through_helm_at_the_first_put(
    helm: Tool, server: Server, namespace: str, work: Path, case: Refused
) -> None:
    archive = write(work, case.archive, case.provenance)
    assert refused(helm, archive, server, namespace) == by_digest(case.message)
    assert tags(server, f"{namespace}/app") == {}


def test_all_faults_are_shown_a_line_each(helm: Tool, server: Server, namespace: str, work: Path) -> None:
    archive = write(work, chart(chart_yaml=CHART_YAML.replace(b"v2", b"v9"), top="App"), b"junk")
    assert refused(helm, archive, server, namespace) == by_digest(
        "Chart.yaml: apiVersion is 'v9'; write v2 (Helm 3 and newer) or v1\n"
        "the archive's folder is 'App', the chart's name is 'app'; package it again with helm package\n"
        f"the provenance file cannot be read: it is no clear-signed text{SIGN_AGAIN}"
    )


def test_a_file_that_only_helm_4_would_push_is_refused(server: Server, namespace: str, work: Path) -> None:
    archive = write(work, chart({"big": bytes(5 * 1024 * 1024 + 1)}, chart_yaml=CHART_YAML))
    helm3, helm4 = (Tool(find(name), work / name) for name in ("helm3", "helm4"))
    assert helm3("push", archive, f"oci://{server.host}/{namespace}", "--plain-http", status=1) == (
        'Error: decompressed chart file "app/big" is larger than the maximum file size 5242880\n'
    )
    assert refused(helm4, archive, server, namespace) == by_digest(
        "'big' has 5,242,881 bytes, at most 5,242,880 are allowed in one file; leave it out by .helmignore"
    )


def test_a_push_below_a_chart_of_that_name_asks_what_was_meant(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    archive, where = write(work, chart(chart_yaml=CHART_YAML)), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, "--plain-http")
    assert refused(helm, archive, server, f"{namespace}/app") == by_digest(
        "the repository is <namespace>/app/app, and <namespace>/app already is a chart; Helm appends the chart's name:"
        " did you mean oci://<host>/<namespace>?",
        "app/app",
    )


def test_a_signature_that_the_namespace_demands_is_asked_for(
    helm: Tool, server: Server, namespace: str, work: Path, signer: Signer
) -> None:
    """signature_is_verified: without a .prov, and with one of a key that is not in the keyring; then it is added."""
    on_registry(server, lambda namespaces: namespaces.set(Namespace(namespace), {"signatures": "verified"}))
    archive = write(work, chart(chart_yaml=CHART_YAML))
    assert refused(helm, archive, server, namespace) == by_digest(
        "charts of this namespace have to be signed, and this one has no provenance file; package it with helm package"
        " --sign, and push it with the .prov beside it"
    )
    signer.sign(archive)
    said = re.sub("the key [0-9A-F]{16}", "the key <id>", refused(helm, archive, server, namespace))
    assert said == by_digest(
        "charts of this namespace have to be signed with a key of its keyring, and this one is signed with another:"
        " signed by the key <id>, which is in no keyring; sign it with such a key, or have yours added with"
        " `charthouse keyring add`"
    )
    on_registry(server, lambda namespaces: namespaces.add_keys(Namespace(namespace), signer.public_key))
    assert "Pushed: " in helm("push", archive, f"oci://{server.host}/{namespace}", "--plain-http")


def test_a_tag_of_something_else_is_refused_at_the_second_put(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    app, body = f"{namespace}/app", image()
    server.request("POST", f"{app}/blobs/uploads/", params={"digest": Digest.of(b"{}")}, content=b"{}")
    server.request("PUT", f"{app}/manifests/1.2.3", content=body, headers={"Content-Type": OCI_MANIFEST})
    assert refused(helm, write(work, chart(chart_yaml=CHART_YAML)), server, namespace) == PUT.format(
        "Tag",
        "app/manifests/1.2.3",
        400,
        "manifest invalid: the tag '1.2.3' names no chart, and this manifest is a chart; use another repository, or"
        " delete the tag first",
    )
    assert tags(server, app) == {"1.2.3": Digest.of(body)}


# --- versions that may not be replaced --------------------------------------------------------------------------------


def test_another_chart_of_a_version_is_refused_at_the_first_put(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    helm("push", write(work, chart(chart_yaml=CHART_YAML)), f"oci://{server.host}/{namespace}", "--plain-http")
    before = tags(server, f"{namespace}/app")
    other = write(work, chart({"values.yaml": b"a: 1"}, chart_yaml=CHART_YAML))
    assert refused(helm, other, server, namespace) == denied("raise the version in Chart.yaml")
    assert tags(server, f"{namespace}/app") == before


def test_a_chart_packed_again_is_told_that_only_its_times_differ(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    first, later = (tgz(member("app/Chart.yaml", CHART_YAML, mtime=when)) for when in (1, 2))
    helm("push", write(work, first), f"oci://{server.host}/{namespace}", "--plain-http")
    assert refused(helm, write(work, later), server, namespace) == denied(
        "the files are the same, only their times differ: with Helm 4 set SOURCE_DATE_EPOCH before packaging, with Helm"
        " 3 push the same .tgz again instead of packaging it again; or raise the version"
    )


def test_the_same_archive_of_another_time_is_pushed_and_the_tag_stays(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    """Helm writes the file's time into the manifest."""
    archive, where = write(work, chart(chart_yaml=CHART_YAML)), f"oci://{server.host}/{namespace}"
    digests = []
    for when in (1_700_000_000, 1_800_000_000):
        os.utime(archive, (when, when))
        digests.append(re.search(r"Digest: (sha256:\w+)", helm("push", archive, where, "--plain-http"))[1])
    assert digests[0] != digests[1]
    assert tags(server, f"{namespace}/app") == {"1.2.3": digests[0]}
    assert server.digest(f"{namespace}/app", digests[1]) == digests[1]


def test_the_first_signature_moves_the_tag_and_another_one_is_refused(
    helm: Tool, server: Server, namespace: str, work: Path, signer: Signer
) -> None:
    archive, where = write(work, chart(chart_yaml=CHART_YAML)), f"oci://{server.host}/{namespace}"
    helm("push", archive, where, "--plain-http")
    signed = signer.sign(archive)
    helm("push", archive, where, "--plain-http")
    assert server.digests(f"{namespace}/app", "1.2.3")["prov"] == Digest.of(signed.read_bytes())
    signed.write_bytes(signed.read_bytes() + b"\n")
    assert refused(helm, archive, server, namespace) == denied("raise the version in Chart.yaml")


# --- quotas -----------------------------------------------------------------------------------------------------------


def limit(server: Server, namespace: str, **values: str) -> None:
    on_registry(server, lambda namespaces: namespaces.set(Namespace(namespace), values))


def random_chart(size: int) -> bytes:
    """That no compression makes smaller."""
    return chart({"files/random": os.urandom(size)}, chart_yaml=CHART_YAML)


@pytest.mark.parametrize("size", [50_000, 4_000_000], ids=["small", "more than is read of a body after its answer"])
def test_a_quota_is_told_with_its_numbers_at_the_blob_that_is_too_much(
    helm: Tool, server: Server, namespace: str, work: Path, size: int
) -> None:
    limit(server, namespace, quota_bytes="40000")
    archive = write(work, random_chart(size))
    length = archive.stat().st_size
    assert refused(helm, archive, server, namespace) == PUT.format(
        "Push",
        "app/blobs/uploads/<upload>",
        403,
        f"denied: namespace <namespace> holds 0 bytes of its 39.1 KiB; this push needs {said(length)} more: delete"
        " versions (`charthouse delete`), or have the quota raised (`charthouse namespace set <namespace>"
        f" quota_bytes=…`): bytes: used 0, limit 40000, wanted {length}",
    )


def test_a_quota_that_is_reached_ends_a_push_before_anything_is_sent(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    where, archive = f"oci://{server.host}/{namespace}", write(work, chart(chart_yaml=CHART_YAML))
    helm("push", archive, where, "--plain-http")
    limit(server, namespace, quota_manifests="1")
    helm("push", archive, where, "--plain-http")  # the same again is no more
    full = "denied: namespace <namespace> holds 1 of its 1 manifests: delete versions"
    assert full in refused(helm, write(work, random_chart(50_000)), server, namespace)


def test_a_blob_larger_than_its_namespace_allows_is_told_so(
    helm: Tool, server: Server, namespace: str, work: Path
) -> None:
    limit(server, namespace, blob_limit="40000")
    assert refused(helm, write(work, random_chart(50_000)), server, namespace) == PUT.format(
        "Push",
        "app/blobs/uploads/<upload>",
        413,
        "size invalid: the blob has more than 40,000 bytes (blob_limit, namespace <namespace>)",
    )


# --- Helm 3.14 shows the status only ----------------------------------------------------------------------------------


def test_helm_3_14_shows_400_for_a_rule(helm_old: Tool, server: Server, namespace: str, work: Path) -> None:
    archive = write(work, chart(chart_yaml=CHART_YAML, top="App"))
    assert refused(helm_old, archive, server, namespace) == OLD.format("400 Bad Request")


def test_helm_3_14_shows_409_for_a_version(helm_old: Tool, server: Server, namespace: str, work: Path) -> None:
    helm_old("push", write(work, chart(chart_yaml=CHART_YAML)), f"oci://{server.host}/{namespace}", "--plain-http")
    other = write(work, chart({"values.yaml": b"a: 1"}, chart_yaml=CHART_YAML))
    assert refused(helm_old, other, server, namespace) == OLD.format("409 Conflict")


def test_helm_3_14_shows_403_for_a_quota(helm_old: Tool, server: Server, namespace: str, work: Path) -> None:
    limit(server, namespace, quota_bytes="40000")
    said = refused(helm_old, write(work, random_chart(50_000)), server, namespace)
    assert "unexpected status from PUT request to" in said
    assert said.endswith("403 Forbidden\n")


# --- all of them ------------------------------------------------------------------------------------------------------

_HELM_MAKES_IT = "Helm makes manifest, config and tag from the archive"
_HELM_REFUSES = "Helm refuses the chart itself (Metadata.Validate)"
UNREACHED: dict[rules.Rule, str] = {
    rules.manifest_is_an_oci_image_manifest: _HELM_MAKES_IT,
    rules.manifest_has_one_chart_layer: _HELM_MAKES_IT,
    rules.manifest_has_at_most_one_provenance_layer: _HELM_MAKES_IT,
    rules.manifest_has_no_other_layers: _HELM_MAKES_IT,
    rules.chart_layer_has_the_present_media_type: _HELM_MAKES_IT,
    rules.config_can_be_read: _HELM_MAKES_IT,
    rules.config_has_the_chart_name: _HELM_MAKES_IT,
    rules.config_has_the_chart_version: _HELM_MAKES_IT,
    rules.config_says_what_chart_yaml_says: "it warns",
    rules.repository_ends_with_the_chart_name: _HELM_MAKES_IT,
    rules.tag_is_the_chart_version: _HELM_MAKES_IT,
    rules.name_is_a_name: _HELM_REFUSES,
    rules.version_is_semantic: _HELM_REFUSES,
    rules.type_is_application_or_library: _HELM_REFUSES,
    rules.aliases_are_names: _HELM_REFUSES,
    rules.dependencies_have_different_names: _HELM_REFUSES,
    rules.version_is_not_lower_than_the_newest: "it warns",
}


def test_every_rule_is_reached_or_there_is_a_reason() -> None:
    beside_the_table = {
        rules.repository_does_not_repeat_the_chart_name,
        rules.signature_is_verified,
        rules.tag_keeps_its_kind,
    }
    assert {case.rule for case in CASES} | beside_the_table | UNREACHED.keys() == {*rules.RULES, *rules.TAG_RULES}


@pytest.mark.parametrize(
    "chart_yaml",
    [
        pytest.param("apiVersion: v2\nname: a/b\nversion: 1.2.3", id="name_is_a_name"),
        pytest.param("apiVersion: v2\nname: app\nversion: latest", id="version_is_semantic"),
        pytest.param("apiVersion: v2\nname: app\nversion: 1.2.3\ntype: x", id="type_is_application_or_library"),
        pytest.param(
            "apiVersion: v2\nname: app\nversion: 1.2.3\ndependencies: [{name: db, alias: a/b}]", id="aliases_are_names"
        ),
        pytest.param(
            "apiVersion: v2\nname: app\nversion: 1.2.3\ndependencies: [{name: db}, {name: db}]",
            id="dependencies_have_different_names",
        ),
    ],
)
def test_what_helm_refuses_itself_is_never_sent(
    helm: Tool, server: Server, namespace: str, work: Path, chart_yaml: str
) -> None:
    archive = write(work, chart(chart_yaml=chart_yaml.encode()))
    answer = helm("push", archive, f"oci://{server.host}/{namespace}", "--plain-http", status=1)
    assert answer.startswith("Error: validation: ")
