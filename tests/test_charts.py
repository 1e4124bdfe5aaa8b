"""Charts at push, over HTTP: what is let in, what is refused and at which PUT, and what becomes of a version's tag.

Helm ≥ 3.18 puts a manifest by its digest and then by its tag; so does `push` here. The rules by themselves are in
`helm/test_rules.py`.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx
import pytest

import test_namespaces
from charthouse.core import Registry
from charthouse.helm import rules
from charthouse.manifest import (
    CHART_CONFIG,
    CHART_LAYER,
    DOCKER_MANIFEST,
    LEGACY_CHART_LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    PROVENANCE_LAYER,
)
from charthouse.names import Digest, RepositoryName
from helm.charts import chart, member, tgz, unsigned
from support.requests import Remote, descriptor, encoded, error_of, image, index

pytest_plugins = ("support.shared",)

CHART_YAML = b"apiVersion: v2\nname: app\nversion: 1.2.3\n"
CONFIG = b'{"apiVersion":"v2","name":"app","version":"1.2.3"}'
HEX = "0" * 64
NOW = "2027-01-15 08:00:00 UTC"  # the clock of conftest.py
CREATED = "org.opencontainers.image.created"
HOST = "localhost:5000"
PUSH_AGAIN = "; push it with helm push"
PACKAGE = "; make it with helm package"
PACKAGE_AGAIN = "; package it again with helm package"
SIGN_AGAIN = "; sign this archive again (helm package --sign), or push it without the .prov"


@dataclass(frozen=True)
class Push:
    """What a client sends of a chart. Without arguments it breaks no rule."""

    archive: bytes = field(default_factory=lambda: chart(chart_yaml=CHART_YAML))
    config: bytes = CONFIG
    provenance: bytes | None = None
    tag: str = "1.2.3"
    repository: str = "app"
    media_type: str = OCI_MANIFEST
    changes: Mapping[str, object] = field(default_factory=dict)
    more: tuple[bytes, ...] = ()

    @property
    def layers(self) -> list[dict[str, object]]:
        prov = [] if self.provenance is None else [descriptor(self.provenance, PROVENANCE_LAYER)]
        return [*prov, descriptor(self.archive, CHART_LAYER)]

    @property
    def manifest(self) -> bytes:
        config = descriptor(self.config, CHART_CONFIG)
        return encoded({"schemaVersion": 2, "config": config, "layers": self.layers, **self.changes})

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def blobs(self) -> list[bytes]:
        return [self.config, self.archive, *([] if self.provenance is None else [self.provenance]), *self.more]


def told(chart_yaml: str, **given: object) -> Push:
    """A chart of which Chart.yaml and the config blob say the same."""
    fields = dict(line.split(": ", 1) for line in chart_yaml.splitlines() if line.startswith(("name", "version")))
    config = {"apiVersion": "v2", **fields}
    return Push(chart(chart_yaml=chart_yaml.encode()), encoded(config), **given)


def version(number: str, **files: bytes) -> Push:
    """Another version of the chart; with files it is another chart of that version."""
    chart_yaml = f"apiVersion: v2\nname: app\nversion: {number}\n".encode()
    config = CONFIG.replace(b"1.2.3", number.encode())
    return Push(chart(files, chart_yaml=chart_yaml), config, tag=number.replace("+", "_"))


def layered(*layers: tuple[str, bytes]) -> Push:
    described = [descriptor(content, media_type) for media_type, content in layers]
    return Push(changes={"layers": described}, more=tuple(content for _, content in layers))


def created(push: Push, when: str) -> Push:
    return replace(push, changes={**push.changes, "annotations": {CREATED: when}})


async def put_blobs(remote: Remote, push: Push) -> None:
    for blob in push.blobs:
        await remote.push_blob(blob)


async def by_digest(remote: Remote, push: Push) -> httpx.Response:
    """The blobs, and the first PUT of the manifest."""
    await put_blobs(remote, push)
    return await remote.put_manifest(push.manifest, None, push.media_type)


async def by_tag(remote: Remote, push: Push) -> httpx.Response:
    return await remote.put_manifest(push.manifest, push.tag, push.media_type)


async def pushed(remote: Remote, push: Push) -> None:
    """Both PUTs are answered as Helm demands, whatever becomes of the tag."""
    for response in (await by_digest(remote, push), await by_tag(remote, push)):
        assert response.status_code == 201, response.text
        assert response.headers["docker-content-digest"] == push.digest


async def tags(remote: Remote) -> dict[str, str]:
    """Each tag with the digest that it names."""
    names = (await remote.call("GET", "tags/list")).json()["tags"]
    answers = [await remote.call("HEAD", f"manifests/{name}") for name in names]
    return dict(zip(names, (answer.headers["docker-content-digest"] for answer in answers), strict=True))


async def charts(remote: Remote) -> set[str]:
    """The digests of the charts that the registry knows of."""
    registry: Registry = remote.client._transport.app.registry
    return {found.digest for found in await registry.list_charts(RepositoryName(remote.name))}


async def is_kept(remote: Remote, *pushes: Push) -> bool:
    """By their digests, byte for byte; False when none is, not even as a chart."""
    answers = [await remote.call("GET", f"manifests/{push.digest}") for push in pushes]
    known = {push.digest for push in pushes} & await charts(remote)
    if all(answer.status_code == 404 for answer in answers) and not known:
        return False
    assert [answer.content for answer in answers] == [push.manifest for push in pushes]
    assert known == {push.digest for push in pushes}
    return True


def under(**flags: str) -> pytest.MarkDecorator:
    """The test's `own` is a repository of a registry with these settings."""
    return pytest.mark.parametrize("flags", [flags], ids=["-".join(flags.values())])


