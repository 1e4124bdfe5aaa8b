"""API tokens: given to a pipeline in place of somebody's password, with rights of their own, until they end."""

import contextlib
import re
import time
from collections.abc import Callable, Sequence

from charthouse import queries
from charthouse.audit import ON_THE_MACHINE, Actor
from charthouse.auth import api_tokens
from charthouse.auth.access import TOKEN, ApiToken, Directory, Pattern
from charthouse.database import Connection, Database
from charthouse.errors import GrantInvalid, RegistryError, Unauthorized, UserExists, UserUnknown
from charthouse.names import shown

USED_EVERY = 60_000  # milliseconds between two notes of a token's last use

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")


class ApiTokens:
    def __init__(self, database: Database, now: Callable[[], int], *, is_closed: bool = False) -> None:
        """`is_closed` says that there are users whatever the database has."""
        self._is_closed = is_closed
        self._database = database
        self._now = now
        self._noted: dict[str, int] = {}  # when the last use of each was written by this process

    async def add(
        self,
        name: str,
        patterns: Sequence[Pattern],
        actions: frozenset[str],
        expires_at: int | None,
        by: Actor = ON_THE_MACHINE,
    ) -> str:
        """The secret, which nobody can read again. `expires_at` in Unix milliseconds.

        Raises GRANT_INVALID, USER_EXISTS.
        """
        if not _NAME.fullmatch(name):
            raise GrantInvalid(f"{shown(name)} cannot be a token's name: use at most 64 letters, digits, '.', '_', '-'")
        secret = api_tokens.new(api_tokens.API)
        hashed = api_tokens.hashed(secret)
        token = ApiToken(name, hashed, tuple(patterns), actions, self._now(), expires_at, used_at=None)
        await self._database.write(_add, token, by, is_closed=self._is_closed)
        return secret

    async def revoke(self, name: str, by: Actor = ON_THE_MACHINE) -> None:
        """Raises USER_UNKNOWN."""
        await self._database.write(_revoke, name, by, self._now())

    async def list(self) -> list[ApiToken]:
        return await self._database.scan(queries.list_api_tokens)

    def find(self, secret: str, directory: Directory) -> ApiToken:
        """Raises UNAUTHORIZED, and says of a token that is not good any more why."""
        if not api_tokens.is_one(secret, api_tokens.API):
            raise Unauthorized("the API token is cut or mistyped: it has 53 characters and begins with cht_")
        token = directory.tokens.get(api_tokens.hashed(secret))
        if token is None or not api_tokens.matches(secret, token.hash):
            raise Unauthorized("the API token is not known here: it was revoked, or is of another registry")
        if token.has_ended(self._now()):
            raise Unauthorized(
                f"the API token {token.name} ended on {day(token.expires_at or 0)}: make another one with"
                " charthouse token add"
            )
        return token

    async def note_use(self, token: ApiToken) -> None:
        """At most once a minute, in the database and here."""
        now = self._now()
        if now - self._noted.get(token.name, 0) >= USED_EVERY:
            self._noted[token.name] = now
            with contextlib.suppress(RegistryError):  # a full disk is no reason to refuse a pull
                await self._database.write(queries.api_token_used, token.name, now, now - USED_EVERY)


def looks_like_one(secret: str) -> bool:
    """Nobody's password begins so."""
    return secret.startswith(api_tokens.API)


def day(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(milliseconds / 1000))


def _add(connection: Connection, token: ApiToken, by: Actor, *, is_closed: bool) -> None:
    queries.raise_access_generation(connection)
    if not is_closed and not queries.has_users(connection):
        raise GrantInvalid("there are no users, and everybody may do everything: `charthouse init` closes the registry")
    if not queries.add_api_token(connection, token):
        raise UserExists(f"there is a token {token.name} already: charthouse token revoke {token.name}")
    target = f"{token.name} {' '.join(token.patterns)} {','.join(sorted(token.actions))}"
    queries.add_audit(connection, by, "token add", target, token.created_at)


def _revoke(connection: Connection, name: str, by: Actor, now: int) -> None:
    queries.raise_access_generation(connection)
    if not queries.remove_api_token(connection, name):
        raise UserUnknown(f"there is no token {shown(name)}: `charthouse token list` shows them")
    queries.forget_user_limits(connection, f"{TOKEN}{name}")
    queries.add_audit(connection, by, "token revoke", name, now)
