"""What each repository holds, counted by triggers, and the turns of those who add to something with a quota."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

SQLITE = (
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

POSTGRES = (
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

COUNT = sa.text("""
    UPDATE repositories SET
        manifests = (SELECT COUNT(*) FROM manifests m WHERE m.repository_id = repositories.id),
        bytes = (SELECT CAST(COALESCE(SUM(m.size), 0) AS BIGINT) FROM manifests m
                WHERE m.repository_id = repositories.id)
            + (SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT)
                FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
                WHERE h.repository_id = repositories.id AND h.unnamed_since IS NULL),
        unnamed_bytes = (SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT)
                FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
                WHERE h.repository_id = repositories.id AND h.unnamed_since IS NOT NULL)""")


def upgrade() -> None:
    for name in ("manifests", "bytes", "unnamed_bytes"):
        op.add_column("repositories", sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "quota_turns",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )
    connection = op.get_bind()
    connection.execute(COUNT)
    for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRES:
        connection.exec_driver_sql(statement)