@pytest.fixture
def flags():
    return {}


@pytest.fixture
def settings(make_settings, flags):
    return make_settings(**flags)


@pytest.fixture
def own(client):
    """A repository of an empty registry with the settings `flags` and the clock of conftest.py."""
    return Remote(client, "team/app")


# --- a chart without fault --------------------------------------------------------------------------------------------

WITH_PROVENANCE = Push(provenance=unsigned(f"  app-1.2.3.tgz: {Digest.of(chart(chart_yaml=CHART_YAML))}\n"))


@pytest.mark.parametrize(
    "push",
    [
        pytest.param(Push(), id="a chart"),
        pytest.param(WITH_PROVENANCE, id="with its provenance, whose layer comes first"),
        pytest.param(version("1.2.3+build.5"), id="a version with a plus"),
        pytest.param(version("v1.2"), id="a version that ranges do not see"),
        pytest.param(Push(chart(chart_yaml=CHART_YAML, top=".")), id="names that begin with ./"),
        pytest.param(
            Push(tgz(member("app/Chart.yaml", b"junk: ["), member("app/Chart.yaml", CHART_YAML))), id="of two the last"
        ),
        pytest.param(
            Push(config=CONFIG.replace(b"}", b',"icon":"x"}')), id="config_says_what_chart_yaml_says only warns"
        ),
    ],
)
async def test_a_chart_is_put_by_its_digest_and_then_by_its_tag(remote, push):
    here = Remote(remote.client, f"{remote.name}/app")
    first = await by_digest(here, push)
    assert (first.status_code, first.headers["docker-content-digest"]) == (201, push.digest), first.text
    assert await tags(here) == {}
    second = await by_tag(here, push)
    assert (second.status_code, second.headers["docker-content-digest"]) == (201, push.digest)
    assert await tags(here) == {push.tag: push.digest}
    assert await is_kept(here, push)


async def test_a_version_lower_than_the_newest_is_let_in(remote):
    here = Remote(remote.client, f"{remote.name}/app")
    for number in ("2.0.0", "1.0.0"):
        await pushed(here, version(number))
    assert set(await tags(here)) == {"2.0.0", "1.0.0"}


async def test_the_media_type_of_helm_3_6_is_let_in(remote):
    here = Remote(remote.client, f"{remote.name}/app")
    await pushed(here, LEGACY)
    assert await is_kept(here, LEGACY)


# --- the rules --------------------------------------------------------------------------------------------------------

LEGACY = layered((LEGACY_CHART_LAYER, Push().archive))
OTHER_PROV = b"-----BEGIN PGP SIGNED MESSAGE-----\n"
TOO_LONG = 5 * 1024 * 1024 + 1
DEVICE = tgz(member("app/Chart.yaml", CHART_YAML), member("app/dev", type=b"3"))
OUTSIDE = tgz(member("app/Chart.yaml", CHART_YAML), member("../x", b"x"))
TWO_FOLDERS = tgz(member("app/Chart.yaml", CHART_YAML), member("b/values.yaml"))
HEAD = "apiVersion: v2\nname: app\nversion: 1.2.3\n"

