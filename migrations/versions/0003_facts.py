"""What was read from charts, what the rules warned of, and each repository's newest version."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def of_a_manifest() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_index("charts_by_layer", "charts", ["layer"])
    op.create_table(
        "chart_facts",
        sa.Column("layer", KEY, sa.ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
        sa.Column("extractor", sa.Integer, nullable=False),
        sa.Column("extracted_at", sa.BigInteger, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
    )
    op.create_table(
        "chart_findings",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("manifest", KEY, primary_key=True),
        sa.Column("findings", sa.Text, nullable=False),
        of_a_manifest(),
    )
    op.create_table(
        "newest_versions",
        sa.Column("repository_id", ID, sa.ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("manifest", KEY, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        of_a_manifest(),
    )
