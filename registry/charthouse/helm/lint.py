"""What is warned of: the rules of `helm lint` that need no template engine, and our own. One function per rule.

`docs/rules.md` sets each finding of Helm beside ours. What Helm's lint calls an error, but Helm's loader takes, is a
warning here: such charts are in real repositories, and work.
Source: helm.sh/helm/v4 v4.3.1, pkg/chart/v2/lint/rules.
"""

import base64
import posixpath
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charthouse.helm import documents, kubernetes, schema
from charthouse.helm.archive import Archive, ArchiveInvalid, Limits, read
from charthouse.helm.documents import DocumentInvalid
from charthouse.helm.findings import Finding, named, warn
from charthouse.helm.metadata import (
    CHART_YAML,
    DEPENDENCY_FIELDS,
    FIELDS,
    MAINTAINER_FIELDS,
    REQUIREMENTS_YAML,
    Metadata,
    Parsed,
    parse,
)
from charthouse.helm.versions import Version, VersionInvalid, check_constraint
from charthouse.names import shown

SECRET_LIMIT = 1024 * 1024  # bytes of a Kubernetes Secret, in which Helm keeps a release

_VALUES, _SCHEMA, _LOCKS = "values.yaml", "values.schema.json", ("Chart.lock", "requirements.lock")
_EXTENSIONS = (".yaml", ".yml", ".tpl", ".txt")
_EMAIL = re.compile(r"[^@\s\"(),:;<>\[\\\]]+@[^@\s.]+(?:\.[^@\s.]+)*\.[^\W\d_](?:[^@\s.]*[^\W\d_])?\.?")
_URL = re.compile(
    r"(?=.{4})(?:(?:ftp|tcp|udp|wss?|https?)://)?(?:[^\s/@]+@)?"
    r"(?:\[[0-9a-fA-F:.]+\]|[^\W_](?:[^\s/?#@:]*[^\W_])?\.?)(?::[0-9]{1,5})?(?:[/?#]\S*)?"
)
_REQUEST_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:(?://[^\s/]*)?[^\x00-\x20\x7f]*")


@dataclass(frozen=True, slots=True)
class Chart:
    """What the rules look at. `values` is None when values.yaml is not there or cannot be read."""

    archive: Archive
    parsed: Parsed
    values: Mapping[str, Any] | None = None
    values_fault: DocumentInvalid | None = None
    subcharts: frozenset[str] = frozenset()
    subchart_faults: tuple[tuple[str, str], ...] = ()

    @property
    def metadata(self) -> Metadata:
        return self.parsed.metadata

    def line(self, field: str) -> int:
        return self.parsed.line(field)

    def paths(self, folder: str) -> list[str]:
        return [path for path in self.archive.files if path.startswith(folder)]


Lint = Callable[[Chart], Iterable[Finding]]


def check(archive: Archive, parsed: Parsed) -> Iterator[Finding]:
    """All warnings about a chart whose Chart.yaml could be read."""
    if not isinstance(parsed.document, dict):
        return
    chart = _chart(archive, parsed)
    for lint in LINTS:
        yield from named(lint.__name__, lint(chart))


def _chart(archive: Archive, parsed: Parsed) -> Chart:
    values: dict[str, Any] | None = None
    fault: DocumentInvalid | None = None
    try:
        values = documents.merged(archive.files[_VALUES]) if _VALUES in archive.files else None
    except DocumentInvalid as error:
        fault = error
    return Chart(archive, parsed, values, fault, *_subcharts(archive))


# Chart.yaml


def api_version_is_given(chart: Chart) -> Iterator[Finding]:
    if "apiversion" not in {key.casefold() for key in chart.parsed.document}:
        yield _chart_yaml("apiVersion is not given, so this is read as a chart of Helm 2", "write apiVersion: v2")


def fields_are_known(chart: Chart) -> Iterator[Finding]:
    """Helm ignores fields it does not know, and takes any case: usually a slip."""
    document = chart.parsed.document
    yield from _unknown(document, FIELDS, "")
    for field, known in (("maintainers", MAINTAINER_FIELDS), ("dependencies", DEPENDENCY_FIELDS)):
        items = document.get(field)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, documents.Mapping):
                yield from _unknown(item, known, f"{field}[{index}].")


def _unknown(mapping: documents.Mapping, known: frozenset[str], path: str) -> Iterator[Finding]:
    for key in mapping:
        if key not in known:
            yield _chart_yaml(f"unknown field {shown(path + key, 80)}", line=mapping.lines.get(key, 0))


