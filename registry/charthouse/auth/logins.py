"""Logins that last: refresh tokens, which a client keeps in place of the password.

Helm up to 3.17 stores nothing else after a login. One lives until somebody ends it, the password changes, or the user
is disabled or removed. It is of this registry alone: whoever asks for a token of another service is refused before.
"""

import contextlib
import re
from collections.abc import Callable

from charthouse import queries
from charthouse.audit import ON_THE_MACHINE, Actor
from charthouse.auth import api_tokens
from charthouse.auth.access import Directory, Login
from charthouse.database import Connection, Database
from charthouse.errors import RegistryError, Unauthorized, UserUnknown
from charthouse.names import shown

MOST = 1000  # logins of a user, of which those stay that were used or made last: every job of a pipeline may be one
USED_EVERY = 60_000  # milliseconds between two notes of a login's last use
ENDED_KEPT = 3600_000  # milliseconds: longer than an access token lives that was given for it

_NOT_SHOWN = re.compile(r"[^\w ./@:+-]", re.ASCII)
_CLIENT_LENGTH = 64  # characters


class Logins:
    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now

    async def add(self, subject: str, client: str, directory: Directory) -> str:
        """A refresh token for a user who has just shown his password. `client` is what his program calls itself.

        Empty where none is given: to who is no user, and when the registry cannot keep it. A client then stores the
        password.
        """
        user = directory.users.get(subject)
        if user is None:
            return ""
        secret, now = api_tokens.new(api_tokens.REFRESH), self._now()
        client = _NOT_SHOWN.sub("", client)[:_CLIENT_LENGTH]
        login = Login(api_tokens.hashed(secret), subject, user.mark, client, now)
        try:
            await self._database.write(queries.add_login, login, MOST, now - ENDED_KEPT)
        except RegistryError:  # a full disk is no reason to refuse a pull
            return ""
        return secret

    async def find(self, secret: str, directory: Directory) -> Login:
        """Raises UNAUTHORIZED, and says of a login that is not good any more why."""
        if not api_tokens.is_one(secret, api_tokens.REFRESH):
            raise Unauthorized("the refresh token is cut or mistyped: sign in again")
        login = await self._database.read(queries.find_login, api_tokens.hashed(secret))
        if login is None or login.ended_at is not None:
            raise Unauthorized("this login was ended, or is of another registry: sign in again")
        user = directory.users.get(login.subject)
        if user is None or user.is_disabled:
            raise Unauthorized(f"{login.subject} may not sign in here any more")
        if user.mark != login.mark:
            raise Unauthorized(f"the password of {login.subject} has changed since this login: sign in again")
        return login

    async def note_use(self, login: Login) -> None:
        """At most once a minute."""
        now = self._now()
        if login.used_at is None or now - login.used_at >= USED_EVERY:
            with contextlib.suppress(RegistryError):  # likewise
                await self._database.write(queries.login_used, login.hash, now, now - USED_EVERY)

    async def list(self) -> list[Login]:
        return await self._database.scan(queries.list_logins)

    async def end(self, subject: str, login_id: str = "", by: Actor = ON_THE_MACHINE) -> int:
        """All of a user's, or that one. Says how many. Its access tokens end at the next request too.

        Raises USER_UNKNOWN when there is none.
        """
        return await self._database.write(_end, subject, login_id, by, self._now())


def looks_like_one(secret: str) -> bool:
    """Nobody's password begins so."""
    return secret.startswith(api_tokens.REFRESH)


def _end(connection: Connection, subject: str, login_id: str, by: Actor, now: int) -> int:
    queries.raise_access_generation(connection)
    found = [each for each in queries.list_logins(connection) if each.subject == subject and login_id in ("", each.id)]
    if not found:
        what = f"no login {shown(login_id)} of {subject}" if login_id else f"no login of {shown(subject)} that lasts"
        raise UserUnknown(f"there is {what}: `charthouse user logins` shows them")
    queries.add_audit(connection, by, "user logout", f"{subject} {login_id}".strip(), now)
    return sum(queries.end_login(connection, each.hash, now) for each in found)
