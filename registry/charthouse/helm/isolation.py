"""Inspector: small archives are read here and now, all others in a helper process that may be lost (`helper.py`)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from charthouse.helm import archive
from charthouse.helm.archive import Archive, ArchiveInvalid, ArchiveTooLarge, Limits
from charthouse.helm.findings import reject, warn
from charthouse.helm.helper import Helper, HelperLost, opened
from charthouse.helm.inspection import Inspection, look_into, refused
from charthouse.helm.metadata import CHART_YAML, REQUIREMENTS_YAML

SMALL = Limits(total=1024 * 1024, members=500)
SMALL_YAML = 64 * 1024  # bytes

_PARSED = (".yaml", ".yml", ".json", ".lock")
_COSTLY = "archive_is_within_limits"
_SKIPPED = "lint_is_within_limits"


class Inspector:
    """Thread-safe; blocks, so call it in a thread. The helper may be that of others too, and is theirs to close."""

    def __init__(self, helper: Helper, limits: Limits = archive.DEFAULT) -> None:
        self.helper = helper
        self._limits = limits

    def inspect(self, source: bytes | Path, *, linting: bool = False) -> Inspection:
        """Never raises because of what the archive holds.

        OSError when its file cannot be read; HelperMissing when there should be a helper and none can be started.
        """
        try:
            with opened(source) as stream:
                chart = archive.read(stream, _smaller(self._limits))
        except ArchiveTooLarge:
            return Inspection.from_json(self.inspect_apart(source, linting=linting))
        except ArchiveInvalid as error:
            return refused(error)
        if _is_work(chart, linting=linting):
            return Inspection.from_json(self.inspect_apart(source, linting=linting))
        return look_into(chart, linting=linting)

    def inspect_apart(self, source: bytes | Path, *, linting: bool) -> str:
        """In the helper, as JSON. What takes too long with lint is read without."""
        if not linting:
            return self._read_or_refuse(source)
        try:
            return self.helper.ask(source, self._limits, linting=True)
        except HelperLost as lost:
            skipped = warn(f"not checked: doing so takes more than {lost.limit}", rule=_SKIPPED)
            found = Inspection.from_json(self._read_or_refuse(source))
            return dataclasses.replace(found, lint=(skipped,)).to_json()

    def _read_or_refuse(self, source: bytes | Path) -> str:
        try:
            return self.helper.ask(source, self._limits, linting=False)
        except HelperLost as lost:
            message = f"reading the archive takes more than {lost.limit}"
            return Inspection((reject(message, hint="make it smaller", rule=_COSTLY),)).to_json()

    def extract(self, archives: Sequence[bytes]) -> list[str]:
        """Each with lint, in the helper, as JSON. Raises HelperMissing."""
        return [self.inspect_apart(content, linting=True) for content in archives]


def _smaller(limits: Limits) -> Limits:
    return Limits(min(limits.total, SMALL.total), limits.file, min(limits.members, SMALL.members))


def _is_work(chart: Archive, *, linting: bool) -> bool:
    """Whether looking into a small archive could cost more than reading it did."""
    if any(len(chart.files.get(name, b"")) > SMALL_YAML for name in (CHART_YAML, REQUIREMENTS_YAML)):
        return True
    if not linting:
        return False
    if "values.schema.json" in chart.files or any(path.endswith(".tgz") for path in chart.files):
        return True
    parsed = (path for path in chart.files if path.endswith(_PARSED) and not path.startswith("templates/"))
    return sum(len(chart.files[path]) for path in parsed) > SMALL_YAML
