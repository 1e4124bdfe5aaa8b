"""Tokens that others issued, verified with their keys: what such a token allows is what it says, within what its issuer
may allow, until it expires.

Source: distribution, docs/content/spec/auth/jwt.md.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from charthouse.auth import scope
from charthouse.auth.access_tokens import KNOWN_LIMIT
from charthouse.auth.identity import Identity
from charthouse.auth.issuers import Issuer
from charthouse.auth.methods import remember
from charthouse.clocks import Clock
from charthouse.errors import Unauthorized

if TYPE_CHECKING:
    from charthouse.auth.key_sets import KeySet
    from charthouse.auth.tokens import Claims

SUBJECT_LIMIT = 512  # characters


class ExternalTokens:
    def __init__(self, issuers: Sequence[Issuer], clock: Clock, steady: Clock) -> None:
        """`steady` is a clock that nobody sets."""
        self._issuers = {each.issuer: each for each in issuers}
        self._clock = clock
        self._steady = steady
        self._known: OrderedDict[bytes, tuple[Identity, float, KeySet, int]] = OrderedDict()

    @cached_property
    def _keys(self) -> "dict[str, KeySet]":
        from charthouse.auth.key_sets import open_key_set  # and with it python-jose and cryptography, 100 ms

        return {issuer: open_key_set(each.jwks, each.name, self._steady) for issuer, each in self._issuers.items()}

    async def begin(self) -> None:
        """Fetches keys before somebody waits for them, and says early which cannot be fetched."""
        await asyncio.gather(*(keys.look_for("") for keys in self._keys.values()))

    def close(self) -> None:
        for keys in self._keys.values() if self._issuers else ():
            keys.close()

    def known(self, text: str) -> Identity | None:
        """Whom a token shows that was verified before and is good still."""
        if not self._known or (found := self._known.get(_mark(text))) is None:
            return None
        who, expires, keys, version = found
        return who if self._clock() <= expires and keys.version == version else None

    async def take(self, text: str) -> Identity | None:
        """Whom the token shows; None for one that is of nobody here. Raises UNAUTHORIZED."""
        if not self._issuers:
            return None
        if (known := self.known(text)) is not None:
            return known
        from charthouse.auth.tokens import LEEWAY, claimed

        issuer = self._issuers.get(claimed(text)[0])
        if issuer is None:
            return None
        keys = self._keys[issuer.issuer]
        claims = await self._verified(text, issuer, keys)
        subject = claims["sub"] and f"{issuer.name}:{claims['sub']}"
        who = Identity(subject, scope.from_claim(claims.get("access")), rules=(issuer.bound,))
        remember(self._known, _mark(text), (who, claims["exp"] + LEEWAY, keys, keys.version), KNOWN_LIMIT)
        return who

    async def _verified(self, text: str, issuer: Issuer, keys: "KeySet") -> "Claims":
        from charthouse.auth import tokens

        await keys.look_for(tokens.claimed(text)[1])
        expected = tokens.Expected(issuer.issuer, issuer.audiences, issuer.longest)
        try:
            claims = tokens.read(text, keys.find, expected, self._clock())
            _check_subject(claims["sub"])
        except tokens.TokenInvalid as error:
            raise Unauthorized(f"{error} (it says that {issuer.name} issued it)") from None
        return claims


def _check_subject(subject: str) -> None:
    """It stands in the log and in the audit. Raises TokenInvalid."""
    from charthouse.auth.tokens import TokenInvalid

    if len(subject) > SUBJECT_LIMIT or not subject.isprintable():
        raise TokenInvalid(f"the token's sub has more than {SUBJECT_LIMIT} characters, or some that cannot be shown")


def _mark(text: str) -> bytes:
    return hashlib.sha256(text.encode("latin-1", "replace")).digest()
