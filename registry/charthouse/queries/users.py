"""Users, groups and grants, and the generation that is raised with every change of them."""

from sqlalchemy import text

from charthouse.auth.access import MARK_SIZE, Directory, Grant, Pattern, User, of_user, parse_actions
from charthouse.database import Connection, one_statement
from charthouse.queries.api_tokens import list_api_tokens
from charthouse.queries.logins import ended_logins, forget_logins
from charthouse.queries.namespaces import stored_limits

_GENERATION = text("SELECT generation FROM access_generation WHERE id = 1")
_RAISE = text("""
    INSERT INTO access_generation (id, generation) VALUES (1, 1)
    ON CONFLICT (id) DO UPDATE SET generation = access_generation.generation + 1""")
_USERS = text("SELECT name, password, administrator, disabled FROM users ORDER BY name")
_HAS_USERS = text("SELECT 1 FROM users LIMIT 1")
_MEMBERS = text("SELECT group_name, user_name FROM group_members")
_GRANTS = text("SELECT subject, pattern, actions FROM grants ORDER BY subject, pattern")
_ADD_USER = text("""
    INSERT INTO users (name, password, administrator, disabled, created_at)
    VALUES (:name, :password, :administrator, :no, :now) ON CONFLICT (name) DO NOTHING""")
_SET_PASSWORD = text("UPDATE users SET password = :password WHERE name = :name")
_SET_DISABLED = text("UPDATE users SET disabled = :disabled WHERE name = :name")
_REMOVE_USER = text("DELETE FROM users WHERE name = :name")
_LEAVE_GROUPS = text("DELETE FROM group_members WHERE user_name = :name")
_ADD_MEMBER = text("""
    INSERT INTO group_members (group_name, user_name) VALUES (:group, :name)
    ON CONFLICT (group_name, user_name) DO NOTHING""")
_REMOVE_MEMBER = text("DELETE FROM group_members WHERE group_name = :group AND user_name = :name")
_SET_GRANT = text("""
    INSERT INTO grants (subject, pattern, actions) VALUES (:subject, :pattern, :actions)
    ON CONFLICT (subject, pattern) DO UPDATE SET actions = excluded.actions""")
_REMOVE_GRANT = text("DELETE FROM grants WHERE subject = :subject AND pattern = :pattern")
_REMOVE_GRANTS = text("DELETE FROM grants WHERE subject = :subject")
_LIMITS = text("SELECT subject, setting, value FROM user_limits")
_SET_LIMIT = text("""
    INSERT INTO user_limits (subject, setting, value) VALUES (:subject, :setting, :value)
    ON CONFLICT (subject, setting) DO UPDATE SET value = excluded.value""")
_UNSET_LIMIT = text("DELETE FROM user_limits WHERE subject = :subject AND setting = :setting")
_FORGET_LIMITS = text("DELETE FROM user_limits WHERE subject = :subject")


@one_statement
def access_generation(connection: Connection) -> int:
    """0 until something was ever changed."""
    return int(connection.execute(_GENERATION).scalar() or 0)


def raise_access_generation(connection: Connection) -> None:
    """First in every transaction that changes users, groups, grants or namespaces: on PostgreSQL it puts the writers in
    line."""
    connection.execute(_RAISE)


@one_statement
def has_users(connection: Connection) -> bool:
    return connection.execute(_HAS_USERS).first() is not None


def directory(connection: Connection) -> Directory:
    """Everything, in one snapshot with its generation."""
    groups: dict[str, set[str]] = {}
    for group, name in connection.execute(_MEMBERS).all():
        groups.setdefault(group, set()).add(name)
    users = [User(name, password, bool(a), bool(d)) for name, password, a, d in connection.execute(_USERS).all()]
    grants = connection.execute(_GRANTS).all()
    return Directory(
        access_generation(connection),
        {user.name: user for user in users},
        {group: frozenset(members) for group, members in groups.items()},
        [Grant(subject, Pattern(pattern), parse_actions(actions)) for subject, pattern, actions in grants],
        {token.hash: token for token in list_api_tokens(connection)},
        frozenset(hashed[:MARK_SIZE] for hashed in ended_logins(connection)),
        {**stored_limits(connection), **user_limits(connection)},
    )


def add_user(connection: Connection, name: str, password: str, now: int, *, administrator: bool) -> bool:
    """False when there is one of that name. `password` is its hash."""
    parameters = {"name": name, "password": password, "administrator": administrator, "no": False, "now": now}
    return connection.execute(_ADD_USER, parameters).rowcount == 1


def set_password(connection: Connection, name: str, password: str) -> bool:
    return connection.execute(_SET_PASSWORD, {"name": name, "password": password}).rowcount == 1


def set_disabled(connection: Connection, name: str, *, disabled: bool) -> bool:
    if disabled:
        forget_logins(connection, name)
    return connection.execute(_SET_DISABLED, {"name": name, "disabled": disabled}).rowcount == 1


def remove_user(connection: Connection, name: str) -> bool:
    """With his grants, limits, memberships and logins: who gets the name later gets none of them."""
    forget_user_limits(connection, name)
    forget_logins(connection, name)
    connection.execute(_LEAVE_GROUPS, {"name": name})
    connection.execute(_REMOVE_GRANTS, {"subject": name})
    return connection.execute(_REMOVE_USER, {"name": name}).rowcount == 1


def add_member(connection: Connection, group: str, name: str) -> None:
    connection.execute(_ADD_MEMBER, {"group": group, "name": name})


def remove_member(connection: Connection, group: str, name: str) -> bool:
    return connection.execute(_REMOVE_MEMBER, {"group": group, "name": name}).rowcount == 1


def set_grant(connection: Connection, grant: Grant) -> None:
    actions = ",".join(sorted(grant.actions))
    connection.execute(_SET_GRANT, {"subject": grant.subject, "pattern": grant.pattern, "actions": actions})


def remove_grant(connection: Connection, subject: str, pattern: str) -> bool:
    return connection.execute(_REMOVE_GRANT, {"subject": subject, "pattern": pattern}).rowcount == 1


def user_limits(connection: Connection) -> dict[str, dict[str, str]]:
    """Beside those of namespaces, which have no such names."""
    found: dict[str, dict[str, str]] = {}
    for subject, setting, value in connection.execute(_LIMITS).all():
        found.setdefault(of_user(subject), {})[setting] = value
    return found


def set_user_limit(connection: Connection, subject: str, setting: str, value: str) -> None:
    connection.execute(_SET_LIMIT, {"subject": subject, "setting": setting, "value": value})


def unset_user_limit(connection: Connection, subject: str, setting: str) -> bool:
    return connection.execute(_UNSET_LIMIT, {"subject": subject, "setting": setting}).rowcount == 1


def forget_user_limits(connection: Connection, subject: str) -> None:
    connection.execute(_FORGET_LIMITS, {"subject": subject})
