"""What is known to be damaged: blobs wherever they are held, and manifests whose own bytes are.

Both tables are empty as a rule, and what every pull asks of them is whether they are.
"""

from collections.abc import Mapping

from sqlalchemy import TextClause, text

from charthouse.database import Connection
from charthouse.names import Digest, RepositoryName
from charthouse.queries.rows import StoredBlob, StoredManifest

# In a statement over `manifests m`: the digest of what of the manifest is damaged, however deep below an index; else
# NULL. A client that finds an index or a manifest asks for nothing of what it names.
DAMAGE_OF_MANIFEST = """
    CASE WHEN EXISTS (SELECT 1 FROM damaged_blobs) OR EXISTS (SELECT 1 FROM damaged_manifests) THEN (
        WITH RECURSIVE named (digest) AS (
            SELECT m.digest
            UNION SELECT f.digest FROM named n
            JOIN manifest_references f ON f.repository_id = m.repository_id AND f.manifest = n.digest)
        SELECT MIN(n.digest) FROM named n
        WHERE EXISTS (SELECT 1 FROM damaged_blobs d WHERE d.digest = n.digest)
        OR EXISTS (SELECT 1 FROM damaged_manifests d WHERE d.repository_id = m.repository_id AND d.manifest = n.digest))
    END"""
# In a statement over `blobs b`.
DAMAGE_OF_BLOB = "(SELECT d.how FROM damaged_blobs d WHERE d.digest = b.digest)"

_MARK_BLOB = text("""
    INSERT INTO damaged_blobs (digest, found_at, how) VALUES (:digest, :now, :how) ON CONFLICT (digest) DO NOTHING""")
_UNMARK_BLOB = text("DELETE FROM damaged_blobs WHERE digest = :digest")
_MARK_MANIFEST = text("""
    INSERT INTO damaged_manifests (repository_id, manifest, found_at, how)
    VALUES (:repository_id, :manifest, :now, :how) ON CONFLICT (repository_id, manifest) DO NOTHING""")
_UNMARK_MANIFEST = text("DELETE FROM damaged_manifests WHERE repository_id = :repository_id AND manifest = :manifest")
_CHANGE_CONCERNED = text("""
    UPDATE repositories SET generation = generation + 1
    WHERE EXISTS (SELECT 1 FROM repository_blobs h WHERE h.repository_id = repositories.id AND h.digest = :digest)
    OR EXISTS (SELECT 1 FROM manifest_references f WHERE f.repository_id = repositories.id AND f.digest = :digest)""")
_TOTALS = text("""
    SELECT (SELECT COUNT(*) FROM blobs) + (SELECT COUNT(*) FROM manifests),
        COALESCE((SELECT SUM(size) FROM blobs), 0) + COALESCE((SELECT SUM(size) FROM manifests), 0)""")
_BLOBS_AFTER = text(f"""
    SELECT b.digest, b.size, b.key, b.content, 0, NULL, {DAMAGE_OF_BLOB} FROM blobs b
    WHERE b.digest > :last ORDER BY b.digest LIMIT :limit""")  # noqa: S608 - joined from constants
_MANIFESTS_AFTER = text("""
    SELECT m.repository_id, r.name, m.digest, m.media_type, m.size, m.content, r.generation, d.how FROM manifests m
    JOIN repositories r ON r.id = m.repository_id
    LEFT JOIN damaged_manifests d ON d.repository_id = m.repository_id AND d.manifest = m.digest
    WHERE (m.repository_id, m.digest) > (:repository_id, :digest)
    ORDER BY m.repository_id, m.digest LIMIT :limit""")
_AND_ABOVE = """
        UNION SELECT f.repository_id, f.manifest FROM concerned c
        JOIN manifest_references f
        ON f.repository_id = c.repository_id AND f.digest = c.manifest AND f.kind = 'manifest')
    SELECT r.name, c.manifest, t.name FROM concerned c
    JOIN repositories r ON r.id = c.repository_id
    LEFT JOIN tags t ON t.repository_id = c.repository_id AND t.digest = c.manifest
    ORDER BY r.name, t.name, c.manifest"""
_VERSIONS_WITH_BLOB = text(f"""
    WITH RECURSIVE concerned (repository_id, manifest) AS (
        SELECT f.repository_id, f.manifest FROM repositories r
        JOIN manifest_references f ON f.repository_id = r.id AND f.digest = :digest AND f.kind <> 'manifest'
        {_AND_ABOVE}""")  # noqa: S608 - joined from constants
_VERSIONS_WITH_MANIFEST = text(f"""
    WITH RECURSIVE concerned (repository_id, manifest) AS (
        SELECT m.repository_id, m.digest FROM repositories r
        JOIN manifests m ON m.repository_id = r.id AND m.digest = :digest WHERE r.name = :name
        {_AND_ABOVE}""")  # noqa: S608 - joined from constants


def mark_blob(connection: Connection, digest: Digest, how: str, now: int) -> None:
    connection.execute(_MARK_BLOB, {"digest": digest, "how": how, "now": now})


def unmark_blob(connection: Connection, digest: Digest) -> bool:
    """Whether it was marked."""
    return connection.execute(_UNMARK_BLOB, {"digest": digest}).rowcount == 1


def mark_manifest(connection: Connection, repository_id: int, manifest: Digest, how: str, now: int) -> None:
    parameters = {"repository_id": repository_id, "manifest": manifest, "how": how, "now": now}
    connection.execute(_MARK_MANIFEST, parameters)


def unmark_manifest(connection: Connection, repository_id: int, manifest: Digest) -> bool:
    """Whether it was marked."""
    parameters = {"repository_id": repository_id, "manifest": manifest}
    return connection.execute(_UNMARK_MANIFEST, parameters).rowcount == 1


def change_concerned(connection: Connection, digest: Digest) -> None:
    """Raises the generation of every repository that holds the blob, or whose manifests name it."""
    connection.execute(_CHANGE_CONCERNED, {"digest": digest})


def stored_totals(connection: Connection) -> tuple[int, int]:
    """The number of blobs and manifests, and their bytes."""
    count, size = connection.execute(_TOTALS).first()
    return int(count), int(size)


def blobs_after(connection: Connection, last: str, limit: int) -> list[StoredBlob]:
    return [StoredBlob(*row) for row in connection.execute(_BLOBS_AFTER, {"last": last, "limit": limit}).all()]


def manifests_after(
    connection: Connection, repository_id: int, digest: str, limit: int
) -> list[tuple[int, RepositoryName, StoredManifest]]:
    """Each with its repository's id and name. `damage` is how its own bytes are damaged."""
    parameters = {"repository_id": repository_id, "digest": digest, "limit": limit}
    rows = connection.execute(_MANIFESTS_AFTER, parameters).all()
    return [(row[0], RepositoryName(row[1]), StoredManifest(*row[2:])) for row in rows]


def versions_with_blob(connection: Connection, digest: Digest) -> list[str]:
    """What cannot be pulled without it, in all repositories: `name:tag`, or `name@digest` of what has no tag."""
    return _versions(connection, _VERSIONS_WITH_BLOB, {"digest": digest})


def versions_with_manifest(connection: Connection, repository: RepositoryName, digest: Digest) -> list[str]:
    """Likewise: of the manifest, and of the indexes above it."""
    return _versions(connection, _VERSIONS_WITH_MANIFEST, {"name": repository, "digest": digest})


def _versions(connection: Connection, statement: TextClause, parameters: Mapping[str, str]) -> list[str]:
    rows = connection.execute(statement, parameters).all()
    return [f"{name}@{digest}" if tag is None else f"{name}:{tag}" for name, digest, tag in rows]