# Each breaks one rule, and the answer's message is the line of its finding: `{digest}` is the chart layer's.
REFUSED_BY_DIGEST = [
    (
        rules.manifest_is_an_oci_image_manifest,
        Push(media_type=DOCKER_MANIFEST),
        f"a chart's manifest is {OCI_MANIFEST}, not '{DOCKER_MANIFEST}'{PUSH_AGAIN}",
    ),
    (
        rules.manifest_has_one_chart_layer,
        layered(),
        f"the manifest has no chart layers ({CHART_LAYER}), a chart has one{PUSH_AGAIN}",
    ),
    (
        rules.manifest_has_one_chart_layer,
        layered((CHART_LAYER, Push().archive), (CHART_LAYER, b"another")),
        f"the manifest has 2 chart layers ({CHART_LAYER}), a chart has one{PUSH_AGAIN}",
    ),
    (
        rules.manifest_has_at_most_one_provenance_layer,
        layered((PROVENANCE_LAYER, b"1"), (CHART_LAYER, Push().archive), (PROVENANCE_LAYER, b"2")),
        f"the manifest has 2 provenance layers ({PROVENANCE_LAYER}), a chart has at most one",
    ),
    (
        rules.manifest_has_no_other_layers,
        layered((CHART_LAYER, Push().archive), ("text/plain", b"read me")),
        (
            "the manifest has a layer of type 'text/plain', which no chart has; attach it to the chart with a manifest"
            " of its own that names the chart as its subject"
        ),
    ),
    (
        rules.config_can_be_read,
        Push(config=b"{"),
        (
            "the config blob is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2"
            " (char 1); push the chart with helm push"
        ),
    ),
    (
        rules.config_can_be_read,
        Push(config=b"[]"),
        "the config blob's the document is a list, it must be a mapping of fields",
    ),
    (
        rules.archive_and_chart_yaml_can_be_read,
        Push(b"no gzip"),
        (
            "the chart's archive is no gzip tar: it cannot be inflated (Error -3 while decompressing data: incorrect"
            f" header check){PACKAGE}"
        ),
    ),
    (
        rules.archive_and_chart_yaml_can_be_read,
        Push(tgz(member("app/values.yaml"))),
        f"the archive has no <chart>/Chart.yaml (its first file is 'app/values.yaml'){PACKAGE}",
    ),
    (
        rules.archive_and_chart_yaml_can_be_read,
        Push(chart({"big": bytes(TOO_LONG)}, chart_yaml=CHART_YAML)),
        "'big' has 5,242,881 bytes, at most 5,242,880 are allowed in one file; leave it out by .helmignore",
    ),
    (rules.archive_and_chart_yaml_can_be_read, Push(DEVICE), "the archive has the device 'app/dev'; leave it out"),
    (
        rules.archive_and_chart_yaml_can_be_read,
        Push(OUTSIDE),
        f"the archive's member '../x' is outside of the chart's folder{PACKAGE}",
    ),
    (
        rules.archive_and_chart_yaml_can_be_read,
        told(f"{HEAD}description: [1]\n"),
        "Chart.yaml:4: description is a list, it must be a text",
    ),
    (
        rules.archive_and_chart_yaml_can_be_read,
        told(f"{HEAD}dependencies: [null]\n"),
        "Chart.yaml:4: dependencies[0] is null: dependencies must not contain empty or null nodes",
    ),
    (
        rules.api_version_is_v1_or_v2,
        told(HEAD.replace("v2", "v3")),
        "Chart.yaml: apiVersion is 'v3'; write v2 (Helm 3 and newer) or v1",
    ),
    (rules.name_is_a_name, told("apiVersion: v2\nversion: 1.2.3"), "Chart.yaml: name is required"),
    (rules.version_is_semantic, told("apiVersion: v2\nname: app"), "Chart.yaml: version is required"),
    (
        rules.version_is_semantic,
        told("apiVersion: v2\nname: app\nversion: latest"),
        "Chart.yaml: the version 'latest' is not valid: it is no semantic version; write one such as 1.2.3",
    ),
    (
        rules.type_is_application_or_library,
        told(f"{HEAD}type: app\n"),
        "Chart.yaml: type is 'app', it must be application or library",
    ),
    (
        rules.aliases_are_names,
        told(HEAD + "dependencies: [{name: db, alias: a/b}]\n"),
        "Chart.yaml: dependency 'db' has the alias 'a/b'; use letters, digits, '-' and '_' only",
    ),
    (
        rules.dependencies_have_different_names,
        told(HEAD + "dependencies: [{name: db}, {name: x, alias: db}]\n"),
        "Chart.yaml: 2 dependencies have the name or alias 'db'; give each another alias",
    ),
    (
        rules.config_has_the_chart_name,
        Push(config=CONFIG.replace(b"app", b"other")),
        f"the config blob has the name 'other', Chart.yaml in the archive has 'app'{PUSH_AGAIN}",
    ),
    (
        rules.config_has_the_chart_version,
        Push(config=CONFIG.replace(b"1.2.3", b"1.2.4")),
        f"the config blob has the version '1.2.4', Chart.yaml in the archive has '1.2.3'{PUSH_AGAIN}",
    ),
    (
        rules.top_folder_is_the_chart_name,
        Push(chart(chart_yaml=CHART_YAML, top="App")),
        f"the archive's folder is 'App', the chart's name is 'app'{PACKAGE_AGAIN}",
    ),
    (rules.archive_has_one_top_folder, Push(TWO_FOLDERS), f"the archive has 2 top folders ('app', 'b'){PACKAGE_AGAIN}"),
    (
        rules.repository_ends_with_the_chart_name,
        Push(repository="other"),
        (
            "the repository {namespace}/other does not end with the chart's name 'app'; push it to"
            f" oci://{HOST}/{{namespace}} and Helm appends the name"
        ),
    ),
    (
        rules.provenance_is_of_this_archive,
        Push(provenance=unsigned(f"  app-1.2.3.tgz: sha256:{HEX}")),
        f"the provenance file says that app-1.2.3.tgz is 'sha256:{HEX}', the chart layer is {{layer}}{SIGN_AGAIN}",
    ),
    (
        rules.provenance_is_of_this_archive,
        Push(provenance=unsigned(f"  app-1.2.4.tgz: sha256:{HEX}")),
        f"the provenance file is about 'app-1.2.4.tgz', not app-1.2.3.tgz{SIGN_AGAIN}",
    ),
    (
        rules.provenance_is_of_this_archive,
        Push(provenance=b"junk"),
        f"the provenance file cannot be read: it is no clear-signed text{SIGN_AGAIN}",
    ),
]
REFUSED_BY_TAG = [
    (Push(tag="latest"), "the tag 'latest' is not the chart's version '1.2.3'; tag it 1.2.3"),
    (Push(tag="v1.2.3"), "the tag 'v1.2.3' is not the chart's version '1.2.3'; tag it 1.2.3"),
    (Push(tag=f"sha256-{HEX}"), f"the tag 'sha256-{HEX}' is not the chart's version '1.2.3'; tag it 1.2.3"),
    (
        Push(tag="1.2.3_b"),
        (
            "the tag '1.2.3_b' is not the chart's version '1.2.3'; an _ in a tag stands for a +, and this version has"
            " none: tag it 1.2.3"
        ),
    ),
    (
        replace(version("1.2.3+b"), tag="1.2.3"),
        "the tag '1.2.3' is not the chart's version '1.2.3+b'; tag it 1.2.3_b",
    ),
]


