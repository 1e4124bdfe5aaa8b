"""The registry: repositories, blobs, manifests and what they name, tags, charts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OF_A_MANIFEST = ["manifests.repository_id", "manifests.digest"]


def upgrade() -> None:
    op.create_table(
        "repositories",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", KEY, nullable=False, unique=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", KEY, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary),
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository_id", ID, sa.ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("digest", KEY, sa.ForeignKey("blobs.digest"), primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("repository_blobs_by_digest", "repository_blobs", ["digest", "repository_id"])
    op.create_table(
        "manifests",
        sa.Column("repository_id", ID, sa.ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("digest", KEY, primary_key=True),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("artifact_type", sa.Text, nullable=False),
        sa.Column("subject", KEY),
        sa.Column("pushed_at", sa.BigInteger, nullable=False),
        sa.Column("pushed_by", sa.Text, nullable=False),
        sa.Column("annotations_size", sa.BigInteger, nullable=False),
        sa.Column("annotations", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_index("manifests_by_subject", "manifests", ["repository_id", "subject", "digest"])
    op.create_table(
        "manifest_references",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("manifest", KEY, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("digest", KEY, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["repository_id", "manifest"], OF_A_MANIFEST, ondelete="CASCADE"),
    )
    op.create_index("manifest_references_by_digest", "manifest_references", ["repository_id", "digest"])
    op.create_table(
        "tags",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("name", KEY, primary_key=True),
        sa.Column("digest", KEY, nullable=False),
        sa.Column("pushed_at", sa.BigInteger, nullable=False),
        sa.Column("pushed_by", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["repository_id", "digest"], OF_A_MANIFEST, ondelete="CASCADE"),
    )
    op.create_index("tags_by_digest", "tags", ["repository_id", "digest"])
    op.create_table(
        "charts",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("manifest", KEY, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("app_version", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("deprecated", sa.Boolean, nullable=False),
        sa.Column("config", KEY, nullable=False),
        sa.Column("layer", KEY, nullable=False),
        sa.Column("provenance", KEY),
        sa.Column("contents", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["repository_id", "manifest"], OF_A_MANIFEST, ondelete="CASCADE"),
    )
