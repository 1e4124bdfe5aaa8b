"""The specification's error codes, one class each: status, code and words live here and nowhere else.

Raised where the fact is found out, rendered by one handler (`oci/errors.py`). A subclass with the same code and
another status is for clients that print only the status (Helm 3.8-3.17).
Source: distribution-spec, "Error Codes".
"""

from collections.abc import Mapping
from typing import ClassVar


class RegistryError(Exception):
    """What the caller did wrong, or what is not here.

    `message` is read by a person behind `helm push`: the fact, the values that disagree, what to do; a line per fault.
    `detail` is a string, because Go clients print an object as `map[...]`.
    """

    code: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, message: str, *, detail: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.headers = dict(headers or {})


class BlobUnknown(RegistryError):
    code, status = "BLOB_UNKNOWN", 404


class BlobUploadInvalid(RegistryError):
    code, status = "BLOB_UPLOAD_INVALID", 400


class ChunkOutOfOrder(BlobUploadInvalid):
    """A chunk that does not begin where the last one ended. The upload stays open."""

    status = 416


class BlobUploadUnknown(RegistryError):
    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class DigestInvalid(RegistryError):
    code, status = "DIGEST_INVALID", 400


class ManifestBlobUnknown(RegistryError):
    code, status = "MANIFEST_BLOB_UNKNOWN", 404


class ManifestInvalid(RegistryError):
    code, status = "MANIFEST_INVALID", 400


class ManifestTooLarge(ManifestInvalid):
    status = 413


class ManifestUnknown(RegistryError):
    code, status = "MANIFEST_UNKNOWN", 404


class NameInvalid(RegistryError):
    code, status = "NAME_INVALID", 400


class NameUnknown(RegistryError):
    code, status = "NAME_UNKNOWN", 404


class SizeInvalid(RegistryError):
    code, status = "SIZE_INVALID", 400


class BlobTooLarge(SizeInvalid):
    status = 413


class Unauthorized(RegistryError):
    code, status = "UNAUTHORIZED", 401


class NotLetIn(Unauthorized):
    """A token of another issuer is good, and nobody said what its subject may: `who` he is."""

    def __init__(
        self, message: str, *, who: str = "", detail: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, detail=detail, headers=headers)
        self.who = who


class Denied(RegistryError):
    code, status = "DENIED", 403


class QuotaExceeded(Denied):
    """A namespace or a user has no room for what is pushed. 403, as other registries answer: 413 is one blob's fault,
    429 would have oras send a blob again whose body is spent, and 507 is a full disk."""


class TooManyUploads(Denied):
    """As many bodies of blobs are coming in as may. 403 again, for a PUT of a blob can be answered with no 429."""


class VersionImmutable(Denied):
    """The tag names a released chart version already, with other content."""

    status = 409


class NamespaceConflict(Denied):
    """A setting of a namespace that another place decides."""

    status = 409


class GrantInvalid(Denied):
    """A pattern, an action or a subject that cannot be."""

    status = 400


class UserNameInvalid(RegistryError):
    code, status = "NAME_INVALID", 400


class PasswordInvalid(Unauthorized):
    """Too short, or too long to be hashed."""

    status = 400


class UserUnknown(RegistryError):
    code, status = "NAME_UNKNOWN", 404


class UserExists(Denied):
    """There is one of that name."""

    status = 409


class AdministratorMissing(Denied):
    """Nobody would be there, or is there yet, to administrate."""

    status = 409


class Unsupported(RegistryError):
    code, status = "UNSUPPORTED", 405


class TooManyRequests(RegistryError):
    code, status = "TOOMANYREQUESTS", 429


class RangeNotSatisfiable(RegistryError):
    """A GET asked for bytes that the blob does not have (RFC 9110, 15.5.17). The codes have no word for it."""

    code, status = "SIZE_INVALID", 416


class PaginationInvalid(RegistryError):
    """`n` is no number. The codes have no word for it; distribution uses PAGINATION_NUMBER_INVALID."""

    code, status = "UNSUPPORTED", 400


class TokenRequestInvalid(RegistryError):
    """What was sent to the token service is no request for a token. The codes have no word for it."""

    code, status = "UNSUPPORTED", 400


class BlobDamaged(RegistryError):
    """The bytes of a blob are not what was pushed: an alarm in the log, and never an answer of wrong bytes."""

    code, status = "BLOB_UNKNOWN", 500


class ManifestDamaged(RegistryError):
    """A manifest's own bytes, or a blob or a manifest that it names, are not what was pushed."""

    code, status = "MANIFEST_UNKNOWN", 500


class StorageFull(RegistryError):
    """The disk of the registry is full. Reads and deletes go on."""

    code, status = "DENIED", 507


class Unavailable(RegistryError):
    """The registry cannot answer now, through no fault of the caller."""

    code, status = "UNSUPPORTED", 503


class Misdirected(RegistryError):
    """The request's Host is no name of this registry (DNS rebinding)."""

    code, status = "DENIED", 421


class DatabaseError(Exception):
    """One line about a database that cannot be used. No answer of the API: whoever starts the registry reads it."""


class VaultError(Exception):
    """A backup that cannot be written, read or restored where a person wants it. One line that says what to do."""