def _named(rule: rules.Rule, push: Push, message: str) -> object:
    words = re.sub(r"[^a-z0-9]+", "-", message.lower())[:60]
    return pytest.param(push, message, id=f"{rule.__name__}-{words}")


@pytest.mark.parametrize(("push", "message"), [_named(*case) for case in REFUSED_BY_DIGEST])
async def test_a_chart_that_breaks_a_rule_is_refused_at_the_first_put_and_leaves_nothing(remote, push, message):
    here = Remote(remote.client, f"{remote.name}/{push.repository}")
    line = message.format(namespace=remote.name, layer=Digest.of(push.archive))
    assert error_of(await by_digest(here, push), 400, "MANIFEST_INVALID") == line
    assert (await tags(here), await is_kept(here, push)) == ({}, False)
    assert line in error_of(await by_tag(here, push), 400, "MANIFEST_INVALID").splitlines()  # Helm 3.8-3.17
    assert (await tags(here), await is_kept(here, push)) == ({}, False)


@pytest.mark.parametrize(("push", "message"), REFUSED_BY_TAG, ids=[push.tag[:12] for push, _ in REFUSED_BY_TAG])
async def test_a_tag_that_is_not_the_version_is_refused_at_the_second_put(remote, push, message):
    here = Remote(remote.client, f"{remote.name}/app")
    assert (await by_digest(here, push)).status_code == 201
    assert error_of(await by_tag(here, push), 400, "MANIFEST_INVALID") == message
    refused = await here.put_manifest(push.manifest, query=f"?tag={push.tag}")
    assert error_of(refused, 400, "MANIFEST_INVALID") == message
    assert await tags(here) == {}
    assert await is_kept(here, push)


async def test_of_several_tags_in_one_put_each_is_checked_and_none_is_set(remote):
    here, push = Remote(remote.client, f"{remote.name}/app"), Push()
    await put_blobs(here, push)
    refused = await here.put_manifest(push.manifest, query="?tag=1.2.3&tag=latest&tag=stable")
    assert error_of(refused, 400, "MANIFEST_INVALID").splitlines() == [
        f"the tag '{tag}' is not the chart's version '1.2.3'; tag it 1.2.3" for tag in ("latest", "stable")
    ]
    assert (await tags(here), await is_kept(here, push)) == ({}, False)
    assert (await here.put_manifest(push.manifest, query="?tag=1.2.3")).headers["oci-tag"] == "1.2.3"
    assert await tags(here) == {"1.2.3": push.digest}


async def test_a_chart_in_the_place_below_itself_is_refused(remote):
    """repository_does_not_repeat_the_chart_name: charts/x/x, where charts/x is a chart."""
    here, below = (Remote(remote.client, f"{remote.name}/{path}") for path in ("app", "app/app"))
    await pushed(here, Push())
    assert error_of(await by_digest(below, Push()), 400, "MANIFEST_INVALID") == (
        f"the repository is {below.name}, and {here.name} already is a chart; Helm appends the chart's name: did you"
        f" mean oci://{HOST}/{remote.name}?"
    )
    assert not await is_kept(below, Push())


async def test_a_doubled_path_alone_is_let_in(remote):
    await pushed(Remote(remote.client, f"{remote.name}/app/app"), Push())


@under(legacy="reject")
async def test_the_media_type_of_helm_3_6_is_refused_where_the_setting_says_so(own):
    """chart_layer_has_the_present_media_type"""
    assert error_of(await by_digest(own, LEGACY), 400, "MANIFEST_INVALID") == (
        f"the chart layer has Helm 3.6's type {LEGACY_CHART_LAYER}; push it with Helm 3.8 or newer"
    )
    assert not await is_kept(own, LEGACY)


