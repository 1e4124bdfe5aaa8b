"""What is known to be damaged."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "damaged_blobs",
        sa.Column("digest", KEY, sa.ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.Column("how", sa.Text, nullable=False),
    )
    op.create_table(
        "damaged_manifests",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("manifest", KEY, primary_key=True),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.Column("how", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
        ),
    )
