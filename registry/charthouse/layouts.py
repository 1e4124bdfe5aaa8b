"""Repositories as OCI image layouts: `charthouse export` writes them, `charthouse import` takes them over, and others.

A layout for each repository, in the folder of its name, is what zot keeps in its root folder and what oras, crane,
skopeo and regctl read. Built on `Registry`'s operations alone. A folder that is imported is not trusted: links in it
are not followed, and its digests and names are parsed before they become paths.
Source: image-spec, `image-layout.md`, `annotations.md`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from charthouse import distribution
from charthouse.blobs.filesystem import fsync
from charthouse.core import Caller, Registry
from charthouse.distribution import REF_NAME
from charthouse.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, RegistryError, VaultError
from charthouse.manifest import MANIFEST_LIMIT, OCI_INDEX, Descriptor, parse
from charthouse.names import Digest, Reference, RepositoryName, Tag, shown
from charthouse.untrusted import open_file, read_file, read_json
from charthouse.vaults.folder import copy_hashed, sync_folder

LAYOUT = "oci-layout"
INDEX = "index.json"
VERSION = {"imageLayoutVersion": "1.0.0"}
INDEX_LIMIT = 64 * 1024 * 1024  # bytes of an index.json: 200,000 tags
DEPTH_LIMIT = 32  # indexes within indexes
PAGE = 100
PIECE = 1024 * 1024  # bytes of a blob

Selection = Mapping[RepositoryName, Sequence[Reference]]


@dataclass(frozen=True, slots=True)
class Carried:
    """A manifest with all that it names, and why it did not go over; "" when it did."""

    name: str
    fault: str = ""


def _blob_path(digest: Digest) -> tuple[str, ...]:
    return ("blobs", digest.algorithm, digest.hex)


# --- out --------------------------------------------------------------------------------------------------------------


async def select(registry: Registry, names: Sequence[tuple[RepositoryName, Reference | None]]) -> Selection:
    """What is meant by these names; without any it is every tag of every repository. Raises NAME_UNKNOWN."""
    wanted = [*names] or [(repository, None) async for repository in _repositories(registry)]
    selection: dict[RepositoryName, dict[Reference, None]] = {}
    for repository, reference in wanted:
        references = [reference] if reference else [tag async for tag in _tags(registry, repository)]
        selection.setdefault(repository, {}).update(dict.fromkeys(references))
    return {repository: list(references) for repository, references in selection.items() if references}


async def _repositories(registry: Registry) -> AsyncIterator[RepositoryName]:
    last, more = "", True
    while more:
        names, more = await registry.list_repositories(last, PAGE, Caller())
        for last in names:
            yield RepositoryName(last)


async def _tags(registry: Registry, repository: RepositoryName) -> AsyncIterator[Tag]:
    last, more = "", True
    while more:
        tags, more = await registry.list_tags(repository, last, PAGE)
        for last in tags:
            yield Tag(last)


async def export(registry: Registry, selection: Selection, folder: Path) -> AsyncIterator[Carried]:
    """Writes a layout for each repository below the folder. Raises VaultError where one is already, OSError."""
    for repository in selection:
        if (folder / repository / INDEX).exists():
            raise VaultError(f"{folder / repository} is a layout already: export to another folder, or remove it")
    for repository, references in selection.items():
        layout = _Written(registry, repository, folder / repository)
        for reference in references:
            try:
                await layout.add(reference)
            except RegistryError as error:
                yield Carried(_called(repository, reference), error.message)
            else:
                yield Carried(_called(repository, reference))
        layout.finish()


def _called(repository: str, reference: Reference) -> str:
    return f"{repository}{':' if isinstance(reference, Tag) else '@'}{reference}"


class _Written:
    """A layout that grows: blobs first, each beside its name and then renamed, and the index at the end."""

    def __init__(self, registry: Registry, repository: RepositoryName, folder: Path) -> None:
        self._registry = registry
        self._repository = repository
        self._folder = folder
        self._written: set[Digest] = set()
        self._roots: set[Digest] = set()  # manifests that are whole here, with what they name and what refers to them
        self._descriptors: list[dict[str, Any]] = []

    async def add(self, reference: Reference) -> None:
        """The manifest, its children and blobs, and what refers to any of them, and so on."""
        waiting: list[tuple[Reference, bool]] = [(reference, True)]
        seen: set[Reference] = set()
        listed = []
        while waiting:
            name, is_listed = waiting.pop()
            stored = await self._registry.pulls.get_manifest(self._repository, name)
            digest = Digest(stored.digest)
            if is_listed and not (digest in self._roots and isinstance(name, Digest)):
                listed.append(_descriptor(digest, stored.media_type, stored.size, name, stored.content))
            if digest in seen or digest in self._roots:
                continue
            seen.add(digest)
            manifest = parse(stored.content, stored.media_type)
            for blob in manifest.blobs:
                await self._write_blob(blob)
            await self._write(digest, stored.size, _once(stored.content))
            waiting += [(child.digest, False) for child in manifest.manifests if await self._has(child)]
            waiting += [(referrer, True) async for referrer in self._referrers(digest)]
        self._roots |= {digest for digest in seen if isinstance(digest, Digest)}
        self._descriptors += listed

    async def _has(self, child: Descriptor) -> bool:
        """False for the child that a sparse index lacks. Raises MANIFEST_UNKNOWN where all have to be there."""
        try:
            await self._registry.pulls.get_manifest(self._repository, child.digest)
        except ManifestUnknown:
            if not self._registry.settings.sparse_manifests:
                raise
            return False
        return True

    async def _referrers(self, subject: Digest) -> AsyncIterator[Digest]:
        last, more = "", True
        while more:
            referrers, more = await self._registry.list_referrers(self._repository, subject, None, last, PAGE)
            for referrer in referrers:
                last = referrer.digest
                yield Digest(last)

    async def _write_blob(self, blob: Descriptor) -> None:
        try:
            found = await self._registry.pulls.get_blob(self._repository, blob.digest)
        except BlobUnknown:
            if blob.is_elsewhere or self._registry.settings.sparse_manifests:
                return
            raise
        await self._write(found.digest, found.size, found.read(0, found.size))

    async def _write(self, digest: Digest, size: int, pieces: AsyncIterator[bytes]) -> None:
        if digest in self._written:
            return
        path = self._folder.joinpath(*_blob_path(digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.partial")
        try:
            with beside.open("wb") as file:
                fault = await copy_hashed(digest, size, pieces, file.write)
                file.flush()
                fsync(file.fileno())
            if fault:
                raise BlobUnknown(f"blob {digest} is damaged, {fault}: `charthouse verify --deep` says what needs it")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        self._written.add(digest)

    def finish(self) -> None:
        """Nothing is a layout before this."""
        if not self._descriptors:
            return
        for folder in {path.parent for path in self._folder.glob("blobs/*/*")}:
            sync_folder(folder)
        unique = {json.dumps(descriptor): descriptor for descriptor in self._descriptors}
        self._put(LAYOUT, VERSION)
        self._put(INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(unique.values())})
        sync_folder(self._folder)

    def _put(self, name: str, document: Mapping[str, Any]) -> None:
        beside = self._folder / f"{name}.partial"
        with beside.open("w") as file:
            json.dump(document, file)
            file.flush()
            fsync(file.fileno())
        beside.replace(self._folder / name)


def _descriptor(digest: Digest, media_type: str, size: int, name: Reference, content: bytes) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": size}
    if artifact_type := parse(content, media_type).artifact_type:
        descriptor["artifactType"] = artifact_type
    if isinstance(name, Tag):
        descriptor["annotations"] = {REF_NAME: name}
    return descriptor


# --- in ---------------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """A repository on disk, as some tool keeps it."""

    @property
    def folder(self) -> Path:
        """What a person may look at when something is wrong."""

    @property
    def name(self) -> str:
        """The path that the repository has below what was given, "" for the folder itself."""

    def entries(self) -> list[object]:
        """Descriptors of what is pushed, a tag in their annotations; a person's file may hold anything else.

        Raises what a push raises.
        """

    def read_manifest(self, digest: Digest) -> tuple[bytes, str]:
        """And its media type, "" where only its descriptor says that. Raises BLOB_UNKNOWN, MANIFEST_UNKNOWN."""

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Raises BLOB_UNKNOWN."""

    def has(self, digest: Digest) -> bool:
        """Whether there are such bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI image layout."""

    folder: Path
    name: str

    def entries(self) -> list[object]:
        if read_json(self.folder, (LAYOUT,), INDEX_LIMIT).get("imageLayoutVersion") != VERSION["imageLayoutVersion"]:
            raise ManifestInvalid(f"{LAYOUT} does not say imageLayoutVersion 1.0.0, the only one there is")
        entries = read_json(self.folder, (INDEX,), INDEX_LIMIT).get("manifests")
        if not isinstance(entries, list):
            raise ManifestInvalid(f"'manifests' of {INDEX} is not a list")
        return entries

    def read_manifest(self, digest: Digest) -> tuple[bytes, str]:
        return read_file(self.folder, _blob_path(digest), MANIFEST_LIMIT), ""

    def open_blob(self, digest: Digest) -> BinaryIO:
        return open_file(self.folder, _blob_path(digest))

    def has(self, digest: Digest) -> bool:
        return self.folder.joinpath(*_blob_path(digest)).exists()


