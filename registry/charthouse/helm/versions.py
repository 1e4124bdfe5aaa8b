"""Versions and version ranges as Helm reads them: Masterminds/semver 3.5.

`Version.parse` is its NewVersion: `v1.2.3`, `1.2` and `01.2.3` pass. `Version.parse_strict` is its StrictNewVersion, by
which Helm chooses among the tags of a repository. Ranges are only read here, never matched: clients choose versions.
Source: github.com/Masterminds/semver/v3 v3.5.0, version.go and constraints.go.
"""

import functools
import re
from dataclasses import dataclass
from typing import Self

VERSION_LIMIT = 256  # bytes
CONSTRAINT_LIMIT = 512  # bytes
GROUP_LIMIT = 32  # ranges joined by ||

_UINT64 = 2**64
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_LENIENT = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-({_IDENTIFIERS}))?(?:\+({_IDENTIFIERS}))?")
_STRICT = re.compile(r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(?:[-+].*)?", re.DOTALL)

_SPACE = r"[\t\n\f\r ]"
_WILD = r"[0-9|xX*]+"
_CONSTRAINT_VERSION = rf"v?({_WILD})(?:\.({_WILD}))?(?:\.({_WILD}))?((?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?)"
_TERM = re.compile(rf"{_SPACE}*+([=!<>~^]{{0,2}}){_SPACE}*+{_CONSTRAINT_VERSION}")
_SEPARATOR = re.compile(rf"{_SPACE}++(?:,{_SPACE}*+)?|,{_SPACE}*+")
_HYPHEN_RANGE = re.compile(rf"{_SPACE}*({_CONSTRAINT_VERSION}){_SPACE}+-{_SPACE}+({_CONSTRAINT_VERSION}){_SPACE}*")
_OPERATORS = {"", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^"}
_WILDCARDS = {"x", "X", "*", None}


class VersionInvalid(ValueError):
    """The text is no version, or no range of versions."""


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A semantic version. Two that differ only in metadata are equal, as in precedence (semver.org, 10 and 11)."""

    original: str
    major: int
    minor: int
    patch: int
    prerelease: str = ""
    metadata: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """NewVersion: a `v`, missing parts and leading zeros are forgiven. Raises VersionInvalid."""
        matched = _LENIENT.fullmatch(text)
        if len(text.encode(errors="replace")) > VERSION_LIMIT or not matched:
            raise VersionInvalid("it is no semantic version")
        major, minor, patch = (int(part or 0) for part in matched.group(1, 2, 3))
        prerelease, metadata = matched[4] or "", matched[5] or ""
        if max(major, minor, patch) >= _UINT64:
            raise VersionInvalid(f"{max(major, minor, patch)} is too large for a part of a version")
        for part in prerelease.split("."):
            if part.isdecimal() and len(part) > 1 and part[0] == "0":
                raise VersionInvalid(f"the pre-release part {part!r} begins with 0")
        return cls(text, major, minor, patch, prerelease, metadata)

    @classmethod
    def parse_strict(cls, text: str) -> Self:
        """StrictNewVersion: three numbers without leading zeros. Raises VersionInvalid."""
        version = cls.parse(text)
        if not _STRICT.fullmatch(text):
            raise VersionInvalid("it is no strict semantic version (three numbers, no leading v or zeros)")
        return version

    @property
    def is_prerelease(self) -> bool:
        return self.prerelease != ""

    @property
    def _precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        parts = tuple(_identifier(part) for part in self.prerelease.split(".")) if self.prerelease else ()
        return self.major, self.minor, self.patch, not self.prerelease, parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._precedence == other._precedence

    def __lt__(self, other: "Version") -> bool:
        return self._precedence < other._precedence

    def __hash__(self) -> int:
        return hash(self._precedence)

    def __str__(self) -> str:
        return self.original


def _identifier(part: str) -> tuple[bool, int, str]:
    """Numbers come before words; a number that no uint64 holds is a word."""
    if part.isdecimal() and (number := int(part)) < _UINT64:
        return False, number, ""
    return True, 0, part


def tag_of(version: str) -> str:
    """A tag cannot hold a `+`, so Helm writes `_` (pkg/registry/client.go, Push)."""
    return version.replace("+", "_")


def check_constraint(text: str) -> None:
    """NewConstraint: a range such as `>=1.2 <2 || ^3.0.0-0`. Raises VersionInvalid."""
    if len(text.encode(errors="replace")) > CONSTRAINT_LIMIT:
        raise VersionInvalid(f"longer than {CONSTRAINT_LIMIT} bytes")
    groups = _HYPHEN_RANGE.sub(lambda found: f">= {found[1]}, <= {found[6]} ", text).split("||")
    if len(groups) > GROUP_LIMIT:
        raise VersionInvalid(f"more than {GROUP_LIMIT} ranges joined by ||")
    for group in groups:
        _check_group(group)


def _check_group(group: str) -> None:
    position = 0
    while True:
        term = _TERM.match(group, position)
        if not term or term[1] not in _OPERATORS:
            raise VersionInvalid(f"improper constraint {group.strip()!r}")
        _check_term(*term.group(2, 3, 4, 5))
        separator = _SEPARATOR.match(group, term.end())
        position = separator.end() if separator else term.end()
        if position == len(group) and not (separator and "," in separator[0]):
            return
        if not separator:
            raise VersionInvalid(f"improper constraint {group.strip()!r}")


def _check_term(major: str, minor: str | None, patch: str | None, rest: str) -> None:
    """What stands before the first wildcard must be a version; what stands after it is not looked at."""
    if major in _WILDCARDS:
        Version.parse(f"0.0.0{rest}")
    elif minor in _WILDCARDS:
        Version.parse(f"{major}.0.0{rest}")
    else:
        Version.parse(f"{major}.{minor}.{'0' if patch in _WILDCARDS else patch}{rest}")
