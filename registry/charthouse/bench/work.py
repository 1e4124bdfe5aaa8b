"""What is measured: pulls and pushes with the requests that Helm sends, listings, deletes.

Each is a small value that goes to the load processes; `operations` is what one of them then does, without end or until
nothing is left. What a push makes is in `made`, so that it can be pulled and, at the end, deleted.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from charthouse.bench import charts
from charthouse.bench.charts import Package, Stored, digest_of
from charthouse.bench.client import Operation, Origin, Refused, Response
from charthouse.manifest import OCI_MANIFEST

OK, CREATED, ACCEPTED, NOT_FOUND = 200, 201, 202, 404
SMALL = 10  # versions in a repository of ordinary size

_ACCEPT = f"Accept: {OCI_MANIFEST}\r\n"
_MANIFEST = f"Content-Type: {OCI_MANIFEST}\r\n"
_BLOB = "Content-Type: application/octet-stream\r\n"


@dataclass(slots=True)
class Share:
    """A load process's part in a phase: which of how many it is, and what its pushes made."""

    number: int
    of: int
    made: list[Stored]

    def numbers(self, count: int | None) -> Iterator[int]:
        """Its part of so many, or numbers without end."""
        return itertools.count() if count is None else iter(range(self.number, count, self.of))


class Work(Protocol):
    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]: ...


@dataclass(frozen=True, slots=True)
class ManifestsByTag:
    stored: Sequence[Stored]

    def operations(self, origin: Origin, _: Share) -> Iterator[Operation]:
        for one in _at_random(self.stored):
            yield _get_manifest(origin, one)


@dataclass(frozen=True, slots=True)
class ChartBlobs:
    stored: Sequence[Stored]

    def operations(self, origin: Origin, _: Share) -> Iterator[Operation]:
        for one in _at_random(self.stored):
            yield _get_blob(origin, one.repository, one.blobs[-1])


@dataclass(frozen=True, slots=True)
class Pulls:
    """`helm pull --version`: the manifest by tag, its config, its chart."""

    stored: Sequence[Stored]
    count: int | None = None

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for _, one in zip(share.numbers(self.count), _at_random(self.stored), strict=False):
            yield _pull(origin, one)


@dataclass(frozen=True, slots=True)
class PushOne:
    """One package, so that others can refer to it."""

    package: Package

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for _ in share.numbers(1):
            share.made.append(self.package.stored)
            yield _push(origin, self.package)


@dataclass(frozen=True, slots=True)
class Pushes:
    """Packages that are new, into `repository`; `phase` keeps their versions apart from those of other phases.

    With `per_repository`, each so many go to another repository below it, so that none grows beyond.
    """

    repository: str
    phase: int
    make: Callable[[str, str], Package] = charts.chart
    per_repository: int | None = None
    count: int | None = None

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for number in share.numbers(self.count):
            package = self.make(self._repository(share.number, number), f"{self.phase}.{share.number}.{number}")
            share.made.append(package.stored)
            yield _push(origin, package)

    def _repository(self, process: int, number: int) -> str:
        if self.per_repository is None:
            return f"{self.repository}/{charts.NAME}"
        return f"{self.repository}/{self.phase}-{process}-{number // self.per_repository}/{charts.NAME}"


@dataclass(frozen=True, slots=True)
class RealPushes:
    """Each of these archives once, as a chart or as something else of its size, below `namespace`."""

    namespace: str
    paths: Sequence[str]
    as_charts: bool

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        """Read before the clock starts."""
        paths = [self.paths[number] for number in share.numbers(len(self.paths))]
        found = [charts.real(Path(path), self.namespace, as_chart=self.as_charts) for path in paths]
        return self._push([package for package in found if package], origin, share)

    def _push(self, packages: Sequence[Package], origin: Origin, share: Share) -> Iterator[Operation]:
        for package in packages:
            share.made.append(package.stored)
            yield _push(origin, package)


@dataclass(frozen=True, slots=True)
class Tags:
    """So many tags for one manifest, which is pushed already. It is no chart: that has one version."""

    package: Package
    count: int

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for number in share.numbers(self.count):
            stored = replace(self.package.stored, tag=f"1.0.{number}")
            share.made.append(stored)
            yield _put_manifest(origin, self.package, stored.tag)


