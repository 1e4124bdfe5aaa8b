"""Upload ids, signed with repository and caller: a POST leaves nothing behind, and any worker takes the PUT.

An id is the base64 of 8 bytes of time and 12 random bytes, and of their MAC. Without the key nobody makes one, and with
another repository's or caller's it is as unknown as one that never was (Quay CVE-2026-32589).
"""

import base64
import hashlib
import hmac
import math
import os
import secrets
import struct
from pathlib import Path

from charthouse.errors import BlobUploadUnknown
from charthouse.locks import FileLock
from charthouse.names import RepositoryName

KEY_SIZE = 32
_TIME = struct.Struct(">d")
_BODY_SIZE, _MAC_SIZE = 20, 16


class UploadIds:
    def __init__(self, key: bytes, expiry: int) -> None:
        """`expiry` in seconds."""
        self._key = key
        self._expiry = expiry

    def new(self, repository: RepositoryName, caller: str, now: float) -> str:
        body = _TIME.pack(now) + secrets.token_bytes(_BODY_SIZE - _TIME.size)
        return base64.urlsafe_b64encode(body + self._mac(body, repository, caller)).decode()

    def check(self, upload_id: str, repository: RepositoryName, caller: str, now: float) -> str:
        """The id itself. Raises BLOB_UPLOAD_UNKNOWN for whatever was not made here, for these, and lately."""
        token = _decode(upload_id)
        body, mac = token[:_BODY_SIZE], token[_BODY_SIZE:]
        if not hmac.compare_digest(mac, self._mac(body, repository, caller)) or now > begun(upload_id) + self._expiry:
            raise BlobUploadUnknown(
                "this upload is not known here, or it has expired: begin again with POST /blobs/uploads/"
            )
        return upload_id

    def _mac(self, body: bytes, repository: str, caller: str) -> bytes:
        # BLAKE2 is a MAC by itself (RFC 7693); OpenSSL's HMAC gives the interpreter's lock away for each.
        signed = body + f"{repository}\0{caller}".encode()
        return hashlib.blake2b(signed, key=self._key, digest_size=_MAC_SIZE).digest()


def begun(upload_id: str) -> float:
    """When it was made, in Unix seconds; never, for what is no upload id."""
    body = _decode(upload_id)
    return float(_TIME.unpack_from(body)[0]) if body else math.inf


def _decode(upload_id: str) -> bytes:
    """Empty for what is no upload id. It names a file, so the same bytes in another spelling are no id either."""
    try:
        token = base64.urlsafe_b64decode(upload_id)
    except ValueError:
        return b""
    whole = len(token) == _BODY_SIZE + _MAC_SIZE
    return token if whole and base64.urlsafe_b64encode(token) == upload_id.encode() else b""


def load_key(data: Path, *, durable: bool = True) -> bytes:
    """The data folder's key, made by whoever comes first."""
    with FileLock(data / "upload.key") as file:
        key = os.read(file.fileno(), KEY_SIZE + 1)
        if not key:
            key = secrets.token_bytes(KEY_SIZE)
            os.write(file.fileno(), key)
            if durable:
                os.fsync(file.fileno())
    if len(key) != KEY_SIZE:
        raise OSError(f"{file.path} is damaged: remove it, and unfinished uploads begin again")
    return key
