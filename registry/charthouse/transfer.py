"""Charts in from files, and from one repository to another. Built on `Registry`'s operations alone."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from charthouse.core import Caller, Pushed, Registry
from charthouse.errors import BlobUnknown, ManifestInvalid, RegistryError
from charthouse.helm import inspection, packing
from charthouse.helm.archive import DEFAULT
from charthouse.helm.versions import tag_of
from charthouse.manifest import OCI_MANIFEST, parse
from charthouse.names import Digest, Reference, RepositoryName, Tag

REFERRERS_PAGE = 100


async def copy(
    registry: Registry,
    source: RepositoryName,
    reference: Reference,
    target: RepositoryName,
    to: Reference,
    caller: Caller,
) -> Digest:
    """Copies a manifest, its children and blobs, and what refers to it (signatures, SBOMs). Returns its digest.

    The bytes are not copied, they are only held by one repository more. Raises NAME_UNKNOWN, MANIFEST_UNKNOWN.
    """
    stored = await registry.pulls.get_manifest(source, reference)
    manifest = parse(stored.content, stored.media_type)
    for child in manifest.manifests:
        await copy(registry, source, child.digest, target, child.digest, caller)
    for blob in manifest.blobs:
        held = await registry.mount_blob(target, blob.digest, source, caller)
        if not held and not blob.is_elsewhere and not registry.settings.sparse_manifests:
            raise BlobUnknown(f"{source} has no blob {blob.digest}, which {reference} names")
    digest = Digest(stored.digest)
    await registry.push_manifest(target, to, stored.content, stored.media_type, caller)
    await _copy_referrers(registry, source, digest, target, caller)
    return digest


async def _copy_referrers(
    registry: Registry, source: RepositoryName, subject: Digest, target: RepositoryName, caller: Caller
) -> None:
    last, more = "", True
    while more:
        referrers, more = await registry.list_referrers(source, subject, None, last, REFERRERS_PAGE)
        for referrer in referrers:
            last = referrer.digest
            await copy(registry, source, Digest(last), target, Digest(last), caller)


async def push_chart(
    registry: Registry, namespace: str, archive: bytes, provenance: bytes | None, created: datetime, caller: Caller
) -> tuple[RepositoryName, Pushed]:
    """What `helm push` does with an archive and the .prov file beside it. Raises what a push raises."""
    found = inspection.inspect(archive, DEFAULT)
    if found.metadata is None:
        raise ManifestInvalid("\n".join(map(str, found.faults)))
    repository = RepositoryName.parse("/".join(part for part in (namespace, found.metadata.name) if part))
    packed = packing.pack(found.metadata, archive, provenance, created)
    for digest, content in packed.blobs.items():
        await registry.push_blob(repository, caller, digest, _once(content))
    tag = Tag.parse(tag_of(found.metadata.version))
    return repository, await registry.push_manifest(repository, tag, packed.manifest, OCI_MANIFEST, caller)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A chart on disk and the namespace that it goes to."""

    path: Path
    namespace: str

    @property
    def provenance(self) -> bytes | None:
        beside = self.path.with_name(self.path.name + ".prov")
        return beside.read_bytes() if beside.exists() else None

    @property
    def written(self) -> datetime:
        return datetime.fromtimestamp(self.path.stat().st_mtime).astimezone()


def find_archives(paths: Iterable[Path], namespace: str) -> list[ArchiveFile]:
    """Files as they are, folders with all that is below: ChartMuseum's folders become namespaces. Raises OSError."""
    found = []
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*.tgz")):
                below = [part for part in (namespace, *file.parent.relative_to(path).parts) if part]
                found.append(ArchiveFile(file, "/".join(below)))
        else:
            path.stat()
            found.append(ArchiveFile(path, namespace))
    return found


async def push_files(
    registry: Registry, files: Iterable[ArchiveFile], caller: Caller
) -> AsyncIterator[tuple[ArchiveFile, str, RegistryError | None]]:
    """One after the other: the file, what it is called here now, and why it was refused."""
    for file in files:
        try:
            repository, pushed = await push_chart(
                registry, file.namespace, file.path.read_bytes(), file.provenance, file.written, caller
            )
        except RegistryError as error:
            yield file, "", error
        else:
            yield file, f"{repository}:{pushed.tags[0]}", None
