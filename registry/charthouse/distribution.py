"""Repositories of distribution (registry:2, registry:3, and what Harbor and GitLab are built on) in its own folder.

Each has links, files that hold a digest, and one store of blobs is shared by all. Nothing says a manifest's media type
but the manifest itself. What was deleted has lost its link, and is left out, although its bytes may still be there.
Source: distribution, `registry/storage/paths.go`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charthouse.errors import BlobUnknown, ManifestUnknown, RegistryError
from charthouse.manifest import MANIFEST_LIMIT, OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest
from charthouse.untrusted import open_file, read_file

ROOT = ("docker", "registry", "v2")
REPOSITORIES = (*ROOT, "repositories")
MANIFESTS = "_manifests"
REF_NAME = "org.opencontainers.image.ref.name"  # which an OCI image layout has its tags in
UNREADABLE = "of an unreadable link"
LINK_LIMIT = 256  # bytes; a digest has 71, or 135


@dataclass(frozen=True, slots=True)
class Repository:
    """`folder` is the root folder of distribution, which is no link and behind none."""

    folder: Path
    name: str

    @property
    def _path(self) -> tuple[str, ...]:
        return (*REPOSITORIES, *self.name.split("/"))

    def entries(self) -> list[object]:
        """First its tags, then what has none. A link that cannot be read is an entry whose digest is none."""
        tags = [(tag, self._link(MANIFESTS, "tags", tag, "current")) for tag in self._names(MANIFESTS, "tags")]
        revisions = [
            f"{algorithm}:{name}"
            for algorithm in self._names(MANIFESTS, "revisions")
            for name in self._names(MANIFESTS, "revisions", algorithm)
            if self.folder.joinpath(*self._path, MANIFESTS, "revisions", algorithm, name, "link").exists()
        ]
        tagged = {digest for _, digest in tags}
        return [
            *({"digest": digest, "annotations": {REF_NAME: tag}} for tag, digest in tags),
            *({"digest": digest} for digest in revisions if digest not in tagged),
        ]

    def _names(self, *parts: str) -> list[str]:
        """Of what lies in that folder, which may be a link to anywhere: then nothing does."""
        folder = self.folder.joinpath(*self._path, *parts)
        try:
            return (
                sorted(path.name for path in folder.iterdir()) if folder.is_dir() and folder.resolve() == folder else []
            )
        except OSError as error:
            raise BlobUnknown(f"{folder} cannot be read: {error.strerror}") from None

    def _link(self, *parts: str) -> str:
        """What it says, which is no digest before somebody has parsed it."""
        try:
            return (
                read_file(self.folder, (*self._path, *parts, "link"), LINK_LIMIT).decode("ascii").strip() or UNREADABLE
            )
        except (RegistryError, ValueError):
            return UNREADABLE

    def read_manifest(self, digest: Digest) -> tuple[bytes, str]:
        if self._link(MANIFESTS, "revisions", digest.algorithm, digest.hex) != digest:
            raise ManifestUnknown(f"{self.name} has no manifest {digest}: it was deleted, or its link is damaged")
        body = read_file(self.folder, _data_path(digest), MANIFEST_LIMIT)
        return body, _media_type(body)

    def open_blob(self, digest: Digest) -> BinaryIO:
        if self._link("_layers", digest.algorithm, digest.hex) != digest:
            raise BlobUnknown(f"{self.name} has no blob {digest}: it was deleted, or its link is damaged")
        return open_file(self.folder, _data_path(digest))

    def has(self, digest: Digest) -> bool:
        return self.folder.joinpath(*_data_path(digest)).exists()


def find(root: Path) -> list[Repository]:
    """None, where the folder is not distribution's."""
    top = root.joinpath(*REPOSITORIES)
    found = []
    for path, folders, _ in os.walk(top):
        if MANIFESTS in folders:
            found.append(Path(path).relative_to(top).as_posix())
        folders[:] = [name for name in folders if not name.startswith("_")]  # its own, which may be many
    return [Repository(root, name) for name in sorted(found)]


def _data_path(digest: Digest) -> tuple[str, ...]:
    return (*ROOT, "blobs", digest.algorithm, digest.hex[:2], digest.hex, "data")


def _media_type(body: bytes) -> str:
    """What it says itself; else an index has `manifests`, and an image has none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return OCI_MANIFEST  # the parser says what is wrong with it
    if not isinstance(document, dict) or isinstance(document.get("mediaType"), str):
        return ""
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST
