"""What repositories hold, as triggers count it (`queries/triggers.py`), one by one and added up."""

from dataclasses import dataclass

from sqlalchemy import TextClause, text

from charthouse.database import Connection, one_statement
from charthouse.names import ROOT, Digest, RepositoryName

_TAKE_TURN = text("""
    INSERT INTO quota_turns (name, turn) VALUES (:name, 1)
    ON CONFLICT (name) DO UPDATE SET turn = quota_turns.turn + 1""")


def _sum(repositories: str) -> TextClause:
    """Of those repositories; the last three are those of one of them alone."""
    totals = ", ".join(
        f"CAST(COALESCE(SUM({column}), 0) AS BIGINT)"
        for column in (
            "manifests",
            "bytes",
            "unnamed_bytes",
            *(f"CASE WHEN id = :id THEN {column} END" for column in ("manifests", "bytes", "unnamed_bytes")),
        )
    )
    return text(f"SELECT {totals} FROM repositories {repositories}")  # noqa: S608 - joined from constants


_OF_ALL = _sum("")
_OF_ROOT = _sum("WHERE REPLACE(name, '/', '') = name")  # below nothing
_OF_NAMESPACE = _sum("WHERE name = :name OR (name > :first AND name < :end)")
_EACH = text("""
    SELECT name, manifests, bytes, unnamed_bytes FROM repositories
    WHERE manifests > 0 OR bytes > 0 OR unnamed_bytes > 0 ORDER BY name""")
_OF_USER = text("""
    SELECT COUNT(*), CAST(COALESCE(SUM(weight), 0) AS BIGINT) FROM manifests WHERE pushed_by = :name""")
_OF_EACH_USER = text("""
    SELECT pushed_by, COUNT(*), CAST(SUM(weight) AS BIGINT) FROM manifests
    WHERE pushed_by <> '' GROUP BY pushed_by ORDER BY pushed_by""")
_HOLDS = text("""
    SELECT 1 FROM repositories r JOIN repository_blobs h ON h.repository_id = r.id
    WHERE r.name = :name AND h.digest = :digest""")
_HOLDS_DAMAGED = text("""
    SELECT 1 FROM repositories r JOIN repository_blobs h ON h.repository_id = r.id
    JOIN damaged_blobs d ON d.digest = h.digest WHERE r.name = :name LIMIT 1""")
_COUNTED = """
    (SELECT COUNT(*) FROM manifests m WHERE m.repository_id = repositories.id),
    (SELECT CAST(COALESCE(SUM(m.size), 0) AS BIGINT) FROM manifests m WHERE m.repository_id = repositories.id)
        + (SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
            WHERE h.repository_id = repositories.id AND h.unnamed_since IS NULL),
    (SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM repository_blobs h JOIN blobs b ON b.digest = h.digest
        WHERE h.repository_id = repositories.id AND h.unnamed_since IS NOT NULL)"""
_COUNT_ANEW = text(
    f"UPDATE repositories SET (manifests, bytes, unnamed_bytes) = (SELECT {_COUNTED})"  # noqa: S608 - joined from constants
)
_MISCOUNTED = text(f"""
    SELECT name FROM repositories
    WHERE (manifests, bytes, unnamed_bytes) <> (SELECT {_COUNTED}) ORDER BY name""")  # noqa: S608 - likewise
_COUNT_ONE_ANEW = text(f"{_COUNT_ANEW.text} WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Usage:
    """`bytes` are those of manifests, and of blobs that a manifest names, once for each repository; `unnamed` are those
    of blobs that none names, not yet or no more."""

    manifests: int = 0
    bytes: int = 0
    unnamed: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.manifests + other.manifests, self.bytes + other.bytes, self.unnamed + other.unnamed)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.manifests - other.manifests, self.bytes - other.bytes, self.unnamed - other.unnamed)


def take_turn(connection: Connection, name: str) -> None:
    """From now on nobody else who adds to it gets further, until this transaction ends."""
    connection.execute(_TAKE_TURN, {"name": name})


@one_statement
def usage(connection: Connection, namespace: str, repository_id: int = 0) -> tuple[Usage, Usage]:
    """Of a namespace and all below it, or of everything when it is empty; and of one of its repositories alone."""
    if not namespace:
        row = connection.execute(_OF_ALL, {"id": repository_id}).first()
    elif namespace == ROOT:
        row = connection.execute(_OF_ROOT, {"id": repository_id}).first()
    else:
        below = {"name": namespace, "first": f"{namespace}/", "end": f"{namespace}0"}  # 0 follows / in byte order
        row = connection.execute(_OF_NAMESPACE, {"id": repository_id, **below}).first()
    return Usage(*row[:3]), Usage(*row[3:])


@one_statement
def usage_of_each(connection: Connection) -> list[tuple[str, Usage]]:
    """Of every repository that holds something, by name."""
    return [(name, Usage(*counts)) for name, *counts in connection.execute(_EACH).all()]


@one_statement
def usage_of_user(connection: Connection, name: str) -> Usage:
    """Of the manifests that he pushed and that are here."""
    return Usage(*connection.execute(_OF_USER, {"name": name}).first())


@one_statement
def usage_of_each_user(connection: Connection) -> dict[str, Usage]:
    """Of whoever pushed something that is here."""
    return {name: Usage(*counts) for name, *counts in connection.execute(_OF_EACH_USER).all()}


@one_statement
def holds(connection: Connection, repository: RepositoryName, digest: Digest) -> bool:
    """Also a damaged blob."""
    return connection.execute(_HOLDS, {"name": repository, "digest": digest}).first() is not None


@one_statement
def holds_damaged(connection: Connection, repository: RepositoryName) -> bool:
    return connection.execute(_HOLDS_DAMAGED, {"name": repository}).first() is not None


def count_anew(connection: Connection) -> None:
    """All of them, in a database that nobody else writes to."""
    connection.execute(_COUNT_ANEW)


def count_one_anew(connection: Connection, repository_id: int) -> None:
    connection.execute(_COUNT_ONE_ANEW, {"id": repository_id})


@one_statement
def miscounted(connection: Connection) -> list[RepositoryName]:
    """Repositories that hold something else than what was counted."""
    return [RepositoryName(name) for name in connection.execute(_MISCOUNTED).scalars()]
