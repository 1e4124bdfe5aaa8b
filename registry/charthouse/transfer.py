"""Charts from one repository to another, with what belongs to them. Built on `Registry`'s operations alone."""

from charthouse.core import Caller, Registry
from charthouse.errors import BlobUnknown
from charthouse.manifest import parse
from charthouse.names import Digest, Reference, RepositoryName

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
    stored = await registry.get_manifest(source, reference)
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
