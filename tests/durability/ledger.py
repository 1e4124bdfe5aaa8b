"""What a registry was told and what it acknowledged: and so what it has to say afterwards.

A change that was never answered may count or not; what is read once then stays so. Each tag and each manifest has one
writer at a time, so that what it may be is known exactly.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from durability.client import Client

OLD_CHECKED = 25  # manifests that were found right before, of each check
Tagged = tuple[str, str]  # a repository and a tag
Held = tuple[str, Digest]  # a repository and a manifest


@dataclass(frozen=True)
class Image:
    """A manifest and what it names; `subject` is what it refers to."""

    body: bytes
    blobs: tuple[bytes, ...]
    subject: Digest | None = None

    @property
    def digest(self) -> Digest:
        return Digest.of(self.body)


@dataclass
class Ledger:
    tags: dict[Tagged, set[Digest | None]] = field(default_factory=dict)  # what each may name
    manifests: dict[Held, set[bool]] = field(default_factory=dict)  # whether each may be there
    images: dict[Digest, Image] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._unchecked: set[Held] = set()

    def __deepcopy__(self, memo: object) -> "Ledger":
        with self._lock:
            copied = Ledger(
                {tagged: set(may) for tagged, may in self.tags.items()},
                {held: set(may) for held, may in self.manifests.items()},
                dict(self.images),
                Counter(self.counts),
            )
            copied._unchecked = set(self._unchecked)
            return copied

    def begin_push(self, repository: str, image: Image, tag: str | None) -> None:
        with self._lock:
            self.images[image.digest] = image
            self.manifests.setdefault((repository, image.digest), {False}).add(True)
            self._unchecked.add((repository, image.digest))
            if tag:
                self.tags.setdefault((repository, tag), {None}).add(image.digest)

    def pushed(self, repository: str, image: Image, tag: str | None) -> None:
        """It was answered with 201."""
        with self._lock:
            self.manifests[repository, image.digest] = {True}
            if tag:
                self.tags[repository, tag] = {image.digest}
            self.counts["pushes acknowledged"] += 1

    def begin_delete(self, repository: str, digest: Digest, tag: str | None) -> None:
        """Of the tag alone, or of the manifest with all its tags."""
        with self._lock:
            self._unchecked.add((repository, digest))
            if not tag:
                self.manifests[repository, digest].add(False)
            for each in self._names(repository, digest, tag):
                self.tags[each].add(None)

    def deleted(self, repository: str, digest: Digest, tag: str | None) -> None:
        """It was answered with 202."""
        with self._lock:
            if not tag:
                self.manifests[repository, digest] = {False}
            for each in self._names(repository, digest, tag):
                self.tags[each] = {None}
            self.counts["deletes acknowledged"] += 1

    def _names(self, repository: str, digest: Digest, tag: str | None) -> list[Tagged]:
        if tag:
            return [(repository, tag)]
        return [each for each, named in self.tags.items() if each[0] == repository and digest in named]

    # --- what the registry says ---------------------------------------------------------------------------------------

    def check(self, client: Client, dice: random.Random | None = None) -> list[str]:
        """What is lost, has come back, or is there by half: nothing, if all is well. While nobody changes anything.

        With `dice` not everything that was right before is looked at again, but some of it.
        """
        before = self.counts["lost"]
        found = [*self._check_listings(client), *self._check_content(client, dice)]
        self._unchecked.clear()
        self.counts["lost"] = before + len(found)
        return found

    def _check_listings(self, client: Client) -> list[str]:
        found: list[str] = []
        repositories = {repository for repository, _ in self.manifests}
        found += [f"{name} came from nowhere" for name in paged(client, "/v2/_catalog", "repositories") - repositories]
        for repository in sorted(repositories):
            listed = paged(client, f"/v2/{repository}/tags/list", "tags")
            ours = {tag for name, tag in self.tags if name == repository}
            found += [f"{repository}:{tag} came from nowhere" for tag in listed - ours]
            for tag in sorted(ours):
                found += self._check_tag(client, repository, tag, is_listed=tag in listed)
        return found

    def _check_tag(self, client: Client, repository: str, tag: str, *, is_listed: bool) -> list[str]:
        answer = client("HEAD", f"/v2/{repository}/manifests/{tag}", accept=OCI_MANIFEST)
        named = Digest(answer.headers["docker-content-digest"]) if answer.status == 200 else None
        may = self.tags[repository, tag]
        found = []
        if named not in may or answer.status not in (200, 404):
            found.append(f"{repository}:{tag} is {named} ({answer.status}) in place of {may}")
        if is_listed != (named is not None):
            found.append(f"{repository}:{tag} is {'' if is_listed else 'not '}listed, and names {named}")
        if named:
            self.manifests[repository, named] &= {True}
            self._unchecked.add((repository, named))
        self.tags[repository, tag] = {named}
        return found

    def _check_content(self, client: Client, dice: random.Random | None) -> list[str]:
        old = sorted(self.manifests.keys() - self._unchecked)
        some = dice.sample(old, min(len(old), OLD_CHECKED)) if dice else old
        found = []
        good: set[tuple[str, bytes]] = set()
        for repository, digest in [*sorted(self._unchecked), *some]:
            found += self._check_manifest(client, repository, self.images[digest], good)
        subjects = {(repository, self.images[digest].subject) for repository, digest in [*self._unchecked, *some]}
        for repository, subject in sorted((name, subject) for name, subject in subjects if subject):
            found += self._check_referrers(client, repository, subject)
        return found

    def _check_manifest(self, client: Client, repository: str, image: Image, good: set[tuple[str, bytes]]) -> list[str]:
        may = self.manifests[repository, image.digest]
        what = f"{repository}@{image.digest}"
        answer = client("GET", f"/v2/{repository}/manifests/{image.digest}", accept=OCI_MANIFEST)
        is_there = answer.status == 200
        if is_there not in may or answer.status not in (200, 404):
            return [f"{what}: {answer.status}, acknowledged as {sorted(may)}"]
        self.manifests[repository, image.digest] = {is_there}
        if not is_there:
            return []
        found = [] if answer.body == image.body else [f"{what} has other bytes"]
        for content in set(image.blobs) - {content for name, content in good if name == repository}:
            blob = client("GET", f"/v2/{repository}/blobs/{Digest.of(content)}")
            if (blob.status, blob.body) == (200, content):
                good.add((repository, content))
            else:
                found.append(f"{what}: its blob {Digest.of(content)} is {blob.status} {blob.body[:200]!r}")
        return found

    def _check_referrers(self, client: Client, repository: str, subject: Digest) -> list[str]:
        listed = {one["digest"] for one in _referrers(client, repository, subject)}
        found = []
        for (name, digest), may in self.manifests.items():
            if name == repository and self.images[digest].subject == subject and (digest in listed) not in may:
                found.append(f"{repository}: {digest} as a referrer: {digest in listed}, acknowledged as {may}")
        return found


def paged(client: Client, path: str, key: str) -> set[str]:
    """All names of a listing; empty for what is not here."""
    names: list[str] = []
    following = f"{path}?n=1000"
    while following:
        answer = client("GET", following)
        if answer.status == 404:
            return set()
        assert answer.status == 200, answer
        names += json.loads(answer.body)[key]
        following = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
    assert names == sorted(set(names)), "a listing in byte order, each name once"
    return set(names)


def _referrers(client: Client, repository: str, subject: Digest) -> Iterable[dict[str, str]]:
    answer = client("GET", f"/v2/{repository}/referrers/{subject}")
    assert answer.status == 200, answer
    manifests: list[dict[str, str]] = json.loads(answer.body)["manifests"]
    return manifests
