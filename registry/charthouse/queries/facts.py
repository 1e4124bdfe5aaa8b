"""What was read from charts, what the rules warned of, and the newest version of a repository."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.names import Digest, Reference, RepositoryName
from charthouse.queries.manifests import find_manifest
from charthouse.queries.repositories import repository_id

_PUT_FACTS = text("""
    INSERT INTO chart_facts (layer, extractor, extracted_at, facts)
    SELECT digest, :extractor, :now, :facts FROM blobs WHERE digest = :layer
    ON CONFLICT (layer) DO UPDATE
    SET extractor = excluded.extractor, extracted_at = excluded.extracted_at, facts = excluded.facts""")
_FACTS = text("SELECT facts FROM chart_facts WHERE layer = :layer AND extractor = :extractor")
_NOT_EXTRACTED = text("""
    SELECT DISTINCT c.layer FROM charts c
    LEFT JOIN chart_facts f ON f.layer = c.layer AND (f.extractor = :extractor AND :anew = 0)
    WHERE f.layer IS NULL AND NOT EXISTS (SELECT 1 FROM damaged_blobs d WHERE d.digest = c.layer)
    ORDER BY c.layer""")
_PUT_FINDINGS = text("""
    INSERT INTO chart_findings (repository_id, manifest, findings) VALUES (:repository_id, :manifest, :findings)
    ON CONFLICT (repository_id, manifest) DO NOTHING""")
_STORED_CHART = text("""
    SELECT c.layer, c.provenance, COALESCE(s.state, ''), COALESCE(s.signer, ''), COALESCE(s.user_ids, ''),
        COALESCE(w.findings, '[]')
    FROM charts c
    LEFT JOIN chart_signatures s ON s.repository_id = c.repository_id AND s.manifest = c.manifest
    LEFT JOIN chart_findings w ON w.repository_id = c.repository_id AND w.manifest = c.manifest
    WHERE c.repository_id = :repository_id AND c.manifest = :manifest""")
_NEWEST = text("""
    SELECT n.version FROM repositories r JOIN newest_versions n ON n.repository_id = r.id WHERE r.name = :name""")
_VERSIONS = text("""
    SELECT c.version, c.manifest FROM repositories r JOIN charts c ON c.repository_id = r.id WHERE r.name = :name""")
_SET_NEWEST = text("""
    INSERT INTO newest_versions (repository_id, manifest, version) VALUES (:repository_id, :manifest, :version)
    ON CONFLICT (repository_id) DO UPDATE SET manifest = excluded.manifest, version = excluded.version""")


@dataclass(frozen=True, slots=True)
class StoredChart:
    """A chart's parts, and what is known of it beside its archive. `findings` is JSON, `signed_by` are lines."""

    digest: str
    layer: str
    provenance: str | None
    signature: str
    signer: str
    signed_by: str
    findings: str


def put_facts(connection: Connection, facts: Mapping[Digest, str], extractor: int, now: int) -> None:
    """JSON, by the archive's digest. Nothing, when its blob is gone meanwhile."""
    connection.execute(
        _PUT_FACTS,
        [{"layer": layer, "extractor": extractor, "facts": text, "now": now} for layer, text in facts.items()],
    )


@one_statement
def find_facts(connection: Connection, layer: str, extractor: int) -> str | None:
    """JSON; None when nobody has read the archive yet, or only a reader of another version."""
    return connection.execute(_FACTS, {"layer": layer, "extractor": extractor}).scalar()


def not_extracted(connection: Connection, extractor: int, *, anew: bool = False) -> list[str]:
    """The undamaged chart layers without facts of that version; all of them, with `anew`."""
    return list(connection.execute(_NOT_EXTRACTED, {"extractor": extractor, "anew": int(anew)}).scalars())


def put_findings(connection: Connection, repository_id: int, manifest: Digest, findings: str) -> None:
    parameters = {"repository_id": repository_id, "manifest": manifest, "findings": findings}
    connection.execute(_PUT_FINDINGS, parameters)


def find_chart(connection: Connection, repository: RepositoryName, reference: Reference) -> StoredChart | None:
    """None for what is not here and for what is no chart."""
    manifest = find_manifest(connection, repository, reference)
    if manifest is None:
        return None
    parameters = {"repository_id": repository_id(connection, repository), "manifest": manifest.digest}
    row = connection.execute(_STORED_CHART, parameters).first()
    return StoredChart(manifest.digest, *row) if row else None


def newest_version(connection: Connection, repository: RepositoryName) -> str | None:
    """None when there is no chart, or when the newest one was deleted."""
    return connection.execute(_NEWEST, {"name": repository}).scalar()


def chart_versions(connection: Connection, repository: RepositoryName) -> list[tuple[str, str]]:
    """Each with its manifest's digest."""
    return [(version, manifest) for version, manifest in connection.execute(_VERSIONS, {"name": repository}).all()]


def set_newest_version(connection: Connection, repository_id: int, manifest: str, version: str) -> None:
    connection.execute(_SET_NEWEST, {"repository_id": repository_id, "manifest": manifest, "version": version})