def find(folder: Path) -> Sequence[Source]:
    """Distribution's repositories, where the folder is its own, else all layouts below it, or it alone.

    Links are not followed. Raises VaultError when there is nothing of either.
    """
    root = folder.resolve()
    return distribution.find(root) or _find_layouts(root)


def _find_layouts(root: Path) -> list[Layout]:
    folders = [Path(path) for path, _, files in os.walk(root) if LAYOUT in files]
    found = [Layout(path, path.relative_to(root).as_posix() if path != root else "") for path in folders]
    if not found:
        raise VaultError(
            f"there is no OCI image layout in {root}: none of its folders holds a file {LAYOUT}; nor is it the root"
            f" folder of distribution, with {'/'.join(distribution.REPOSITORIES)} in it"
        )
    return sorted(found, key=lambda layout: layout.name)


async def take(registry: Registry, sources: Sequence[Source], to: str, caller: Caller) -> AsyncIterator[Carried]:
    """Pushes what each of them has, under the rules that hold for every push."""
    for source in sources:
        name = "/".join(part for part in (to.strip("/"), source.name) if part)
        try:
            repository = RepositoryName.parse(name)
            entries = await asyncio.to_thread(source.entries)
        except RegistryError as error:
            yield Carried(shown(name) if name else f"{source.folder}", error.message)
            continue
        taken = _Taken(registry, repository, source, caller)
        for entry in entries:
            try:
                yield Carried(await taken.push(entry))
            except RegistryError as error:
                yield Carried(f"{repository} {_shown_entry(entry)}", error.message)


