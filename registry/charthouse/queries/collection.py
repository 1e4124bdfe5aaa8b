"""What garbage collection finds, and what it takes: each taking looks again, inside its transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.queries.among import Among

AT_ONCE = 100  # of one transaction
_AMONG = Among(AT_ONCE)

_LAST_PASS = text("SELECT begun_at, steady, boot FROM collection_passes WHERE id = 1")
_TAKE_PASS = text("""
    INSERT INTO collection_passes (id, begun_at, steady, boot) VALUES (1, :now, :steady, :boot)
    ON CONFLICT (id) DO UPDATE SET begun_at = excluded.begun_at, steady = excluded.steady, boot = excluded.boot
    WHERE collection_passes.begun_at <= :due OR collection_passes.begun_at > :now""")
_BEGIN_CLOCKS = text("""
    INSERT INTO collection_passes (id, begun_at, steady, boot) VALUES (1, :now, :steady, :boot)
    ON CONFLICT (id) DO NOTHING""")
_BEGIN_GRACES_ANEW = text("UPDATE repository_blobs SET unnamed_since = :now WHERE unnamed_since IS NOT NULL")
_BEGIN_EXPIRIES_ANEW = text("""
    UPDATE manifests SET untagged_since = :now WHERE NOT EXISTS (
        SELECT 1 FROM tags t WHERE t.repository_id = manifests.repository_id AND t.digest = manifests.digest)""")

_DUE = text("""
    SELECT repository_id, digest FROM repository_blobs WHERE unnamed_since < :cutoff
    ORDER BY unnamed_since LIMIT :limit""")
_RAISE_GENERATION = text("UPDATE repositories SET generation = generation + 1 WHERE id = :repository_id")
_RELEASE = text(f"""
    DELETE FROM repository_blobs
    WHERE repository_id = :repository_id AND unnamed_since < :cutoff AND digest {_AMONG.sql}
    RETURNING digest""")  # noqa: S608 - joined from constants
_DELETE_UNHELD = text(f"""
    DELETE FROM blobs WHERE digest {_AMONG.sql}
    AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.digest = blobs.digest)
    RETURNING key, size""")  # noqa: S608 - joined from constants
_UNHELD = text("""
    SELECT digest FROM blobs b WHERE digest > :last
    AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.digest = b.digest)
    ORDER BY digest LIMIT :limit""")
_KEYS = text(f"SELECT key FROM blobs WHERE key IS NOT NULL AND digest {_AMONG.sql}")  # noqa: S608 - joined from constants
_WAITING = text("""
    SELECT COUNT(*), CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM blobs b
    WHERE b.digest IN (SELECT h.digest FROM repository_blobs h WHERE h.unnamed_since >= :cutoff)
    AND NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.digest = b.digest AND h.unnamed_since IS NULL)""")

_DUE_BLOBS = text("""
    SELECT r.name, h.digest, b.size, h.unnamed_since FROM repository_blobs h
    JOIN repositories r ON r.id = h.repository_id JOIN blobs b ON b.digest = h.digest
    WHERE h.unnamed_since < :cutoff ORDER BY r.name, h.digest LIMIT :limit""")
_DUE_BYTES = text("""
    SELECT COUNT(*), CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM blobs b WHERE NOT EXISTS (
        SELECT 1 FROM repository_blobs h WHERE h.digest = b.digest
        AND (h.unnamed_since IS NULL OR h.unnamed_since >= :cutoff))""")
_UNHELD_BLOBS = text("""
    SELECT '', digest, size, NULL FROM blobs b
    WHERE NOT EXISTS (SELECT 1 FROM repository_blobs h WHERE h.digest = b.digest) ORDER BY digest LIMIT :limit""")

_REPOSITORIES = text("SELECT id, name FROM repositories ORDER BY name")
_UNTAGGED = text("""
    SELECT m.digest, m.size, COALESCE(m.untagged_since, m.pushed_at), s.digest FROM manifests m
    LEFT JOIN manifests s ON s.repository_id = m.repository_id AND s.digest = m.subject
    WHERE m.repository_id = :repository_id AND COALESCE(m.untagged_since, m.pushed_at) < :cutoff
    AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest)
    ORDER BY m.digest""")
_CHILDREN = text("""
    SELECT DISTINCT manifest, digest FROM manifest_references
    WHERE repository_id = :repository_id AND kind = 'manifest'""")
_IS_EXPIRED = text("""
    SELECT 1 FROM manifests m WHERE m.repository_id = :repository_id AND m.digest = :digest
    AND COALESCE(m.untagged_since, m.pushed_at) < :cutoff
    AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest)
    AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository_id = m.repository_id AND s.digest = m.subject)
    AND NOT EXISTS (SELECT 1 FROM manifest_references f
        WHERE f.repository_id = m.repository_id AND f.digest = m.digest AND f.kind = 'manifest')""")


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, twice, in milliseconds: by the clock, and by one that nobody sets since the machine's `boot`."""

    now: int
    steady: int
    boot: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Of one transaction: how many repositories' holds on blobs went, and what was stored of those that nobody holds.

    `found` is what was looked at: 0 when there is nothing more.
    """

    found: int
    released: int
    keys: Sequence[str]
    blobs: int
    size: int


@dataclass(frozen=True, slots=True)
class DueBlob:
    """`repository` is empty and `since` None for a blob that no repository holds."""

    repository: str
    digest: str
    size: int
    since: int | None


@dataclass(frozen=True, slots=True)
class Untagged:
    """A manifest without a tag; `subject` is the one that it refers to, where that is here."""

    digest: str
    size: int
    since: int
    subject: str | None


# --- passes -----------------------------------------------------------------------------------------------------------


def begin_clocks(connection: Connection, moment: Moment) -> None:
    """As if a pass had been, where there was none yet: what later ones compare the clocks with."""
    connection.execute(_BEGIN_CLOCKS, {"now": moment.now, "steady": moment.steady, "boot": moment.boot})


def take_pass(connection: Connection, moment: Moment, due: int) -> tuple[bool, Moment | None]:
    """Whether the pass is this caller's, and the one before. It is not when one began after `due`.

    One that began in the future was begun by another clock: it holds nobody up.
    """
    row = connection.execute(_LAST_PASS).first()
    parameters = {"now": moment.now, "steady": moment.steady, "boot": moment.boot, "due": due}
    is_taken = connection.execute(_TAKE_PASS, parameters).rowcount == 1
    return is_taken, Moment(*row) if row else None


def begin_graces_anew(connection: Connection, now: int) -> int:
    """Returns the number of blobs."""
    return connection.execute(_BEGIN_GRACES_ANEW, {"now": now}).rowcount


def begin_expiries_anew(connection: Connection, now: int) -> None:
    connection.execute(_BEGIN_EXPIRIES_ANEW, {"now": now})


# --- blobs ------------------------------------------------------------------------------------------------------------


def take_due_blobs(connection: Connection, cutoff: int) -> Taken:
    """Releases blobs that no manifest names since before `cutoff`, and deletes those that nobody holds any more.

    Whoever names one, or extends its grace, does so before or after this transaction: the repository's row is locked
    first, as by every writer of it, and a blob's row is not deleted under a hold that is just being made.
    """
    due: dict[int, list[str]] = {}
    for repository_id, digest in connection.execute(_DUE, {"cutoff": cutoff, "limit": AT_ONCE}).all():
        due.setdefault(repository_id, []).append(digest)
    released: list[str] = []
    for repository_id in sorted(due):
        connection.execute(_RAISE_GENERATION, {"repository_id": repository_id})
        parameters = {"repository_id": repository_id, "cutoff": cutoff, **_AMONG.parameters(due[repository_id])}
        released += connection.execute(_RELEASE, parameters).scalars()
    found = sum(map(len, due.values()))
    keys, blobs, size = _delete_unheld(connection, released)
    return Taken(found, len(released), keys, blobs, size)


def take_unheld_blobs(connection: Connection, digests: Sequence[str]) -> Taken:
    """Deletes those that no repository holds; at most AT_ONCE."""
    return Taken(len(digests), 0, *_delete_unheld(connection, digests))


def _delete_unheld(connection: Connection, digests: Sequence[str]) -> tuple[list[str], int, int]:
    if not digests:
        return [], 0, 0
    rows = connection.execute(_DELETE_UNHELD, _AMONG.parameters(digests)).all()
    return [key for key, _ in rows if key is not None], len(rows), sum(size for _, size in rows)


@one_statement
def unheld_blobs(connection: Connection, last: str) -> list[str]:
    """At most AT_ONCE digests after `last` that no repository holds: DELETE of a blob leaves one."""
    return list(connection.execute(_UNHELD, {"last": last, "limit": AT_ONCE}).scalars())


def known_keys(connection: Connection, digests: Sequence[str]) -> set[str]:
    """The keys under which the blobs of these digests are stored."""
    return {key for chunk in _AMONG.chunks(digests) for key in connection.execute(_KEYS, chunk).scalars()}


@one_statement
def waiting_blobs(connection: Connection, cutoff: int) -> tuple[int, int]:
    """Number and bytes of the blobs that no manifest names, and that are in their grace."""
    count, size = connection.execute(_WAITING, {"cutoff": cutoff}).first()
    return count, size


def due_blobs(connection: Connection, cutoff: int, limit: int) -> list[DueBlob]:
    """At most `limit` of what `take_due_blobs` and `take_unheld_blobs` would take."""
    due = connection.execute(_DUE_BLOBS, {"cutoff": cutoff, "limit": limit}).all()
    unheld = connection.execute(_UNHELD_BLOBS, {"limit": limit}).all()
    return [DueBlob(*row) for row in (*due, *unheld)][:limit]


@one_statement
def due_bytes(connection: Connection, cutoff: int) -> tuple[int, int]:
    """Number and bytes of the blobs that they would delete."""
    count, size = connection.execute(_DUE_BYTES, {"cutoff": cutoff}).first()
    return count, size


# --- manifests --------------------------------------------------------------------------------------------------------


@one_statement
def all_repositories(connection: Connection) -> list[tuple[int, str]]:
    """Each with its id."""
    return [(repository_id, name) for repository_id, name in connection.execute(_REPOSITORIES).all()]


@one_statement
def untagged_manifests(connection: Connection, repository_id: int, cutoff: int) -> list[Untagged]:
    """Those without a tag since before `cutoff`, whatever else refers to them."""
    parameters = {"repository_id": repository_id, "cutoff": cutoff}
    return [Untagged(*row) for row in connection.execute(_UNTAGGED, parameters).all()]


@one_statement
def children(connection: Connection, repository_id: int) -> list[tuple[str, str]]:
    """Every index with each of its children."""
    return [(parent, child) for parent, child in connection.execute(_CHILDREN, {"repository_id": repository_id}).all()]


def raise_generation(connection: Connection, repository_id: int) -> None:
    connection.execute(_RAISE_GENERATION, {"repository_id": repository_id})


def is_expired(connection: Connection, repository_id: int, digest: str, cutoff: int) -> bool:
    """Whether the manifest has no tag since before `cutoff`, is no child of an index and refers to nothing here."""
    parameters = {"repository_id": repository_id, "digest": digest, "cutoff": cutoff}
    return connection.execute(_IS_EXPIRED, parameters).first() is not None
