"""Namespaces with settings and keyrings, and who signed a chart."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "chart_signatures",
        sa.Column("repository_id", ID, primary_key=True),
        sa.Column("manifest", KEY, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("signer", sa.Text, nullable=False),
        sa.Column("user_ids", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "namespaces",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
    )
    op.create_table(
        "namespace_settings",
        sa.Column("namespace", KEY, sa.ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("setting", KEY, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "namespace_keys",
        sa.Column("namespace", KEY, sa.ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("fingerprint", KEY, primary_key=True),
        sa.Column("user_ids", sa.Text, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("added_at", sa.BigInteger, nullable=False),
    )
