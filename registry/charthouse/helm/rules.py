"""What a chart must keep to be let in, one function per rule, each named as its sentence.

A rule looks at one push and yields what it finds. `RULES` are told by the manifest, the config blob and the layers
alone: Helm ≥ 3.18 puts the manifest by digest first, and what they find is refused there. `TAG_RULES` come with the
tag. Both hold under every policy. The warnings about what is inside of the chart are in `lint.py`.
Source: helm.sh/helm/v4 v4.3.1; where a rule is Helm's own, its docstring says where it stands.
"""

import dataclasses
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from charthouse.helm import provenance
from charthouse.helm.findings import Finding, named, reject, warn
from charthouse.helm.inspection import Inspection
from charthouse.helm.metadata import CHART_YAML, Metadata, Parsed
from charthouse.helm.provenance import Verification
from charthouse.helm.versions import Version, VersionInvalid, tag_of
from charthouse.manifest import CHART_LAYER, LEGACY_CHART_LAYER, OCI_MANIFEST, PROVENANCE_LAYER, Manifest
from charthouse.names import RepositoryName, Tag, shown

Kind = Literal["chart", "other"]

_ALIAS = re.compile(r"[a-zA-Z0-9_-]+")
_API_VERSIONS = ("v1", "v2")
_TYPES = ("", "application", "library")
_DIGEST_TAG = re.compile(r"sha256-[a-f0-9]{64}(?:\..+)?")
_PLUGIN = "application/vnd.helm.plugin.v1+json"
_PUSH_AGAIN = "push it with helm push"
_PACKAGE_AGAIN = "package it again with helm package"


@dataclass(frozen=True, slots=True)
class ChartPush:
    """A chart's manifest on its way in, with what its blobs say and what the registry knows.

    `tag` is None when the manifest is put by its digest. `host` is the registry's name, for hints. `tag_is` says what
    the tag names now, `parent_is_a_chart` whether the repository one level up holds charts, `newest` the newest version
    here.
    """

    repository: RepositoryName
    manifest: Manifest
    config: Parsed
    inspection: Inspection
    provenance: bytes | None = None
    tag: Tag | None = None
    host: str = "<registry>"
    tag_is: Kind | None = None
    parent_is_a_chart: bool = False
    newest: str = ""
    names: Literal["strict", "warn"] = "strict"
    legacy: Literal["accept", "reject"] = "accept"
    signatures: Literal["optional", "verified"] = "optional"
    verification: Verification | None = None  # of the provenance file, where there is one and keys to ask

    @property
    def metadata(self) -> Metadata | None:
        return self.inspection.metadata


Rule = Callable[[ChartPush], Iterable[Finding]]


# The manifest


def manifest_is_an_oci_image_manifest(push: ChartPush) -> Iterator[Finding]:
    """Helm finds no layers in a manifest of Docker's type (oras-go v2.6.2, content/graph.go; tried with 4.3.1)."""
    if push.manifest.media_type != OCI_MANIFEST:
        yield reject(f"a chart's manifest is {OCI_MANIFEST}, not {shown(push.manifest.media_type)}", hint=_PUSH_AGAIN)


def manifest_has_one_chart_layer(push: ChartPush) -> Iterator[Finding]:
    """Helm takes one of several, and fails on none (pkg/registry/chart.go; helm#32539)."""
    count = len(push.manifest.chart_layers())
    if count != 1:
        yield reject(
            f"the manifest has {count or 'no'} chart layers ({CHART_LAYER}), a chart has one", hint=_PUSH_AGAIN
        )


def manifest_has_at_most_one_provenance_layer(push: ChartPush) -> Iterator[Finding]:
    """Helm would take any of them (pkg/registry/client.go, Pull)."""
    count = len(push.manifest.provenance_layers())
    if count > 1:
        yield reject(f"the manifest has {count} provenance layers ({PROVENANCE_LAYER}), a chart has at most one")


def manifest_has_no_other_layers(push: ChartPush) -> Iterator[Finding]:
    """Helm never asks for them (pkg/registry/client.go, Pull)."""
    known = {CHART_LAYER, LEGACY_CHART_LAYER, PROVENANCE_LAYER}
    for media_type in dict.fromkeys(
        layer.media_type for layer in push.manifest.layers if layer.media_type not in known
    ):
        yield reject(
            f"the manifest has a layer of type {shown(media_type)}, which no chart has",
            hint="attach it to the chart with a manifest of its own that names the chart as its subject",
        )


