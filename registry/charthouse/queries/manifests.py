"""Manifests, what they name, and tags."""

from collections.abc import Sequence

from sqlalchemy import TextClause, text

from charthouse.database import Connection, one_statement
from charthouse.manifest import Descriptor, Manifest
from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.queries.among import Among
from charthouse.queries.damage import DAMAGE_OF_MANIFEST
from charthouse.queries.repositories import repository_id
from charthouse.queries.rows import Absent, StoredManifest, column_text, escaped

_FOUND = f"m.digest, m.media_type, m.size, m.content, r.generation, {DAMAGE_OF_MANIFEST}"
_MANIFEST_BY_DIGEST = text(f"""
    SELECT {_FOUND} FROM repositories r
    LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = :reference
    WHERE r.name = :name""")  # noqa: S608 - joined from constants
_MANIFEST_BY_TAG = text(f"""
    SELECT {_FOUND} FROM repositories r
    LEFT JOIN tags t ON t.repository_id = r.id AND t.name = :reference
    LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest
    WHERE r.name = :name""")  # noqa: S608 - likewise
_STATE = text("""
    SELECT m.media_type, d.how FROM manifests m
    LEFT JOIN damaged_manifests d ON d.repository_id = m.repository_id AND d.manifest = m.digest
    WHERE m.repository_id = :repository_id AND m.digest = :digest""")
_PUT_MANIFEST = text("""
    INSERT INTO manifests (repository_id, digest, media_type, size, artifact_type, subject, pushed_at, pushed_by,
        annotations_size, annotations, content, weight)
    VALUES (:repository_id, :digest, :media_type, :size, :artifact_type, :subject, :now, :pushed_by,
        :annotations_size, :annotations, :content, :weight)
    ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type, size = excluded.size,
        artifact_type = excluded.artifact_type, subject = excluded.subject, content = excluded.content,
        weight = excluded.weight""")
_FORGET_REFERENCES = text("DELETE FROM manifest_references WHERE repository_id = :repository_id AND manifest = :digest")
_ADD_REFERENCE = text("""
    INSERT INTO manifest_references (repository_id, manifest, position, kind, digest, media_type, size)
    VALUES (:repository_id, :manifest, :position, :kind, :digest, :media_type, :size)""")
_AMONG = Among(4)  # descriptors: a chart has two or three
_HELD_BLOBS = text(f"""
    SELECT h.digest, b.size FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
    WHERE h.repository_id = :repository_id AND h.digest {_AMONG.sql}
    AND NOT EXISTS (SELECT 1 FROM damaged_blobs d WHERE d.digest = h.digest)""")  # noqa: S608 - joined from constants
_HELD_MANIFESTS = text(f"""
    SELECT m.digest, m.size FROM manifests m WHERE m.repository_id = :repository_id AND m.digest {_AMONG.sql}
    AND {DAMAGE_OF_MANIFEST} IS NULL""")  # noqa: S608 - joined from constants
_SET_TAG = text("""
    INSERT INTO tags (repository_id, name, digest, pushed_at, pushed_by)
    VALUES (:repository_id, :tag, :digest, :now, :pushed_by)
    ON CONFLICT (repository_id, name) DO UPDATE
    SET digest = excluded.digest, pushed_at = excluded.pushed_at, pushed_by = excluded.pushed_by
    WHERE tags.digest <> excluded.digest""")
_DELETE_TAG = text("DELETE FROM tags WHERE repository_id = :repository_id AND name = :tag RETURNING digest")
_UNTAG = text("""
    UPDATE manifests SET untagged_since = :now WHERE repository_id = :repository_id AND digest = :digest
    AND NOT EXISTS (
        SELECT 1 FROM tags t WHERE t.repository_id = manifests.repository_id AND t.digest = manifests.digest)""")
_ORPHAN = text("""
    UPDATE manifests SET untagged_since = :now WHERE repository_id = :repository_id AND (subject = :manifest
    OR digest IN (SELECT f.digest FROM manifest_references f
        WHERE f.repository_id = :repository_id AND f.manifest = :manifest AND f.kind = 'manifest'))""")
_DELETE_MANIFEST = text("DELETE FROM manifests WHERE repository_id = :repository_id AND digest = :digest")
_LIST_TAGS = text("""
    SELECT name FROM tags WHERE repository_id = :repository_id AND name > :last ORDER BY name LIMIT :limit""")


_TAGS_OF = text("""
    SELECT t.name FROM repositories r JOIN tags t ON t.repository_id = r.id
    WHERE r.name = :name AND t.digest = :digest ORDER BY t.name""")


@one_statement
def look_for_manifest(
    connection: Connection, repository: RepositoryName, reference: Reference
) -> StoredManifest | Absent:
    statement = _MANIFEST_BY_TAG if isinstance(reference, Tag) else _MANIFEST_BY_DIGEST
    row = connection.execute(statement, {"name": repository, "reference": reference}).first()
    if row is None:
        return Absent.REPOSITORY
    return Absent.CONTENT if row[0] is None else StoredManifest(*row)


