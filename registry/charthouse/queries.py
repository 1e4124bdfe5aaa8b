"""Every SQL statement of the registry, one function each, the same text for SQLite and PostgreSQL.

Functions that change a repository begin with `change_repository`: it raises the generation, and on PostgreSQL its row
lock puts the writers of one repository in line.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import TextClause, text

from charthouse.database import Connection
from charthouse.manifest import Descriptor, Manifest
from charthouse.names import Digest, Reference, RepositoryName, Tag

# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """`generation` is the repository's, read with the rest; 0 for what is not stored yet."""

    digest: str
    media_type: str
    size: int
    content: bytes
    generation: int = 0


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """`content` when the bytes are kept in the database, else `key` names them in the blob store."""

    digest: str
    size: int
    key: str | None
    content: bytes | None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Referrer:
    digest: str
    media_type: str
    size: int
    artifact_type: str
    annotations: str  # JSON


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as its manifest's config and layers tell it. `tags` are all that name it, `version` is its own."""

    repository: str
    digest: str
    name: str
    version: str
    app_version: str
    description: str
    deprecated: bool
    config: str
    layer: str
    provenance: str | None
    contents: str
    size: int
    pushed_at: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag names now. The chart's parts are None when it is none."""

    digest: str
    pushed_at: int
    pushed_by: str
    version: str | None
    config: str | None
    layer: str | None
    provenance: str | None
    contents: str | None

    @property
    def is_chart(self) -> bool:
        return self.layer is not None


# --- repositories -----------------------------------------------------------------------------------------------------

_CHANGE_REPOSITORY = text("""
    INSERT INTO repositories (name, generation, created_at) VALUES (:name, 1, :now)
    ON CONFLICT (name) DO UPDATE SET generation = repositories.generation + 1
    RETURNING id""")
_REPOSITORY_ID = text("SELECT id FROM repositories WHERE name = :name")
_RELEASE_BLOBS = text("DELETE FROM repository_blobs WHERE repository_id = :repository_id")
_DELETE_MANIFESTS = text("DELETE FROM manifests WHERE repository_id = :repository_id")
_GENERATION = text("SELECT generation FROM repositories WHERE name = :name")
_LIST_REPOSITORIES = text("""
    SELECT name FROM repositories
    WHERE name > :last AND EXISTS (SELECT 1 FROM manifests WHERE repository_id = repositories.id)
    ORDER BY name LIMIT :limit""")


def change_repository(connection: Connection, repository: RepositoryName, now: int) -> int:
    """The repository's id; it is made when it is not there yet."""
    return int(connection.execute(_CHANGE_REPOSITORY, {"name": repository, "now": now}).scalar_one())


def repository_id(connection: Connection, repository: RepositoryName) -> int | None:
    return connection.execute(_REPOSITORY_ID, {"name": repository}).scalar()


def generations(connection: Connection, repositories: Collection[RepositoryName]) -> dict[str, int]:
    """Of those that exist."""
    found = {name: connection.execute(_GENERATION, {"name": name}).scalar() for name in repositories}
    return {name: generation for name, generation in found.items() if generation is not None}


def empty_repository(connection: Connection, repository_id: int) -> int:
    """Forgets all that it holds, but for the row: a generation is never used twice. Returns the number of manifests."""
    connection.execute(_RELEASE_BLOBS, {"repository_id": repository_id})
    return connection.execute(_DELETE_MANIFESTS, {"repository_id": repository_id}).rowcount


def list_repositories(connection: Connection, last: str, limit: int) -> list[str]:
    """Repositories that hold a manifest, by name in byte order, after `last`."""
    return list(connection.execute(_LIST_REPOSITORIES, {"last": last, "limit": limit}).scalars())


# --- blobs ------------------------------------------------------------------------------------------------------------

_FIND_BLOB = text("""
    SELECT b.digest, b.size, b.key, b.content, r.generation FROM repositories r
    JOIN repository_blobs h ON h.repository_id = r.id AND h.digest = :digest
    JOIN blobs b ON b.digest = h.digest
    WHERE r.name = :name""")
_STORED_BLOB = text("SELECT digest, size, key, content FROM blobs WHERE digest = :digest")
_ADD_BLOB = text("""
    INSERT INTO blobs (digest, size, key, created_at, content) VALUES (:digest, :size, :key, :now, :content)
    ON CONFLICT (digest) DO NOTHING""")