def chart_layer_has_the_present_media_type(push: ChartPush) -> Iterator[Finding]:
    """Helm 3.0-3.6 wrote another type, which later ones pull with a warning (pkg/registry/constants.go)."""
    if any(layer.media_type == LEGACY_CHART_LAYER for layer in push.manifest.layers):
        say = reject if push.legacy == "reject" else warn
        yield say(f"the chart layer has Helm 3.6's type {LEGACY_CHART_LAYER}", hint="push it with Helm 3.8 or newer")


# What the blobs say, each by itself


def config_can_be_read(push: ChartPush) -> Iterator[Finding]:
    """Helm reads the chart's metadata from it (pkg/registry/client.go, Pull)."""
    yield from push.config.faults


def archive_and_chart_yaml_can_be_read(push: ChartPush) -> Iterator[Finding]:
    """What Helm's loader refuses (pkg/chart/loader/archive/archive.go, pkg/chart/v2/loader/load.go).

    The findings have the names that `archive.py` and `metadata.py` give them.
    """
    yield from push.inspection.faults


def api_version_is_v1_or_v2(push: ChartPush) -> Iterator[Finding]:
    """Helm 4: "unsupported chart version" (pkg/chart/loader/load.go). None is v1."""
    if push.metadata and push.metadata.api_version not in _API_VERSIONS:
        yield _chart_yaml(f"apiVersion is {shown(push.metadata.api_version)}", "write v2 (Helm 3 and newer) or v1")


def name_is_a_name(push: ChartPush) -> Iterator[Finding]:
    """Metadata.Validate: given, not `.` or `..`, no path (pkg/chart/v2/metadata.go; CVE-2026-35206)."""
    if push.metadata and _is_whole(push) and not push.metadata.name:
        yield _chart_yaml("name is required")
    elif push.metadata and (push.metadata.name in (".", "..") or "/" in push.metadata.name):
        yield _chart_yaml(f"the name {shown(push.metadata.name)} is not valid", "use letters, digits, '-', '_' and '.'")


def version_is_semantic(push: ChartPush) -> Iterator[Finding]:
    """Metadata.Validate: given, and taken by Masterminds' NewVersion (pkg/chart/v2/metadata.go)."""
    if push.metadata is None:
        return
    if not push.metadata.version:
        if _is_whole(push):
            yield _chart_yaml("version is required")
        return
    try:
        Version.parse(push.metadata.version)
    except VersionInvalid as error:
        yield _chart_yaml(
            f"the version {shown(push.metadata.version)} is not valid: {error}", "write one such as 1.2.3"
        )


def type_is_application_or_library(push: ChartPush) -> Iterator[Finding]:
    """Metadata.Validate (pkg/chart/v2/metadata.go)."""
    if push.metadata and push.metadata.type not in _TYPES:
        yield _chart_yaml(f"type is {shown(push.metadata.type)}, it must be application or library")


def aliases_are_names(push: ChartPush) -> Iterator[Finding]:
    """Dependency.Validate: an alias becomes a folder (pkg/chart/v2/dependency.go)."""
    for dependency in push.metadata.dependencies if push.metadata else ():
        if dependency.alias and not _ALIAS.fullmatch(dependency.alias):
            yield _chart_yaml(
                f"dependency {shown(dependency.name)} has the alias {shown(dependency.alias)}",
                "use letters, digits, '-' and '_' only",
            )


def dependencies_have_different_names(push: ChartPush) -> Iterator[Finding]:
    """Metadata.Validate: "more than one dependency with name or alias" (pkg/chart/v2/metadata.go)."""
    counts = (
        Counter(each.alias or each.name for each in push.metadata.dependencies) if push.metadata else Counter[str]()
    )
    for key, count in counts.items():
        if count > 1:
            yield _chart_yaml(f"{count} dependencies have the name or alias {shown(key)}", "give each another alias")


def _is_whole(push: ChartPush) -> bool:
    """Whether every field could be read: otherwise what is missing may be what could not."""
    return not push.inspection.faults


def _chart_yaml(message: str, hint: str = "") -> Finding:
    return reject(message, hint=hint, file=CHART_YAML)


# What they say of each other


def config_has_the_chart_name(push: ChartPush) -> Iterator[Finding]:
    """Lists and searches show the config's name, installs use the archive's."""
    yield from _disagreement(push, "name")


def config_has_the_chart_version(push: ChartPush) -> Iterator[Finding]:
    """Likewise; helm pull names the file by the config's version."""
    yield from _disagreement(push, "version")


def _disagreement(push: ChartPush, field: Literal["name", "version"]) -> Iterator[Finding]:
    config, chart = getattr(push.config.metadata, field), getattr(push.metadata, field, "")
    if chart and config != chart and not push.config.faults:
        message = f"the config blob has the {field} {shown(config)}, Chart.yaml in the archive has {shown(chart)}"
        yield reject(message, hint=_PUSH_AGAIN)