@pytest.mark.parametrize("of", [OCI_MANIFEST, OCI_INDEX])
async def test_a_tag_is_never_first_a_chart_and_then_something_else(remote, of):
    here = Remote(remote.client, f"{remote.name}/app")
    await pushed(here, Push())
    await here.push_blob(b"{}")
    other = image() if of == OCI_MANIFEST else index(Push().manifest)
    refused = [await here.put_manifest(other, "1.2.3", of), await here.put_manifest(other, None, of, "?tag=1.2.3")]
    for answer in refused:
        assert error_of(answer, 400, "MANIFEST_INVALID") == (
            "the tag '1.2.3' names a chart, and this manifest is no chart; use another repository, or delete the tag"
            " first"
        )
    assert await here.statuses(f"manifests/{Digest.of(other)}") == [404]
    assert await tags(here) == {"1.2.3": Push().digest}
    assert (await here.put_manifest(other, None, of)).status_code == 201  # by its digest it changes no tag


async def test_a_tag_is_never_first_something_else_and_then_a_chart(remote):
    """tag_keeps_its_kind"""
    here = Remote(remote.client, f"{remote.name}/app")
    was = await here.push_image("1.2.3")
    assert (await by_digest(here, Push())).status_code == 201
    assert error_of(await by_tag(here, Push()), 400, "MANIFEST_INVALID") == (
        "the tag '1.2.3' names no chart, and this manifest is a chart; use another repository, or delete the tag first"
    )
    assert await tags(here) == {"1.2.3": Digest.of(was)}
    await here.call("DELETE", "manifests/1.2.3")
    assert (await by_tag(here, Push())).status_code == 201


async def test_all_faults_come_at_once_a_line_each(remote):
    wrong = Push(
        chart(chart_yaml=b"apiVersion: v9\nname: other\nversion: 1.2.3\ntype: x\n", top="app"),
        provenance=b"junk",
        tag="latest",
    )
    here = Remote(remote.client, f"{remote.name}/app")
    faults = [
        "Chart.yaml: apiVersion is 'v9'; write v2 (Helm 3 and newer) or v1",
        "Chart.yaml: type is 'x', it must be application or library",
        f"the config blob has the name 'app', Chart.yaml in the archive has 'other'{PUSH_AGAIN}",
        f"the archive's folder is 'app', the chart's name is 'other'{PACKAGE_AGAIN}",
        (
            f"the repository {here.name} does not end with the chart's name 'other'; push it to oci://{HOST}/{remote.name}"
            " and Helm appends the name"
        ),
        f"the provenance file cannot be read: it is no clear-signed text{SIGN_AGAIN}",
    ]
    assert error_of(await by_digest(here, wrong), 400, "MANIFEST_INVALID").splitlines() == faults
    faults.append("the tag 'latest' is not the chart's version '1.2.3'; tag it 1.2.3")
    assert error_of(await by_tag(here, wrong), 400, "MANIFEST_INVALID").splitlines() == faults


async def test_more_faults_than_a_terminal_shows_are_counted(remote):
    """Helm shows nothing of an error of more than 8 KiB."""
    dependencies = "".join(f"  - {{name: {number}{'d' * 200}, alias: {number}/{'é' * 200}}}\n" for number in range(200))
    wrong = told(f"{HEAD}dependencies:\n{dependencies}")
    refused = await by_digest(Remote(remote.client, f"{remote.name}/app"), wrong)
    first, *_, last = error_of(refused, 400, "MANIFEST_INVALID").splitlines()
    assert first.startswith("Chart.yaml: dependency '0dd")
    assert re.fullmatch(r"and \d+ more", last)
    assert len(refused.content) <= 8192


@under(names="warn")
async def test_names_and_tags_can_be_relaxed(own):
    push = Push(chart(chart_yaml=CHART_YAML, top="App"), tag="latest")
    other = Remote(own.client, "team/other")
    await pushed(other, push)
    assert await tags(other) == {"latest": push.digest}


# --- what the manifest names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"sparse_manifests": "true"}], ids=["references demanded", "sparse manifests"])
async def test_a_chart_without_its_blobs_is_refused(own):
    push = WITH_PROVENANCE
    for held in ([], push.blobs[:1], push.blobs[:2]):
        for blob in held:
            await own.push_blob(blob)
        lines = [
            f"{own.name} does not hold {described['digest']} ('{described['mediaType']}')"
            for described in (descriptor(push.config, CHART_CONFIG), *push.layers)
            if described["digest"] not in map(Digest.of, held)
        ]
        for answer in (await own.put_manifest(push.manifest), await by_tag(own, push)):
            assert error_of(answer, 404, "MANIFEST_BLOB_UNKNOWN").splitlines() == [
                *lines,
                "push what the manifest names before the manifest",
            ]
    assert not await is_kept(own, push)
    await pushed(own, push)


async def test_the_blobs_of_another_repository_do_not_count(remote):
    one, other = Remote(remote.client, f"{remote.name}/a/app"), Remote(remote.client, f"{remote.name}/b/app")
    await pushed(one, Push())
    error_of(await other.put_manifest(Push().manifest), 404, "MANIFEST_BLOB_UNKNOWN")


async def test_a_chart_whose_layer_says_that_it_is_elsewhere_must_be_here_all_the_same(remote):
    """Helm never looks at `urls`."""
    here = Remote(remote.client, f"{remote.name}/app")
    await here.push_blob(CONFIG)
    push = Push(changes={"layers": [descriptor(Push().archive, CHART_LAYER, urls=["https://example.com/app.tgz"])]})
    error_of(await here.put_manifest(push.manifest), 404, "MANIFEST_BLOB_UNKNOWN")