def fields_stand_once(chart: Chart) -> Iterator[Finding]:
    """Of two, Helm takes the last."""
    for key, line in chart.parsed.document.repeated:
        yield _chart_yaml(f"the field {shown(key, 80)} stands twice", line=line)


def versions_are_texts(chart: Chart) -> Iterator[Finding]:
    """A number loses its zeros: `1.10` is read as 1.1."""
    for field, attribute in (("version", "version"), ("appVersion", "app_version")):
        value = chart.parsed.document.get(field)
        if isinstance(value, (int, float)):
            read_as = getattr(chart.metadata, attribute)
            yield _chart_yaml(
                f"{field} is a number or a boolean, and is read as {shown(read_as)}",
                "put it in quotes",
                chart.line(field),
            )


def version_is_strict(chart: Chart) -> Iterator[Finding]:
    """Ranges and the newest are sought among strict semantic versions only (pkg/registry/client.go, Tags)."""
    version = chart.metadata.version
    try:
        Version.parse(version)
        Version.parse_strict(version)
    except VersionInvalid as error:
        if not version.startswith("v"):
            yield _chart_yaml(f"the version is {shown(version)}: {error}", _NO_RANGE, chart.line("version"))


def version_has_no_v(chart: Chart) -> Iterator[Finding]:
    """Likewise."""
    if chart.metadata.version.startswith("v"):
        message = f"the version {shown(chart.metadata.version)} begins with v"
        yield _chart_yaml(message, _NO_RANGE, chart.line("version"))


_NO_RANGE = "ranges of versions, and installs without --version, will not find it"


def version_is_above_zero(chart: Chart) -> Iterator[Finding]:
    """`>0.0.0-0` is what Helm asks for when pre-releases count (--devel)."""
    try:
        if Version.parse(chart.metadata.version) == Version.parse("0.0.0-0"):
            yield _chart_yaml("the version 0.0.0-0 is lower than any range", line=chart.line("version"))
    except VersionInvalid:
        return


def maintainers_can_be_reached(chart: Chart) -> Iterator[Finding]:
    for maintainer in chart.metadata.maintainers:
        line = chart.line("maintainers")
        if not maintainer.name:
            yield _chart_yaml("a maintainer has no name", line=line)
        if maintainer.email and not _EMAIL.fullmatch(maintainer.email):
            yield _chart_yaml(f"maintainer {shown(maintainer.name)} has the email {shown(maintainer.email)}", line=line)
        if maintainer.url and not _URL.fullmatch(maintainer.url):
            yield _chart_yaml(f"maintainer {shown(maintainer.name)} has the url {shown(maintainer.url)}", line=line)


def sources_are_urls(chart: Chart) -> Iterator[Finding]:
    for source in chart.metadata.sources:
        if not _REQUEST_URL.fullmatch(source):
            yield _chart_yaml(f"the source {shown(source)} is no URL", line=chart.line("sources"))


def icon_is_given(chart: Chart) -> Iterator[Finding]:
    if not chart.metadata.icon:
        yield _chart_yaml("there is no icon")


def icon_is_a_url(chart: Chart) -> Iterator[Finding]:
    if chart.metadata.icon and not _REQUEST_URL.fullmatch(chart.metadata.icon):
        yield _chart_yaml(f"the icon {shown(chart.metadata.icon)} is no URL", line=chart.line("icon"))


def fields_belong_to_the_api_version(chart: Chart) -> Iterator[Finding]:
    """`dependencies` and `type` came with v2."""
    if chart.metadata.api_version != "v1":
        return
    for field in ("dependencies", "type"):
        if chart.parsed.document.get(field):
            yield _chart_yaml(f"{field} has no meaning in apiVersion v1", "write apiVersion: v2", chart.line(field))


def kube_version_is_a_range(chart: Chart) -> Iterator[Finding]:
    """Installing would fail (pkg/action/install.go, isCompatible)."""
    if chart.metadata.kube_version:
        yield from _range("kubeVersion", chart.metadata.kube_version, chart.line("kubeVersion"))


def dependency_versions_are_ranges(chart: Chart) -> Iterator[Finding]:
    """helm dependency update would fail (internal/resolver/resolver.go)."""
    for dependency in chart.metadata.dependencies:
        if dependency.version:
            yield from _range(
                f"the version of dependency {shown(dependency.name)}", dependency.version, chart.line("dependencies")
            )


