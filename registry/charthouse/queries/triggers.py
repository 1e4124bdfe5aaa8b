"""What each repository holds, counted by the database: whatever adds a row or takes one, by a cascade too, is seen.

A blob counts once in each repository that holds it: under `bytes` while a manifest there names it, else under
`unnamed_bytes`. A manifest counts with its own bytes. Triggers cost a push a few microseconds, and statements of ours a
round trip each. On PostgreSQL whoever changes these rows has locked the repository's row before (`change_repository`);
where a grace only begins anew nothing is counted, and that row is not touched.

A change here comes with a migration; a test compares the two. On SQLite a table that is made anew loses its triggers.
"""

from collections.abc import Mapping, Sequence

_SQLITE = (
    """
    CREATE TRIGGER blob_held AFTER INSERT ON repository_blobs BEGIN
        UPDATE repositories SET
            bytes = bytes + CASE WHEN NEW.unnamed_since IS NULL THEN b.size ELSE 0 END,
            unnamed_bytes = unnamed_bytes + CASE WHEN NEW.unnamed_since IS NULL THEN 0 ELSE b.size END
        FROM blobs b WHERE b.digest = NEW.digest AND repositories.id = NEW.repository_id;
    END""",
    """
    CREATE TRIGGER blob_named AFTER UPDATE OF unnamed_since ON repository_blobs
    WHEN OLD.unnamed_since IS NOT NULL AND NEW.unnamed_since IS NULL BEGIN
        UPDATE repositories SET bytes = bytes + b.size, unnamed_bytes = unnamed_bytes - b.size
        FROM blobs b WHERE b.digest = NEW.digest AND repositories.id = NEW.repository_id;
    END""",
    """
    CREATE TRIGGER blob_unnamed AFTER UPDATE OF unnamed_since ON repository_blobs
    WHEN OLD.unnamed_since IS NULL AND NEW.unnamed_since IS NOT NULL BEGIN
        UPDATE repositories SET bytes = bytes - b.size, unnamed_bytes = unnamed_bytes + b.size
        FROM blobs b WHERE b.digest = NEW.digest AND repositories.id = NEW.repository_id;
    END""",
    """
    CREATE TRIGGER blob_released AFTER DELETE ON repository_blobs BEGIN
        UPDATE repositories SET
            bytes = bytes - CASE WHEN OLD.unnamed_since IS NULL THEN b.size ELSE 0 END,
            unnamed_bytes = unnamed_bytes - CASE WHEN OLD.unnamed_since IS NULL THEN 0 ELSE b.size END
        FROM blobs b WHERE b.digest = OLD.digest AND repositories.id = OLD.repository_id;
    END""",
    """
    CREATE TRIGGER manifest_put AFTER INSERT ON manifests BEGIN
        UPDATE repositories SET manifests = manifests + 1, bytes = bytes + NEW.size WHERE id = NEW.repository_id;
    END""",
    """
    CREATE TRIGGER manifest_deleted AFTER DELETE ON manifests BEGIN
        UPDATE repositories SET manifests = manifests - 1, bytes = bytes - OLD.size WHERE id = OLD.repository_id;
    END""",
)

# Once for each statement: a repository of thousands of versions that is emptied changes its row once.
_POSTGRES = (
    """
    CREATE OR REPLACE FUNCTION count_blobs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            UPDATE repositories r SET bytes = r.bytes + c.named, unnamed_bytes = r.unnamed_bytes + c.unnamed
            FROM (SELECT a.repository_id, COALESCE(SUM(b.size) FILTER (WHERE a.unnamed_since IS NULL), 0) AS named,
                    COALESCE(SUM(b.size) FILTER (WHERE a.unnamed_since IS NOT NULL), 0) AS unnamed
                FROM added a JOIN blobs b ON b.digest = a.digest GROUP BY a.repository_id) c
            WHERE r.id = c.repository_id;
        ELSIF TG_OP = 'DELETE' THEN
            UPDATE repositories r SET bytes = r.bytes - c.named, unnamed_bytes = r.unnamed_bytes - c.unnamed
            FROM (SELECT g.repository_id, COALESCE(SUM(b.size) FILTER (WHERE g.unnamed_since IS NULL), 0) AS named,
                    COALESCE(SUM(b.size) FILTER (WHERE g.unnamed_since IS NOT NULL), 0) AS unnamed
                FROM gone g JOIN blobs b ON b.digest = g.digest GROUP BY g.repository_id) c
            WHERE r.id = c.repository_id;
        ELSE
            UPDATE repositories r SET bytes = r.bytes + c.named, unnamed_bytes = r.unnamed_bytes - c.named
            FROM (SELECT a.repository_id, SUM(CASE WHEN a.unnamed_since IS NULL THEN b.size ELSE -b.size END) AS named
                FROM added a JOIN gone g ON g.repository_id = a.repository_id AND g.digest = a.digest
                JOIN blobs b ON b.digest = a.digest
                WHERE (a.unnamed_since IS NULL) <> (g.unnamed_since IS NULL) GROUP BY a.repository_id) c
            WHERE r.id = c.repository_id;
        END IF;
        RETURN NULL;
    END $$""",
    """
    CREATE OR REPLACE FUNCTION count_manifests() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            UPDATE repositories r SET manifests = r.manifests + c.manifests, bytes = r.bytes + c.bytes
            FROM (SELECT repository_id, COUNT(*) AS manifests, SUM(size) AS bytes FROM added GROUP BY repository_id) c
            WHERE r.id = c.repository_id;
        ELSE
            UPDATE repositories r SET manifests = r.manifests - c.manifests, bytes = r.bytes - c.bytes
            FROM (SELECT repository_id, COUNT(*) AS manifests, SUM(size) AS bytes FROM gone GROUP BY repository_id) c
            WHERE r.id = c.repository_id;
        END IF;
        RETURN NULL;
    END $$""",
    """
    CREATE TRIGGER blobs_held AFTER INSERT ON repository_blobs
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_blobs()""",
    """
    CREATE TRIGGER blobs_changed AFTER UPDATE ON repository_blobs
    REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_blobs()""",
    """
    CREATE TRIGGER blobs_released AFTER DELETE ON repository_blobs
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_blobs()""",
    """
    CREATE TRIGGER manifests_put AFTER INSERT ON manifests
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_manifests()""",
    """
    CREATE TRIGGER manifests_deleted AFTER DELETE ON manifests
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_manifests()""",
)

STATEMENTS: Mapping[str, Sequence[str]] = {"sqlite": _SQLITE, "postgresql": _POSTGRES}
