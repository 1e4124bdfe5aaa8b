"""What users may push at most, and what each manifest counts for its pusher."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

WEIGH = sa.text("""
    UPDATE manifests SET weight = size + (
        SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT)
        FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
        WHERE h.repository_id = manifests.repository_id AND h.digest IN (
            SELECT f.digest FROM manifest_references f WHERE f.repository_id = manifests.repository_id
            AND f.manifest = manifests.digest AND f.kind <> 'manifest'))""")


def upgrade() -> None:
    op.add_column("manifests", sa.Column("weight", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.get_bind().execute(WEIGH)
    op.create_index("manifests_by_pusher", "manifests", ["pushed_by", "weight"])
    op.create_table(
        "user_limits",
        sa.Column("subject", KEY, primary_key=True),
        sa.Column("setting", KEY, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
