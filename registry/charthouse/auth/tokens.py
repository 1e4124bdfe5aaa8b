"""Signed tokens, made and verified. The only door to python-jose, which does less than it seems to:

it takes a token without `aud` or `exp` for good, any key of a set whatever `kid` says, headers that nobody knows, and
it measures time with the system's clock. So it signs and compares signatures here, and what a token says is read and
judged below, as strictly as distribution v3 does or more.
Source: RFC 7515 (compact JWS), RFC 7519 (JWT); distribution, docs/content/spec/auth/jwt.md and registry/auth/token.
"""

import json
import math
import re
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from jose import jwk, jws
from jose.backends.base import Key as JoseKey

from charthouse.auth import scope
from charthouse.auth.scope import SERVICE, Access

ISSUER = "charthouse"  # who signs
LIFETIME = 300  # seconds
LEEWAY = 60  # seconds that clocks may differ, as in distribution
TOKEN_LIMIT = 8 * 1024  # characters
KEY_ID_LIMIT = 128  # characters

Claims = Mapping[str, Any]

_COMPACT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384"}  # by curve; an algorithm belongs to a key, never to a token
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512")
_RSA_BITS = 2048


class TokenInvalid(Exception):
    """One line that says what is wrong with a token. It repeats nothing of it."""


class KeyInvalid(Exception):
    """One line that says why a key cannot verify tokens."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that verifies, or signs as well when it was made of a private one."""

    kid: str
    algorithm: str
    prepared: JoseKey = field(repr=False)


FindKey = Callable[[str], Key | None]  # by `kid`


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to say. `longest` is from `iat` to `exp` in seconds; `headers` None is any but `crit`."""

    issuer: str
    audiences: Collection[str]
    longest: int
    required: Collection[str] = ("sub",)
    headers: Collection[str] | None = None


OURS = Expected(ISSUER, (SERVICE,), LIFETIME + LEEWAY, ("sub", "jti", "shown"), ("alg", "typ", "kid"))


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What one of our own access tokens says. The subject is empty for whoever did not say who asks.

    `shown` stands for the secret that the token was given for: when that is another one now, the token is void.
    """

    subject: str
    shown: str
    access: Access
    token_id: str
    expires: float  # Unix seconds, the leeway included


def key(of: Mapping[str, Any]) -> Key:
    """From a JWK (RFC 7517). Raises KeyInvalid: only what has a name and is no shared secret verifies anything."""
    kid = of.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= KEY_ID_LIMIT:
        raise KeyInvalid("a key has no kid")
    algorithm = _algorithm(of)
    try:
        prepared = jwk.construct(dict(of), algorithm)
        too_short = algorithm in _RSA_ALGORITHMS and prepared.prepared_key.key_size < _RSA_BITS
    except Exception:  # noqa: BLE001 - jose raises JWKError, ValueError, TypeError, KeyError, binascii.Error, …
        raise KeyInvalid("a key cannot be read") from None
    if too_short:
        raise KeyInvalid(f"an RSA key has fewer than {_RSA_BITS} bits")
    return Key(kid, algorithm, prepared)


def _algorithm(of: Mapping[str, Any]) -> str:
    if of.get("use", "sig") != "sig":
        raise KeyInvalid("a key is not for signatures")
    kind, named = of.get("kty"), of.get("alg")
    found = _ALGORITHMS.get(str(of.get("crv"))) if kind == "EC" else (named or "RS256") if kind == "RSA" else None
    if found is None or named not in (None, found) or found not in (*_ALGORITHMS.values(), *_RSA_ALGORITHMS):
        raise KeyInvalid("a key is of a kind that is not accepted: use RS256 or ES256")
    return str(found)


def make(key: Key, subject: str, shown: str, access: Access, now: float, until: float = math.inf) -> str:
    """An access token that clients whose clock is behind can use at once. It ends at `until` at the latest."""
    issued = int(now)
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": SERVICE,
        "exp": int(min(issued + LIFETIME, until)),
        "nbf": issued - LEEWAY,
        "iat": issued - LEEWAY,
        "jti": secrets.token_urlsafe(16),
        "access": access.claim,
        "shown": shown,  # a claim of our own: others pass it over
    }
    return str(jws.sign(claims, key.prepared, headers={"kid": key.kid}, algorithm=key.algorithm))


