"""Blobs, and which repository holds which."""

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.names import Digest, RepositoryName
from charthouse.queries.damage import DAMAGE_OF_BLOB
from charthouse.queries.rows import Absent, StoredBlob

_FIND_BLOB = text(f"""
    SELECT b.digest, b.size, b.key, b.content, r.generation, h.unnamed_since, {DAMAGE_OF_BLOB} FROM repositories r
    LEFT JOIN repository_blobs h ON h.repository_id = r.id AND h.digest = :digest
    LEFT JOIN blobs b ON b.digest = h.digest
    WHERE r.name = :name""")  # noqa: S608 - joined from constants
_STORED_BLOB = text(f"""
    SELECT b.digest, b.size, b.key, b.content, 0, NULL, {DAMAGE_OF_BLOB} FROM blobs b
    WHERE b.digest = :digest""")  # noqa: S608 - likewise
_ADD_BLOB = text("""
    INSERT INTO blobs (digest, size, key, created_at, content) VALUES (:digest, :size, :key, :now, :content)
    ON CONFLICT (digest) DO NOTHING""")
_REPLACE_BLOB = text("UPDATE blobs SET size = :size, key = :key, content = :content WHERE digest = :digest")
_HOLD_BLOB = text("""
    INSERT INTO repository_blobs (repository_id, digest, created_at, unnamed_since)
    SELECT :repository_id, digest, CAST(:now AS BIGINT), CASE WHEN NOT EXISTS (
        SELECT 1 FROM manifest_references f
        WHERE f.repository_id = :repository_id AND f.digest = :digest AND f.kind <> 'manifest')
        THEN CAST(:now AS BIGINT) END
    FROM blobs WHERE digest = :digest
    ON CONFLICT (repository_id, digest) DO UPDATE SET unnamed_since = excluded.unnamed_since""")
_EXTEND_GRACE = text("""
    UPDATE repository_blobs SET unnamed_since = :now WHERE digest = :digest AND unnamed_since IS NOT NULL
    AND repository_id = (SELECT id FROM repositories WHERE name = :name)""")
_NAME_BLOBS = text("""
    UPDATE repository_blobs SET unnamed_since = NULL
    WHERE repository_id = :repository_id AND unnamed_since IS NOT NULL AND digest IN (
        SELECT f.digest FROM manifest_references f
        WHERE f.repository_id = :repository_id AND f.manifest = :manifest AND f.kind <> 'manifest')""")
_UNNAME_BLOBS = text("""
    UPDATE repository_blobs SET unnamed_since = :now
    WHERE repository_id = :repository_id AND digest IN (
        SELECT f.digest FROM manifest_references f
        WHERE f.repository_id = :repository_id AND f.manifest = :manifest AND f.kind <> 'manifest')
    AND NOT EXISTS (
        SELECT 1 FROM manifest_references o WHERE o.repository_id = :repository_id
        AND o.digest = repository_blobs.digest AND o.manifest <> :manifest AND o.kind <> 'manifest')""")
_HOLDERS = text("""
    SELECT r.name FROM repository_blobs h JOIN repositories r ON r.id = h.repository_id
    WHERE h.digest = :digest ORDER BY r.name LIMIT :limit""")
_RELEASE_BLOB = text("DELETE FROM repository_blobs WHERE repository_id = :repository_id AND digest = :digest")
_NAMED_BY = text("""
    SELECT manifest FROM manifest_references WHERE repository_id = :repository_id AND digest = :digest
    AND kind <> 'manifest' ORDER BY manifest LIMIT 1""")


@one_statement
def look_for_blob(connection: Connection, repository: RepositoryName, digest: Digest) -> StoredBlob | Absent:
    row = connection.execute(_FIND_BLOB, {"name": repository, "digest": digest}).first()
    if row is None:
        return Absent.REPOSITORY
    return Absent.CONTENT if row[0] is None else StoredBlob(*row)


@one_statement
def find_blob(connection: Connection, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
    found = look_for_blob(connection, repository, digest)
    return None if isinstance(found, Absent) else found


@one_statement
def stored_blob(connection: Connection, digest: Digest) -> StoredBlob | None:
    """The blob in whatever repository: for the registry's own use, never an answer."""
    row = connection.execute(_STORED_BLOB, {"digest": digest}).first()
    return StoredBlob(*row) if row else None


def add_blob(connection: Connection, blob: StoredBlob, now: int) -> bool:
    """False when the blob was stored already; then what is stored stays as it is."""
    parameters = {"digest": blob.digest, "size": blob.size, "key": blob.key, "content": blob.content, "now": now}
    return connection.execute(_ADD_BLOB, parameters).rowcount == 1


def replace_blob(connection: Connection, blob: StoredBlob) -> None:
    """Other places for the same bytes."""
    parameters = {"digest": blob.digest, "size": blob.size, "key": blob.key, "content": blob.content}
    connection.execute(_REPLACE_BLOB, parameters)


def hold_blob(connection: Connection, repository_id: int, digest: Digest, now: int) -> bool:
    """False when the blob is not stored. Its grace begins, unless a manifest names it already."""
    parameters = {"repository_id": repository_id, "digest": digest, "now": now}
    return connection.execute(_HOLD_BLOB, parameters).rowcount == 1


def extend_grace(connection: Connection, repository: RepositoryName, digest: Digest, now: int) -> None:
    """Of a blob that no manifest names, before somebody is told that it is here."""
    connection.execute(_EXTEND_GRACE, {"name": repository, "digest": digest, "now": now})


def name_blobs(connection: Connection, repository_id: int, manifest: str) -> None:
    """After the manifest's references have come."""
    connection.execute(_NAME_BLOBS, {"repository_id": repository_id, "manifest": manifest})


def unname_blobs(connection: Connection, repository_id: int, manifest: str, now: int) -> None:
    """Before the manifest or its references go: the grace begins of what nothing else in the repository names."""
    connection.execute(_UNNAME_BLOBS, {"repository_id": repository_id, "manifest": manifest, "now": now})


@one_statement
def holders(connection: Connection, digest: Digest, limit: int) -> list[str]:
    """Repositories that hold the blob."""
    return list(connection.execute(_HOLDERS, {"digest": digest, "limit": limit}).scalars())


def release_blob(connection: Connection, repository_id: int, digest: Digest) -> bool:
    """False when the repository did not hold it."""
    return connection.execute(_RELEASE_BLOB, {"repository_id": repository_id, "digest": digest}).rowcount == 1


def named_by(connection: Connection, repository_id: int, digest: Digest) -> str | None:
    """A manifest of the repository that names the blob as its config or as a layer."""
    return connection.execute(_NAMED_BY, {"repository_id": repository_id, "digest": digest}).scalar()