class _Taken:
    """A layout on its way into a repository. What is there already for another tag is not pushed twice."""

    def __init__(self, registry: Registry, repository: RepositoryName, source: Source, caller: Caller) -> None:
        self._registry = registry
        self._repository = repository
        self._source = source
        self._caller = caller
        self._pushed: set[Digest] = set()

    async def push(self, entry: object) -> str:
        """One entry of the index. Returns what it is called here. Raises what a push raises."""
        if not isinstance(entry, dict):
            raise ManifestInvalid(f"an entry of {INDEX} is not a descriptor (mediaType, digest, size)")
        digest, media_type = Digest.parse(_text(entry, "digest")), _text(entry, "mediaType")
        annotations = entry.get("annotations") or {}
        name = _text(annotations, REF_NAME) if isinstance(annotations, dict) else ""
        tag = Tag.parse(name) if name else None
        await self._push_manifest(digest, media_type, (tag,) if tag else (), 0)
        return _called(self._repository, tag or digest)

    async def _push_manifest(self, digest: Digest, media_type: str, tags: tuple[Tag, ...], depth: int) -> None:
        if digest in self._pushed and not tags:
            return
        if depth > DEPTH_LIMIT:
            raise ManifestInvalid(f"{digest} is an index within more than {DEPTH_LIMIT} others")
        body, found = await asyncio.to_thread(self._source.read_manifest, digest)
        media_type = media_type or found
        if (actual := Digest.of(body, digest.algorithm)) != digest:
            raise ManifestInvalid(f"manifest {digest} is damaged: its bytes have the digest {actual}")
        manifest = parse(body, media_type)
        sparse = self._registry.settings.sparse_manifests
        for child in manifest.manifests:
            if not sparse or self._source.has(child.digest):
                await self._push_manifest(child.digest, child.media_type, (), depth + 1)
        for blob in manifest.blobs:
            if not (sparse or blob.is_elsewhere) or self._source.has(blob.digest):
                await self._push_blob(blob.digest)
        await self._registry.push_manifest(self._repository, digest, body, media_type, self._caller, tags)
        self._pushed.add(digest)

    async def _push_blob(self, digest: Digest) -> None:
        if digest in self._pushed:
            return
        with await asyncio.to_thread(self._source.open_blob, digest) as file:
            await self._registry.push_blob(self._repository, self._caller, digest, _pieces(file))
        self._pushed.add(digest)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise ManifestInvalid(f"'{key}' of an entry of {INDEX} is not a string")
    return value or ""


def _shown_entry(entry: object) -> str:
    """By its tag, else its digest, whatever those are."""
    if not isinstance(entry, dict):
        return "(no descriptor)"
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return shown(str(name or entry.get("digest")))
