"""What is refused when a chart is pushed, rule by rule, in the words that the person behind `helm push` reads."""

import inspect as introspection
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from charthouse.helm import archive, rules
from charthouse.helm.findings import Finding
from charthouse.helm.provenance import Verification
from charthouse.helm.rules import RELAXED, RULES, TAG_RULES, check, is_for_charts, kind_of_tag_changes
from charthouse.manifest import (
    CHART_CONFIG,
    CHART_LAYER,
    LEGACY_CHART_LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    PROVENANCE_LAYER,
    Manifest,
    parse,
)
from charthouse.names import Digest
from helm.charts import CHART_YAML, chart, descriptor, manifest, member, push, tgz, unsigned

CONFIG = b'{"apiVersion":"v2","name":"app","version":"1.2.3"}'
PUSH_AGAIN = "; push it with helm push"
PACKAGE_AGAIN = "; package it again with helm package"
ATTACH = "attach it to the chart with a manifest of its own that names the chart as its subject"
HEX = "0" * 64
PROVENANCE = unsigned(f"  app-1.2.3.tgz: {Digest.of(chart())}")  # whoever signed it


def said(given: rules.ChartPush) -> list[str]:
    return [f"{each.severity} {each.rule}: {each}" for each in check(given)]


def charted(chart_yaml: bytes, **given: object) -> rules.ChartPush:
    """A push of the chart with that Chart.yaml, whose config blob says the same name and version."""
    return push(chart(chart_yaml=chart_yaml), **given)


def layered(*media_types: str) -> rules.ChartPush:
    layers = [descriptor(media_type, b"layer %d" % number) for number, media_type in enumerate(media_types)]
    return push(manifest=manifest(CONFIG, chart(), layers=layers))


def test_a_chart_without_fault_is_let_in() -> None:
    assert said(push()) == []


def test_a_chart_put_by_its_digest_is_let_in() -> None:
    assert said(push(tag=None)) == []


# The manifest


@pytest.mark.parametrize(
    ("layers", "messages"),
    [
        ([], [f"the manifest has no chart layers ({CHART_LAYER}), a chart has one{PUSH_AGAIN}"]),
        ([CHART_LAYER] * 2, [f"the manifest has 2 chart layers ({CHART_LAYER}), a chart has one{PUSH_AGAIN}"]),
        (
            [CHART_LAYER, LEGACY_CHART_LAYER],
            [f"the manifest has 2 chart layers ({CHART_LAYER}), a chart has one{PUSH_AGAIN}"],
        ),
        (
            [CHART_LAYER, PROVENANCE_LAYER, PROVENANCE_LAYER],
            [f"the manifest has 2 provenance layers ({PROVENANCE_LAYER}), a chart has at most one"],
        ),
        (
            [CHART_LAYER, "text/plain"],
            [f"the manifest has a layer of type 'text/plain', which no chart has; {ATTACH}"],
        ),
    ],
)
def test_a_chart_has_one_chart_layer_at_most_one_provenance_and_no_other(
    layers: list[str], messages: list[str]
) -> None:
    assert [str(each) for each in check(layered(*layers)) if each.severity == "reject"] == messages


def test_a_manifest_of_dockers_type_is_refused() -> None:
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    content = chart()
    document = {
        "schemaVersion": 2,
        "config": descriptor(CHART_CONFIG, CONFIG),
        "layers": [descriptor(CHART_LAYER, content)],
    }
    found = said(push(manifest=parse(json.dumps(document).encode(), docker)))
    assert found == [
        f"reject manifest_is_an_oci_image_manifest: a chart's manifest is {OCI_MANIFEST}, not '{docker}'{PUSH_AGAIN}"
    ]


@pytest.mark.parametrize(("legacy", "severity"), [("accept", "warn"), ("reject", "reject")])
def test_the_media_type_of_helm_3_6_is_flagged_or_refused(legacy: str, severity: str) -> None:
    content = chart()
    old = manifest(CONFIG, content, layers=[descriptor(LEGACY_CHART_LAYER, content)])
    message = f"the chart layer has Helm 3.6's type {LEGACY_CHART_LAYER}; push it with Helm 3.8 or newer"
    assert said(push(manifest=old, legacy=legacy)) == [f"{severity} chart_layer_has_the_present_media_type: {message}"]


# What the blobs say


