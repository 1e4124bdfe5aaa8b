"""What refers to a manifest."""

from sqlalchemy import text

from charthouse.database import Connection
from charthouse.names import Digest, RepositoryName
from charthouse.queries.repositories import repository_id
from charthouse.queries.rows import Referrer, escaped

# With the children of the index at the tag sha256-<hex>: so clients keep referrers where this endpoint is missing.
# CROSS JOIN, because SQLite keeps its order: a look for each of them, not at every manifest of the repository.
_REFERRERS = text("""
    SELECT m.digest, m.media_type, m.size, m.annotations_size,
        CASE WHEN m.annotations_size <= :share THEN m.artifact_type END,
        CASE WHEN m.annotations_size <= :share THEN m.annotations END
    FROM (
        SELECT digest FROM manifests WHERE repository_id = :repository_id AND subject = :subject
        UNION SELECT f.digest FROM tags t JOIN manifest_references f
            ON f.repository_id = t.repository_id AND f.manifest = t.digest AND f.kind = 'manifest'
        WHERE t.repository_id = :repository_id AND t.name = :fallback
    ) found CROSS JOIN manifests m
    WHERE m.repository_id = :repository_id AND m.digest = found.digest
    AND m.digest > :last AND (:any_type = 1 OR m.artifact_type = :artifact_type)
    ORDER BY m.digest LIMIT :limit""")
_LARGE = text("""
    SELECT artifact_type, annotations FROM manifests WHERE repository_id = :repository_id AND digest = :digest""")


def list_referrers(
    connection: Connection,
    repository: RepositoryName,
    subject: Digest,
    artifact_type: str | None,
    last: str,
    limit: int,
    size: int,
) -> tuple[list[Referrer], bool]:
    """At most `limit` after the digest `last`, and whether there are more.

    Of types and annotations there are at most `size` bytes. Neither has a limit of its own: those above their share are
    read apart, once it is known that they fit.
    """
    parameters = {
        "repository_id": repository_id(connection, repository),
        "subject": subject,
        "fallback": f"{subject.algorithm:.32}-{subject.hex:.64}",  # "Referrers Tag Schema"
        "any_type": int(artifact_type is None),
        "artifact_type": escaped(artifact_type or ""),
        "last": last,
        "limit": limit + 1,
        "share": size // (limit + 1),
    }
    if parameters["repository_id"] is None:
        return [], False
    rows = connection.execute(_REFERRERS, parameters).all()
    listed: list[Referrer] = []
    for digest, media_type, length, annotations_size, kind, annotations in rows[:limit]:
        size -= annotations_size
        if listed and size < 0:
            break
        described = (kind, annotations)
        if annotations is None:
            described = connection.execute(_LARGE, parameters | {"digest": digest}).first()
        listed.append(Referrer(digest, media_type, length, *described))
    return listed, len(listed) < len(rows)
