"""What refers to a manifest."""

from collections.abc import Sequence

from sqlalchemy import text

from charthouse.database import Connection
from charthouse.names import Digest, RepositoryName
from charthouse.queries.repositories import repository_id
from charthouse.queries.rows import Referrer, escaped

# With the children of the index at the tag sha256-<hex>: so clients keep referrers where this endpoint is missing.
_REFERRER_DIGESTS = """
    SELECT digest FROM manifests WHERE repository_id = :repository_id AND subject = :subject
    UNION SELECT f.digest FROM tags t
    JOIN manifest_references f ON f.repository_id = t.repository_id AND f.manifest = t.digest AND f.kind = 'manifest'
    WHERE t.repository_id = :repository_id AND t.name = :fallback"""
_REFERRER_SIZES = text(f"""
    SELECT digest, annotations_size FROM manifests
    WHERE repository_id = :repository_id AND digest IN ({_REFERRER_DIGESTS})
    AND digest > :last AND (:any_type = 1 OR artifact_type = :artifact_type)
    ORDER BY digest LIMIT :limit""")  # noqa: S608 - joined from constants
_REFERRERS = text(f"""
    SELECT digest, media_type, size, artifact_type, annotations FROM manifests
    WHERE repository_id = :repository_id AND digest IN ({_REFERRER_DIGESTS})
    AND digest > :last AND digest <= :until AND (:any_type = 1 OR artifact_type = :artifact_type)
    ORDER BY digest""")  # noqa: S608 - joined from constants


def list_referrers(
    connection: Connection,
    repository: RepositoryName,
    subject: Digest,
    artifact_type: str | None,
    last: str,
    limit: int,
    size: int,
) -> tuple[list[Referrer], bool]:
    """At most `limit` after the digest `last`, with at most `size` bytes of annotations; whether there are more."""
    parameters = {
        "repository_id": repository_id(connection, repository),
        "subject": subject,
        "fallback": f"{subject.algorithm:.32}-{subject.hex:.64}",  # "Referrers Tag Schema"
        "any_type": int(artifact_type is None),
        "artifact_type": escaped(artifact_type or ""),
        "last": last,
    }
    if parameters["repository_id"] is None:
        return [], False
    sizes = connection.execute(_REFERRER_SIZES, parameters | {"limit": limit + 1}).all()
    fitting = _fitting([(digest, length) for digest, length in sizes[:limit]], size)
    if not fitting:
        return [], False
    rows = connection.execute(_REFERRERS, parameters | {"until": fitting[-1]}).all()
    return [Referrer(*row) for row in rows], len(fitting) < len(sizes)


def _fitting(sizes: Sequence[tuple[str, int]], budget: int) -> list[str]:
    """The first always, and as many more as the budget has room for."""
    fitting: list[str] = []
    for digest, length in sizes:
        budget -= length
        if fitting and budget < 0:
            break
        fitting.append(digest)
    return fitting
