"""What is known to be damaged: blobs wherever they are held, and manifests whose own bytes are.

Both tables are empty as a rule, and what every pull asks of them is whether they are.
"""

from sqlalchemy import text

from charthouse.database import Connection
from charthouse.names import Digest

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
