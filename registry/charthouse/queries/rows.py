"""What statements give back, and how text goes into columns."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """`generation` is the repository's, read with the rest; 0 for what is not stored yet.

    `damage` is the digest of what of it is damaged: itself, or a blob or manifest that it names.
    """

    digest: str
    media_type: str
    size: int
    content: bytes
    generation: int = 0
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """`content` when the bytes are kept in the database, else `key` names them in the blob store.

    `unnamed_since` is None while a manifest of the repository names it, and for a blob of no repository in particular.
    `damage` is how its bytes are known not to be what was pushed.
    """

    digest: str
    size: int
    key: str | None
    content: bytes | None
    generation: int = 0
    unnamed_since: int | None = None
    damage: str | None = None

    @property
    def is_sound(self) -> bool:
        return self.damage is None


class Absent(Enum):
    """What is not there of what was asked for."""

    REPOSITORY = auto()
    CONTENT = auto()


class Referrer(NamedTuple):
    """One of up to a thousand on a page."""

    digest: str
    media_type: str
    size: int
    artifact_type: str  # as JSON has it between quotes
    annotations: str  # JSON


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as its manifest's config and layers tell it. `tags` are all that name it, `version` is its own.

    `signature` is what its provenance file was worth when it came, empty when nobody could tell; `signed_by` are lines.
    """

    repository: str
    digest: str
    name: str
    version: str
    app_version: str
    description: str
    deprecated: bool
    config: str
    layer: str
    provenance: str | None
    contents: str
    size: int
    pushed_at: int
    signature: str = ""
    signer: str = ""
    signed_by: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a tag names now. The chart's parts are None when it is none."""

    digest: str
    pushed_at: int
    pushed_by: str
    version: str | None
    config: str | None
    layer: str | None
    provenance: str | None
    contents: str | None

    @property
    def is_chart(self) -> bool:
        return self.layer is not None


def column_text(value: str) -> str:
    """NUL and lone surrogates stay in the manifest's bytes: PostgreSQL has no text with them."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def escaped(value: str) -> str:
    """Text that is given back as it came, as JSON has it in ASCII: a media type, which has no quotes, is itself."""
    return json.dumps(value)[1:-1]