def config_says_what_chart_yaml_says(push: ChartPush) -> Iterator[Finding]:
    """All the rest that both hold; Helm made one from the other."""
    if push.metadata is None or push.config.faults or push.inspection.faults:
        return
    config, chart = push.config.metadata, push.metadata
    fields = [each.name for each in dataclasses.fields(Metadata) if each.name not in ("name", "version")]
    if different := [field for field in fields if getattr(config, field) != getattr(chart, field)]:
        yield warn(f"the config blob and Chart.yaml disagree in {', '.join(different)}", hint=_PUSH_AGAIN)


def top_folder_is_the_chart_name(push: ChartPush) -> Iterator[Finding]:
    """helm package makes it so; older archives whose names begin with `./` have none."""
    top = push.inspection.top
    if push.metadata and push.metadata.name and top not in (push.metadata.name, "."):
        yield reject(
            f"the archive's folder is {shown(top)}, the chart's name is {shown(push.metadata.name)}",
            hint=_PACKAGE_AGAIN,
        )


def archive_has_one_top_folder(push: ChartPush) -> Iterator[Finding]:
    """Helm's loader puts them together, unpacking them does not."""
    if len(push.inspection.tops) > 1:
        folders = ", ".join(shown(top, 40) for top in push.inspection.tops[:5])
        yield reject(f"the archive has {len(push.inspection.tops)} top folders ({folders})", hint=_PACKAGE_AGAIN)


def repository_ends_with_the_chart_name(push: ChartPush) -> Iterator[Finding]:
    """helm push appends the name to what it is given (pkg/pusher/ocipusher.go)."""
    name = push.metadata.name if push.metadata else ""
    if name and push.repository.last_component != name:
        parent = posixpath.dirname(push.repository)
        yield reject(
            f"the repository {push.repository} does not end with the chart's name {shown(name)}",
            hint=f"push it to {_address(push, parent)} and Helm appends the name",
        )


def repository_does_not_repeat_the_chart_name(push: ChartPush) -> Iterator[Finding]:
    """The usual slip, `helm push x.tgz oci://host/charts/x`, ends in charts/x/x."""
    parent = posixpath.dirname(push.repository)
    if posixpath.basename(parent) != push.repository.last_component:
        return
    hint = f"Helm appends the chart's name: did you mean {_address(push, posixpath.dirname(parent))}?"
    if push.parent_is_a_chart:
        yield reject(f"the repository is {push.repository}, and {parent} already is a chart", hint=hint)
    else:
        yield warn(f"the repository {push.repository} repeats the chart's name", hint=hint)


def _address(push: ChartPush, namespace: str) -> str:
    return f"oci://{push.host}/{namespace}".rstrip("/")


def provenance_is_of_this_archive(push: ChartPush) -> Iterator[Finding]:
    """Signatory.Verify: it names `<name>-<version>.tgz` with its SHA-256 (pkg/provenance/sign.go). No key is needed."""
    if push.provenance is None:
        return
    try:
        files = provenance.parse(push.provenance).files
    except provenance.ProvenanceInvalid as error:
        yield reject(f"the provenance file cannot be read: {error}", hint=_SIGN_AGAIN)
        return
    layers, chart = push.manifest.chart_layers(), push.metadata
    if chart is None or not chart.name or len(layers) != 1:
        return
    archive = f"{chart.name}-{chart.version}.tgz"
    if archive not in files:
        named_there = ", ".join(shown(name) for name in files) or "no file"
        yield reject(f"the provenance file is about {named_there}, not {archive}", hint=_SIGN_AGAIN)
    elif files[archive] != layers[0].digest:
        said = shown(files[archive])
        message = f"the provenance file says that {archive} is {said}, the chart layer is {layers[0].digest}"
        yield reject(message, hint=_SIGN_AGAIN)


def signature_is_verified(push: ChartPush) -> Iterator[Finding]:
    """Where the namespace demands it: as `helm verify` with the namespace's keyring."""
    if push.signatures != "verified":
        return
    if push.provenance is None:
        yield reject(
            "charts of this namespace have to be signed, and this one has no provenance file",
            hint="package it with helm package --sign, and push it with the .prov beside it",
        )
    elif push.verification and push.verification.state != "verified":
        yield reject(
            f"charts of this namespace have to be signed with a key of its keyring, and this one is"
            f" {_WHY_NOT[push.verification.state]}: {push.verification.message}",
            hint="sign it with such a key, or have yours added with `charthouse keyring add`",
        )