def _range(what: str, text: str, line: int) -> Iterator[Finding]:
    try:
        check_constraint(text)
    except VersionInvalid as error:
        yield _chart_yaml(f"{what} is {shown(text)}: {error}", line=line)


def _chart_yaml(message: str, hint: str = "", line: int = 0) -> Finding:
    return warn(message, hint=hint, file=CHART_YAML, line=line)


# Values


def values_yaml_is_there(chart: Chart) -> Iterator[Finding]:
    if _VALUES not in chart.archive.files:
        yield warn("there is no values.yaml", file=_VALUES)


def values_yaml_can_be_read(chart: Chart) -> Iterator[Finding]:
    if fault := chart.values_fault:
        yield _not_yaml(_VALUES, fault)


def values_satisfy_the_schema(chart: Chart) -> Iterator[Finding]:
    """What the schema demands of the default values. References to elsewhere are never followed."""
    content = chart.archive.files.get(_SCHEMA)
    if not content or chart.values is None:
        return
    try:
        for place, message in schema.faults(content, chart.values):
            yield warn(f"{place}: {message}" if place else message, hint=f"{_SCHEMA} demands it", file=_VALUES)
    except schema.SchemaInvalid as error:
        yield warn(f"the schema cannot be used: {error}", file=_SCHEMA)
    except schema.SchemaElsewhere as error:
        yield warn(f"not checked, the schema refers to another one: {error}", file=_SCHEMA)


# Dependencies


def dependencies_are_in_charts(chart: Chart) -> Iterator[Finding]:
    missing = [each.name for each in chart.metadata.dependencies if each.name not in chart.subcharts]
    if missing:
        yield warn(f"charts/ lacks the dependencies {', '.join(missing)}", hint="run helm dependency build first")


def charts_are_dependencies(chart: Chart) -> Iterator[Finding]:
    known = {each.name for each in chart.metadata.dependencies}
    if missing := sorted(chart.subcharts - known):
        yield _chart_yaml(f"dependencies lacks {', '.join(missing)}, in charts/", line=chart.line("dependencies"))


def subcharts_can_be_read(chart: Chart) -> Iterator[Finding]:
    """Otherwise Helm cannot load the chart."""
    for path, message in chart.subchart_faults:
        yield warn(f"the subchart cannot be read: {message}", hint="Helm cannot load the chart", file=path)


def lock_is_of_these_dependencies(chart: Chart) -> Iterator[Finding]:
    """helm dependency build takes what the lock says."""
    for file in _LOCKS:
        if file not in chart.archive.files:
            continue
        try:
            lock = documents.load(chart.archive.files[file])
        except DocumentInvalid as error:
            yield _not_yaml(file, error)
            continue
        items = lock.get("dependencies") if isinstance(lock, dict) else None
        locked = sorted(str(each.get("name")) for each in items or () if isinstance(each, dict))
        wanted = sorted(each.name for each in chart.metadata.dependencies)
        if locked != wanted:
            message = (
                f"it locks {', '.join(locked) or 'nothing'}, and the dependencies are {', '.join(wanted) or 'none'}"
            )
            yield warn(message, hint="run helm dependency update", file=file)


def _not_yaml(file: str, error: DocumentInvalid, hint: str = "Helm cannot load the chart") -> Finding:
    if error.is_limit:
        return warn(f"not checked: {error.message}", file=file, line=error.line)
    return warn(f"not valid YAML: {error.message}", hint=hint, file=file, line=error.line)


def _subcharts(archive: Archive) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """The names of the charts in charts/, and those that cannot be read, with the reason."""
    names: set[str] = set()
    faults: list[tuple[str, str]] = []
    paths = [path for path in archive.files if path.startswith("charts/") and not path.endswith(".prov")]
    for entry in dict.fromkeys(path.split("/")[1] for path in paths):
        path = f"charts/{entry}"
        is_folder = path not in archive.files
        if entry.startswith(("_", ".")) or not (is_folder or entry.endswith(".tgz")):
            continue
        try:
            files = archive.files if is_folder else read(archive.files[path], Limits(members=2000)).files
            names.add(_subchart_name(files, f"{path}/" if is_folder else ""))
        except (ArchiveInvalid, DocumentInvalid) as error:
            faults.append((path, str(error)))
    return frozenset(names), tuple(faults)