def verify(text: str, find_key: FindKey, now: float) -> AccessToken:
    """What an access token of our own says. Raises TokenInvalid."""
    claims = read(text, find_key, OURS, now)
    access = scope.from_claim(claims.get("access"))
    return AccessToken(claims["sub"], claims["shown"], access, claims["jti"], claims["exp"] + LEEWAY)


def read(text: str, find_key: FindKey, expected: Expected, now: float) -> Claims:
    """The claims of a token that is signed, as expected, and of now. Raises TokenInvalid, whatever the text is."""
    try:
        claims = _signed(text, find_key, expected.headers)
        _judge(claims, expected, now)
    except TokenInvalid:
        raise
    except Exception:  # noqa: BLE001 - hostile bytes: jose, json and numbers raise what they like, RecursionError too
        raise TokenInvalid("the token cannot be read") from None
    return claims


def claimed(text: str) -> tuple[str, str]:
    """Whose token it says it is, `iss`, and signed with which key, `kid`. Nothing of it is proven.

    Empty for whatever is none.
    """
    try:
        _check_form(text)
        header, claims = map(_object, text.split(".")[:2])
    except Exception:  # noqa: BLE001 - likewise
        return "", ""
    issuer, kid = claims.get("iss"), header.get("kid")
    return issuer if isinstance(issuer, str) else "", kid if isinstance(kid, str) else ""


def _signed(text: str, find_key: FindKey, headers: Collection[str] | None) -> Claims:
    _check_form(text)
    header = _object(text.partition(".")[0])
    if "crit" in header or (headers is not None and not set(header) <= set(headers)):
        raise TokenInvalid("the token's header demands what is not known here")
    kid = header.get("kid")
    key = find_key(kid) if isinstance(kid, str) and len(kid) <= KEY_ID_LIMIT else None
    if key is None:
        raise TokenInvalid("the token is signed with a key that is not known here")
    if header.get("alg") != key.algorithm:
        raise TokenInvalid(f"the token is not signed with {key.algorithm}")
    try:
        jws.verify(text, key.prepared, algorithms=[key.algorithm])
    except jws.JWSError:
        raise TokenInvalid("the token's signature is not that of its key") from None
    return _object(text.split(".")[1])


def _check_form(text: str) -> None:
    if len(text) > TOKEN_LIMIT:
        raise TokenInvalid(f"the token has more than {TOKEN_LIMIT:,} characters")
    if not _COMPACT.fullmatch(text):  # jose skips what is no base64
        raise TokenInvalid("the token is not of the form header.claims.signature")


def _object(segment: str) -> dict[str, Any]:
    found = json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    if not isinstance(found, dict):
        raise TokenInvalid("the token cannot be read")
    return found


def _judge(claims: Claims, expected: Expected, now: float) -> None:
    if claims.get("iss") != expected.issuer:
        raise TokenInvalid("the token has another issuer")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(each in expected.audiences for each in named if isinstance(each, str)):
        raise TokenInvalid("the token is for another service")
    if not all(isinstance(claims.get(name), str) for name in expected.required):
        raise TokenInvalid(f"the token must have the claims {', '.join(expected.required)}")
    _judge_times(claims, expected.longest, now)


def _judge_times(claims: Claims, longest: int, now: float) -> None:
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None or issued is None:
        raise TokenInvalid("the token does not say when it was issued and when it expires")
    if now > expires + LEEWAY:
        raise TokenInvalid("the token has expired")
    if issued > now + LEEWAY or (_time(claims, "nbf") or 0) > now + LEEWAY:
        raise TokenInvalid("the token is not valid yet: do the clocks differ?")
    if expires - issued > longest:
        raise TokenInvalid(f"the token is valid for longer than {longest:,} seconds")


def _time(claims: Claims, name: str) -> float | None:
    """Unix seconds. None when it is missing. Raises TokenInvalid for what is no number."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenInvalid(f"the token's {name} is no time")
    return value
