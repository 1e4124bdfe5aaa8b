"""Tokens that others issued, verified with their keys.

A registry token is taken as it is: what it allows is what it says, within what its issuer may allow, until it expires.
A workload's token says who somebody is, and is changed at the token service under the rules on its claims.
Source: distribution, docs/content/spec/auth/jwt.md; OpenID Connect Core 1.0, 2 and 3.1.3.7.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from charthouse.auth import scope
from charthouse.auth.access import Directory
from charthouse.auth.access_tokens import KNOWN_LIMIT
from charthouse.auth.identity import Identity
from charthouse.auth.issuers import Issuer
from charthouse.auth.methods import remember
from charthouse.clocks import Clock
from charthouse.errors import NotLetIn, Unauthorized

if TYPE_CHECKING:
    from charthouse.auth.key_sets import KeySet
    from charthouse.auth.tokens import Claims

SUBJECT_LIMIT = 512  # characters


class ExternalTokens:
    def __init__(self, issuers: Sequence[Issuer], clock: Clock, steady: Clock) -> None:
        """`steady` is a clock that nobody sets."""
        self._of_tokens = {each.issuer: each for each in issuers if each.bound}
        self._of_workloads = {each.issuer: each for each in issuers if each.rules}
        self._issuers = issuers
        self._clock = clock
        self._steady = steady
        self._known: OrderedDict[bytes, tuple[Identity, float, KeySet, int]] = OrderedDict()

    @cached_property
    def _keys(self) -> "dict[str, KeySet]":
        from charthouse.auth.key_sets import open_key_set  # and with it python-jose and cryptography, 100 ms

        return {each.name: open_key_set(each.jwks, each.name, self._steady) for each in self._issuers}

    async def begin(self) -> None:
        """Fetches keys before somebody waits for them, and says early which cannot be fetched."""
        await asyncio.gather(*(keys.look_for("") for keys in self._keys.values()))

    def close(self) -> None:
        for keys in self._keys.values() if "_keys" in vars(self) else ():  # nothing is opened to be closed
            keys.close()

    def known(self, text: str) -> Identity | None:
        """Whom a token shows that was verified before and is good still."""
        if not self._known or (found := self._known.get(_mark(text))) is None:
            return None
        who, expires, keys, version = found
        return who if self._clock() <= expires and keys.version == version else None

    async def take(self, text: str) -> Identity | None:
        """Whom the registry token shows; None for one that is of nobody here. Raises UNAUTHORIZED."""
        if (known := self.known(text)) is not None:
            return known
        issuer = _issuer(text, self._of_tokens)
        if issuer is None or issuer.bound is None:
            return None
        from charthouse.auth.tokens import LEEWAY

        claims = await self._verified(text, issuer)
        subject = claims["sub"] and f"{issuer.name}:{claims['sub']}"
        who = Identity(subject, scope.from_claim(claims.get("access")), rules=(issuer.bound,))
        keys = self._keys[issuer.name]
        remember(self._known, _mark(text), (who, claims["exp"] + LEEWAY, keys, keys.version), KNOWN_LIMIT)
        return who

    async def exchange(self, text: str, directory: Directory) -> Identity | None:
        """Whom the workload's token shows; None for one that is of nobody here. Raises UNAUTHORIZED.

        All rules that let him in count together.
        """
        issuer = _issuer(text, self._of_workloads)
        if issuer is None:
            return None
        claims = await self._verified(text, issuer)
        if not claims["sub"]:
            raise Unauthorized(f"the token does not say who shows it (it says that {issuer.name} issued it)")
        name = f"{issuer.name}:{claims['sub']}"
        rules = tuple(rule for rule in issuer.rules if rule.lets_in(claims, directory))
        if not rules:
            raise NotLetIn(f"no rule of the issuer {issuer.name} lets {claims['sub']} in", who=name)
        return Identity(name, rules=rules, until=claims["exp"])

    async def _verified(self, text: str, issuer: Issuer) -> "Claims":
        from charthouse.auth import tokens

        keys = self._keys[issuer.name]
        await keys.look_for(tokens.claimed(text)[1])
        expected = tokens.Expected(issuer.issuer, issuer.audiences, issuer.longest)
        try:
            claims = tokens.read(text, keys.find, expected, self._clock())
            _check_subject(claims["sub"])
        except tokens.TokenInvalid as error:
            raise Unauthorized(f"{error} (it says that {issuer.name} issued it)") from None
        return claims


def _issuer(text: str, issuers: Mapping[str, Issuer]) -> Issuer | None:
    """Whose token it says it is."""
    if not issuers:
        return None
    from charthouse.auth.tokens import claimed

    return issuers.get(claimed(text)[0])


def _check_subject(subject: str) -> None:
    """It stands in the log and in the audit. Raises TokenInvalid."""
    from charthouse.auth.tokens import TokenInvalid

    if len(subject) > SUBJECT_LIMIT or not subject.isprintable():
        raise TokenInvalid(f"the token's sub has more than {SUBJECT_LIMIT} characters, or some that cannot be shown")


def _mark(text: str) -> bytes:
    return hashlib.sha256(text.encode("latin-1", "replace")).digest()
