"""Since when no manifest names a blob, and no tag a manifest: what garbage collection goes by."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Nobody has recorded since when the blobs are unnamed that are so already: their grace begins with the upgrade.
UNNAMED = sa.text("""
    UPDATE repository_blobs SET unnamed_since = :now WHERE NOT EXISTS (
        SELECT 1 FROM manifest_references f WHERE f.repository_id = repository_blobs.repository_id
        AND f.digest = repository_blobs.digest AND f.kind <> 'manifest')""")


def upgrade() -> None:
    op.add_column("repository_blobs", sa.Column("unnamed_since", sa.BigInteger))
    op.create_index(
        "repository_blobs_unnamed",
        "repository_blobs",
        ["unnamed_since"],
        sqlite_where=sa.text("unnamed_since IS NOT NULL"),
        postgresql_where=sa.text("unnamed_since IS NOT NULL"),
    )
    op.add_column("manifests", sa.Column("untagged_since", sa.BigInteger))
    op.create_table(
        "collection_passes",
        sa.Column("id", ID, primary_key=True),
        sa.Column("begun_at", sa.BigInteger, nullable=False),
        sa.Column("steady", sa.BigInteger, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
    )
    op.get_bind().execute(UNNAMED, {"now": int(time.time() * 1000)})
