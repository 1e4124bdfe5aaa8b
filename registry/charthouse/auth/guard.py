"""Who may call what: in front of the pull cache, so that nothing is answered that the caller may not see.

A right is one word per route. What a caller may not see answers the same whether it is there or not: 401 for whoever
has not said who he is, 403 for everybody else.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from starlette.types import Receive, Scope, Send

from charthouse.at_once import REMEMBERED, STAMP, Finished, Layer
from charthouse.audit import SIGNING_IN, Actor
from charthouse.auth import issuers, token_request
from charthouse.auth.access import ANONYMOUS, DELETE, EVERY_RIGHT, PULL, PUSH, Directory, Rights
from charthouse.auth.access_tokens import is_bearer
from charthouse.auth.identity import NOBODY, Identity
from charthouse.auth.issuers import Rule
from charthouse.auth.scope import CATALOG, SERVICE, Access
from charthouse.auth.sign_in import BASIC, SignIn, shown_user
from charthouse.auth.token_request import TokenRequest
from charthouse.auth.users import Users
from charthouse.core import Caller, Registry
from charthouse.errors import AdministratorMissing, Denied, NotLetIn, RegistryError, TooManyRequests, Unauthorized
from charthouse.names import RepositoryName
from charthouse.oci.errors import render
from charthouse.oci.routing import Api, Right, Route
from charthouse.origin import Origins

DECISION_LIFETIME = 1.0  # seconds: only the end of a token, and of keys that are replaced by hand, can count so late
DECISIONS = 64  # that are remembered of a head

SIGN_IN = "sign in first: helm registry login, oras login or docker login"

# What a route's word asks for: one of these actions is enough.
_ACTIONS: Mapping[Right, tuple[str, ...]] = {
    Right.PULL: (PULL,),
    Right.LOOK: (PULL, PUSH),  # clients look before they push: what is not here yet is a 404 for them
    Right.PUSH: (PUSH,),
    Right.DELETE: (DELETE,),
}


# What a client without a token is told to ask for, as distribution does: to write it has to read too.
_SCOPES = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
_WRITES = "pull,push"


@dataclass(frozen=True, slots=True)
class _Decision:
    """That `who` may. Times in Unix seconds."""

    directory: Directory
    who: Identity
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Given:
    """What the token service answers. `refresh_token` is empty unless it was asked for or shown; `lifetime` is in
    seconds."""

    token: str
    access: Access
    refresh_token: str
    lifetime: int
    is_exchanged: bool


class Guard:
    """`registry` is there once the application has started."""

    registry: Registry

    def __init__(self, app: Layer, api: Api, origins: Origins, threads: ThreadPoolExecutor | None = None) -> None:
        self._app = app
        self._threads = threads
        self._api = api
        self._origins = origins
        self._known: tuple[Directory, dict[str | Sequence[Rule], Rights]] = (Directory(), {})

    def at_once(self, scope: Scope) -> Finished | None:
        """Where users and rights are as they were last read, and the caller was seen before."""
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return None
        stamp = scope[STAMP] = self.registry.stamp()
        directory = self._users.current(stamp)
        if directory is None:
            return None
        who = NOBODY if directory.is_open else self._let_in(scope, directory)
        if who is None:
            return None
        if who.name:
            scope.setdefault("state", {})["user"] = who.name
        if scope["method"] == "POST":
            scope["charthouse.caller"] = self._described(scope, who, directory)
        return self._app.at_once(scope)

    def _let_in(self, scope: Scope, directory: Directory) -> Identity | None:
        """Whoever was seen before, and may. What was decided a moment ago for the same head and path of a connection
        holds while users and rights do."""
        remembered: dict[object, object] = scope.get(REMEMBERED, {})
        asked, now = (scope["method"], scope["path"]), self.registry.time()
        decided = remembered.get(asked)
        if isinstance(decided, _Decision) and decided.directory is directory and decided.at <= now < decided.until:
            return decided.who
        who = self._sign_in.known(_authorization(scope), directory)
        if who is None or not self._may(scope, who, directory):
            return None
        if len(remembered) >= DECISIONS:
            remembered.clear()
        remembered[asked] = _Decision(directory, who, now, now + DECISION_LIFETIME)
        return who

    def _may(self, scope: Scope, who: Identity, directory: Directory) -> bool:
        try:
            self._check(scope, who, directory)
        except RegistryError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["charthouse.caller"] = await self._caller(scope)
        except RegistryError as error:
            await render(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        """Whoever asks, if he may. Raises UNAUTHORIZED, DENIED, TOOMANYREQUESTS."""
        directory = await self._users.directory(scope.get(STAMP))
        if directory.is_open:
            return self._described(scope, NOBODY, directory)
        who = await self._identity(scope, directory)
        scope.setdefault("state", {})["user"] = who.name
        try:
            self._check(scope, who, directory)
        except Denied as denied:
            self.registry.audit.refuse(who.name, denied.message.removeprefix(f"{who.name} may not "), _address(scope))
            raise
        return self._described(scope, who, directory)

    def _described(self, scope: Scope, who: Identity, directory: Directory) -> Caller:
        rights = EVERY_RIGHT if directory.is_open else self._rights(directory, who)
        actor = _actor(scope, who.name or ANONYMOUS)
        return Caller(who.name, self._origins.of(scope).host, rights, actor, directory.limits)

    async def give_token(self, request: TokenRequest, scope: Scope) -> Given:
        """For whoever asks. Raises UNAUTHORIZED, TOOMANYREQUESTS."""
        directory = await self._users.directory()
        try:
            who = await self._sign_in.to_token_service(request, directory, _address(scope))
        except (Unauthorized, TooManyRequests) as error:
            self._note_refusal(error, request.authorization, directory, scope)
            raise
        access = token_request.granted(request.asked, self._rights(directory, who))
        refresh_token = "" if who.rules else request.refresh_token
        if request.is_offline and who.name and not who.rules:
            refresh_token = await self.registry.logins.add(who.name, request.client, directory)
        tokens = self.registry.access_tokens
        token = tokens.give(who, access, directory)
        return Given(token, access, refresh_token, tokens.lifetime(who), bool(request.subject_token))

    def _note_refusal(self, error: RegistryError, header: str | None, directory: Directory, scope: Scope) -> None:
        who = error.who if isinstance(error, NotLetIn) else shown_user(header, directory)
        self.registry.audit.refuse(who, SIGNING_IN, _address(scope))

    async def administrator(self, scope: Scope) -> Actor:
        """Whoever may administrate: by a password with each request, and by no token.

        Raises UNAUTHORIZED, DENIED, TOOMANYREQUESTS, and ADMINISTRATOR_MISSING (409) where there are no users.
        """
        directory = await self._users.directory()
        if directory.is_open:
            raise AdministratorMissing("there are no users: `charthouse init` makes the administrator, on the machine")
        header = _authorization(scope)
        if header is None:
            raise Unauthorized("sign in as an administrator, with user name and password", headers=BASIC)
        address = _address(scope)
        try:
            name = await self._sign_in.by_password(header, directory, address)
        except Unauthorized as error:
            self.registry.audit.refuse(shown_user(header, directory), SIGNING_IN, address)
            raise Unauthorized(error.message, headers=BASIC) from None
        scope.setdefault("state", {})["user"] = name
        if not directory.users[name].is_administrator:
            self.registry.audit.refuse(name, "administrate", address)
            raise Denied(f"{name} is no administrator")
        return _actor(scope, name)

    async def _identity(self, scope: Scope, directory: Directory) -> Identity:
        header = _authorization(scope)
        try:
            return await self._sign_in.to_registry(header, directory, _address(scope))
        except (Unauthorized, TooManyRequests) as error:
            self._note_refusal(error, header, directory, scope)
            if isinstance(error, TooManyRequests):
                raise
            is_token = header is not None and is_bearer(header)
            raise self._challenge(scope, error.message, error="invalid_token" if is_token else "") from None

    def _check(self, scope: Scope, who: Identity, directory: Directory) -> None:
        try:
            route = self._api.route(scope)
        except RegistryError:
            if who.is_nobody:
                raise self._challenge(scope, SIGN_IN) from None
            raise
        if route.right is Right.PING:
            if who.is_nobody:  # so that a login finds out whether its password is right
                raise self._challenge(scope, SIGN_IN)
        elif route.right is Right.CATALOG:
            self._check_catalog(scope, who, directory)
        else:
            self._check_repository(scope, who, directory, route)

    def _check_catalog(self, scope: Scope, who: Identity, directory: Directory) -> None:
        """Nobody is challenged even where some of it is public: oras would not say who it is, and list only that."""
        is_closed = not who.name and self._rights(directory, who).readable == []
        if who.is_nobody or is_closed or (who.token is not None and not who.token.catalog):
            raise self._insufficient(scope, who, "list the repositories")

    def _check_repository(self, scope: Scope, who: Identity, directory: Directory, route: Route) -> None:
        rights, actions, repository = self._rights(directory, who), _ACTIONS[route.right], route.repository or ""
        if not any(rights.allows(action, repository) for action in actions):
            what = f"{actions[-1]} {'to' if actions[-1] == PUSH else 'from'} {repository}"
            own = self._rights(directory, replace(who, token=None))
            if not who.name or (who.token is not None and any(own.allows(action, repository) for action in actions)):
                raise self._insufficient(scope, who, what)
            raise Denied(f"{who.name} may not {what}")
        if who.is_nobody and route.right is Right.LOOK and route.is_of_blob and not rights.allows(PUSH, repository):
            # Helm 3.8 to 3.17 begin a push so, and cannot repeat a manifest's body after a 401.
            raise self._insufficient(scope, who, f"push to {repository}")

    def _insufficient(self, scope: Scope, who: Identity, what: str) -> Unauthorized:
        """Whoever has no token may ask for one, and whoever has one that does not say enough, for another."""
        return self._challenge(scope, f"to {what}, {SIGN_IN}", error="" if who.is_nobody else "insufficient_scope")

    def _challenge(self, scope: Scope, message: str, *, error: str = "") -> Unauthorized:
        """Source: distribution, docs/content/spec/auth/token.md; RFC 6750, 3."""
        realm = self._origins.of(scope).url + token_request.PATH
        words = {"realm": realm, "service": SERVICE, "scope": self._wanted(scope), "error": error}
        said = ",".join(f'{name}="{value}"' for name, value in words.items() if value)
        return Unauthorized(message, headers={"WWW-Authenticate": f"Bearer {said}"})

    def _wanted(self, scope: Scope) -> str:
        """What a token for this call has to say; empty for a ping, and for what is no name of a repository."""
        try:
            route = self._api.route(scope)
            if route.right is Right.CATALOG:
                return CATALOG
            name = RepositoryName.parse(route.repository or "")
        except RegistryError:
            return ""
        return f"repository:{name}:{_SCOPES.get(scope['method'], _WRITES)}"

    def _rights(self, directory: Directory, who: Identity) -> Rights:
        known, rights = self._known
        if known is not directory:
            rights = {}
            self._known = (directory, rights)
        whose = who.rules or who.name
        if whose not in rights:
            rights[whose] = issuers.rights(who.rules, directory) if who.rules else directory.rights_of(who.name)
        found = rights[whose]
        return found if who.token is None else replace(found, token=who.token)

    @cached_property
    def _users(self) -> Users:
        return self.registry.users

    @cached_property
    def _sign_in(self) -> SignIn:
        return SignIn(self.registry, self._threads)

    def close(self) -> None:
        self._sign_in.close()


def _authorization(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value, "latin-1")
    return None


def _actor(scope: Scope, name: str) -> Actor:
    return Actor(name, _address(scope), scope.get("state", {}).get("request_id", ""))


def _address(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""