@one_statement
def find_manifest(connection: Connection, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
    found = look_for_manifest(connection, repository, reference)
    return None if isinstance(found, Absent) else found


def manifest_state(connection: Connection, repository_id: int, digest: Digest) -> tuple[str | None, str | None]:
    """Its media type, None where it is not, and how its own bytes are damaged."""
    row = connection.execute(_STATE, {"repository_id": repository_id, "digest": digest}).first()
    return (row[0], row[1]) if row else (None, None)


def missing(connection: Connection, repository_id: int, manifest: Manifest) -> tuple[list[Descriptor], int]:
    """What the manifest names and the repository does not hold, or not undamaged; and the bytes of the blobs that it
    does, each once, whatever size the manifest says."""
    blobs = [descriptor for descriptor in manifest.blobs if not descriptor.is_elsewhere]
    held_blobs = _held(connection, _HELD_BLOBS, repository_id, blobs)
    held = held_blobs | _held(connection, _HELD_MANIFESTS, repository_id, manifest.manifests)
    absent = [descriptor for descriptor in (*blobs, *manifest.manifests) if descriptor.digest not in held]
    return absent, sum(held_blobs.values())


def _held(
    connection: Connection, statement: TextClause, repository_id: int, descriptors: Sequence[Descriptor]
) -> dict[str, int]:
    """Each with its size."""
    held: dict[str, int] = {}
    for among in _AMONG.chunks([descriptor.digest for descriptor in descriptors]):
        held.update(connection.execute(statement, {"repository_id": repository_id, **among}).all())
    return held


def put_manifest(
    connection: Connection,
    repository_id: int,
    stored: StoredManifest,
    manifest: Manifest,
    annotations: str,
    by: str,
    weight: int,
    now: int,
) -> None:
    """Adds the manifest and what it names. The same bytes may come anew: as another media type, for damaged ones."""
    connection.execute(
        _PUT_MANIFEST,
        {
            "repository_id": repository_id,
            "digest": stored.digest,
            "media_type": stored.media_type,
            "size": stored.size,
            "content": stored.content,
            "artifact_type": escaped(manifest.referrer_type),
            "subject": manifest.subject.digest if manifest.subject else None,
            "annotations": annotations,
            "annotations_size": len(annotations) + len(escaped(manifest.referrer_type)),  # nothing else has no limit
            "pushed_by": by,
            "weight": weight,
            "now": now,
        },
    )
    rows = _reference_rows(repository_id, stored.digest, manifest)
    if rows:
        connection.execute(_ADD_REFERENCE, rows)


def forget_references(connection: Connection, repository_id: int, digest: Digest) -> None:
    """What the manifest names, before it is read in another way."""
    connection.execute(_FORGET_REFERENCES, {"repository_id": repository_id, "digest": digest})


def _reference_rows(repository_id: int, digest: str, manifest: Manifest) -> list[dict[str, object]]:
    named = [("config", manifest.config)] if manifest.config else []
    named += [("layer", layer) for layer in manifest.layers] + [("manifest", child) for child in manifest.manifests]
    return [
        {
            "repository_id": repository_id,
            "manifest": digest,
            "position": position,
            "kind": kind,
            "digest": descriptor.digest,
            "media_type": column_text(descriptor.media_type),
            "size": descriptor.size,
        }
        for position, (kind, descriptor) in enumerate(named)
    ]


def set_tag(connection: Connection, repository_id: int, tag: Tag, digest: Digest, by: str, now: int) -> None:
    parameters = {"repository_id": repository_id, "tag": tag, "digest": digest, "pushed_by": by, "now": now}
    connection.execute(_SET_TAG, parameters)


def tags_of(connection: Connection, repository: RepositoryName, digest: Digest) -> list[str]:
    return list(connection.execute(_TAGS_OF, {"name": repository, "digest": digest}).scalars())


def delete_tag(connection: Connection, repository_id: int, tag: Tag) -> str | None:
    """The digest that it named; None when there was no such tag."""
    return connection.execute(_DELETE_TAG, {"repository_id": repository_id, "tag": tag}).scalar()


def untag(connection: Connection, repository_id: int, digest: str, now: int) -> None:
    """Begins the time without a tag, unless the manifest has one."""
    connection.execute(_UNTAG, {"repository_id": repository_id, "digest": digest, "now": now})


def orphan(connection: Connection, repository_id: int, manifest: str, now: int) -> None:
    """Begins the time on their own of the manifest's children and referrers, before it goes."""
    connection.execute(_ORPHAN, {"repository_id": repository_id, "manifest": manifest, "now": now})


def delete_manifest(connection: Connection, repository_id: int, digest: Digest) -> bool:
    """With its tags, references and chart."""
    return connection.execute(_DELETE_MANIFEST, {"repository_id": repository_id, "digest": digest}).rowcount == 1


def list_tags(connection: Connection, repository: RepositoryName, last: str, limit: int) -> list[str] | None:
    """Tags in byte order after `last`; None when there is no such repository."""
    found = repository_id(connection, repository)
    if found is None:
        return None
    return list(connection.execute(_LIST_TAGS, {"repository_id": found, "last": last, "limit": limit}).scalars())
