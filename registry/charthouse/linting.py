"""What the rules say of charts that are files: the same code as at push, before anything is pushed."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from charthouse import __version__
from charthouse.errors import RegistryError
from charthouse.helm import metadata, packing, rules
from charthouse.helm.findings import Finding, reject
from charthouse.helm.helper import Helper
from charthouse.helm.isolation import Inspector
from charthouse.helm.metadata import CHART_YAML
from charthouse.helm.sources import IgnoreInvalid, pack_folder
from charthouse.helm.versions import tag_of
from charthouse.manifest import OCI_MANIFEST, parse
from charthouse.names import RepositoryName, Tag

SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"reject": "error", "warn": "warning"}


@dataclass(frozen=True, slots=True)
class Report:
    """One chart and what the rules say of it, rejections first."""

    name: str
    findings: Sequence[Finding]

    @property
    def is_refused(self) -> bool:
        return any(finding.severity == "reject" for finding in self.findings)


def find_charts(paths: Iterable[Path]) -> list[Path]:
    """Archives and chart folders; another folder stands for all archives below it. Raises OSError."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir() and not (path / CHART_YAML).is_file():
            found += sorted(path.rglob("*.tgz"))
        else:
            path.stat()
            found.append(path)
    return found


def lint(paths: Iterable[Path]) -> Iterator[Report]:
    """One after the other. Raises OSError."""
    with contextlib.closing(Helper()) as helper:
        inspector = Inspector(helper)
        for path in paths:
            findings = sorted(_findings(path, inspector), key=lambda finding: finding.severity != "reject")
            yield Report(str(path), findings)


def _findings(path: Path, inspector: Inspector) -> list[Finding]:
    try:
        archive = pack_folder(path) if path.is_dir() else path.read_bytes()
    except IgnoreInvalid as error:
        return [reject(str(error), rule="helmignore_can_be_read", file=".helmignore")]
    beside = path.with_name(path.name + ".prov")
    provenance = beside.read_bytes() if path.is_file() and beside.is_file() else None
    found = inspector.inspect(archive, linting=True)
    if found.metadata is None:
        return [*found.faults, *found.lint]
    packed = packing.pack(found.metadata, archive, provenance, datetime.now(UTC))
    manifest = parse(packed.manifest, OCI_MANIFEST)
    assert manifest.config is not None  # noqa: S101 - packing gave it one
    try:
        repository, tag = RepositoryName.parse(found.metadata.name), Tag.parse(tag_of(found.metadata.version))
    except RegistryError as error:
        return [*found.faults, reject(error.message, rule="name_and_version_can_be_pushed"), *found.lint]
    config = metadata.from_config(packed.blobs[manifest.config.digest])
    push = rules.ChartPush(repository, manifest, config, found, provenance=provenance, tag=tag)
    return [*rules.check(push), *found.lint]


def summary(reports: Sequence[Report]) -> list[tuple[str, int]]:
    """How many charts are accepted, warned of and refused, and then by rule."""
    refused = sum(report.is_refused for report in reports)
    warned = sum(bool(report.findings) and not report.is_refused for report in reports)
    by_rule = Counter(f"{finding.severity} {finding.rule}" for report in reports for finding in set(report.findings))
    counts = [("accepted", len(reports) - refused - warned), ("accepted with warnings", warned), ("refused", refused)]
    return counts + by_rule.most_common()


def as_json(reports: Sequence[Report]) -> str:
    charts = [{"chart": report.name, "findings": [asdict(each) for each in report.findings]} for report in reports]
    return json.dumps(charts, indent=2)


def as_sarif(reports: Sequence[Report]) -> str:
    """SARIF 2.1.0, as code hosts read it."""
    results = [_result(report.name, finding) for report in reports for finding in report.findings]
    names = sorted({finding.rule for report in reports for finding in report.findings})
    driver = {"name": "charthouse", "version": __version__, "rules": [{"id": name} for name in names]}
    return json.dumps(
        {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    )


def _result(name: str, finding: Finding) -> dict[str, object]:
    location: dict[str, object] = {"artifactLocation": {"uri": f"{name}/{finding.file}".rstrip("/")}}
    if finding.line:
        location["region"] = {"startLine": finding.line}
    text = f"{finding.message}; {finding.hint}" if finding.hint else finding.message
    return {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }
