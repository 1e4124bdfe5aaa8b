"""Secrets that a client presents as they are: API tokens, and refresh tokens of a login.

`cht_` or `chr_`, 32 random bytes as 43 letters and digits, and 6 more that are their CRC-32: a secret scanner finds one
by `\\bch[tr]_[0-9A-Za-z]{49}\\b`, and what was cut or mistyped is told from what was revoked. Only the SHA-256 is kept;
there is enough chance in them that nothing slower would protect them better.
"""

import hashlib
import hmac
import re
import secrets
import zlib

API, REFRESH = "cht_", "chr_"

_SECRET_SIZE = 32  # bytes
_SECRET_LENGTH, _CHECKSUM_LENGTH = 43, 6  # characters
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(rf"(?:{API}|{REFRESH})[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)


def new(prefix: str) -> str:
    body = prefix + _digits(int.from_bytes(secrets.token_bytes(_SECRET_SIZE)), _SECRET_LENGTH)
    return body + _checksum(body)


def is_one(text: str, prefix: str) -> bool:
    """Whether the text is a whole token of that kind; not whether anybody was given it."""
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    return text.startswith(prefix) and bool(_FORM.fullmatch(text)) and _checksum(body) == checksum


def hashed(text: str) -> str:
    """What is kept of it, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def matches(text: str, kept: str) -> bool:
    return hmac.compare_digest(hashed(text), kept)


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _digits(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
