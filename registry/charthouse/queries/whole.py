"""All rows that a registry keeps: from one database into another, SQLite or PostgreSQL."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Boolean, Table, text

from charthouse.database import Connection
from charthouse.queries.usage import count_anew
from charthouse.tables import metadata, registry_id

TABLES = [table for table in metadata.sorted_tables if table is not registry_id]  # a copy is another registry

PAGE = 100  # rows in memory at once; a manifest has 4 MiB at most

_SERIAL = text("SELECT pg_get_serial_sequence(:table, :column)")
_FILES_AFTER = text("""
    SELECT digest, size, key FROM blobs WHERE key IS NOT NULL AND digest > :last ORDER BY digest LIMIT :limit""")
_COUNT_FILES = text("SELECT COUNT(*) FROM blobs WHERE key IS NOT NULL")
_SET_KEY = text("UPDATE blobs SET key = :key WHERE digest = :digest")
_FORGET_MANIFESTS = text("""
    WITH RECURSIVE above (repository_id, manifest) AS (
        SELECT repository_id, manifest FROM manifest_references WHERE digest = :digest AND kind <> 'manifest'
        UNION SELECT f.repository_id, f.manifest FROM above a JOIN manifest_references f
        ON f.repository_id = a.repository_id AND f.digest = a.manifest AND f.kind = 'manifest')
    DELETE FROM manifests WHERE (repository_id, digest) IN (SELECT repository_id, manifest FROM above)""")
_FORGET_HOLDERS = text("DELETE FROM repository_blobs WHERE digest = :digest")
_FORGET_BLOB = text("DELETE FROM blobs WHERE digest = :digest")


def copy_tables(source: Connection, target: Connection) -> None:
    """Every row, parents before children. Its one effect is on `target`, whose tables are empty and the same."""
    for table in TABLES:
        names = [column.name for column in table.columns]
        values = ", ".join(f":{name}" for name in names)
        add = text(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})")  # noqa: S608 - our own names
        for page in _pages(source, table):
            target.execute(add, page)
    count_anew(target)  # what came with its number was counted once more


def _pages(connection: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    names = [column.name for column in table.columns]
    switches = {column.name for column in table.columns if isinstance(column.type, Boolean)}
    keys = [column.name for column in table.primary_key]
    after = f"WHERE ({', '.join(keys)}) > ({', '.join(f':{key}' for key in keys)})"
    first, following = (
        text(f"SELECT {', '.join(names)} FROM {table.name} {where} ORDER BY {', '.join(keys)} LIMIT {PAGE}")  # noqa: S608 - our own names
        for where in ("", after)
    )
    rows = connection.execute(first).all()
    while rows:
        page = [dict(zip(names, row, strict=True)) for row in rows]
        last = {key: page[-1][key] for key in keys}
        for values in page:
            values.update({name: bool(values[name]) for name in switches})  # SQLite has 0 and 1, PostgreSQL takes none
        yield page
        rows = connection.execute(following, last).all() if len(rows) == PAGE else []


def advance_serials(connection: Connection) -> None:
    """PostgreSQL alone: ids that came with their rows have not moved what gives the next one."""
    for table in TABLES:
        for column in table.primary_key:
            sequence = connection.execute(_SERIAL, {"table": table.name, "column": column.name}).scalar()
            if sequence is not None:
                connection.execute(
                    text(f"""
                    SELECT setval(CAST(:sequence AS regclass), COALESCE(MAX({column.name}), 0) + 1, false)
                    FROM {table.name}"""),  # noqa: S608 - our own names
                    {"sequence": sequence},
                )


def filled_table(connection: Connection) -> str | None:
    """The name of a table that has rows; None for an empty database."""
    for table in TABLES:
        if connection.execute(text(f"SELECT 1 FROM {table.name} LIMIT 1")).first() is not None:  # noqa: S608 - likewise
            return table.name
    return None


def files_after(connection: Connection, last: str, limit: int) -> list[tuple[str, int, str]]:
    """Digest, size and key of blobs that the blob store has."""
    return [(row[0], row[1], row[2]) for row in connection.execute(_FILES_AFTER, {"last": last, "limit": limit}).all()]


def count_files(connection: Connection) -> int:
    return int(connection.execute(_COUNT_FILES).scalar_one())


def set_key(connection: Connection, digest: str, key: str) -> None:
    connection.execute(_SET_KEY, {"digest": digest, "key": key})


def forget_blob(connection: Connection, digest: str) -> None:
    """With every manifest that names it, and the indexes above, in all repositories."""
    for statement in (_FORGET_MANIFESTS, _FORGET_HOLDERS, _FORGET_BLOB):
        connection.execute(statement, {"digest": digest})