def test_an_archive_that_cannot_be_read_is_refused_by_the_name_of_its_fault() -> None:
    (found,) = check(push(b"no gzip"))
    assert (found.rule, found.severity) == ("archive_is_a_gzip_tar", "reject")
    (found,) = check(push(tgz(member("app/x"))))
    assert found.rule == "chart_yaml_is_in_the_top_folder"


def test_a_config_blob_that_cannot_be_read_is_refused() -> None:
    (found,) = check(push(config=b"{"))
    assert (found.rule, found.severity) == ("config_can_be_read", "reject")


@pytest.mark.parametrize(
    ("chart_yaml", "message"),
    [
        (b"apiVersion: v2\nname: app\nversion: [1]", "Chart.yaml:3: version is a list, it must be a text"),
        (b"apiVersion: v2\nversion: 1.2.3", "Chart.yaml: name is required"),
        (b"apiVersion: v2\nname: app", "Chart.yaml: version is required"),
        (
            b"apiVersion: v3\nname: app\nversion: 1.2.3",
            "Chart.yaml: apiVersion is 'v3'; write v2 (Helm 3 and newer) or v1",
        ),
        (
            b"apiVersion: v2\nname: app\nversion: latest",
            "Chart.yaml: the version 'latest' is not valid: it is no semantic version; write one such as 1.2.3",
        ),
        (
            b"apiVersion: v2\nname: app\nversion: 1.2.3\ntype: app",
            "Chart.yaml: type is 'app', it must be application or library",
        ),
        (
            b"apiVersion: v2\nname: app\nversion: 1.2.3\ndependencies: [{name: db, alias: a/b}]",
            "Chart.yaml: dependency 'db' has the alias 'a/b'; use letters, digits, '-' and '_' only",
        ),
        (
            b"apiVersion: v2\nname: app\nversion: 1.2.3\ndependencies: [{name: db}, {name: x, alias: db}]",
            "Chart.yaml: 2 dependencies have the name or alias 'db'; give each another alias",
        ),
    ],
)
def test_what_helm_validate_refuses_is_refused(chart_yaml: bytes, message: str) -> None:
    assert message in [str(each) for each in check(charted(chart_yaml)) if each.severity == "reject"]


@pytest.mark.parametrize("name", [".", "..", "a/b", "../a", "a/"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    chart_yaml = f'apiVersion: v2\nname: "{name}"\nversion: 1.2.3'.encode()
    found = [str(each) for each in check(charted(chart_yaml)) if each.rule == "name_is_a_name"]
    assert found == [f"Chart.yaml: the name {name!r} is not valid; use letters, digits, '-', '_' and '.'"]


# What they say of each other


def test_a_config_blob_of_another_chart_is_refused() -> None:
    found = said(push(config=CONFIG.replace(b"app", b"other").replace(b"1.2.3", b"1.2.4"), tag=None))[:2]
    assert found == [
        f"reject config_has_the_chart_{field}: the config blob has the {field} {config!r},"
        f" Chart.yaml in the archive has {inside!r}{PUSH_AGAIN}"
        for field, config, inside in (("name", "other", "app"), ("version", "1.2.4", "1.2.3"))
    ]


def test_a_config_blob_that_differs_in_other_fields_is_warned_of() -> None:
    assert said(push(config=CONFIG)) == [
        "warn config_says_what_chart_yaml_says: the config blob and Chart.yaml disagree in icon" + PUSH_AGAIN
    ]


def test_another_top_folder_is_refused() -> None:
    message = "the archive's folder is 'App', the chart's name is 'app'" + PACKAGE_AGAIN
    assert said(push(chart(top="App"))) == [f"reject top_folder_is_the_chart_name: {message}"]
    assert said(push(chart(top="."))) == []


def test_two_top_folders_are_refused() -> None:
    two = tgz(member("app/Chart.yaml", CHART_YAML), member("b/values.yaml"))
    message = "the archive has 2 top folders ('app', 'b')" + PACKAGE_AGAIN
    assert said(push(two)) == [f"reject archive_has_one_top_folder: {message}"]


def test_a_repository_of_another_name_is_refused() -> None:
    message = "the repository team/other does not end with the chart's name 'app'"
    hint = "push it to oci://localhost:5000/team and Helm appends the name"
    found = said(push(repository="team/other", host="localhost:5000"))
    assert found == [f"reject repository_ends_with_the_chart_name: {message}; {hint}"]
    assert "push it to oci://h and" in said(push(repository="other", host="h"))[0]


def test_a_doubled_path_is_refused_when_the_first_is_a_chart_and_warned_of_otherwise() -> None:
    rule = "repository_does_not_repeat_the_chart_name"
    hint = "; Helm appends the chart's name: did you mean oci://host/charts?"
    found = said(push(repository="charts/app/app", host="host", parent_is_a_chart=True))
    assert found == [f"reject {rule}: the repository is charts/app/app, and charts/app already is a chart{hint}"]
    found = said(push(repository="charts/app/app", host="host"))
    assert found == [f"warn {rule}: the repository charts/app/app repeats the chart's name{hint}"]
    assert said(push(repository="app/app", host="host"))[0].endswith("did you mean oci://host?")


def test_a_provenance_file_of_this_archive_is_let_in() -> None:
    prov = unsigned(f"  app-1.2.3.tgz: {Digest.of(chart())}\n")
    assert said(push(provenance=prov)) == []


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        (
            unsigned(f"  app-1.2.3.tgz: sha256:{HEX}"),
            f"the provenance file says that app-1.2.3.tgz is 'sha256:{HEX}', the chart layer is ",
        ),
        (unsigned(f"  app-1.2.4.tgz: sha256:{HEX}"), "the provenance file is about 'app-1.2.4.tgz', not app-1.2.3.tgz"),
        (unsigned("  {}"), "the provenance file is about no file, not app-1.2.3.tgz"),
        (b"junk", "the provenance file cannot be read: it is no clear-signed text"),
    ],
)
def test_a_provenance_file_of_another_archive_is_refused(provenance: bytes, message: str) -> None:
    (found,) = check(push(provenance=provenance))
    assert str(found).startswith(message)
    assert (found.severity, found.rule) == ("reject", "provenance_is_of_this_archive")


