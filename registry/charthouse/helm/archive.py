"""A chart's archive, read as Helm's own loader reads it: what it takes is taken, what it refuses is refused.

Beyond Helm: a limit on the number of members, no devices, and no name that is absolute or begins with `..`, where Helm
takes the first part away whatever it is. Nothing is ever written to disk.
Source: helm.sh/helm/v4 v4.3.1, pkg/chart/loader/archive/archive.go; v3.22.0, pkg/chart/loader/archive.go.
"""

import io
import posixpath
import re
from dataclasses import dataclass, field
from typing import BinaryIO

from charthouse.helm.tar import BLOCK, SPECIAL_LIMIT, Inflater, Member, TarInvalid, TarTooLarge, members
from charthouse.names import shown

TOTAL_LIMIT = 100 * 1024 * 1024  # bytes of all files together: Helm refuses a chart that reaches it
FILE_LIMIT = 5 * 1024 * 1024  # bytes of one file: Helm 3's limit; Helm 4.3 has only the first
MEMBER_LIMIT = 10_000

_BOM = b"\xef\xbb\xbf"
_DRIVE = re.compile(r"[a-zA-Z]:/")


@dataclass(frozen=True, slots=True)
class Limits:
    """`total` and `file` in bytes, inflated; directories are members too."""

    total: int = TOTAL_LIMIT
    file: int = FILE_LIMIT
    members: int = MEMBER_LIMIT

    @property
    def budget(self) -> int:
        """Bytes that may be inflated at all: the files, and a header and padding for each member."""
        return self.total + 2 * BLOCK * self.members + SPECIAL_LIMIT


DEFAULT = Limits()


class ArchiveInvalid(ValueError):
    """Helm could not use the archive. `rule` names what it breaks (`rules.py` lists them)."""

    def __init__(self, rule: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.hint = hint


class ArchiveTooLarge(ArchiveInvalid):
    """It inflates to more than the limits it was read with."""


@dataclass(slots=True)
class Archive:
    """What the loader sees: paths below the top folder, in the archive's order, and their content.

    Of a path that stands twice the last one counts, as in Helm. `top` is the folder of Chart.yaml, "." for archives
    whose names begin with `./`; `tops` are all top folders; `links` are read as empty files, as in Helm.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tops: dict[str, None] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    top: str = ""
    inflated: int = 0


def read(source: bytes | BinaryIO, limits: Limits = DEFAULT) -> Archive:
    """The archive in `source`. Raises ArchiveInvalid, ArchiveTooLarge."""
    stream = Inflater(io.BytesIO(source) if isinstance(source, bytes) else source, limits.budget)
    archive = Archive()
    try:
        for count, member in enumerate(members(stream), 1):
            if count > limits.members:
                raise ArchiveTooLarge(
                    "archive_is_within_limits", f"the archive has more than {limits.members:,} members"
                )
            if not member.is_directory:
                _take(archive, member, stream, limits)
            else:
                stream.skip(member.size)
    except TarTooLarge:
        raise _too_large(limits) from None
    except TarInvalid as error:
        raise ArchiveInvalid(
            "archive_is_a_gzip_tar", f"the chart's archive is no gzip tar: {error}", _PACKAGE
        ) from None
    if not archive.files:
        raise ArchiveInvalid("archive_is_a_gzip_tar", "the chart's archive has no files", _PACKAGE)
    if "Chart.yaml" not in archive.files:
        raise ArchiveInvalid(
            "chart_yaml_is_in_the_top_folder",
            f"the archive has no <chart>/Chart.yaml (its first file is {shown(_first_name(archive))})",
            _PACKAGE,
        )
    return archive


_PACKAGE = "make it with helm package"


def _first_name(archive: Archive) -> str:
    return posixpath.join(next(iter(archive.tops)), next(iter(archive.files)))


def _take(archive: Archive, member: Member, stream: Inflater, limits: Limits) -> None:
    raw = member.name.decode(errors="replace")
    top, path = _place(raw)
    if member.is_device:
        raise ArchiveInvalid("members_are_files", f"the archive has the device {shown(raw)}", "leave it out")
    if member.is_link and member.declared > 0:  # Helm waits for content that a link does not have
        raise ArchiveInvalid("members_are_files", f"the archive has the link {shown(raw)} with a size", _PACKAGE)
    if archive.inflated + member.size >= limits.total:
        raise _too_large(limits)
    if member.size > limits.file:
        raise ArchiveTooLarge(
            "archive_is_within_limits",
            f"{shown(path)} has {member.size:,} bytes, at most {limits.file:,} are allowed in one file",
            "leave it out by .helmignore",
        )
    content = stream.read(member.size)
    if len(content) < member.size:
        raise TarInvalid("it ends in the middle of a file")
    archive.inflated += member.size
    if path in archive.files:
        archive.repeated.append(path)
    if member.is_link:
        archive.links.append(path)
    archive.tops[top] = None
    if path == "Chart.yaml":
        archive.top = top
    archive.files[path] = content.removeprefix(_BOM)


def _too_large(limits: Limits) -> ArchiveTooLarge:
    return ArchiveTooLarge(
        "archive_is_within_limits", f"the archive inflates to {limits.total:,} bytes or more, which Helm does not load"
    )


def _place(name: str) -> tuple[str, str]:
    """Top folder and path below it, as the loader takes a member's name apart."""
    delimiter = "\\" if "\\" in name else "/"  # packed on Windows
    top, _, rest = name.partition(delimiter)
    rest = rest.replace(delimiter, "/")
    path = posixpath.normpath(rest)
    if top == "Chart.yaml":
        raise ArchiveInvalid("chart_yaml_is_in_the_top_folder", "Chart.yaml stands outside of a folder", _PACKAGE)
    if name.startswith(("/", "\\")) or rest.startswith("/") or _DRIVE.match(path):
        raise _leaves(name, "is absolute")
    if top == ".." or path == "." or path.startswith(".."):
        raise _leaves(name, "is outside of the chart's folder")
    return top, path


def _leaves(name: str, how: str) -> ArchiveInvalid:
    return ArchiveInvalid("members_stay_in_the_folder", f"the archive's member {shown(name)} {how}", _PACKAGE)