@dataclass(frozen=True, slots=True)
class Referrers:
    """So many manifests that refer to `subject`, which is pushed already."""

    subject: Package
    count: int

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for number in share.numbers(self.count):
            package = charts.referrer(self.subject.stored.repository, number, self.subject)
            share.made.append(package.stored)
            yield _put_manifest(origin, package, package.stored.manifest)


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing again and again: all of its pages, or the first. It must have `count` entries under `key`."""

    path: str
    key: str
    count: int
    whole: bool = True

    def operations(self, origin: Origin, _: Share) -> Iterator[Operation]:
        counted: list[bytes] = []
        while True:
            yield self._read(origin, counted)

    def _read(self, origin: Origin, counted: list[bytes]) -> Operation:
        """The same bytes are not counted twice: reading the JSON takes longer than getting it."""
        bodies = []
        path = self.path
        while path:
            response = yield origin.request("GET", path)
            expect(response, f"GET {path}", OK)
            bodies.append(response.body)
            path = _next(response, self.path) if self.whole else ""
        if bodies != counted:
            found = sum(len(json.loads(body)[self.key] or ()) for body in bodies)
            if found != self.count:
                raise Refused(f"{self.path} has {found:,} entries of {self.count:,}")
            counted[:] = bodies


@dataclass(frozen=True, slots=True)
class Deletes:
    """Manifests by digest, then blobs. What a registry refuses to delete stays, and is counted by the caller."""

    paths: Sequence[str]

    def operations(self, origin: Origin, share: Share) -> Iterator[Operation]:
        for path in self.paths[share.number :: share.of]:
            yield _delete(origin, path)


def _at_random(stored: Sequence[Stored]) -> Iterator[Stored]:
    choose = random.Random(0).choice  # noqa: S311 - the same order in every run
    while True:
        yield choose(stored)


def _get_manifest(origin: Origin, stored: Stored) -> Operation:
    response = yield origin.request("GET", f"{stored.repository}/manifests/{stored.tag}", headers=_ACCEPT)
    _expect_content(response, f"GET manifest {stored.repository}:{stored.tag}", stored.manifest)


def _get_blob(origin: Origin, repository: str, digest: str) -> Operation:
    response = yield origin.request("GET", f"{repository}/blobs/{digest}")
    _expect_content(response, f"GET blob {repository}@{digest}", digest)


def _pull(origin: Origin, stored: Stored) -> Operation:
    yield from _get_manifest(origin, stored)
    for digest in stored.blobs:
        yield from _get_blob(origin, stored.repository, digest)


def _push(origin: Origin, package: Package) -> Operation:
    stored = package.stored
    for digest, content in zip(stored.blobs, package.contents, strict=True):
        yield from _push_blob(origin, stored.repository, digest, content)
    yield from _put_manifest(origin, package, stored.tag)


def _push_blob(origin: Origin, repository: str, digest: str, content: bytes) -> Operation:
    response = yield origin.request("HEAD", f"{repository}/blobs/{digest}")
    expect(response, f"HEAD blob {repository}@{digest}", NOT_FOUND)
    response = yield origin.request("POST", f"{repository}/blobs/uploads/", b"")
    expect(response, f"POST {repository}/blobs/uploads/", ACCEPTED)
    response = yield origin.request("PUT", upload_path(response, digest), content, _BLOB)
    expect(response, f"PUT blob {repository}@{digest}", CREATED)


def _put_manifest(origin: Origin, package: Package, reference: str) -> Operation:
    path = f"{package.stored.repository}/manifests/{reference}"
    response = yield origin.request("PUT", path, package.manifest, _MANIFEST)
    expect(response, f"PUT {path}", CREATED)


def _delete(origin: Origin, path: str) -> Operation:
    yield origin.request("DELETE", path)


def upload_path(response: Response, digest: str) -> str:
    """The path to send a blob to in one piece."""
    location = _path(response.header("location"))
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _next(response: Response, path: str) -> str:
    """The path of the next page, or "". A `Link` may be relative to the listing (RFC 8288, 3.1)."""
    link = response.header("link").partition("<")[2].partition(">")[0]
    if not link or "/" in link:
        return _path(link)
    return f"{path.partition('?')[0]}{link}" if link.startswith("?") else f"/v2/{path.rpartition('/')[0]}/{link}"


def _path(url: str) -> str:
    """Some registries answer with their whole address."""
    return "/" + url.split("/", 3)[3] if "://" in url else url


def expect(response: Response, what: str, status: int) -> None:
    if response.status != status:
        raise Refused(
            f"{what} was answered {response.status}, not {status}: {response.body[:200].decode(errors='replace')}"
        )


def _expect_content(response: Response, what: str, digest: str) -> None:
    expect(response, what, OK)
    if digest_of(response.body) != digest:
        raise Refused(f"{what} was answered with other bytes than were pushed")