_WHY_NOT = {"unknown key": "signed with another", "bad": "not rightly signed"}
_SIGN_AGAIN = "sign this archive again (helm package --sign), or push it without the .prov"


# What Helm takes, and people should know


def version_is_not_lower_than_the_newest(push: ChartPush) -> Iterator[Finding]:
    """Who asks for no version gets the newest, which this is not."""
    if push.metadata and push.newest:
        try:
            if Version.parse(push.metadata.version) < Version.parse(push.newest):
                yield warn(f"the version {push.metadata.version} is lower than {push.newest}, which is here already")
        except VersionInvalid:
            return


# The tag


def tag_is_the_chart_version(push: ChartPush) -> Iterator[Finding]:
    """With `_` for `+`, which no tag can hold (pkg/registry/client.go, Push). Helm finds no chart by another tag."""
    if push.tag is None or push.metadata is None or not push.metadata.version:
        return
    wanted = tag_of(push.metadata.version)
    if push.tag == wanted:
        return
    if "+" not in push.metadata.version and "_" in push.tag:
        hint = f"an _ in a tag stands for a +, and this version has none: tag it {wanted}"
    else:
        hint = f"tag it {wanted}"
    yield reject(f"the tag {shown(push.tag)} is not the chart's version {shown(push.metadata.version)}", hint=hint)


def tag_keeps_its_kind(push: ChartPush) -> Iterator[Finding]:
    """Who pulls the tag as what it was would fail."""
    if push.tag and push.tag_is == "other":
        yield from kind_of_tag_changes(push.tag, was="other", becomes="chart")


def kind_of_tag_changes(tag: str, *, was: Kind | None, becomes: Kind) -> Iterator[Finding]:
    """The same for a push of anything else onto a chart's tag."""
    if was is not None and was != becomes:
        words = {"chart": "a chart", "other": "no chart"}
        yield reject(
            f"the tag {shown(tag)} names {words[was]}, and this manifest is {words[becomes]}",
            hint="use another repository, or delete the tag first",
            rule="tag_keeps_its_kind",
        )


RULES: tuple[Rule, ...] = (
    manifest_is_an_oci_image_manifest,
    manifest_has_one_chart_layer,
    manifest_has_at_most_one_provenance_layer,
    manifest_has_no_other_layers,
    chart_layer_has_the_present_media_type,
    config_can_be_read,
    archive_and_chart_yaml_can_be_read,
    api_version_is_v1_or_v2,
    name_is_a_name,
    version_is_semantic,
    type_is_application_or_library,
    aliases_are_names,
    dependencies_have_different_names,
    config_has_the_chart_name,
    config_has_the_chart_version,
    config_says_what_chart_yaml_says,
    top_folder_is_the_chart_name,
    archive_has_one_top_folder,
    repository_ends_with_the_chart_name,
    repository_does_not_repeat_the_chart_name,
    provenance_is_of_this_archive,
    signature_is_verified,
    version_is_not_lower_than_the_newest,
)
TAG_RULES: tuple[Rule, ...] = (tag_is_the_chart_version, tag_keeps_its_kind)
RELAXED: frozenset[Rule] = frozenset(  # warnings where a namespace says names = "warn"
    {
        top_folder_is_the_chart_name,
        archive_has_one_top_folder,
        repository_ends_with_the_chart_name,
        tag_is_the_chart_version,
    }
)


def check(push: ChartPush) -> list[Finding]:
    """All faults of the push at once, in the order of the rules."""
    return [finding for rule in RULES + TAG_RULES for finding in _apply(rule, push)]


def _apply(rule: Rule, push: ChartPush) -> Iterator[Finding]:
    relaxed = push.names == "warn" and rule in RELAXED
    for finding in named(rule.__name__, rule(push)):
        yield dataclasses.replace(finding, severity="warn") if relaxed else finding


def is_digest_tag(tag: str) -> bool:
    """`sha256-<hex>`, with whatever behind it: where clients keep what belongs to that digest."""
    return bool(_DIGEST_TAG.fullmatch(tag))


def is_for_charts(manifest: Manifest, tag: str | None) -> Iterator[Finding]:
    """Policy `charts` lets in, beside charts, what has a subject, signatures under `sha256-` tags, Helm's plugins."""
    if manifest.is_chart or manifest.subject or (tag is not None and is_digest_tag(tag)):
        return
    if _PLUGIN not in (manifest.artifact_type, manifest.config.media_type if manifest.config else ""):
        kind = manifest.referrer_type or manifest.media_type
        yield reject(
            f"this namespace takes charts and what belongs to them, not {shown(kind)}",
            hint='push it to another registry, or set policy = "oci"',
            rule="is_for_charts",
        )