async def test_a_chart_whose_manifest_has_another_size_for_a_blob_is_refused(remote):
    """Helm cannot pull it: oras-go compares Content-Length with the descriptor (registry/remote/repository.go)."""
    here, push = Remote(remote.client, f"{remote.name}/app"), Push()
    wrong = replace(push, changes={"layers": [{**push.layers[0], "size": 7}]})
    assert error_of(await by_digest(here, wrong), 400, "MANIFEST_INVALID") == (
        f"the manifest says that {Digest.of(push.archive)} has 7 bytes, it has {len(push.archive):,}{PUSH_AGAIN}"
    )
    assert not await is_kept(here, wrong)


# --- policy charts ----------------------------------------------------------------------------------------------------

PLUGIN = "application/vnd.helm.plugin.v1+json"
ONLY_CHARTS = "this namespace takes charts and what belongs to them, not '{}'; push it to another registry, or set"
ONLY_CHARTS += ' policy = "oci"'


@under(policy="charts")
async def test_policy_charts_takes_what_belongs_to_charts(own):
    attached, plugin = image(subject=descriptor(b"not here yet", OCI_MANIFEST)), image(artifactType=PLUGIN)
    await own.push_blob(b"{}")
    for body, reference in (
        (attached, None),
        (attached, "1.0"),
        (image(), f"sha256-{HEX}"),
        (image(), f"sha256-{HEX}.sig"),
        (plugin, None),
        (plugin, "1.0.0"),
        (image(config=descriptor(b"{}", PLUGIN)), "2.0.0"),
    ):
        assert (await own.put_manifest(body, reference)).status_code == 201
    assert (await own.put_manifest(index(image()), f"sha256-{HEX}", OCI_INDEX)).status_code == 201


@under(policy="charts")
@pytest.mark.parametrize(
    ("body", "kind", "media_type"),
    [
        pytest.param(image(), "application/vnd.oci.image.config.v1+json", OCI_MANIFEST, id="an image"),
        pytest.param(image(artifactType="text/x"), "text/x", OCI_MANIFEST, id="an artifact"),
        pytest.param(index(), OCI_INDEX, OCI_INDEX, id="an index"),
    ],
)
async def test_policy_charts_refuses_anything_else(own, body, kind, media_type):
    await own.push_blob(b"{}")
    for reference in (None, "1.2.3", "latest", f"sha512-{HEX}", f"sha256-{HEX[:63]}"):
        refused = await own.put_manifest(body, reference, media_type)
        assert error_of(refused, 400, "MANIFEST_INVALID") == ONLY_CHARTS.format(kind)
    assert await own.statuses(f"manifests/{Digest.of(body)}") == [404]


@under(policy="charts")
async def test_policy_charts_looks_at_every_tag_of_a_put(own):
    await own.push_blob(b"{}")
    refused = await own.put_manifest(image(), query=f"?tag=sha256-{HEX}&tag=latest")
    error_of(refused, 400, "MANIFEST_INVALID")
    assert await tags(own) == {}


@under(policy="charts")
async def test_policy_charts_takes_charts_and_their_rules_hold(own):
    await pushed(own, Push())
    error_of(await by_tag(own, Push(tag="latest")), 400, "MANIFEST_INVALID")
    error_of(await own.put_manifest(index(Push().manifest), "all", OCI_INDEX), 400, "MANIFEST_INVALID")


# --- versions that may not be replaced --------------------------------------------------------------------------------

FIRST, OTHER = version("1.2.3"), version("1.2.3", **{"values.yaml": b"a: 1"})
SIGNED = WITH_PROVENANCE
SIGNED_AGAIN = replace(SIGNED, provenance=SIGNED.provenance + b"\n")
fixed = pytest.mark.parametrize(
    "flags", [{"versions": "immutable"}, {"versions": "releases-immutable"}], ids=lambda flags: flags["versions"]
)


def denied(response: httpx.Response, there: Push, fix: str, number: str = "1.2.3", what: str = "") -> None:
    fact = f"team/app has version {number} already, and {what or 'released versions'} cannot be replaced"
    message = f"{fact}: {there.digest} was pushed {NOW}\n{fix}"
    assert error_of(response, 409, "DENIED") == message


async def test_versions_are_mutable_unless_a_setting_says_otherwise(own):
    for push in (FIRST, OTHER, FIRST):
        await pushed(own, push)
        assert await tags(own) == {"1.2.3": push.digest}
    assert await is_kept(own, FIRST, OTHER)


@pytest.mark.parametrize(
    ("flags", "what"),
    [({"versions": "immutable"}, "versions"), ({"versions": "releases-immutable"}, "released versions")],
    ids=["immutable", "releases-immutable"],
)
async def test_another_chart_of_a_version_is_refused_at_the_first_put(own, clock, what):
    await pushed(own, FIRST)
    clock.now += 3600
    denied(await by_digest(own, OTHER), FIRST, "raise the version in Chart.yaml", what=what)
    assert not await is_kept(own, OTHER)
    for answer in (await by_tag(own, OTHER), await own.put_manifest(OTHER.manifest, query="?tag=1.2.3")):
        denied(answer, FIRST, "raise the version in Chart.yaml", what=what)
    assert not await is_kept(own, OTHER)
    assert await tags(own) == {"1.2.3": FIRST.digest}
    await pushed(own, version("1.2.4"))