_HOLD_BLOB = text("""
    INSERT INTO repository_blobs (repository_id, digest, created_at)
    SELECT :repository_id, digest, :now FROM blobs WHERE digest = :digest
    ON CONFLICT (repository_id, digest) DO NOTHING""")
_HOLDERS = text("""
    SELECT r.name FROM repository_blobs h JOIN repositories r ON r.id = h.repository_id
    WHERE h.digest = :digest ORDER BY r.name LIMIT :limit""")
_RELEASE_BLOB = text("DELETE FROM repository_blobs WHERE repository_id = :repository_id AND digest = :digest")
_NAMED_BY = text("""
    SELECT manifest FROM manifest_references WHERE repository_id = :repository_id AND digest = :digest
    AND kind <> 'manifest' ORDER BY manifest LIMIT 1""")


def find_blob(connection: Connection, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
    row = connection.execute(_FIND_BLOB, {"name": repository, "digest": digest}).first()
    return StoredBlob(*row) if row else None


def stored_blob(connection: Connection, digest: Digest) -> StoredBlob | None:
    """The blob in whatever repository: for the registry's own use, never an answer."""
    row = connection.execute(_STORED_BLOB, {"digest": digest}).first()
    return StoredBlob(*row) if row else None


def add_blob(connection: Connection, blob: StoredBlob, now: int) -> bool:
    """False when the blob was stored already; then what is stored stays as it is."""
    parameters = {"digest": blob.digest, "size": blob.size, "key": blob.key, "content": blob.content, "now": now}
    return connection.execute(_ADD_BLOB, parameters).rowcount == 1


def hold_blob(connection: Connection, repository_id: int, digest: Digest, now: int) -> None:
    connection.execute(_HOLD_BLOB, {"repository_id": repository_id, "digest": digest, "now": now})


def holders(connection: Connection, digest: Digest, limit: int) -> list[str]:
    """Repositories that hold the blob."""
    return list(connection.execute(_HOLDERS, {"digest": digest, "limit": limit}).scalars())


def release_blob(connection: Connection, repository_id: int, digest: Digest) -> bool:
    """False when the repository did not hold it."""
    return connection.execute(_RELEASE_BLOB, {"repository_id": repository_id, "digest": digest}).rowcount == 1


def named_by(connection: Connection, repository_id: int, digest: Digest) -> str | None:
    """A manifest of the repository that names the blob as its config or as a layer."""
    return connection.execute(_NAMED_BY, {"repository_id": repository_id, "digest": digest}).scalar()


# --- manifests and tags -----------------------------------------------------------------------------------------------

_MANIFEST_BY_DIGEST = text("""
    SELECT m.digest, m.media_type, m.size, m.content, r.generation FROM repositories r
    JOIN manifests m ON m.repository_id = r.id AND m.digest = :reference WHERE r.name = :name""")
_MANIFEST_BY_TAG = text("""
    SELECT m.digest, m.media_type, m.size, m.content, r.generation FROM repositories r
    JOIN tags t ON t.repository_id = r.id AND t.name = :reference
    JOIN manifests m ON m.repository_id = r.id AND m.digest = t.digest WHERE r.name = :name""")
_MEDIA_TYPE = text("SELECT media_type FROM manifests WHERE repository_id = :repository_id AND digest = :digest")
_PUT_MANIFEST = text("""
    INSERT INTO manifests (repository_id, digest, media_type, size, artifact_type, subject, pushed_at, pushed_by,
        annotations_size, annotations, content)
    VALUES (:repository_id, :digest, :media_type, :size, :artifact_type, :subject, :now, :pushed_by,
        :annotations_size, :annotations, :content)
    ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type,
        artifact_type = excluded.artifact_type, subject = excluded.subject""")
_FORGET_REFERENCES = text("DELETE FROM manifest_references WHERE repository_id = :repository_id AND manifest = :digest")
_ADD_REFERENCE = text("""
    INSERT INTO manifest_references (repository_id, manifest, position, kind, digest, media_type, size)
    VALUES (:repository_id, :manifest, :position, :kind, :digest, :media_type, :size)""")
_HAS_BLOB = text("SELECT 1 FROM repository_blobs WHERE repository_id = :repository_id AND digest = :digest")
_HAS_MANIFEST = text("SELECT 1 FROM manifests WHERE repository_id = :repository_id AND digest = :digest")
_SET_TAG = text("""
    INSERT INTO tags (repository_id, name, digest, pushed_at, pushed_by)
    VALUES (:repository_id, :tag, :digest, :now, :pushed_by)
    ON CONFLICT (repository_id, name) DO UPDATE
    SET digest = excluded.digest, pushed_at = excluded.pushed_at, pushed_by = excluded.pushed_by
    WHERE tags.digest <> excluded.digest""")
_DELETE_TAG = text("DELETE FROM tags WHERE repository_id = :repository_id AND name = :tag")
_DELETE_MANIFEST = text("DELETE FROM manifests WHERE repository_id = :repository_id AND digest = :digest")
_LIST_TAGS = text("""
    SELECT name FROM tags WHERE repository_id = :repository_id AND name > :last ORDER BY name LIMIT :limit""")


_TAGS_OF = text("""
    SELECT t.name FROM repositories r JOIN tags t ON t.repository_id = r.id
    WHERE r.name = :name AND t.digest = :digest ORDER BY t.name""")


def find_manifest(connection: Connection, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
    statement = _MANIFEST_BY_TAG if isinstance(reference, Tag) else _MANIFEST_BY_DIGEST
    row = connection.execute(statement, {"name": repository, "reference": reference}).first()
    return StoredManifest(*row) if row else None


def manifest_media_type(connection: Connection, repository_id: int, digest: Digest) -> str | None:
    return connection.execute(_MEDIA_TYPE, {"repository_id": repository_id, "digest": digest}).scalar()


def missing(connection: Connection, repository_id: int, manifest: Manifest) -> list[Descriptor]:
    """What the manifest names and the repository does not hold."""
    absent = [d for d in manifest.blobs if not d.is_elsewhere and not _has(connection, _HAS_BLOB, repository_id, d)]
    return absent + [d for d in manifest.manifests if not _has(connection, _HAS_MANIFEST, repository_id, d)]


def _has(connection: Connection, statement: TextClause, repository_id: int, descriptor: Descriptor) -> bool:
    parameters = {"repository_id": repository_id, "digest": descriptor.digest}
    return connection.execute(statement, parameters).first() is not None


def put_manifest(
    connection: Connection,
    repository_id: int,
    stored: StoredManifest,
    manifest: Manifest,
    annotations: str,
    by: str,
    now: int,
) -> None:
    """Adds the manifest and what it names, or reads it anew when the same bytes come with another media type."""
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
            "now": now,
        },
    )
    connection.execute(_FORGET_REFERENCES, {"repository_id": repository_id, "digest": stored.digest})
    rows = _reference_rows(repository_id, stored.digest, manifest)
    if rows:
        connection.execute(_ADD_REFERENCE, rows)


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


