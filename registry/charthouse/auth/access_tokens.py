"""Access tokens of our own, given for a password and taken as Bearer: what is allowed is what a token says and what its
subject's grants allow now.

A token is void when the secret that it was given for is another one, so nothing has to be kept of it. What was
verified is known by its SHA-256 until it expires or the keys change.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from charthouse.auth.access import MARK_SIZE, Directory
from charthouse.auth.identity import Identity
from charthouse.auth.issuers import Rule
from charthouse.auth.methods import remember
from charthouse.auth.scope import Access
from charthouse.errors import Unauthorized

if TYPE_CHECKING:
    from charthouse.auth.keys import TokenKeys
    from charthouse.auth.tokens import AccessToken

SHORTEST = 60  # seconds: distribution's client takes what says less for this
KNOWN_LIMIT = 10_000  # tokens that were verified

_SCHEME = "bearer "
_OF_LOGIN = "."  # between the two
_UNDER, _NEXT = "rules:", ","  # in place of them: the marks of the rules that let a workload in


class AccessTokens:
    """The keys are read, or made, with the first token: an open registry needs none."""

    def __init__(self, path: Path, clock: Callable[[], float], rules: Iterable[Rule] = ()) -> None:
        """`rules` are those of other issuers, under which tokens are given."""
        self._rules = {rule.mark: rule for rule in rules}
        self._path = path
        self._clock = clock
        self._known: OrderedDict[bytes, AccessToken] = OrderedDict()
        self._stamp: tuple[int, ...] = ()  # of the keys that verified them

    @cached_property
    def keys(self) -> "TokenKeys":
        """Raises OSError."""
        from charthouse.auth.keys import TokenKeys  # and with it python-jose and cryptography, 100 ms

        return TokenKeys(self._path)

    def give(self, who: Identity, access: Access, directory: Directory) -> str:
        """For what he showed: a login that lasts, another issuer's token, or the secret of his name."""
        from charthouse.auth import tokens

        if who.rules:
            proof = _UNDER + _NEXT.join(rule.mark for rule in who.rules)
        else:
            proof = self._proof(who.name, directory) + (_OF_LOGIN + who.login if who.login else "")
        return tokens.make(self.keys.signing, who.name, proof, access, self._clock(), who.until)

    def lifetime(self, who: Identity) -> int:
        """Seconds that a token for him is good, its leeway left out where less would be left than clients believe."""
        from charthouse.auth.tokens import LIFETIME

        return int(max(SHORTEST, min(LIFETIME, who.until - self._clock())))

    def rules_of(self, token: "AccessToken") -> Sequence[Rule]:
        """Under which it was given; empty when one of them is another one now."""
        marks = token.shown.removeprefix(_UNDER).split(_NEXT) if token.shown.startswith(_UNDER) else []
        return [self._rules[mark] for mark in marks] if all(mark in self._rules for mark in marks) else []

    def known(self, header: str, directory: Directory) -> "AccessToken | None":
        """What a token says that was verified before and is good still. None also for what is no token."""
        if not self._known or not is_bearer(header):
            return None
        token = self._known.get(_mark(header))
        if token is None or self.keys.stamp != self._stamp:
            return None
        return token if self._clock() <= token.expires and self._holds(token, directory) else None

    def take(self, header: str, directory: Directory) -> "AccessToken":
        """What the token of a Bearer header says. Raises UNAUTHORIZED."""
        from charthouse.auth import tokens

        if (known := self.known(header, directory)) is not None:
            return known
        try:
            token = tokens.verify(bearer_token(header), self.keys.find, self._clock())
        except tokens.TokenInvalid as error:
            raise Unauthorized(f"{error}: sign in again") from None
        if not self._holds(token, directory):
            raise Unauthorized("what the token was given for is not good any more: sign in again")
        self._remember(_mark(header), token)
        return token

    def _holds(self, token: "AccessToken", directory: Directory) -> bool:
        """Whether what the token was given for is good still."""
        if token.shown.startswith(_UNDER):
            rules = self.rules_of(token)
            return bool(rules) and all(rule.is_good(directory) for rule in rules)
        proof, _, login = token.shown.partition(_OF_LOGIN)
        return proof == self._proof(token.subject, directory) and login not in directory.ended_logins

    def _proof(self, name: str, directory: Directory) -> str:
        """What stands in a token for the secret it was given for."""
        if (api_token := directory.token_of(name)) is not None:
            return "" if api_token.has_ended(int(self._clock() * 1000)) else api_token.hash[:MARK_SIZE]
        user = directory.users.get(name)
        return user.mark if user and not user.is_disabled else ""

    def _remember(self, mark: bytes, token: "AccessToken") -> None:
        if self.keys.stamp != self._stamp:
            self._known.clear()
            self._stamp = self.keys.stamp
        remember(self._known, mark, token, KNOWN_LIMIT)


def bearer_token(header: str) -> str:
    return header[len(_SCHEME) :].strip()


def is_bearer(header: str) -> bool:
    return header[: len(_SCHEME)].lower() == _SCHEME


def _mark(header: str) -> bytes:
    return hashlib.sha256(header.encode("latin-1", "replace")).digest()
