"""The audit: who did what."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.queries.rows import column_text

if TYPE_CHECKING:
    from charthouse.audit import Actor

_ADD = text("""
    INSERT INTO audit (at, who, action, target, address, request_id, count)
    VALUES (:now, :who, :action, :target, :address, :request_id, :count)""")
_LIST = text("""
    SELECT id, at, who, action, target, address, request_id, count FROM audit
    WHERE at >= :since AND id > :after AND (:anybody = 1 OR who = :who) ORDER BY id LIMIT :limit""")
_FORGET = text("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < :before ORDER BY at LIMIT :limit)")


def add_audit(connection: Connection, by: "Actor", action: str, target: str, now: int) -> None:
    """In the transaction of the change."""
    connection.execute(_ADD, _row(by.name, action, target, by.address, now, by.request_id))


def add_refusals(connection: Connection, rows: Sequence[tuple[str, str, str, str, int]], now: int) -> None:
    """Who, action, target, address, and how often."""
    connection.execute(
        _ADD, [_row(who, action, target, address, now, count=n) for who, action, target, address, n in rows]
    )


def _row(
    who: str, action: str, target: str, address: str, now: int, request_id: str = "", count: int = 1
) -> dict[str, object]:
    return {
        "now": now,
        "who": who,
        "action": action,
        "target": column_text(target),
        "address": address,
        "request_id": request_id,
        "count": count,
    }


@one_statement
def list_audit(connection: Connection, since: int, who: str, after: int, limit: int) -> list[Any]:
    """The columns of an `Entry`, the oldest first."""
    parameters = {"since": since, "after": after, "anybody": int(not who), "who": who, "limit": limit}
    return list(connection.execute(_LIST, parameters).all())


def forget_audit(connection: Connection, before: int, limit: int) -> int:
    """At most `limit` rows from before that time. Returns their number."""
    return connection.execute(_FORGET, {"before": before, "limit": limit}).rowcount
