"""Repositories as OCI image layouts: `charthouse export` writes them, `charthouse import` takes them over.

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
from typing import Any, BinaryIO

from charthouse.blobs.filesystem import fsync
from charthouse.core import Caller, Registry
from charthouse.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, RegistryError, VaultError
from charthouse.manifest import MANIFEST_LIMIT, OCI_INDEX, Descriptor, parse
from charthouse.names import Digest, Reference, RepositoryName, Tag, shown
from charthouse.vaults.folder import copy_hashed, sync_folder

LAYOUT = "oci-layout"
INDEX = "index.json"
REF_NAME = "org.opencontainers.image.ref.name"
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


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout on disk and the path that its repository has below what was given, "" for the folder itself."""

    folder: Path
    name: str


def find_layouts(folder: Path) -> list[Layout]:
    """All layouts below the folder, or it alone. Links are not followed. Raises VaultError when there is none."""
    root = folder.resolve()
    folders = [Path(path) for path, _, files in os.walk(root) if LAYOUT in files]
    found = [Layout(path, path.relative_to(root).as_posix() if path != root else "") for path in folders]
    if not found:
        raise VaultError(f"there is no OCI image layout in {folder}: none of its folders holds a file {LAYOUT}")
    return sorted(found, key=lambda layout: layout.name)


async def take(registry: Registry, layouts: Sequence[Layout], to: str, caller: Caller) -> AsyncIterator[Carried]:
    """Pushes what each layout's index names, under the rules that hold for every push."""
    for layout in layouts:
        name = "/".join(part for part in (to.strip("/"), layout.name) if part)
        try:
            repository = RepositoryName.parse(name)
            entries = await asyncio.to_thread(_entries, layout.folder)
        except RegistryError as error:
            yield Carried(f"{layout.folder}", error.message)
            continue
        taken = _Taken(registry, repository, layout.folder, caller)
        for entry in entries:
            try:
                yield Carried(await taken.push(entry))
            except RegistryError as error:
                yield Carried(f"{repository} {_shown_entry(entry)}", error.message)


class _Taken:
    """A layout on its way into a repository. What is there already for another tag is not pushed twice."""

    def __init__(self, registry: Registry, repository: RepositoryName, folder: Path, caller: Caller) -> None:
        self._registry = registry
        self._repository = repository
        self._folder = folder
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
        body = await asyncio.to_thread(_read, self._folder, _blob_path(digest), MANIFEST_LIMIT)
        if (actual := Digest.of(body, digest.algorithm)) != digest:
            raise ManifestInvalid(f"manifest {digest} is damaged in the layout: its bytes have the digest {actual}")
        manifest = parse(body, media_type)
        sparse = self._registry.settings.sparse_manifests
        for child in manifest.manifests:
            if not sparse or self._is_here(child.digest):
                await self._push_manifest(child.digest, child.media_type, (), depth + 1)
        for blob in manifest.blobs:
            if not (sparse or blob.is_elsewhere) or self._is_here(blob.digest):
                await self._push_blob(blob.digest)
        await self._registry.push_manifest(self._repository, digest, body, media_type, self._caller, tags)
        self._pushed.add(digest)

    async def _push_blob(self, digest: Digest) -> None:
        if digest in self._pushed:
            return
        with await asyncio.to_thread(_open, self._folder, _blob_path(digest)) as file:
            await self._registry.push_blob(self._repository, self._caller, digest, _pieces(file))
        self._pushed.add(digest)

    def _is_here(self, digest: Digest) -> bool:
        return self._folder.joinpath(*_blob_path(digest)).exists()


def _entries(folder: Path) -> list[object]:
    """What the layout's index names. Raises MANIFEST_INVALID, BLOB_UNKNOWN."""
    if _json(folder, LAYOUT).get("imageLayoutVersion") != VERSION["imageLayoutVersion"]:
        raise ManifestInvalid(f"{LAYOUT} does not say imageLayoutVersion 1.0.0, the only one there is")
    entries = _json(folder, INDEX).get("manifests")
    if not isinstance(entries, list):
        raise ManifestInvalid(f"'manifests' of {INDEX} is not a list")
    return entries


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads(_read(folder, (name,), INDEX_LIMIT).decode())
    except (ValueError, RecursionError):
        raise ManifestInvalid(f"{name} is not valid JSON") from None
    if not isinstance(document, dict):
        raise ManifestInvalid(f"{name} is not a JSON object")
    return document


def _read(folder: Path, parts: tuple[str, ...], limit: int) -> bytes:
    with _open(folder, parts) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ManifestInvalid(f"{'/'.join(parts)} has more than {limit:,} bytes")
    return content


def _open(folder: Path, parts: tuple[str, ...]) -> BinaryIO:
    """A file of the layout, whose folder is no link itself. Raises BLOB_UNKNOWN: it may be a link to anywhere."""
    path, name = folder.joinpath(*parts), "/".join(parts)
    try:
        if path.resolve() != path:
            raise BlobUnknown(f"{name} is a link, or behind one: a layout's files are read from the layout alone")
        if not path.is_file():
            raise BlobUnknown(f"the layout has no file {name}")
        return path.open("rb")
    except OSError as error:
        raise BlobUnknown(f"{name} cannot be read: {error.strerror}") from None


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
