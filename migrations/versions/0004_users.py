"""Users, groups, grants, and the generation of the three."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("name", KEY, primary_key=True),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("administrator", sa.Boolean, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "group_members",
        sa.Column("group_name", KEY, primary_key=True),
        sa.Column("user_name", KEY, primary_key=True),
    )
    op.create_table(
        "grants",
        sa.Column("subject", KEY, primary_key=True),
        sa.Column("pattern", KEY, primary_key=True),
        sa.Column("actions", sa.Text, nullable=False),
    )
    op.create_table(
        "access_generation",
        sa.Column("id", ID, primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
