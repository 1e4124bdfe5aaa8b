"""Repositories, and the generation that is raised with every change."""

from collections.abc import Sequence

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.names import RepositoryName
from charthouse.queries.among import Among
from charthouse.queries.usage import Usage

_CHANGE_REPOSITORY = text("""
    INSERT INTO repositories (name, generation, created_at) VALUES (:name, 1, :now)
    ON CONFLICT (name) DO UPDATE SET generation = repositories.generation + 1
    RETURNING id, manifests, bytes, unnamed_bytes""")
_REPOSITORY_ID = text("SELECT id FROM repositories WHERE name = :name")
_UNNAME_ALL_BLOBS = text("""
    UPDATE repository_blobs SET unnamed_since = :now WHERE repository_id = :repository_id AND unnamed_since IS NULL""")
_DELETE_MANIFESTS = text("DELETE FROM manifests WHERE repository_id = :repository_id")
_GENERATION = text("SELECT generation FROM repositories WHERE name = :name")
GENERATIONS_AT_ONCE = 16
_AMONG = Among(GENERATIONS_AT_ONCE)
_GENERATIONS = text(f"SELECT name, generation FROM repositories WHERE name {_AMONG.sql}")  # noqa: S608 - joined from constants
_LAST = "\U0010ffff"  # after everything that a name has
_LIST_ONE = text("""
    SELECT name FROM repositories
    WHERE name = :name AND name > :last AND EXISTS (SELECT 1 FROM manifests WHERE repository_id = repositories.id)""")
_LIST_REPOSITORIES = text("""
    SELECT name FROM repositories
    WHERE name > :last AND name < :end AND EXISTS (SELECT 1 FROM manifests WHERE repository_id = repositories.id)
    ORDER BY name LIMIT :limit""")


def change_repository(connection: Connection, repository: RepositoryName, now: int) -> int:
    """The repository's id; it is made when it is not there yet."""
    return enter_repository(connection, repository, now)[0]


def enter_repository(connection: Connection, repository: RepositoryName, now: int) -> tuple[int, Usage]:
    """The same for what may add to the repository, and what it holds before."""
    found, *counts = connection.execute(_CHANGE_REPOSITORY, {"name": repository, "now": now}).first()
    return found, Usage(*counts)


@one_statement
def repository_id(connection: Connection, repository: RepositoryName) -> int | None:
    return connection.execute(_REPOSITORY_ID, {"name": repository}).scalar()


@one_statement
def generation(connection: Connection, repository: RepositoryName) -> int:
    """0 for one that does not exist: each begins with 1."""
    return int(connection.execute(_GENERATION, {"name": repository}).scalar() or 0)


@one_statement
def generations(connection: Connection, repositories: Sequence[RepositoryName]) -> dict[str, int]:
    """Of those that exist, of at most GENERATIONS_AT_ONCE."""
    return dict(connection.execute(_GENERATIONS, _AMONG.parameters(repositories)).all())


def empty_repository(connection: Connection, repository_id: int, now: int) -> int:
    """Forgets all manifests, and begins the grace of all blobs. Returns the number of manifests.

    The repository's own row stays: a generation is never used twice.
    """
    connection.execute(_UNNAME_ALL_BLOBS, {"repository_id": repository_id, "now": now})
    return connection.execute(_DELETE_MANIFESTS, {"repository_id": repository_id}).rowcount


def list_repositories(
    connection: Connection, last: str, limit: int, patterns: Sequence[str] | None = None
) -> list[str]:
    """Repositories that hold a manifest, by name in byte order, after `last`; of those only that a pattern covers.

    A pattern is a range of names, so a page costs a look-up each and never reads what it does not list.
    """
    if patterns is None:
        return _listed(connection, last, _LAST, limit)
    found = {name for pattern in patterns for name in _covered(connection, pattern, last, limit)}
    return sorted(found)[:limit]


def _covered(connection: Connection, pattern: str, last: str, limit: int) -> list[str]:
    if pattern.endswith("/*"):
        return _listed(connection, max(last, pattern[:-1]), pattern[:-2] + "0", limit)  # 0 follows / in byte order
    return list(connection.execute(_LIST_ONE, {"name": pattern, "last": last}).scalars())


def _listed(connection: Connection, last: str, end: str, limit: int) -> list[str]:
    parameters = {"last": last, "end": end, "limit": limit}
    return list(connection.execute(_LIST_REPOSITORIES, parameters).scalars())


def is_reachable(connection: Connection) -> bool:
    return connection.execute(text("SELECT 1")).scalar() == 1
