"""Metadata: what Chart.yaml, or the config blob made from it, says of a chart.

Read as Helm reads it: field names in any case, numbers and booleans where a text is wanted written as texts (so
`version: 1.10` is the version 1.1), unknown fields ignored, control characters taken out. What cannot be read becomes
a finding, and the other fields are read all the same, so that all faults come at once.
Source: helm.sh/helm/v4 v4.3.1, pkg/chart/v2/metadata.go, dependency.go, loader/load.go; encoding/json.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from charthouse.helm import documents
from charthouse.helm.findings import Finding, reject
from charthouse.names import shown

CHART_YAML = "Chart.yaml"
REQUIREMENTS_YAML = "requirements.yaml"
CHART_YAML_LIMIT = 1024 * 1024  # bytes
CONFIG_LIMIT = 1024 * 1024  # bytes

# unicode.IsSpace; Python also counts the separators U+001C to U+001F.
_SPACES = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)


@dataclass(frozen=True, slots=True)
class Maintainer:
    name: str = ""
    email: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Dependency:
    name: str = ""
    version: str = ""
    repository: str = ""
    condition: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = False
    import_values: tuple[Any, ...] = ()
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Every field that Helm knows. `api_version` is v1 when none is given, as in Helm's loader."""

    name: str = ""
    version: str = ""
    description: str = ""
    api_version: str = "v1"
    app_version: str = ""
    type: str = ""
    deprecated: bool = False
    kube_version: str = ""
    home: str = ""
    icon: str = ""
    condition: str = ""
    tags: str = ""
    keywords: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    maintainers: tuple[Maintainer, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    dependencies: tuple[Dependency, ...] = ()

    @property
    def is_library(self) -> bool:
        return self.type == "library"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Metadata":
        """What `to_json` gave."""
        lists = {name: tuple(values[name]) for name in ("keywords", "sources")}
        maintainers = tuple(Maintainer(**each) for each in values["maintainers"])
        dependencies = tuple(
            Dependency(**{**each, "tags": tuple(each["tags"]), "import_values": tuple(each["import_values"])})
            for each in values["dependencies"]
        )
        return cls(**{**values, **lists, "maintainers": maintainers, "dependencies": dependencies})


@dataclass(frozen=True, slots=True)
class Parsed:
    """`metadata` is there whatever could be read; `faults` says what could not. `document` is the bare YAML."""

    metadata: Metadata
    faults: tuple[Finding, ...] = ()
    document: Any = None

    def line(self, key: str) -> int:
        """On which line of the file a field stands; 0 when it does not."""
        return self.document.lines.get(key, 0) if isinstance(self.document, documents.Mapping) else 0


def parse(chart_yaml: bytes, requirements_yaml: bytes | None = None) -> Parsed:
    """Chart.yaml, and over it what the requirements.yaml of older charts says, as in Helm's loader."""
    fields, faults, document = _read_yaml(CHART_YAML, chart_yaml)
    if not fields.get("api_version"):
        fields.pop("api_version", None)
    if requirements_yaml is not None:
        more, more_faults, _ = _read_yaml(REQUIREMENTS_YAML, requirements_yaml)
        fields.update(more)
        faults += more_faults
    return Parsed(Metadata(**fields), tuple(faults), document)


def from_config(content: bytes) -> Parsed:
    """The config blob, in which Helm keeps the metadata as JSON (pkg/registry/client.go, Push)."""
    rule = "config_can_be_read"
    if len(content) > CONFIG_LIMIT:
        fault = reject(f"the config blob has {len(content):,} bytes, at most {CONFIG_LIMIT:,} are allowed", rule=rule)
        return Parsed(Metadata(), (fault,))
    try:
        document = json.loads(content)
    except RecursionError:
        return Parsed(Metadata(), (reject("the config blob is nested too deeply", rule=rule),))
    except ValueError as error:
        return Parsed(Metadata(), (reject(f"the config blob is not valid JSON: {error}", hint=_PUSH, rule=rule),))
    reader = _Reader(rule, "", "the config blob's ", coerces=False)
    fields = reader.document(document)
    return Parsed(Metadata(**fields), tuple(reader.faults), document)


_PUSH = "push the chart with helm push"


def _read_yaml(file: str, content: bytes) -> tuple[dict[str, Any], list[Finding], Any]:
    rule = "chart_yaml_can_be_read"
    if len(content) > CHART_YAML_LIMIT:
        message = f"it has {len(content):,} bytes, at most {CHART_YAML_LIMIT:,} are allowed"
        return {}, [reject(message, file=file, rule=rule)], None
    try:
        document = documents.load(content)
    except documents.DocumentInvalid as error:
        words = "too much YAML" if error.is_limit else "not valid YAML"
        return {}, [reject(f"{words}: {error.message}", file=file, line=error.line, rule=rule)], None
    reader = _Reader(rule, file, "", coerces=True)
    return reader.document(document), reader.faults, document


def sanitize(text: str) -> str:
    """sanitizeString: every space is a blank, and what cannot be printed is taken out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if char in _SPACES else char for char in text if char in _SPACES or char.isprintable())


class _Reader:
    """Reads fields into the shapes Helm's structs have, noting what does not fit."""

    def __init__(self, rule: str, file: str, prefix: str, *, coerces: bool) -> None:
        self.faults: list[Finding] = []
        self._rule = rule
        self._file = file
        self._prefix = prefix
        self._coerces = coerces

    def document(self, document: Any) -> dict[str, Any]:
        if document is None:
            return {}
        if not isinstance(document, dict):
            self._misfit("", document, "a mapping of fields", 1 if self._file else 0)
            return {}
        return self._fields(document, _METADATA, "")

    def _fields(self, document: dict[str, Any], known: "_Fields", path: str) -> dict[str, Any]:
        """Names are compared in any case; of two spellings the last in the alphabet counts, as in Go."""
        fields: dict[str, Any] = {}
        lines = getattr(document, "lines", {})
        for key in sorted(document):
            if found := known.get(key) or known.get(key.casefold()):
                attribute, read = found
                value = read(self, document[key], path + key, lines.get(key, 0))
                if value is not None:
                    fields[attribute] = value
        return fields

    def text(self, value: Any, path: str, line: int) -> str | None:
        if isinstance(value, str):
            return value.encode(errors="replace").decode()  # JSON can spell half a character
        if value is None:
            return None
        if self._coerces and isinstance(value, (int, float)):
            return documents.as_text(value)
        self._misfit(path, value, "a text", line)
        return None

    def clean_text(self, value: Any, path: str, line: int) -> str | None:
        text = self.text(value, path, line)
        return None if text is None else sanitize(text)

    def flag(self, value: Any, path: str, line: int) -> bool | None:
        if value is None or isinstance(value, bool):
            return value
        self._misfit(path, value, "true or false", line)
        return None

    def texts(self, value: Any, path: str, line: int) -> tuple[str, ...]:
        items = self._items(value, path, line)
        return tuple(self.clean_text(item, place, line) or "" for place, item in items)

    def anything(self, value: Any, path: str, line: int) -> tuple[Any, ...]:
        """What JSON can hold, as plain dicts and lists."""
        try:
            return tuple(json.loads(json.dumps([item for _, item in self._items(value, path, line)], allow_nan=False)))
        except ValueError:
            self._misfit(path, value, "without .inf and .nan", line)
            return ()

    def annotations(self, value: Any, path: str, line: int) -> dict[str, str]:
        if value is not None and not isinstance(value, dict):
            self._misfit(path, value, "a mapping of texts", line)
        if not isinstance(value, dict):
            return {}
        lines = getattr(value, "lines", {})
        return {key: self.text(each, f"{path}.{key}", lines.get(key, line)) or "" for key, each in value.items()}

    def maintainers(self, value: Any, path: str, line: int) -> tuple[Maintainer, ...]:
        return tuple(Maintainer(**fields) for fields in self._structs(value, _MAINTAINER, path, line))

    def dependencies(self, value: Any, path: str, line: int) -> tuple[Dependency, ...]:
        return tuple(Dependency(**fields) for fields in self._structs(value, _DEPENDENCY, path, line))

    def _structs(self, value: Any, known: "_Fields", path: str, line: int) -> Iterator[dict[str, Any]]:
        for place, item in self._items(value, path, line):
            if item is None:
                self._fault(f"{place} is null: {path} must not contain empty or null nodes", line)
            elif isinstance(item, dict):
                yield self._fields(item, known, f"{place}.")
            else:
                self._misfit(place, item, "a mapping of fields", line)

    def _items(self, value: Any, path: str, line: int) -> list[tuple[str, Any]]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._misfit(path, value, "a list", line)
            return []
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]

    def _misfit(self, path: str, value: Any, wanted: str, line: int) -> None:
        kind = (
            "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else shown(str(value), 40)
        )
        self._fault(f"{path or 'the document'} is {kind}, it must be {wanted}", line)

    def _fault(self, message: str, line: int) -> None:
        self.faults.append(reject(self._prefix + message, file=self._file, line=line, rule=self._rule))