@under(versions="immutable")
async def test_another_config_of_the_same_archive_is_another_chart(own):
    await pushed(own, FIRST)
    other = replace(FIRST, config=FIRST.config.replace(b"}", b',"icon":"x"}'))
    error_of(await by_digest(own, other), 409, "DENIED")
    assert not await is_kept(own, other)


@fixed
async def test_the_same_files_packed_at_another_time_are_told_apart(own):
    later = tgz(member("app/Chart.yaml", CHART_YAML, mtime=1_700_000_000))
    await pushed(own, FIRST)
    answer = await by_digest(own, replace(FIRST, archive=later))
    assert error_of(answer, 409, "DENIED").splitlines()[1:] == [
        (
            "the files are the same, only their times differ: with Helm 4 set SOURCE_DATE_EPOCH before packaging, with"
            " Helm 3 push the same .tgz again instead of packaging it again; or raise the version"
        ),
    ]


@fixed
async def test_the_same_chart_again_is_created_and_the_tag_stays(own):
    """So that whoever pinned the first digest, or signed it, keeps what was signed."""
    again = [created(FIRST, f"2026-01-0{day}T00:00:00Z") for day in (1, 2)]
    for push in (FIRST, *again, FIRST):
        await pushed(own, push)
        assert await tags(own) == {"1.2.3": FIRST.digest}
    answer = await own.put_manifest(again[0].manifest, query="?tag=1.2.3")
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, again[0].digest)
    assert await tags(own) == {"1.2.3": FIRST.digest}
    assert await is_kept(own, FIRST, *again)


@fixed
async def test_the_first_provenance_moves_the_tag_and_nothing_takes_it_away(own):
    attached = image(subject=descriptor(FIRST.manifest, OCI_MANIFEST))
    await pushed(own, FIRST)
    await own.push_blob(b"{}")
    await own.push_manifest(attached)
    for push in (SIGNED, FIRST, created(SIGNED, "2026-01-01T00:00:00Z"), created(FIRST, "2026-01-01T00:00:00Z")):
        await pushed(own, push)
        assert await tags(own) == {"1.2.3": SIGNED.digest}
    assert await is_kept(own, FIRST, SIGNED)
    referrers = (await own.call("GET", f"referrers/{FIRST.digest}")).json()["manifests"]
    assert [found["digest"] for found in referrers] == [Digest.of(attached)]


@under(versions="immutable")
async def test_another_provenance_is_refused(own):
    await pushed(own, SIGNED)
    denied(await by_digest(own, SIGNED_AGAIN), SIGNED, "raise the version in Chart.yaml", what="versions")
    assert not await is_kept(own, SIGNED_AGAIN)
    assert await tags(own) == {"1.2.3": SIGNED.digest}


@under(versions="releases-immutable")
async def test_a_pre_release_may_be_replaced_where_releases_may_not(own):
    for push in (version("1.2.3-rc.1"), version("1.2.3-rc.1", a=b"1")):
        await pushed(own, push)
        assert await tags(own) == {"1.2.3-rc.1": push.digest}


@under(versions="immutable")
async def test_a_pre_release_may_not_be_replaced_where_no_version_may(own):
    first, other = version("1.2.3-rc.1"), version("1.2.3-rc.1", a=b"1")
    await pushed(own, first)
    denied(await by_digest(own, other), first, "raise the version in Chart.yaml", "1.2.3-rc.1", "versions")
    assert await tags(own) == {"1.2.3-rc.1": first.digest}


@fixed
async def test_a_version_with_a_plus_is_fixed_at_its_tag(own):
    first, other = version("1.2.3+b.1"), version("1.2.3+b.1", a=b"1")
    for push in (first, version("1.2.3"), version("1.2.3+b.2")):
        await pushed(own, push)
    error_of(await by_digest(own, other), 409, "DENIED")
    assert (await tags(own))["1.2.3_b.1"] == first.digest


@fixed
async def test_a_version_that_was_deleted_may_be_pushed_otherwise(own):
    await pushed(own, FIRST)
    await own.call("DELETE", f"manifests/{FIRST.digest}")
    await pushed(own, OTHER)
    assert await tags(own) == {"1.2.3": OTHER.digest}


@fixed
async def test_another_repository_has_versions_of_its_own(own):
    await pushed(own, FIRST)
    await pushed(Remote(own.client, "other/app"), OTHER)


@fixed
async def test_the_tags_of_images_and_signatures_stay_mutable(own):
    for tag in (f"sha256-{HEX}", f"sha256-{HEX}.sig", "1.2.3", "latest"):
        for number in range(2):
            body = await own.push_image(tag, annotations={"number": str(number)})
            assert (await tags(own))[tag] == Digest.of(body)


