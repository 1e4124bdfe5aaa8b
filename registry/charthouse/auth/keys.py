"""The keys that sign access tokens: made at the first start, replaced by `charthouse token-keys rotate`.

They are a file of mode 0600 and not rows, so that no dump or backup of the database can sign anything. Replicas are
given the same file (setting `token_keys`). It is a JWK set (RFC 7517) with the private parts, in this order:

- the key that signs next. It is published a whole rotation before it is used, so that a verifier with a copy of the
  published keys (distribution reads a file, and has no address for them) knows it in time;
- the key that signs now;
- keys that signed before, for as long as one of their tokens may live.
"""

import base64
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from charthouse.auth import tokens
from charthouse.auth.tokens import Key
from charthouse.locks import FileLock

log = logging.getLogger(__name__)

KEPT_AFTER = 2 * (tokens.LIFETIME + tokens.LEEWAY)  # seconds that a key verifies after it last signed

_COORDINATE_SIZE = 32  # bytes
_PUBLIC = ("kty", "crv", "x", "y", "kid", "use", "alg")
_RETIRED = "retired_at"  # Unix seconds; our own member of a JWK, never published

Jwk = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Ring:
    """What the file held. `published` is the JWK set for everybody."""

    signing: Key
    by_id: Mapping[str, Key]
    published: Mapping[str, Sequence[Jwk]]


class TokenKeys:
    """The file's keys, read again when it changes. Raises OSError at first when they cannot be read or made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            make(path)
        self._stamp = stamp_of(path)
        self._ring = _ring(_read(path))

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one after every change of the keys: what was verified before has to be verified again."""
        self._follow()
        return self._stamp

    @property
    def signing(self) -> Key:
        self._follow()
        return self._ring.signing

    @property
    def published(self) -> Mapping[str, Sequence[Jwk]]:
        self._follow()
        return self._ring.published

    def find(self, kid: str) -> Key | None:
        self._follow()
        return self._ring.by_id.get(kid)

    def _follow(self) -> None:
        """A file that went away or is damaged changes nothing until it changes again, and is said once."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._ring = _ring(_read(self._path))
        except OSError as error:
            log.error("the keys of access tokens stay as they were: %s", error)  # noqa: TRY400 - one line


def make(path: Path) -> None:
    """The first keys, unless somebody else was first."""
    with _lock(path):
        if not path.exists():
            _write(path, [_new(), _new()])


def rotate(path: Path, now: float, *, forget: bool = False) -> str:
    """The next key signs from now on. Returns its `kid`.

    `forget` is for keys that somebody stole: none that was there is used again, and access tokens end at once.
    Raises OSError.
    """
    if not path.exists():
        raise OSError(f"there are no keys in {path.absolute()} yet: the first login makes them")
    with _lock(path):
        if forget:
            keys: list[Jwk] = [_new(), _new()]
        else:
            following, signing, *retired = _read(path)
            living = [each for each in retired if each[_RETIRED] + KEPT_AFTER > now]
            keys = [_new(), following, {**signing, _RETIRED: int(now)}, *living]
        _write(path, keys)
    return str(keys[1]["kid"])


def thumbprint(of: Jwk) -> str:
    """RFC 7638 of an EC key. distribution names keys so when it is given certificates."""
    members = {name: of[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _encode(hashlib.sha256(canonical.encode()).digest())


def _new() -> Jwk:
    """A key whose X and Y have no leading zero byte: distribution leaves those out of its thumbprint."""
    while True:
        numbers = ec.generate_private_key(ec.SECP256R1()).private_numbers()
        x, y = (number.to_bytes(_COORDINATE_SIZE) for number in (numbers.public_numbers.x, numbers.public_numbers.y))
        if x[0] and y[0]:
            break
    found = {"kty": "EC", "crv": "P-256", "x": _encode(x), "y": _encode(y)}
    private = {"d": _encode(numbers.private_value.to_bytes(_COORDINATE_SIZE))}
    return {**found, "kid": thumbprint(found), "use": "sig", "alg": "ES256", **private}


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _ring(keys: Sequence[Jwk]) -> _Ring:
    public = [{name: each[name] for name in _PUBLIC} for each in keys]
    return _Ring(tokens.key(keys[1]), {each["kid"]: tokens.key(each) for each in public}, {"keys": public})


def _read(path: Path) -> list[Jwk]:
    """Raises OSError, also for a file of another form."""
    try:
        keys = json.loads(path.read_bytes())["keys"]
        _ring(keys)
    except (ValueError, LookupError, TypeError, tokens.KeyInvalid):
        raise OSError(
            f"{path} is damaged: restore it, or remove it and restart, and clients fetch new access tokens"
        ) from None
    return list(keys)


def _write(path: Path, keys: Sequence[Jwk]) -> None:
    """Whole or not at all, for its owner alone from the first byte on."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(json.dumps({"keys": keys}).encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    if sys.platform != "win32":  # or the keys that were to be forgotten could come back after a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(path.name + ".lock"))


def stamp_of(path: Path) -> tuple[int, ...]:
    """Another one for another content; empty for no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
