"""Manifests and indexes: read from the exact bytes, never written back.

Source: image-spec, `manifest.md`, `image-index.md`, `descriptor.md`; Docker's "Image Manifest Version 2, Schema 2".
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from charthouse.errors import DigestInvalid, ManifestInvalid, ManifestTooLarge
from charthouse.names import Digest, shown

MANIFEST_LIMIT = 4 * 1024 * 1024  # bytes; the specification asks for at least 4 MiB
DESCRIPTOR_LIMIT = 1000  # layers or children of one manifest
SIZE_LIMIT = 2**63 - 1

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
LEGACY_CHART_LAYER = "application/tar+gzip"
PROVENANCE_LAYER = "application/vnd.cncf.helm.chart.provenance.v1.prov"

_IMAGES = {OCI_MANIFEST, DOCKER_MANIFEST}
_INDEXES = {OCI_INDEX, DOCKER_LIST}
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)  # RFC 6838, 4.2
_DOCKER_SCHEMA_1 = ("application/vnd.docker.distribution.manifest.v1+",)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest. `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()

    @property
    def is_elsewhere(self) -> bool:
        """Whether the bytes may be missing here: layers that must not be distributed name the place to get them."""
        return bool(self.urls)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a manifest or index that the registry acts on."""

    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_chart(self) -> bool:
        """A chart is known by its config's media type, never by a layer's position (Helm sorts layers by digest)."""
        return self.config is not None and self.config.media_type == CHART_CONFIG

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return ((self.config,) if self.config else ()) + self.layers

    @property
    def referrer_type(self) -> str:
        """`artifactType` of this manifest in a list of referrers: its own, else its config's media type, else none."""
        return self.artifact_type or (self.config.media_type if self.config else "")

    def chart_layers(self) -> list[Descriptor]:
        return [layer for layer in self.layers if layer.media_type in (CHART_LAYER, LEGACY_CHART_LAYER)]

    def provenance_layers(self) -> list[Descriptor]:
        return [layer for layer in self.layers if layer.media_type == PROVENANCE_LAYER]


def parse(body: bytes, content_type: str) -> Manifest:
    """The manifest in `body`, pushed with `content_type` (without parameters; "" when the client sent none).

    Raises MANIFEST_INVALID, with status 413 when the body is too large.
    """
    if len(body) > MANIFEST_LIMIT:
        raise ManifestTooLarge(f"the manifest has {len(body):,} bytes, at most {MANIFEST_LIMIT:,} are allowed")
    document = _json_object(body)
    media_type = _media_type(document, content_type)
    if isinstance(document.get("layers"), list) and isinstance(document.get("manifests"), list):
        # Two readings of the same bytes: GHSA-qq97-vm5h-rrhg.
        raise ManifestInvalid(
            "the manifest has both 'layers' and 'manifests', so it could be read as an image or as an index"
        )
    if media_type.startswith(_DOCKER_SCHEMA_1):
        raise ManifestInvalid("Docker's manifest schema 1 is not supported: push it again with a Docker newer than 1.9")
    if media_type in _IMAGES | _INDEXES and document.get("schemaVersion") != 2:  # noqa: PLR2004 - the only version there is
        raise ManifestInvalid(f"schemaVersion is {_brief(document.get('schemaVersion'))}, it must be 2")
    manifest = Manifest(
        media_type=media_type,
        config=_optional(document, "config"),
        layers=_descriptors(document, "layers", required=media_type in _IMAGES)
        + _descriptors(document, "blobs", required=False),
        manifests=_descriptors(document, "manifests", required=media_type in _INDEXES),
        subject=_optional(document, "subject"),
        artifact_type=_text(document, "artifactType", "the manifest"),
        annotations=_annotations(document),
    )
    if media_type in _IMAGES and manifest.config is None:
        raise ManifestInvalid("the manifest has no 'config'")
    return manifest


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ManifestInvalid("the manifest is nested too deeply") from None
    except ManifestInvalid:
        raise
    except ValueError as error:  # broken JSON, broken UTF-8, a number of more digits than Python converts
        raise ManifestInvalid(f"the manifest is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ManifestInvalid("the manifest is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that stands twice is read as the first by some parsers and as the last by others."""
    document = dict(pairs)
    if len(document) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ManifestInvalid(f"the key {shown(twice)} stands twice in one object of the manifest")
    return document


def _no_constant(name: str) -> None:
    raise ManifestInvalid(f"the manifest is not valid JSON: {name} is no JSON number")


def _brief(value: object) -> str:
    """A list or an object may be of any depth and length."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else "a list or an object"


def _media_type(document: dict[str, Any], content_type: str) -> str:
    inside = _text(document, "mediaType", "the manifest")
    if inside and content_type and inside != content_type:
        raise ManifestInvalid(
            f"Content-Type is {shown(content_type)} but the manifest's mediaType is {shown(inside)}: send the same"
        )
    if not (content_type or inside):
        raise ManifestInvalid(
            f"the request has no Content-Type and the manifest no mediaType: send one, such as {OCI_MANIFEST}"
        )
    found = content_type or inside
    if not _MEDIA_TYPE.fullmatch(found):
        raise ManifestInvalid(f"{shown(found)} is not a media type such as {OCI_MANIFEST}")
    return found


def _text(document: dict[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ManifestInvalid(f"'{key}' of {where} is not a string")
    return value


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    annotations = document.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ManifestInvalid("'annotations' of the manifest is not an object of strings")
    return annotations


def _optional(document: dict[str, Any], key: str) -> Descriptor | None:
    value = document.get(key)
    return None if value is None else _descriptor(value, f"'{key}'")


def _descriptors(document: dict[str, Any], key: str, *, required: bool) -> tuple[Descriptor, ...]:
    values = document.get(key)
    if values is None and not required:
        return ()
    if not isinstance(values, list):
        raise ManifestInvalid(f"'{key}' of the manifest is not a list")
    if len(values) > DESCRIPTOR_LIMIT:
        raise ManifestInvalid(
            f"'{key}' of the manifest has {len(values):,} entries, at most {DESCRIPTOR_LIMIT:,} are allowed"
        )
    return tuple(_descriptor(value, f"'{key}[{index}]'") for index, value in enumerate(values))


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where} of the manifest is not a descriptor (mediaType, digest, size)")
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= SIZE_LIMIT:
        raise ManifestInvalid(f"'size' of {where} is not a number of bytes between 0 and 2^63-1")
    try:
        digest = Digest.parse(_text(value, "digest", where))
    except DigestInvalid as error:
        raise ManifestInvalid(f"{where}: {error.message}") from None
    return Descriptor(_text(value, "mediaType", where), digest, size, _urls(value, where))


def _urls(value: dict[str, Any], where: str) -> tuple[str, ...]:
    urls = value.get("urls")
    if urls is None:
        return ()
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise ManifestInvalid(f"'urls' of {where} is not a list of strings")
    return tuple(urls)
