"""Which registry this is: whoever opens it first gives it an id, and its data folder keeps the same."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "registry_id",
        sa.Column("one", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", KEY, nullable=False),
    )
