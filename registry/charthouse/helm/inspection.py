"""Inspection: all that a chart's archive alone can tell, read once, as values that cross a process boundary."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from charthouse.helm import archive, lint, metadata
from charthouse.helm.archive import Archive, ArchiveInvalid, Limits
from charthouse.helm.findings import Finding, reject
from charthouse.helm.metadata import CHART_YAML, REQUIREMENTS_YAML, Metadata

TEXTS = ("values.yaml", "values.schema.json", CHART_YAML)
READMES = ("readme.md", "readme.txt", "readme")  # in any case, as helm show takes them (pkg/action/show.go)
CRDS = "crds/"
README_LIMIT = 512 * 1024  # bytes
TEXT_LIMIT = 1024 * 1024  # bytes of each other text
TEXTS_LIMIT = 4 * 1024 * 1024  # bytes of all together
PATHS_LIMIT = 1024 * 1024  # characters of the files' paths
EXTRACTOR_VERSION = 2  # raised when the same archive would be read otherwise


@dataclass(frozen=True, slots=True)
class Inspection:
    """`faults` refuse the chart; `lint` and `texts` are there when it was linted.

    `metadata` is None when there is no Chart.yaml that can be read. `files` maps each path below the top folder to its
    size, `texts` those that are shown to people, and the CRDs, to their content. Both have limits; `omitted` says what
    is not there because of them.
    """

    faults: tuple[Finding, ...] = ()
    metadata: Metadata | None = None
    top: str = ""
    tops: tuple[str, ...] = ()
    files: Mapping[str, int] = dataclasses.field(default_factory=dict)
    contents: str = ""
    lint: tuple[Finding, ...] = ()
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    omitted: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line."""
        values = dataclasses.asdict(dataclasses.replace(self, metadata=None, files={}, texts={}))
        return json.dumps(
            values
            | {"metadata": self.metadata and self.metadata.to_json(), "files": dict(self.files)}
            | {"texts": dict(self.texts)}
        )

    @classmethod
    def from_json(cls, text: str) -> "Inspection":
        """What `to_json` gave."""
        values = json.loads(text)
        return cls(
            faults=tuple(Finding(**each) for each in values["faults"]),
            metadata=Metadata.from_json(values["metadata"]) if values["metadata"] else None,
            top=values["top"],
            tops=tuple(values["tops"]),
            files=values["files"],
            contents=values["contents"],
            lint=tuple(Finding(**each) for each in values["lint"]),
            texts=values["texts"],
            omitted=tuple(values["omitted"]),
        )


def refused(error: ArchiveInvalid) -> Inspection:
    return Inspection((reject(error.message, hint=error.hint, rule=error.rule),))


def inspect(source: bytes | BinaryIO, limits: Limits, *, linting: bool = False) -> Inspection:
    """Everything at once, in this process: for small archives and for the helper. Never raises."""
    try:
        return look_into(archive.read(source, limits), linting=linting)
    except ArchiveInvalid as error:
        return refused(error)


def look_into(chart: Archive, *, linting: bool) -> Inspection:
    parsed = metadata.parse(chart.files[CHART_YAML], chart.files.get(REQUIREMENTS_YAML))
    files, more_files = _files(chart)
    texts, cut = _texts(chart) if linting else ({}, [])
    return Inspection(
        faults=parsed.faults,
        metadata=parsed.metadata if isinstance(parsed.document, dict) else None,
        top=chart.top,
        tops=tuple(chart.tops),
        files=files,
        contents=_contents(chart),
        lint=tuple(lint.check(chart, parsed)) if linting else (),
        texts=texts,
        omitted=(*cut, *more_files),
    )


def _files(chart: Archive) -> tuple[dict[str, int], list[str]]:
    found: dict[str, int] = {}
    left = PATHS_LIMIT
    for path, content in chart.files.items():
        left -= len(path)
        if left < 0:
            return found, [f"{len(chart.files) - len(found):,} more files"]
        found[path] = len(content)
    return found, []


def is_readme(path: str) -> bool:
    return path.lower() in READMES


def _texts(chart: Archive) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    omitted: list[str] = []
    left = TEXTS_LIMIT
    readmes = [path for path in chart.files if is_readme(path)][:1]
    for path in [*readmes, *TEXTS, *sorted(path for path in chart.files if path.startswith(CRDS))]:
        if path in chart.files:
            content = chart.files[path]
            kept = content[: min(README_LIMIT if path in readmes else TEXT_LIMIT, left)]
            left -= len(kept)
            if len(kept) < len(content):
                omitted.append(f"{len(content) - len(kept):,} of {len(content):,} bytes of {path}")
            found[path] = kept.decode(errors="replace")
    return found, omitted


def _contents(chart: Archive) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(chart.files.items()):
        for part in (path.encode("utf-8", "surrogateescape"), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
