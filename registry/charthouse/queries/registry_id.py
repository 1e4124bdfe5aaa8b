"""Which registry this is, so that its folder is not taken for another's."""

from sqlalchemy import text

from charthouse.database import Connection, one_statement

_ID = text("SELECT id FROM registry_id")
_GIVE = text("INSERT INTO registry_id (one, id) VALUES (1, :id) ON CONFLICT (one) DO NOTHING")


@one_statement
def registry_id(connection: Connection) -> str | None:
    """None before anybody opened it."""
    row = connection.execute(_ID).first()
    return row[0] if row else None


def give_registry_id(connection: Connection, proposed: str) -> str:
    """The one it has, which is the proposed one when it had none."""
    connection.execute(_GIVE, {"id": proposed})
    return str(connection.execute(_ID).scalar_one())
