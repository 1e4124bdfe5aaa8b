"""A chart as somebody writes it: a folder, without what its .helmignore leaves out.

Source: helm.sh/helm/v4 v4.3.1, pkg/ignore/rules.go, pkg/chart/v2/loader/directory.go.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_DEFAULT = "templates/.?*"
_BOM = "\ufeff"


class IgnoreInvalid(ValueError):
    """Helm refuses this .helmignore."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: re.Pattern[str]
    whole_path: bool
    negated: bool
    only_folders: bool

    def matches(self, path: str) -> bool:
        return self.expression.fullmatch(path if self.whole_path else path.rpartition("/")[2]) is not None


# In a class: what is quoted, and what Python reserves for sets, and warns of.
_IN_CLASS = re.compile(r"\\.|--|[\[&~|]", re.DOTALL)


class Ignore:
    """What a .helmignore leaves out. Raises IgnoreInvalid."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.removeprefix(_BOM).splitlines()]
        self._patterns = [_pattern(line) for line in [*lines, _DEFAULT] if line and not line.startswith("#")]

    def covers(self, path: str, *, is_folder: bool) -> bool:
        """The first pattern that says anything decides; a negated one leaves out whatever it does not match."""
        for pattern in self._patterns:
            if pattern.negated:
                if (pattern.only_folders and not is_folder) or not pattern.matches(path):
                    return True
            elif (is_folder or not pattern.only_folders) and pattern.matches(path):
                return True
        return False


def _pattern(line: str) -> _Pattern:
    if "**" in line:
        raise IgnoreInvalid(f".helmignore has {line!r}: Helm does not know **")
    negated, rule = line.startswith("!"), line.removeprefix("!")
    only_folders, rule = rule.endswith("/"), rule.removesuffix("/")
    anchored = rule.removeprefix("/")
    try:
        return _Pattern(re.compile(_expression(anchored), re.DOTALL), "/" in rule, negated, only_folders)
    except re.error as error:
        raise IgnoreInvalid(f".helmignore has {line!r}, which is no pattern: {error}") from None


def _expression(rule: str) -> str:
    """Go's filepath.Match: `*` and `?` stop at a slash, `[^a]` negates, a backslash quotes.

    Raises re.error for a `[` without its end, as Go does.
    """
    parts = re.findall(r"\\.|\[\^?\]?[^\]]*\]?|.", rule, re.DOTALL)
    known = {"*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part) or _literal_or_class(part) for part in parts)


def _literal_or_class(part: str) -> str:
    if part[0] == "[":
        return "[" + _IN_CLASS.sub(_quoted, part[1:])
    return re.escape(part.removeprefix("\\") or part)


def _quoted(found: re.Match[str]) -> str:
    if found[0] == "--":
        raise re.error("a range has no end")
    return re.escape(found[0].removeprefix("\\"))


def pack_folder(folder: Path) -> bytes:
    """The archive that `helm package` makes of it, but for the times. Raises OSError, IgnoreInvalid."""
    rules_file = folder / ".helmignore"
    ignore = Ignore(rules_file.read_text(encoding="utf-8", errors="replace") if rules_file.is_file() else "")
    contents = {path: (folder / path).read_bytes() for path in _files(folder, "", ignore)}
    return gzip.compress(tar_of(folder.resolve().name, contents), mtime=0)


def tar_of(name: str, contents: Mapping[str, bytes]) -> bytes:
    """A chart's files by their paths in its folder, which is called `name`; the same files are the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _files(folder: Path, prefix: str, ignore: Ignore) -> Iterator[str]:
    for entry in (folder / prefix).iterdir():
        path = f"{prefix}{entry.name}"
        if ignore.covers(path, is_folder=entry.is_dir()):
            continue
        if entry.is_dir():
            yield from _files(folder, f"{path}/", ignore)
        else:
            yield path
