"""Charts, as their manifests tell them."""

from dataclasses import replace

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.names import RepositoryName, Tag
from charthouse.queries.rows import Chart, Tagged, column_text

_PUT_CHART = text("""
    INSERT INTO charts (repository_id, manifest, name, version, app_version, description, deprecated, config, layer,
        provenance, contents)
    VALUES (:repository_id, :manifest, :name, :version, :app_version, :description, :deprecated, :config, :layer,
        :provenance, :contents)
    ON CONFLICT (repository_id, manifest) DO NOTHING""")
_PUT_SIGNATURE = text("""
    INSERT INTO chart_signatures (repository_id, manifest, state, signer, user_ids)
    VALUES (:repository_id, :manifest, :state, :signer, :user_ids)
    ON CONFLICT (repository_id, manifest) DO UPDATE
    SET state = excluded.state, signer = excluded.signer, user_ids = excluded.user_ids""")
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
        m.pushed_at,
        COALESCE(s.state, ''), COALESCE(s.signer, ''), COALESCE(s.user_ids, ''), t.name
    FROM charts c
    JOIN repositories r ON r.id = c.repository_id
    JOIN manifests m ON m.repository_id = c.repository_id AND m.digest = c.manifest
    LEFT JOIN chart_signatures s ON s.repository_id = c.repository_id AND s.manifest = c.manifest
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
    if chart.signature:
        _put_signature(connection, repository_id, chart)


def _put_signature(connection: Connection, repository_id: int, chart: Chart) -> None:
    connection.execute(
        _PUT_SIGNATURE,
        {
            "repository_id": repository_id,
            "manifest": chart.digest,
            "state": chart.signature,
            "signer": chart.signer,
            "user_ids": column_text(chart.signed_by),
        },
    )


def tagged(connection: Connection, repository_id: int, tag: Tag) -> Tagged | None:
    row = connection.execute(_TAGGED, {"repository_id": repository_id, "tag": tag}).first()
    return Tagged(*row) if row else None


@one_statement
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
