"""Repository names, tags, digests and references: parse once at the edge; what has the type is right.

Each is a `str`, so that it goes into SQL, JSON and headers as it is.
Source: distribution-spec, "Pulling manifests"; image-spec, "Digests".
"""

import hashlib
import re
from typing import Self

from charthouse.errors import DigestInvalid, ManifestInvalid, NameInvalid

NAME_LIMIT = 255  # characters, as in distribution and Docker; the specification leaves it to the registry

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_HEX = re.compile(r"[a-f0-9]+")


def shown(value: str, limit: int = 120) -> str:
    """The value as it may stand in a message: quoted, without control characters, cut."""
    return repr(value if len(value) <= limit else value[:limit] + "…")


class RepositoryName(str):
    """`team-a/app`: lower-case components, separated by slashes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NAME_INVALID."""
        if len(text) > NAME_LIMIT:
            raise NameInvalid(
                f"repository name {shown(text)} has {len(text)} characters, at most {NAME_LIMIT} are allowed"
            )
        if not _NAME.fullmatch(text):
            raise NameInvalid(
                f"repository name {shown(text)} is not valid: use lower-case letters and digits, joined by single"
                " '.', '_', '__' or '-', in components separated by '/'"
            )
        return cls(text)

    @property
    def last_component(self) -> str:
        return self.rpartition("/")[2]

    @property
    def parent(self) -> "RepositoryName | None":
        parent = self.rpartition("/")[0]
        return RepositoryName(parent) if parent else None


ROOT = "/"


class Namespace(str):
    """`team-a` covers team-a itself and all that is below it; `/` the repositories that are below nothing."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Slashes around it do not count. Raises NAME_INVALID."""
        return cls(ROOT if text == ROOT else RepositoryName.parse(text.strip("/")))

    @classmethod
    def covering(cls, repository: str) -> "list[Self]":
        """All that cover the repository (or namespace), the nearest first: a longer prefix goes before a shorter."""
        parts = repository.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return [cls(prefix) for prefix in (prefixes if len(parts) > 1 else [repository, ROOT])]


class Digest(str):
    """`sha256:<64 hex>` or `sha512:<128 hex>`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DIGEST_INVALID."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise DigestInvalid(f"digest {shown(text)} is not of the form sha256:<hex>")
        length = _HEX_LENGTH.get(algorithm)
        if length is None:
            raise DigestInvalid(
                f"digest {shown(text)} has the algorithm {shown(algorithm)}; this registry has sha256 and sha512"
            )
        if len(encoded) != length or not _HEX.fullmatch(encoded):
            raise DigestInvalid(
                f"digest {shown(text)} must have {length} lower-case hexadecimal characters after {algorithm}:"
            )
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        return cls(f"{algorithm}:{_HASHES[algorithm](content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]


class Tag(str):
    """At most 128 of `[a-zA-Z0-9._-]`, not beginning with `.` or `-`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises MANIFEST_INVALID: the codes have none for a tag, and this one is what distribution answers."""
        if not _TAG.fullmatch(text):
            raise ManifestInvalid(
                f"tag {shown(text)} is not valid: at most 128 letters, digits, '.', '_' and '-', beginning with a"
                " letter, a digit or '_' (a chart version's + is written _)"
            )
        return cls(text)


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """A digest when it has a colon, which no tag has. Raises DIGEST_INVALID or MANIFEST_INVALID."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)
