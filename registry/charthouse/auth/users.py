"""Users, groups and grants: every operation on them, and the directory of all as it is now."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from charthouse import queries
from charthouse.audit import ON_THE_MACHINE, Actor, Change, audited
from charthouse.auth.access import ANONYMOUS, Directory, Grant, Pattern, User
from charthouse.auth.htpasswd import NAME, Htpasswd
from charthouse.auth.passwords import Passwords
from charthouse.database import Connection, Database, P, Query, T
from charthouse.errors import AdministratorMissing, GrantInvalid, UserExists, UserNameInvalid, UserUnknown
from charthouse.fresh import Fresh
from charthouse.names import shown
from charthouse.settings import limit_value


class Users:
    def __init__(
        self, database: Database, now: Callable[[], int], htpasswd: Path | None = None, *, is_closed: bool = False
    ) -> None:
        """`is_closed` says that not everybody may do everything, also without a user."""
        self._is_closed = is_closed
        self._database = database
        self._now = now
        self._file = Htpasswd(htpasswd) if htpasswd else None
        self._stored = Directory()  # without the file's users
        self._of_file: Mapping[str, User] = {}
        self._directory: Directory | None = None
        self._stamp: bytes | None = None  # the database's, when the directory was last seen to hold
        self._generation = Fresh(lambda: database.read(queries.access_generation))

    def current(self, stamp: bytes | None) -> Directory | None:
        """The directory, where it is certain without waiting that it holds: nothing was committed since, or no change
        of users and rights."""
        if stamp is None or self._directory is None or (self._file is not None and not self._file.is_unchanged()):
            return None
        if stamp != self._stamp:
            if self._database.read_at_once(queries.access_generation) != self._directory.generation:
                return None
            self._stamp = stamp
        return self._directory

    async def directory(self, stamp: bytes | None = None) -> Directory:
        """As it is after the last acknowledged change, on whatever worker or server that was made.

        `stamp` is the database's, where it was asked for since the question came up.
        """
        stamp = self._database.stamp() if stamp is None else stamp
        if (current := self.current(stamp)) is not None:
            return current
        generation = await self._generation()
        directory = self._directory
        if directory is None or directory.generation != generation:
            self._stored = replace(await self._database.scan(queries.directory), is_closed=self._is_closed)
        self._stamp = stamp
        self._directory = directory = self._joined()
        return directory

    def _joined(self) -> Directory:
        """With the file's users as they are now; the directory of before as long as nothing has changed."""
        before, stored = self._directory, self._stored
        of_file = self._file.users if self._file else {}
        if before is not None and before.generation == stored.generation and of_file is self._of_file:
            return before
        if self._file is None:
            return stored
        version = before.file_version if before else 0
        self._of_file, is_same = of_file, of_file is self._of_file
        return stored.with_file(of_file, version if is_same and version else version + 1)

    # --- users --------------------------------------------------------------------------------------------------------

    async def add(self, name: str, password: str, *, administrator: bool = False, by: Actor = ON_THE_MACHINE) -> None:
        """Raises USER_NAME_INVALID, PASSWORD_INVALID, USER_EXISTS, and ADMINISTRATOR_MISSING before there is one."""
        _check_name(name)
        hashed = Passwords().hash(password)
        target = f"{name} (administrator)" if administrator else name
        change = self._change(by, "user add", target)
        await change(_add, name, hashed, self._now(), administrator=administrator)

    async def change(
        self, name: str, *, password: str | None = None, disabled: bool | None = None, by: Actor = ON_THE_MACHINE
    ) -> None:
        """His password, whether he may sign in, or both in one transaction.

        Raises USER_UNKNOWN, PASSWORD_INVALID, and ADMINISTRATOR_MISSING when nobody would be left to administrate.
        """
        await self._check_stored(name)
        actions = []
        if password is not None:
            actions.append("user passwd")
        if disabled is not None:
            actions.append("user disable" if disabled else "user enable")
        hashed = None if password is None else Passwords().hash(password)
        if actions:
            await self._database.write(_change_user, name, hashed, disabled, by, actions, self._now())

    async def remove(self, name: str, by: Actor = ON_THE_MACHINE) -> None:
        """With all grants. Raises USER_UNKNOWN, and ADMINISTRATOR_MISSING when nobody would be left."""
        await self._check_stored(name)
        await self._change(by, "user remove", name)(_remove, name)

    async def _check_stored(self, name: str) -> None:
        user = (await self.directory()).users.get(name)
        if self._file and user and user.is_from_file:
            raise UserUnknown(f"{name} is a user of the htpasswd file: change or remove the line in {self._file.path}")

    async def limit(self, subject: str, values: Mapping[str, str | None], by: Actor = ON_THE_MACHINE) -> None:
        """Of a user, or of `token:` and an API token's name; None takes a limit away.

        Raises USER_UNKNOWN, and ValueError for a limit that cannot be.
        """
        for setting, value in values.items():
            limit_value(setting, value)
        words = [setting if value is None else f"{setting}={value}" for setting, value in values.items()]
        of_file = self._file.users if self._file else {}
        await self._change(by, "user limit", " ".join([subject, *words]))(_limit, subject, values, of_file)

    # --- groups and grants --------------------------------------------------------------------------------------------

    async def add_to_group(self, group: str, name: str, by: Actor = ON_THE_MACHINE) -> None:
        """Raises USER_NAME_INVALID, USER_UNKNOWN."""
        _check_name(group)
        of_file = self._file.users if self._file else {}
        await self._change(by, "group add", f"@{group} {name}")(_join, group, name, of_file)

    async def remove_from_group(self, group: str, name: str, by: Actor = ON_THE_MACHINE) -> None:
        """Raises USER_UNKNOWN."""
        await self._change(by, "group remove", f"@{group} {name}")(_known, queries.remove_member, group, name)

    async def grant(self, subject: str, pattern: Pattern, actions: frozenset[str], by: Actor = ON_THE_MACHINE) -> None:
        """In place of what the subject had for that pattern. Raises USER_UNKNOWN, GRANT_INVALID."""
        grant = Grant(subject, pattern, actions)
        of_file = self._file.users if self._file else {}
        await self._change(by, "grant set", str(grant))(_grant, grant, of_file, is_closed=self._is_closed)

    async def revoke(self, subject: str, pattern: Pattern, by: Actor = ON_THE_MACHINE) -> None:
        """Raises USER_UNKNOWN when there is no such grant."""
        await self._change(by, "grant remove", f"{subject} {pattern}")(_known, queries.remove_grant, subject, pattern)

    async def keys_changed(self, what: str, by: Actor = ON_THE_MACHINE) -> None:
        """Of access tokens: what was decided by those before is void from the next request on."""
        await self._change(by, "token-keys rotate", what)(lambda _: None)

    def _change(self, by: Actor, action: str, target: str) -> Change:
        change = audited(self._database, by, action, target, self._now)

        def raising(query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
            def carry_out(connection: Connection) -> T:
                queries.raise_access_generation(connection)
                return query(connection, *args, **kwargs)

            return change(carry_out)

        return raising


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or name == ANONYMOUS:
        raise UserNameInvalid(
            f"{shown(name)} cannot be a name: use at most 64 letters, digits, '.', '_' and '-', beginning with a letter"
            " or a digit"
        )


def _add(connection: Connection, name: str, hashed: str, now: int, *, administrator: bool) -> None:
    if not administrator and not queries.has_users(connection):
        raise AdministratorMissing(
            "there is no administrator yet: `charthouse init` makes one, and closes the registry"
        )
    if not queries.add_user(connection, name, hashed, now, administrator=administrator):
        raise UserExists(f"there is a user {name} already: `charthouse user passwd {name}` gives a new password")


def _change_user(
    connection: Connection,
    name: str,
    hashed: str | None,
    disabled: bool | None,
    by: Actor,
    actions: Sequence[str],
    now: int,
) -> None:
    queries.raise_access_generation(connection)
    if hashed is not None:
        _known(connection, queries.set_password, name, hashed)
    if disabled is not None:
        _known(connection, queries.set_disabled, name, disabled=disabled)
        _keep_an_administrator(connection, name)
    for action in actions:
        queries.add_audit(connection, by, action, name, now)


def _remove(connection: Connection, name: str) -> None:
    _known(connection, queries.remove_user, name)
    _keep_an_administrator(connection, name)


def _limit(connection: Connection, subject: str, values: Mapping[str, str | None], of_file: Mapping[str, User]) -> None:
    directory = queries.directory(connection)
    if subject not in of_file and subject not in directory.users and directory.token_of(subject) is None:
        raise UserUnknown(f"there is no user {shown(subject)} (an API token is written token:NAME)")
    for setting, value in values.items():
        if value is None:
            queries.unset_user_limit(connection, subject, setting)
        else:
            queries.set_user_limit(connection, subject, setting, value)


def _keep_an_administrator(connection: Connection, name: str) -> None:
    """Without users the registry would be open to everybody."""
    users = queries.directory(connection).users.values()
    if not any(user.is_administrator and not user.is_disabled for user in users):
        raise AdministratorMissing(f"{name} is the last administrator: make another one first")


def _join(connection: Connection, group: str, name: str, of_file: Mapping[str, User]) -> None:
    if name not in of_file and name not in queries.directory(connection).users:
        raise UserUnknown(f"there is no user {name}")
    queries.add_member(connection, group, name)


def _grant(connection: Connection, grant: Grant, of_file: Mapping[str, User], *, is_closed: bool) -> None:
    directory = replace(queries.directory(connection), is_closed=is_closed).with_file(of_file, 0)
    if directory.is_open:
        raise GrantInvalid("there are no users, and everybody may do everything: `charthouse init` closes the registry")
    group = grant.subject.removeprefix("@")
    if grant.subject != ANONYMOUS and grant.subject not in directory.users:
        if not grant.subject.startswith("@"):
            raise UserUnknown(f"there is no user {grant.subject} (a group is written @{grant.subject})")
        if group not in directory.groups:
            raise UserUnknown(f"there is no group {group}: `charthouse group add {group} USER` makes it")
    queries.set_grant(connection, grant)


def _known(connection: Connection, query: Callable[..., bool], /, *args: str, **kwargs: bool) -> None:
    if not query(connection, *args, **kwargs):
        raise UserUnknown(f"there is no {_UNKNOWN[query].format(*args)}")


_UNKNOWN: Mapping[Callable[..., bool], str] = {
    queries.set_password: "user {0}",
    queries.set_disabled: "user {0}",
    queries.remove_user: "user {0}",
    queries.remove_member: "member {1} of the group {0}",
    queries.remove_grant: "grant to {0} for {1}",
}
