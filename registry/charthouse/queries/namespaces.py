"""Namespaces, what they set for themselves, and their keyrings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from charthouse.database import Connection, one_statement
from charthouse.names import Namespace
from charthouse.queries.among import Among
from charthouse.settings import LIMIT_SETTINGS

_AMONG = Among(4)  # namespaces: few repositories are deeper

_ADD = text("""
    INSERT INTO namespaces (name, created_at, created_by) VALUES (:name, :now, :created_by)
    ON CONFLICT (name) DO NOTHING""")
_REMOVE = text("DELETE FROM namespaces WHERE name = :name")
_LIST = text("SELECT name, created_at, created_by FROM namespaces ORDER BY name")
_EXISTING = text(f"SELECT name FROM namespaces WHERE name {_AMONG.sql}")  # noqa: S608 - joined from constants
_SET = text("""
    INSERT INTO namespace_settings (namespace, setting, value) VALUES (:name, :setting, :value)
    ON CONFLICT (namespace, setting) DO UPDATE SET value = excluded.value""")
_UNSET = text("DELETE FROM namespace_settings WHERE namespace = :name AND setting = :setting")
_SETTINGS = text(f"""
    SELECT namespace, setting, value FROM namespace_settings WHERE namespace {_AMONG.sql}
    UNION ALL SELECT '', '', '' WHERE EXISTS (SELECT 1 FROM users)""")  # noqa: S608 - joined from constants
_IS_SET = text("SELECT 1 FROM namespace_settings WHERE setting = :setting LIMIT 1")
_LIMITS = text(f"""
    SELECT namespace, setting, value FROM namespace_settings
    WHERE setting IN ({", ".join(f"'{setting}'" for setting in LIMIT_SETTINGS)})""")  # noqa: S608 - joined from constants
_ADD_KEY = text("""
    INSERT INTO namespace_keys (namespace, fingerprint, user_ids, certificate, added_at)
    VALUES (:name, :fingerprint, :user_ids, :certificate, :now)
    ON CONFLICT (namespace, fingerprint) DO UPDATE
    SET user_ids = excluded.user_ids, certificate = excluded.certificate, added_at = excluded.added_at""")
_REMOVE_KEY = text("DELETE FROM namespace_keys WHERE namespace = :name AND fingerprint = :fingerprint")
_LIST_KEYS = text("""
    SELECT namespace, fingerprint, user_ids, certificate, added_at FROM namespace_keys
    ORDER BY namespace, fingerprint""")
_KEYS = text(f"""
    SELECT certificate FROM namespace_keys
    WHERE namespace {_AMONG.sql} ORDER BY namespace, fingerprint""")  # noqa: S608 - joined from constants


@dataclass(frozen=True, slots=True)
class StoredNamespace:
    name: str
    created_at: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Key:
    """A certificate of a namespace's keyring. `user_ids` are lines."""

    namespace: str
    fingerprint: str
    user_ids: str
    certificate: bytes
    added_at: int


def add_namespace(connection: Connection, name: Namespace, by: str, now: int) -> bool:
    """False when it is there already."""
    return connection.execute(_ADD, {"name": name, "now": now, "created_by": by}).rowcount == 1


def remove_namespace(connection: Connection, name: Namespace) -> bool:
    """With its settings and keys; its repositories stay."""
    return connection.execute(_REMOVE, {"name": name}).rowcount == 1


def list_namespaces(connection: Connection) -> list[StoredNamespace]:
    return [StoredNamespace(*row) for row in connection.execute(_LIST).all()]


def has_namespace(connection: Connection, names: Sequence[Namespace]) -> bool:
    """Whether one of them is there."""
    return any(connection.execute(_EXISTING, chunk).first() for chunk in _AMONG.chunks(names))


def set_namespace(connection: Connection, name: Namespace, setting: str, value: str) -> None:
    connection.execute(_SET, {"name": name, "setting": setting, "value": value})


def unset_namespace(connection: Connection, name: Namespace, setting: str) -> bool:
    return connection.execute(_UNSET, {"name": name, "setting": setting}).rowcount == 1


def namespace_settings(
    connection: Connection, names: Sequence[Namespace]
) -> tuple[Mapping[str, Mapping[str, str]], bool]:
    """What each of them sets for itself, and whether there are users, which decides what holds where nothing is set.

    One statement for both: every push of a manifest asks twice.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for chunk in _AMONG.chunks(names):
        for namespace, setting, value in connection.execute(_SETTINGS, chunk).all():
            found[namespace][setting] = value
    return found, bool(found.pop("", None))


def stored_limits(connection: Connection) -> Mapping[str, Mapping[str, str]]:
    """What each namespace sets of LIMIT_SETTINGS for itself."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for namespace, setting, value in connection.execute(_LIMITS).all():
        found[namespace][setting] = value
    return dict(found)


def is_set_somewhere(connection: Connection, setting: str) -> bool:
    return connection.execute(_IS_SET, {"setting": setting}).first() is not None


def add_key(connection: Connection, key: Key) -> None:
    connection.execute(
        _ADD_KEY,
        {
            "name": key.namespace,
            "fingerprint": key.fingerprint,
            "user_ids": key.user_ids,
            "certificate": key.certificate,
            "now": key.added_at,
        },
    )


def remove_key(connection: Connection, name: Namespace, fingerprint: str) -> bool:
    return connection.execute(_REMOVE_KEY, {"name": name, "fingerprint": fingerprint}).rowcount == 1


@one_statement
def list_keys(connection: Connection) -> list[Key]:
    return [Key(*row) for row in connection.execute(_LIST_KEYS).all()]


def certificates(connection: Connection, names: Sequence[Namespace]) -> list[bytes]:
    """Of the keyrings of all of them."""
    return [
        bytes(certificate)
        for chunk in _AMONG.chunks(names)
        for certificate in connection.execute(_KEYS, chunk).scalars()
    ]