def column_text(value: str) -> str:
    """NUL and lone surrogates stay in the manifest's bytes: PostgreSQL has no text with them."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def escaped(value: str) -> str:
    """Text that is given back as it came, as JSON has it in ASCII: a media type, which has no quotes, is itself."""
    return json.dumps(value)[1:-1]


def _unescaped(value: str) -> str:
    return str(json.loads(f'"{value}"'))


def set_tag(connection: Connection, repository_id: int, tag: Tag, digest: Digest, by: str, now: int) -> None:
    parameters = {"repository_id": repository_id, "tag": tag, "digest": digest, "pushed_by": by, "now": now}
    connection.execute(_SET_TAG, parameters)


def tags_of(connection: Connection, repository: RepositoryName, digest: Digest) -> list[str]:
    return list(connection.execute(_TAGS_OF, {"name": repository, "digest": digest}).scalars())


def delete_tag(connection: Connection, repository_id: int, tag: Tag) -> bool:
    return connection.execute(_DELETE_TAG, {"repository_id": repository_id, "tag": tag}).rowcount == 1


def delete_manifest(connection: Connection, repository_id: int, digest: Digest) -> bool:
    """With its tags, references and chart."""
    return connection.execute(_DELETE_MANIFEST, {"repository_id": repository_id, "digest": digest}).rowcount == 1


def list_tags(connection: Connection, repository: RepositoryName, last: str, limit: int) -> list[str] | None:
    """Tags in byte order after `last`; None when there is no such repository."""
    found = repository_id(connection, repository)
    if found is None:
        return None
    return list(connection.execute(_LIST_TAGS, {"repository_id": found, "last": last, "limit": limit}).scalars())


# --- referrers --------------------------------------------------------------------------------------------------------

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
    found = [Referrer(digest, media, size, _unescaped(type_), notes) for digest, media, size, type_, notes in rows]
    return found, len(fitting) < len(sizes)


def _fitting(sizes: Sequence[tuple[str, int]], budget: int) -> list[str]:
    """The first always, and as many more as the budget has room for."""
    fitting: list[str] = []
    for digest, length in sizes:
        budget -= length
        if fitting and budget < 0:
            break
        fitting.append(digest)
    return fitting


# --- charts -----------------------------------------------------------------------------------------------------------

_PUT_CHART = text("""
    INSERT INTO charts (repository_id, manifest, name, version, app_version, description, deprecated, config, layer,
        provenance, contents)
    VALUES (:repository_id, :manifest, :name, :version, :app_version, :description, :deprecated, :config, :layer,
        :provenance, :contents)
    ON CONFLICT (repository_id, manifest) DO NOTHING""")
_TAGGED = text("""
    SELECT t.digest, t.pushed_at, t.pushed_by, c.version, c.config, c.layer, c.provenance, c.contents FROM tags t
    LEFT JOIN charts c ON c.repository_id = t.repository_id AND c.manifest = t.digest
    WHERE t.repository_id = :repository_id AND t.name = :tag""")
_HAS_CHARTS = text("""
    SELECT 1 FROM repositories r JOIN charts c ON c.repository_id = r.id WHERE r.name = :name LIMIT 1""")
_LIST_CHARTS = """
    SELECT r.name, c.manifest, c.name, c.version, c.app_version, c.description, c.deprecated, c.config, c.layer,
        c.provenance, c.contents,
        COALESCE((SELECT size FROM manifest_references f WHERE f.repository_id = c.repository_id
            AND f.manifest = c.manifest AND f.digest = c.layer LIMIT 1), 0),
        m.pushed_at, t.name
    FROM charts c
    JOIN repositories r ON r.id = c.repository_id
    JOIN manifests m ON m.repository_id = c.repository_id AND m.digest = c.manifest
    LEFT JOIN tags t ON t.repository_id = c.repository_id AND t.digest = c.manifest"""
_DEPRECATED = 6  # its place in the row
_ALL_CHARTS = text(_LIST_CHARTS + " ORDER BY r.name, c.manifest, t.name")
_CHARTS_OF = text(_LIST_CHARTS + " WHERE r.name = :name ORDER BY r.name, c.manifest, t.name")


def put_chart(connection: Connection, repository_id: int, chart: Chart) -> None:
    connection.execute(
        _PUT_CHART,
        {
            "repository_id": repository_id,
            "manifest": chart.digest,
            "name": column_text(chart.name),
            "version": column_text(chart.version),
            "app_version": column_text(chart.app_version),
            "description": column_text(chart.description),
            "deprecated": chart.deprecated,
            "config": chart.config,
            "layer": chart.layer,
            "provenance": chart.provenance,
            "contents": chart.contents,
        },
    )


def tagged(connection: Connection, repository_id: int, tag: Tag) -> Tagged | None:
    row = connection.execute(_TAGGED, {"repository_id": repository_id, "tag": tag}).first()
    return Tagged(*row) if row else None


def has_charts(connection: Connection, repository: RepositoryName) -> bool:
    return connection.execute(_HAS_CHARTS, {"name": repository}).first() is not None


def list_charts(connection: Connection, repository: RepositoryName | None = None) -> list[Chart]:
    """All charts, or one repository's, each with its tags."""
    if repository is None:
        rows = connection.execute(_ALL_CHARTS).all()
    else:
        rows = connection.execute(_CHARTS_OF, {"name": repository}).all()
    charts: dict[tuple[str, str], Chart] = {}
    for *columns, tag in rows:
        columns[_DEPRECATED] = bool(columns[_DEPRECATED])  # SQLite has numbers for it
        chart = charts.setdefault((columns[0], columns[1]), Chart(*columns))
        if tag is not None:
            charts[columns[0], columns[1]] = replace(chart, tags=(*chart.tags, tag))
    return list(charts.values())


def is_reachable(connection: Connection) -> bool:
    return connection.execute(text("SELECT 1")).scalar() == 1
