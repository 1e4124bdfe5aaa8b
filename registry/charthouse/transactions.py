"""What a write does inside its transaction: it looks, decides, and changes, or raises and changes nothing.

Two writers of one repository never run side by side: `change_repository` comes first.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from charthouse import namespaces, queries, quotas, versions
from charthouse.audit import Actor
from charthouse.database import Connection
from charthouse.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    Unsupported,
)
from charthouse.helm.findings import Finding
from charthouse.manifest import Descriptor, Manifest
from charthouse.names import Digest, Reference, RepositoryName, Tag, shown
from charthouse.namespaces import Rules
from charthouse.queries import Absent, Chart, StoredBlob, StoredManifest
from charthouse.quotas import Quota
from charthouse.settings import Settings

MISSING_SHOWN = 10  # descriptors: Helm shows nothing of an error of more than 8 KiB


@dataclass(frozen=True, slots=True)
class ManifestPush:
    """A manifest on its way in, with `chart` when it is one, and the rules under which it was admitted."""

    repository: RepositoryName
    stored: StoredManifest
    manifest: Manifest
    chart: Chart | None
    findings: Sequence[Finding]
    tags: tuple[Tag, ...]
    by: str
    actor: Actor
    now: int
    rules: Rules
    may_overwrite: bool
    quotas: Sequence[Quota] = ()
    pushers_quota: Quota | None = None


class RulesMoved(Exception):
    """Those under which a push was admitted hold no more."""


def put_manifest(connection: Connection, push: ManifestPush, settings: Settings) -> None:
    """Raises MANIFEST_BLOB_UNKNOWN; MANIFEST_INVALID when a tag would change its kind; DENIED (409), see `versions`,
    or beyond a quota (403); RulesMoved when somebody changed the namespace since.
    """
    if settings.require_namespaces:
        namespaces.demand(connection, settings, push.repository)
    repository_id, held = queries.enter_repository(connection, push.repository, push.now)
    if namespaces.rules_of(connection, settings, push.repository) != push.rules:
        raise RulesMoved
    missing, bytes_of_blobs = queries.missing(connection, repository_id, push.manifest)
    if not settings.sparse_manifests:
        _refuse_missing(push.repository, missing)
    weight = push.stored.size + bytes_of_blobs
    there = {tag: queries.tagged(connection, repository_id, tag) for tag in push.tags}
    moving = [tag for tag in there if versions.moves(there[tag], tag, push)]
    if push.chart and not push.tags:  # Helm puts by digest first: refused here, it leaves nothing behind
        tag = versions.tag_of(push.chart)
        versions.moves(queries.tagged(connection, repository_id, tag), tag, push)
    digest = Digest(push.stored.digest)
    was_here = _keep_manifest(connection, repository_id, push, digest, weight)
    if push.chart:  # also where the manifest was here before its config
        _put_chart(connection, repository_id, push, push.chart)
    for tag in moving:
        queries.set_tag(connection, repository_id, tag, digest, push.by, push.now)
    left = {before.digest for tag in moving if (before := there[tag]) and before.digest != digest}
    again = {digest} if was_here and not moving else set()  # somebody is told so once more
    for each in sorted(left | again):
        queries.untag(connection, repository_id, each, push.now)
    moved = [tag for tag in moving if (before := there[tag]) is None or before.digest != digest]
    if moved or not was_here:
        _note_push(connection, push, moved, overwrites=bool(left))
    quotas.demand(connection, push.quotas, repository_id, held)
    if push.pushers_quota and not was_here:
        quotas.demand_of_user(connection, push.pushers_quota, weight)


def _note_push(connection: Connection, push: ManifestPush, moved: Sequence[Tag], *, overwrites: bool) -> None:
    what = f":{','.join(moved)}" if moved else f"@{push.stored.digest}"
    action = "overwrite" if overwrites else "push"
    queries.add_audit(connection, push.actor, action, f"{push.repository}{what}", push.now)


def _keep_manifest(connection: Connection, repository_id: int, push: ManifestPush, digest: Digest, weight: int) -> bool:
    """Whether it was here already; then the same bytes may have come with another media type, and name the same."""
    known, damage = queries.manifest_state(connection, repository_id, digest)
    if known != push.stored.media_type or damage:
        if known is not None:
            queries.forget_references(connection, repository_id, digest)
        annotations = json.dumps(push.manifest.annotations, separators=(",", ":"))
        queries.put_manifest(
            connection, repository_id, push.stored, push.manifest, annotations, push.by, weight, push.now
        )
        queries.name_blobs(connection, repository_id, digest)
    if damage:
        queries.unmark_manifest(connection, repository_id, digest)
    return known is not None


def _put_chart(connection: Connection, repository_id: int, push: ManifestPush, chart: Chart) -> None:
    queries.put_chart(connection, repository_id, chart)
    if push.findings:
        findings = json.dumps([asdict(finding) for finding in push.findings])
        queries.put_findings(connection, repository_id, Digest(chart.digest), findings)
    newest = queries.newest_version(connection, push.repository)
    if newest is None:  # it was deleted, and this may not be it
        candidates = queries.chart_versions(connection, push.repository)
    else:
        candidates = [(newest, ""), (chart.version, chart.digest)]
    version, manifest = max(candidates, key=lambda candidate: versions.order(candidate[0]))
    if manifest:
        queries.set_newest_version(connection, repository_id, manifest, version)


def demand_blobs(connection: Connection, repository: RepositoryName, manifest: Manifest) -> None:
    """A chart's config and layers are here, even where manifests may be sparse, and as large as it says.

    Raises MANIFEST_BLOB_UNKNOWN; MANIFEST_INVALID for another size, with which Helm could not pull it.
    """
    held = {each: queries.find_blob(connection, repository, each.digest) for each in manifest.blobs}
    _refuse_missing(repository, [each for each, blob in held.items() if blob is None or not blob.is_sound])
    wrong = [
        f"the manifest says that {each.digest} has {each.size:,} bytes, it has {blob.size:,}; push it with helm push"
        for each, blob in held.items()
        if blob and blob.size != each.size
    ]
    if wrong:
        raise ManifestInvalid("\n".join(wrong[:MISSING_SHOWN]))


def _refuse_missing(repository: RepositoryName, missing: Sequence[Descriptor]) -> None:
    if missing:
        lines = [f"{repository} does not hold {d.digest} ({_media_type(d)})" for d in missing[:MISSING_SHOWN]]
        if len(missing) > MISSING_SHOWN:
            lines.append(f"and {len(missing) - MISSING_SHOWN:,} more")
        raise ManifestBlobUnknown("\n".join([*lines, "push what the manifest names before the manifest"]))


def _media_type(descriptor: Descriptor) -> str:
    return shown(descriptor.media_type) if descriptor.media_type else "no media type"


def name_blob(
    connection: Connection, repository: RepositoryName, blob: StoredBlob, now: int, limited: Sequence[Quota] = ()
) -> str | None:
    """Returns the key of what nothing names any more: the new bytes, when somebody was quicker, or the damaged ones.

    Raises DENIED beyond a quota.
    """
    repository_id, before = queries.enter_repository(connection, repository, now)
    while True:  # on PostgreSQL what was stored before may be collected between the two statements
        left_over = None if queries.add_blob(connection, blob, now) else _heal(connection, blob)
        if queries.hold_blob(connection, repository_id, Digest(blob.digest), now):
            quotas.demand(connection, limited, repository_id, before)
            return left_over


def _heal(connection: Connection, blob: StoredBlob) -> str | None:
    """The new bytes take the place of damaged ones. Returns the key of those that are not kept."""
    digest = Digest(blob.digest)
    stored = queries.stored_blob(connection, digest)
    if stored is None or stored.is_sound:
        return blob.key
    queries.change_concerned(connection, digest)
    if not queries.unmark_blob(connection, digest):
        return blob.key  # on PostgreSQL somebody else has healed it meanwhile
    queries.replace_blob(connection, blob)
    return stored.key


def mark_blob(connection: Connection, blob: StoredBlob, how: str, now: int) -> bool:
    """From now on the blob is absent. False when it is not stored like this any more: deleted, or pushed again."""
    digest = Digest(blob.digest)
    queries.change_concerned(connection, digest)  # first: on PostgreSQL who heals it waits for these rows
    stored = queries.stored_blob(connection, digest)
    if stored is None or (stored.key, stored.content) != (blob.key, blob.content):
        return False
    queries.mark_blob(connection, digest, how, now)
    return True


def unmark_blob(connection: Connection, blob: StoredBlob) -> bool:
    """Its bytes are good again. False when nobody said otherwise."""
    queries.change_concerned(connection, Digest(blob.digest))
    return queries.unmark_blob(connection, Digest(blob.digest))


def mark_manifest(
    connection: Connection, repository: RepositoryName, manifest: StoredManifest, how: str, now: int
) -> bool:
    """From now on the manifest is absent, for its own bytes. False when it is not stored like this any more."""
    repository_id = _change_existing(connection, repository, now)
    stored = queries.find_manifest(connection, repository, Digest(manifest.digest))
    if stored is None or stored.content != manifest.content:
        return False
    queries.mark_manifest(connection, repository_id, Digest(manifest.digest), how, now)
    return True


def unmark_manifest(connection: Connection, repository: RepositoryName, manifest: StoredManifest, now: int) -> bool:
    """Its bytes are good again. False when nobody said otherwise."""
    repository_id = _change_existing(connection, repository, now)
    return queries.unmark_manifest(connection, repository_id, Digest(manifest.digest))


def recount(connection: Connection, repository: RepositoryName, now: int) -> None:
    """What the repository holds, of which nobody else changes anything meanwhile."""
    queries.count_one_anew(connection, queries.change_repository(connection, repository, now))


def hold_blob(
    connection: Connection, repository: RepositoryName, digest: Digest, now: int, limited: Sequence[Quota] = ()
) -> bool:
    """False when the blob is not stored, or not any more, or damaged: then its bytes are needed.

    Raises DENIED beyond a quota.
    """
    stored = queries.stored_blob(connection, digest)
    if stored is None or not stored.is_sound:
        return False
    repository_id, before = queries.enter_repository(connection, repository, now)
    is_held = queries.hold_blob(connection, repository_id, digest, now)
    quotas.demand(connection, limited, repository_id, before)
    return is_held


def answer_for(connection: Connection, repository: RepositoryName, digest: Digest, now: int) -> StoredBlob | Absent:
    """A blob that no manifest named a moment ago: its grace begins anew with the answer, unless it is gone."""
    queries.extend_grace(connection, repository, digest, now)
    return queries.look_for_blob(connection, repository, digest)


def mount(
    connection: Connection,
    repository: RepositoryName,
    digest: Digest,
    sources: Sequence[RepositoryName],
    now: int,
    limited: Sequence[Quota] = (),
) -> bool:
    """Raises DENIED beyond a quota."""
    if not any(queries.find_blob(connection, source, digest) for source in sources):
        return False
    return hold_blob(connection, repository, digest, now, limited)


def delete_manifest(
    connection: Connection, repository: RepositoryName, reference: Reference, now: int, by: Actor
) -> None:
    repository_id = _change_existing(connection, repository, now)
    if isinstance(reference, Tag):
        named = queries.delete_tag(connection, repository_id, reference)
        if named is not None:
            queries.untag(connection, repository_id, named, now)
            queries.add_audit(connection, by, "delete tag", f"{repository}:{reference}", now)
            return
    else:
        queries.unname_blobs(connection, repository_id, reference, now)
        queries.orphan(connection, repository_id, reference, now)
        if queries.delete_manifest(connection, repository_id, reference):
            queries.add_audit(connection, by, "delete manifest", f"{repository}@{reference}", now)
            return
    raise ManifestUnknown(f"{repository} has no manifest {reference}")


def delete_version(
    connection: Connection, repository: RepositoryName, reference: Reference, now: int, by: Actor
) -> None:
    found = queries.find_manifest(connection, repository, reference)
    if found is None:
        _change_existing(connection, repository, now)
        raise ManifestUnknown(f"{repository} has no version {reference}")
    digest = Digest(found.digest)
    alone = queries.tags_of(connection, repository, digest) == [reference]
    delete_manifest(connection, repository, digest if alone else reference, now, by)


def delete_repository(connection: Connection, repository: RepositoryName, now: int, by: Actor) -> int:
    count = queries.empty_repository(connection, _change_existing(connection, repository, now), now)
    queries.add_audit(connection, by, "delete repository", repository, now)
    return count


def delete_blob(connection: Connection, repository: RepositoryName, digest: Digest, now: int, by: Actor) -> None:
    repository_id = _change_existing(connection, repository, now)
    manifest = queries.named_by(connection, repository_id, digest)
    if manifest:
        raise Unsupported(f"blob {digest} is named by manifest {manifest}: delete that first")
    if not queries.release_blob(connection, repository_id, digest):
        raise BlobUnknown(f"{repository} has no blob {digest}")
    queries.add_audit(connection, by, "delete blob", f"{repository}@{digest}", now)


def _change_existing(connection: Connection, repository: RepositoryName, now: int) -> int:
    if queries.repository_id(connection, repository) is None:
        raise NameUnknown(f"there is no repository {repository}")
    return queries.change_repository(connection, repository, now)
