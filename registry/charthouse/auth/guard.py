"""Who may call what: in front of the pull cache, so that nothing is answered that the caller may not see.

A right is one word per route. What a caller may not see answers the same whether it is there or not: 401 for whoever
has not said who he is, 403 for everybody else.
"""

from collections.abc import Mapping
from functools import cached_property

from starlette.types import Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.auth.access import DELETE, EVERY_RIGHT, PULL, PUSH, Directory, Rights
from charthouse.auth.methods import Basic
from charthouse.auth.users import Users
from charthouse.core import Caller, Registry
from charthouse.errors import Denied, RegistryError, Unauthorized
from charthouse.oci.errors import render
from charthouse.oci.routing import Api, Right
from charthouse.origin import Origins

CHALLENGE = {"WWW-Authenticate": 'Basic realm="Charthouse", charset="UTF-8"'}
STAMP = "charthouse.stamp"  # where the database's stamp is left for whoever comes after

# What a route's word asks for: one of these actions is enough.
_ACTIONS: Mapping[Right, tuple[str, ...]] = {
    Right.PULL: (PULL,),
    Right.LOOK: (PULL, PUSH),  # clients look before they push: what is not here yet is a 404 for them
    Right.PUSH: (PUSH,),
    Right.DELETE: (DELETE,),
}


class Guard:
    """`registry` is there once the application has started."""

    registry: Registry

    def __init__(self, app: Layer, api: Api, origins: Origins) -> None:
        self._app = app
        self._api = api
        self._origins = origins
        self._basic = Basic()
        self._known: tuple[Directory, dict[str, Rights]] = (Directory(), {})

    def at_once(self, scope: Scope) -> Finished | None:
        """Where nothing was committed since users and rights were last read, and the caller was seen before."""
        stamp = scope[STAMP] = self.registry.stamp()
        directory = self._users.current(stamp)
        if directory is None:
            return None
        if not directory.is_open:
            header = _authorization(scope)
            name = "" if header is None else self._basic.known(header, directory)
            if name is None or not self._may_pull(scope, directory, name):
                return None
        return self._app.at_once(scope)

    def _may_pull(self, scope: Scope, directory: Directory, name: str) -> bool:
        try:
            route = self._api.route(scope)
            return route.right is Right.PULL and self._rights(directory, name).allows(PULL, route.repository or "")
        except RegistryError:
            return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["charthouse.caller"] = await self._caller(scope)
        except RegistryError as error:
            await render(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        """Whoever asks, if he may. Raises UNAUTHORIZED, DENIED, TOOMANYREQUESTS."""
        host = self._origins.of(scope).host
        directory = await self._users.directory()
        if directory.is_open:
            return Caller(host=host, rights=EVERY_RIGHT)
        name = await self._name(scope, directory)
        scope.setdefault("state", {})["user"] = name
        rights = self._rights(directory, name)
        self._check(scope, name, rights)
        return Caller(name, host, rights)

    async def _name(self, scope: Scope, directory: Directory) -> str:
        """Empty for whoever did not say."""
        header = _authorization(scope)
        if header is None:
            return ""
        address = scope["client"][0] if scope.get("client") else ""
        try:
            name = await self._basic(header, directory, address)
        except Unauthorized as error:
            raise Unauthorized(error.message, headers=CHALLENGE) from None
        if name is None:
            raise Unauthorized("sign in with a user name and a password (Basic)", headers=CHALLENGE)
        return name

    def _check(self, scope: Scope, name: str, rights: Rights) -> None:
        try:
            route = self._api.route(scope)
        except RegistryError:
            if name:
                raise
            raise _challenge("") from None
        if route.right is Right.PING:
            if not name:  # so that a login finds out whether its password is right
                raise _challenge("")
            return
        if route.right is Right.CATALOG:
            if not name and rights.readable == []:
                raise _challenge("list the repositories")
            return
        actions, repository = _ACTIONS[route.right], route.repository or ""
        if not any(rights.allows(action, repository) for action in actions):
            what = f"{actions[-1]} {'to' if actions[-1] == PUSH else 'from'} {repository}"
            raise _challenge(what) if not name else Denied(f"{name} may not {what}")
        if not name and route.right is Right.LOOK and route.is_of_blob and not rights.allows(PUSH, repository):
            # Helm 3.8 to 3.17 begin a push so, and cannot repeat a manifest's body after a 401.
            raise _challenge(f"push to {repository}")

    def _rights(self, directory: Directory, name: str) -> Rights:
        known, rights = self._known
        if known is not directory:
            rights = {}
            self._known = (directory, rights)
        if name not in rights:
            rights[name] = directory.rights_of(name)
        return rights[name]

    @cached_property
    def _users(self) -> Users:
        return self.registry.users

    def close(self) -> None:
        self._basic.close()


def _challenge(what: str) -> Unauthorized:
    wish = f"to {what}, " if what else ""
    return Unauthorized(f"{wish}sign in first: helm registry login, oras login or docker login", headers=CHALLENGE)


def _authorization(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value, "latin-1")
    return None
