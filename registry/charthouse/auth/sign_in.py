"""Who a request shows: by a password, an API token, a login that lasts, or an access token."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from charthouse.auth import issued, logins
from charthouse.auth.access import Directory
from charthouse.auth.access_tokens import bearer_token, is_bearer
from charthouse.auth.identity import NOBODY, Identity
from charthouse.auth.methods import Basic, decoded
from charthouse.auth.token_request import TokenRequest
from charthouse.core import Registry
from charthouse.errors import Unauthorized

if TYPE_CHECKING:
    from charthouse.auth.tokens import AccessToken

UNKNOWN = "(unknown)"
BASIC = {"WWW-Authenticate": 'Basic realm="Charthouse", charset="UTF-8"'}


class SignIn:
    def __init__(self, registry: Registry, threads: ThreadPoolExecutor | None = None) -> None:
        """`threads` are those that passwords are hashed in, if not its own."""
        self._registry = registry
        self._basic = Basic(threads=threads)

    def known(self, header: str | None, directory: Directory) -> Identity | None:
        """Without waiting: whoever was seen before, and nobody. None is for all others."""
        if header is None:
            return NOBODY
        if is_bearer(header):
            token = self._registry.access_tokens.known(header, directory)
            if token is None:
                return self._registry.external_tokens.known(bearer_token(header))
            return self._holder(token)
        name = self._basic.known(header, directory)
        return None if name is None else Identity(name)

    async def to_registry(self, header: str | None, directory: Directory, address: str) -> Identity:
        """`header` is that of Authorization. Raises UNAUTHORIZED, TOOMANYREQUESTS."""
        if header is None:
            return NOBODY
        if is_bearer(header) and not issued.looks_like_one(bearer_token(header)):
            if (external := await self._registry.external_tokens.take(bearer_token(header))) is not None:
                return external
            return self._holder(self._registry.access_tokens.take(header, directory))
        return await self._by_secret(header, directory, address)

    def _holder(self, token: "AccessToken") -> Identity:
        return Identity(token.subject, token.access, rules=tuple(self._registry.access_tokens.rules_of(token)))

    async def to_token_service(self, request: TokenRequest, directory: Directory, address: str) -> Identity:
        """Raises UNAUTHORIZED, TOOMANYREQUESTS."""
        if logins.looks_like_one(request.refresh_token):
            login = await self._registry.logins.find(request.refresh_token, directory)
            await self._registry.logins.note_use(login)
            return Identity(login.subject, login=login.id)
        if request.is_refresh:  # Helm up to 3.17 sends an API token so, when the user name is empty
            return await self._by_secret(f"Bearer {request.refresh_token}", directory, address)
        if request.subject_token:
            return await self._by_subject_token(request.subject_token, directory)
        if request.authorization is None:
            return NOBODY
        return await self._by_secret(request.authorization, directory, address)

    async def _by_subject_token(self, token: str, directory: Directory) -> Identity:
        """Of a token exchange (RFC 8693, 2.1)."""
        workload = await self._registry.external_tokens.exchange(token, directory)
        if workload is None:
            raise Unauthorized("the subject_token is of no issuer that has rules here")
        return workload

    async def _by_secret(self, header: str, directory: Directory, address: str) -> Identity:
        """Whom a password, an API token or a workload's token shows."""
        secret = _secret(header)
        if issued.looks_like_one(secret):
            token = self._registry.api_tokens.find(secret, directory)
            await self._registry.api_tokens.note_use(token)
            return Identity(token.subject)
        if logins.looks_like_one(secret):  # Helm up to 3.17 tries it so after a refusal, and shows the answer
            await self._registry.logins.find(secret, directory)
            raise Unauthorized("a refresh token is taken at /token with grant_type=refresh_token alone")
        if (workload := await self._registry.external_tokens.exchange(secret, directory)) is not None:
            return workload
        name = await self._basic(header, directory, address)
        if name is None:
            raise Unauthorized("sign in with a user name and a password, or with an API token")
        return Identity(name)

    async def by_password(self, header: str, directory: Directory, address: str) -> str:
        """A user's name, shown by his own password alone. Raises UNAUTHORIZED, TOOMANYREQUESTS."""
        name = await self._basic(header, directory, address)
        if name is None:
            raise Unauthorized("sign in with user name and password: tokens do not count here")
        return name

    def close(self) -> None:
        self._basic.close()


def _secret(header: str) -> str:
    """The password, or what stands behind Bearer; empty for everything else. Raises UNAUTHORIZED."""
    if is_bearer(header):
        return bearer_token(header)
    return decoded(header[6:])[1] if header[:6].lower() == "basic " else ""


def shown_user(header: str | None, directory: Directory) -> str:
    """Whom refused credentials name, for the audit. Never a name that no user has: it may be a password, typed into the
    wrong field."""
    if header is None or header[:6].lower() != "basic ":
        return UNKNOWN
    with contextlib.suppress(Unauthorized):
        name = decoded(header[6:])[0]
        if name in directory.users:
            return name
    return UNKNOWN