@pytest.mark.parametrize(
    ("provenance", "verification", "message"),
    [
        (None, None, "charts of this namespace have to be signed, and this one has no provenance file; package it"),
        (
            PROVENANCE,
            Verification("unknown key", "AB", message="by AB"),
            "charts of this namespace have to be signed with",
        ),
        (PROVENANCE, Verification("bad", message="broken"), "charts of this namespace have to be signed with a key of"),
        (PROVENANCE, Verification("verified", "AB"), ""),
    ],
)
def test_a_demanded_signature_that_is_not_there_is_refused(
    provenance: bytes | None, verification: Verification | None, message: str
) -> None:
    """signature_is_verified"""
    found = check(push(provenance=provenance, verification=verification, signatures="verified"))
    assert [str(finding)[: len(message)] for finding in found] == ([message] if message else [])
    assert said(push(provenance=provenance, verification=verification)) == []


def test_a_version_lower_than_the_newest_is_warned_of() -> None:
    assert said(push(newest="1.10.0")) == [
        "warn version_is_not_lower_than_the_newest: the version 1.2.3 is lower than 1.10.0, which is here already"
    ]
    assert said(push(newest="1.2.3")) == []
    assert said(push(newest="latest")) == []


# The tag


def versioned(version: str, tag: str) -> list[str]:
    chart_yaml = f"apiVersion: v2\nname: app\nversion: {version}".encode()
    config = f'{{"apiVersion":"v2","name":"app","version":"{version}"}}'.encode()
    return said(charted(chart_yaml, config=config, tag=tag))


@pytest.mark.parametrize(
    ("version", "tag"), [("1.2.3", "1.2.3"), ("1.2.3+b.1", "1.2.3_b.1"), ("v1", "v1"), ("01.2.3", "01.2.3")]
)
def test_a_tag_is_the_version_with_underscores_for_plus(version: str, tag: str) -> None:
    assert versioned(version, tag) == []


@pytest.mark.parametrize(
    ("version", "tag", "hint"),
    [
        ("1.2.3", "latest", "tag it 1.2.3"),
        ("1.2.3", "v1.2.3", "tag it 1.2.3"),
        ("1.2.3+b", "1.2.3", "tag it 1.2.3_b"),
        ("1.2.3", "1.2.3_b", "an _ in a tag stands for a +, and this version has none: tag it 1.2.3"),
        ("1.2.3", f"sha256-{HEX}", "tag it 1.2.3"),
    ],
)
def test_any_other_tag_is_refused(version: str, tag: str, hint: str) -> None:
    message = f"the tag {tag!r} is not the chart's version {version!r}; {hint}"
    assert versioned(version, tag) == [f"reject tag_is_the_chart_version: {message}"]