@pytest.mark.parametrize(
    "flags",
    [{"versions": "immutable", "names": "warn"}, {"versions": "releases-immutable", "names": "warn"}],
    ids=lambda flags: flags["versions"],
)
async def test_where_tags_are_relaxed_a_version_is_fixed_and_other_tags_move(own):
    """What counts is the version that the tag names, not the one that is pushed onto it."""
    for number in ("1.2.3", "1.2.4", "2.0.0-rc.1"):
        push = replace(version(number), tag="latest")
        await pushed(own, push)
        assert await tags(own) == {"latest": push.digest}
        await own.call("DELETE", f"manifests/{push.digest}")
        await by_digest(own, FIRST)
        await own.put_manifest(FIRST.manifest, "latest")
    await pushed(own, FIRST)
    for number in ("1.2.4", "2.0.0-rc.1"):
        onto = replace(version(number), tag="1.2.3")
        assert (await by_digest(own, onto)).status_code == 201
        assert "team/app has version 1.2.3 already" in error_of(await by_tag(own, onto), 409, "DENIED")
    assert await tags(own) == {"1.2.3": FIRST.digest, "latest": FIRST.digest}


# --- two at once ------------------------------------------------------------------------------------------------------

ROUNDS = 4  # in which they meet in another order each time


@under(versions="immutable")
@pytest.mark.parametrize("how", ["by tag", "by digest with ?tag="])
async def test_of_two_who_push_different_charts_of_one_version_one_wins(own, how):
    for number in range(ROUNDS):
        two = [version(f"1.0.{number}", **{"values.yaml": each}) for each in (b"a: 1", b"a: 2")]
        for push in two:
            await put_blobs(own, push)
        targets = [(push.tag, "") if how == "by tag" else (None, f"?tag={push.tag}") for push in two]
        answers = await asyncio.gather(
            *(
                own.put_manifest(push.manifest, reference, query=query)
                for push, (reference, query) in zip(two, targets, strict=True)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        won = next(push for push, answer in zip(two, answers, strict=True) if answer.status_code == 201)
        (lost,) = (push for push in two if push != won)
        assert (await tags(own))[f"1.0.{number}"] == won.digest
        assert await is_kept(own, won)
        assert not await is_kept(own, lost)


@under(versions="immutable")
async def test_of_two_who_push_as_helm_does_one_wins(own):
    """Both may pass the first PUT; the second decides."""
    for number in range(ROUNDS):
        two = [version(f"1.0.{number}", **{"values.yaml": each}) for each in (b"a: 1", b"a: 2")]
        answers = await asyncio.gather(*(_as_helm(own, push) for push in two))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        won = next(push for push, answer in zip(two, answers, strict=True) if answer.status_code == 201)
        assert (await tags(own))[f"1.0.{number}"] == won.digest


async def _as_helm(remote: Remote, push: Push) -> httpx.Response:
    """The answer to the PUT that ended it."""
    first = await by_digest(remote, push)
    return await by_tag(remote, push) if first.status_code == 201 else first


@under(versions="immutable")
async def test_two_who_push_the_same_chart_both_win(own):
    for number in range(ROUNDS):
        push = version(f"1.0.{number}")
        two = [created(push, f"2026-01-0{day}T00:00:00Z") for day in (1, 2)]
        answers = await asyncio.gather(*(_as_helm(own, push) for push in two))
        assert [answer.headers.get("docker-content-digest") for answer in answers] == [push.digest for push in two]
        assert (await tags(own))[push.tag] in {push.digest for push in two}
        assert await is_kept(own, *two)


@under(versions="immutable")
async def test_of_an_image_and_a_chart_at_one_tag_one_wins(own):
    await own.push_blob(b"{}")
    for number in range(ROUNDS):
        push = version(f"1.0.{number}")
        await put_blobs(own, push)
        answers = await asyncio.gather(by_tag(own, push), own.put_manifest(image(), push.tag))
        assert sorted(answer.status_code for answer in answers) == [201, 400]
        won = next(answer for answer in answers if answer.status_code == 201)
        assert (await tags(own))[push.tag] == won.headers["docker-content-digest"]


# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_rule_has_a_push_here_that_breaks_it():
    refused = {rule for rule, _, _ in REFUSED_BY_DIGEST}
    legacy = test_the_media_type_of_helm_3_6_is_refused_where_the_setting_says_so
    beside_the_table = {
        rules.chart_layer_has_the_present_media_type: legacy,
        rules.repository_does_not_repeat_the_chart_name: test_a_chart_in_the_place_below_itself_is_refused,
        rules.tag_is_the_chart_version: test_a_tag_that_is_not_the_version_is_refused_at_the_second_put,
        rules.signature_is_verified: test_namespaces.test_a_demanded_signature_is_refused_in_each_way_it_can_be_wrong,
        rules.tag_keeps_its_kind: test_a_tag_is_never_first_something_else_and_then_a_chart,
    }
    only_warn = {
        rules.config_says_what_chart_yaml_says: test_a_chart_is_put_by_its_digest_and_then_by_its_tag,
        rules.version_is_not_lower_than_the_newest: test_a_version_lower_than_the_newest_is_let_in,
    }
    assert refused | beside_the_table.keys() | only_warn.keys() == {*rules.RULES, *rules.TAG_RULES}