_Fields = Mapping[str, tuple[str, Callable[[_Reader, Any, str, int], Any]]]

_MAINTAINER: _Fields = {name: (name, _Reader.clean_text) for name in ("name", "email", "url")}
_DEPENDENCY: _Fields = {
    **{name: (name, _Reader.clean_text) for name in ("name", "version", "repository", "condition")},
    "alias": ("alias", _Reader.text),
    "tags": ("tags", _Reader.texts),
    "enabled": ("enabled", _Reader.flag),
    "import-values": ("import_values", _Reader.anything),
}
_SPELLED: _Fields = {
    **{name: (name, _Reader.clean_text) for name in ("name", "home", "description", "icon", "condition", "tags")},
    "version": ("version", _Reader.text),
    "apiVersion": ("api_version", _Reader.text),
    "appVersion": ("app_version", _Reader.clean_text),
    "kubeVersion": ("kube_version", _Reader.clean_text),
    "type": ("type", _Reader.text),
    "deprecated": ("deprecated", _Reader.flag),
    "keywords": ("keywords", _Reader.texts),
    "sources": ("sources", _Reader.texts),
    "maintainers": ("maintainers", _Reader.maintainers),
    "annotations": ("annotations", _Reader.annotations),
    "dependencies": ("dependencies", _Reader.dependencies),
}
_METADATA: _Fields = {**_SPELLED, **{name.casefold(): found for name, found in _SPELLED.items()}}
FIELDS = frozenset(_SPELLED)
MAINTAINER_FIELDS = frozenset(_MAINTAINER)
DEPENDENCY_FIELDS = frozenset(_DEPENDENCY)