def test_a_tag_does_not_change_its_kind() -> None:
    message = "reject tag_keeps_its_kind: the tag '1.2.3' names {}, and this manifest is {}"
    message += "; use another repository, or delete the tag first"
    assert said(push(tag_is="other")) == [message.format("no chart", "a chart")]
    assert said(push(tag_is="chart")) == []
    (found,) = kind_of_tag_changes("1.2.3", was="chart", becomes="other")
    assert f"{found.severity} {found.rule}: {found}" == message.format("a chart", "no chart")
    assert list(kind_of_tag_changes("1.2.3", was=None, becomes="other")) == []


# All together


def test_all_faults_come_at_once_in_the_order_of_the_rules() -> None:
    chart_yaml = b"apiVersion: v9\nname: other\nversion: x\ntype: y"
    found = [each.rule for each in check(push(chart(chart_yaml=chart_yaml), tag="latest", provenance=b"junk"))]
    assert found == [
        "api_version_is_v1_or_v2",
        "version_is_semantic",
        "type_is_application_or_library",
        "config_has_the_chart_name",
        "config_has_the_chart_version",
        "config_says_what_chart_yaml_says",
        "top_folder_is_the_chart_name",
        "repository_ends_with_the_chart_name",
        "provenance_is_of_this_archive",
        "tag_is_the_chart_version",
    ]


def test_a_namespace_can_relax_names_and_tags() -> None:
    found = check(push(chart(top="App"), repository="team/other", tag="latest", names="warn"))
    assert [each.severity for each in found] == ["warn"] * 3
    assert {each.rule for each in found} <= {rule.__name__ for rule in RELAXED}
    assert [each.severity for each in check(push(config=b"{", names="warn"))] == ["reject"]


def test_every_rule_is_in_the_list_has_a_source_and_a_finding_here() -> None:
    """A rule that is written and not listed would never run."""
    written = {
        name
        for name, function in vars(rules).items()
        if introspection.isfunction(function)
        and introspection.signature(function).return_annotation == Iterator[Finding]
        and list(introspection.signature(function).parameters) == ["push"]
        and not name.startswith("_")
    }
    assert written == {rule.__name__ for rule in RULES + TAG_RULES}
    assert all(rule.__doc__ for rule in RULES + TAG_RULES)
    tests = Path(__file__).read_text(encoding="utf-8")
    reached_otherwise = {"archive_and_chart_yaml_can_be_read", "aliases_are_names", "dependencies_have_different_names"}
    reached_otherwise |= {
        f"manifest_has_{what}" for what in ("one_chart_layer", "at_most_one_provenance_layer", "no_other_layers")
    }
    assert [name for name in sorted(written - reached_otherwise) if f"{name}" not in tests] == []


def test_the_limits_of_the_archive_are_helms() -> None:
    assert (archive.TOTAL_LIMIT, archive.FILE_LIMIT, archive.MEMBER_LIMIT) == (104_857_600, 5_242_880, 10_000)


# Policy charts


def other(media_type: str = OCI_MANIFEST, **fields: object) -> Manifest:
    document = {
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [],
    }
    return parse(json.dumps({**document, **fields}).encode(), media_type)


INDEX = parse(b'{"schemaVersion": 2, "manifests": []}', OCI_INDEX)


@pytest.mark.parametrize(
    ("what", "tag"),
    [
        (manifest(CONFIG, b""), "1.2.3"),
        (other(subject=descriptor(OCI_MANIFEST, b"not here yet")), None),
        (other(), f"sha256-{HEX}"),
        (other(), f"sha256-{HEX}.sig"),
        (INDEX, f"sha256-{HEX}"),
        (other(artifactType="application/vnd.helm.plugin.v1+json"), "1.0.0"),
        (other(config=descriptor("application/vnd.helm.plugin.v1+json", b"{}")), "1.0.0"),
    ],
)
def test_policy_charts_takes_charts_and_what_belongs_to_them(what: Manifest, tag: str | None) -> None:
    assert list(is_for_charts(what, tag)) == []


@pytest.mark.parametrize("tag", [None, "1.2.3", "latest", "sha256-abc", f"sha256-{HEX}.", f"sha512-{HEX}"])
@pytest.mark.parametrize("what", [other(), INDEX], ids=["image", "index"])
def test_policy_charts_refuses_anything_else(what: Manifest, tag: str | None) -> None:
    (found,) = is_for_charts(what, tag)
    kind = what.referrer_type or what.media_type
    hint = 'push it to another registry, or set policy = "oci"'
    assert str(found) == f"this namespace takes charts and what belongs to them, not '{kind}'; {hint}"