def _subchart_name(files: Mapping[str, bytes], folder: str) -> str:
    if folder + CHART_YAML not in files:
        raise DocumentInvalid("it has no Chart.yaml")
    parsed = parse(files[folder + CHART_YAML], files.get(folder + REQUIREMENTS_YAML))
    if parsed.faults:
        raise DocumentInvalid(str(parsed.faults[0]))
    return parsed.metadata.name


# Templates and CRDs


def templates_are_there(chart: Chart) -> Iterator[Finding]:
    if "templates" in chart.archive.files:
        yield warn("templates is a file, it must be a folder", file="templates")
    elif not chart.paths("templates/"):
        yield warn("there is no folder templates/")


def templates_have_known_extensions(chart: Chart) -> Iterator[Finding]:
    for path in chart.paths("templates/"):
        extension = posixpath.splitext("x" + posixpath.basename(path))[1]
        if extension not in _EXTENSIONS:
            yield warn(f"a template's extension is {shown(extension)}", hint=f"use {', '.join(_EXTENSIONS)}", file=path)


def api_versions_are_not_removed(chart: Chart) -> Iterator[Finding]:
    """Where a template writes an apiVersion out and does not ask the cluster for what it has."""
    for path in chart.paths("templates/"):
        content = chart.archive.files[path]
        if b".Capabilities" in content or b"semverCompare" in content:
            continue
        for line, gone, instead in kubernetes.removed(content):
            yield warn(gone, hint=f"write {instead}", file=path, line=line)


def crds_are_crds(chart: Chart) -> Iterator[Finding]:
    if "crds" in chart.archive.files:
        yield warn("crds is a file, it must be a folder", file="crds")
    for path in chart.paths("crds/"):
        if posixpath.splitext(path)[1] not in (".yaml", ".yml", ".json"):
            continue
        try:
            objects = list(documents.heads(chart.archive.files[path]))
        except DocumentInvalid as error:
            yield _not_yaml(path, error, hint="CRDs are no templates")
            continue
        for line, fields in objects:
            yield from _crd(path, line, fields)


def _crd(path: str, line: int, fields: Mapping[str, str]) -> Iterator[Finding]:
    if not fields:
        return
    if not fields.get("apiVersion", "").startswith("apiextensions.k8s.io"):
        yield warn(
            f"apiVersion is {shown(fields.get('apiVersion', ''))}, not apiextensions.k8s.io", file=path, line=line
        )
    if fields.get("kind") != "CustomResourceDefinition":
        yield warn(f"kind is {shown(fields.get('kind', ''))}, not CustomResourceDefinition", file=path, line=line)


# Ours


def members_are_read_as_they_stand(chart: Chart) -> Iterator[Finding]:
    """Helm reads links as empty files, and of a path that stands twice the last."""
    for path in chart.archive.links:
        yield warn("a link, which Helm reads as an empty file", hint="pack the file itself", file=path)
    for path in dict.fromkeys(chart.archive.repeated):
        yield warn("stands more than once in the archive, the last one counts", file=path)


def release_fits_into_a_secret(chart: Chart) -> Iterator[Finding]:
    """Helm keeps a release, the chart in it, in one Secret (pkg/storage/driver/util.go, encodeRelease)."""
    if chart.archive.inflated < SECRET_LIMIT // 2:
        return
    deflater = zlib.compressobj()
    deflated = sum(len(deflater.compress(base64.b64encode(content))) for content in chart.archive.files.values())
    size = (deflated + len(deflater.flush())) * 4 // 3
    if size > SECRET_LIMIT:
        message = (
            f"the chart takes about {size:,} bytes of a release, and Kubernetes allows {SECRET_LIMIT:,} in a Secret"
        )
        yield warn(message, hint="installing it will fail; leave files out by .helmignore")


LINTS: tuple[Lint, ...] = (
    api_version_is_given,
    fields_are_known,
    fields_stand_once,
    versions_are_texts,
    version_is_strict,
    version_has_no_v,
    version_is_above_zero,
    maintainers_can_be_reached,
    sources_are_urls,
    icon_is_given,
    icon_is_a_url,
    fields_belong_to_the_api_version,
    kube_version_is_a_range,
    dependency_versions_are_ranges,
    values_yaml_is_there,
    values_yaml_can_be_read,
    values_satisfy_the_schema,
    dependencies_are_in_charts,
    charts_are_dependencies,
    subcharts_can_be_read,
    lock_is_of_these_dependencies,
    templates_are_there,
    templates_have_known_extensions,
    api_versions_are_not_removed,
    crds_are_crds,
    members_are_read_as_they_stand,
    release_fits_into_a_secret,
)
