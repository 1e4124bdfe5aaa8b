"""Logins that last: refresh tokens. The secret is not here, only its SHA-256."""

from sqlalchemy import text

from charthouse.auth.access import Login
from charthouse.database import Connection, one_statement

_ADD = text("""
    INSERT INTO logins (hash, subject, mark, client, created_at, used_at, ended_at)
    VALUES (:hash, :subject, :mark, :client, :created_at, NULL, NULL)""")
_FORGET_DEAD = text("DELETE FROM logins WHERE subject = :subject AND (mark <> :mark OR ended_at < :before)")
_FORGET_OLDEST = text("""
    DELETE FROM logins WHERE subject = :subject AND hash NOT IN (
        SELECT hash FROM logins WHERE subject = :subject
        ORDER BY COALESCE(used_at, created_at) DESC, created_at DESC, hash LIMIT :limit)""")
_FORGET = text("DELETE FROM logins WHERE subject = :subject")
_FIND = text("SELECT hash, subject, mark, client, created_at, used_at, ended_at FROM logins WHERE hash = :hash")
_USED = text("UPDATE logins SET used_at = :now WHERE hash = :hash AND (used_at IS NULL OR used_at <= :before)")
_LIST = text("""
    SELECT hash, subject, mark, client, created_at, used_at, ended_at FROM logins
    WHERE ended_at IS NULL ORDER BY subject, created_at, hash""")
_END = text("UPDATE logins SET ended_at = :now WHERE hash = :hash AND ended_at IS NULL")
_ENDED = text("SELECT hash FROM logins WHERE ended_at IS NOT NULL")


def add_login(connection: Connection, login: Login, limit: int, before: int) -> None:
    """The subject keeps at most `limit`, those that were used or made last. What ended before `before` is forgotten."""
    parameters = {
        "hash": login.hash,
        "subject": login.subject,
        "mark": login.mark,
        "client": login.client,
        "created_at": login.created_at,
    }
    connection.execute(_FORGET_DEAD, {"subject": login.subject, "mark": login.mark, "before": before})
    connection.execute(_FORGET_OLDEST, {"subject": login.subject, "limit": limit - 1})
    connection.execute(_ADD, parameters)


@one_statement
def find_login(connection: Connection, hashed: str) -> Login | None:
    row = connection.execute(_FIND, {"hash": hashed}).first()
    return Login(*row) if row else None


def login_used(connection: Connection, hashed: str, now: int, before: int) -> None:
    """Unless that was noted after `before`, by whatever worker."""
    connection.execute(_USED, {"hash": hashed, "now": now, "before": before})


@one_statement
def list_logins(connection: Connection) -> list[Login]:
    """Those that nobody has ended."""
    return [Login(*row) for row in connection.execute(_LIST).all()]


def end_login(connection: Connection, hashed: str, now: int) -> bool:
    return connection.execute(_END, {"hash": hashed, "now": now}).rowcount == 1


def ended_logins(connection: Connection) -> frozenset[str]:
    """By hash: access tokens that were given for one of them may live still."""
    return frozenset(connection.execute(_ENDED).scalars())


def forget_logins(connection: Connection, subject: str) -> None:
    connection.execute(_FORGET, {"subject": subject})
