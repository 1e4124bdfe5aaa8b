"""API tokens. The secret is not here, only its SHA-256."""

from sqlalchemy import text

from charthouse.auth.access import ApiToken, Pattern, parse_actions
from charthouse.database import Connection, one_statement

_ADD = text("""
    INSERT INTO api_tokens (name, hash, patterns, actions, created_at, expires_at, used_at)
    VALUES (:name, :hash, :patterns, :actions, :created_at, :expires_at, NULL)
    ON CONFLICT (name) DO NOTHING""")
_REMOVE = text("DELETE FROM api_tokens WHERE name = :name")
_USED = text("UPDATE api_tokens SET used_at = :now WHERE name = :name AND (used_at IS NULL OR used_at <= :before)")
_LIST = text("""
    SELECT name, hash, patterns, actions, created_at, expires_at, used_at FROM api_tokens ORDER BY name""")


def add_api_token(connection: Connection, token: ApiToken) -> bool:
    """False when there is one of that name."""
    parameters = {
        "name": token.name,
        "hash": token.hash,
        "patterns": ",".join(token.patterns),
        "actions": ",".join(sorted(token.actions)),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }
    return connection.execute(_ADD, parameters).rowcount == 1


def remove_api_token(connection: Connection, name: str) -> bool:
    return connection.execute(_REMOVE, {"name": name}).rowcount == 1


def api_token_used(connection: Connection, name: str, now: int, before: int) -> None:
    """Unless that was noted after `before`, by whatever worker."""
    connection.execute(_USED, {"name": name, "now": now, "before": before})


@one_statement
def list_api_tokens(connection: Connection) -> list[ApiToken]:
    return [
        ApiToken(name, hashed, tuple(map(Pattern, patterns.split(","))), parse_actions(actions), created, expires, used)
        for name, hashed, patterns, actions, created, expires, used in connection.execute(_LIST).all()
    ]
