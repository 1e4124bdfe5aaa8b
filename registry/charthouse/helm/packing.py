"""A chart's config blob and manifest, byte for byte as `helm push` makes them.

So that a chart is the same manifest whichever way it came in, and pushing it again the other way changes nothing.
Source: helm.sh/helm/v4 v4.3.1, pkg/registry/client.go (Push), pkg/registry/chart.go, pkg/pusher/ocipusher.go.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from charthouse.helm.metadata import Dependency, Maintainer, Metadata
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, PROVENANCE_LAYER
from charthouse.names import Digest

_TITLE, _VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"


@dataclass(frozen=True, slots=True)
class Packed:
    """The blobs by their digests, and the manifest that names them."""

    blobs: dict[Digest, bytes]
    manifest: bytes


def pack(metadata: Metadata, archive: bytes, provenance: bytes | None, created: datetime) -> Packed:
    """`created` is when the archive was last written; Helm writes it in the local time zone."""
    config = _go_json(_fields(metadata))
    layers = [_descriptor(CHART_LAYER, archive)]
    if provenance is not None:
        layers.append(_descriptor(PROVENANCE_LAYER, provenance))
    manifest = {
        "schemaVersion": 2,
        "config": _descriptor(CHART_CONFIG, config),
        "layers": sorted(layers, key=lambda layer: str(layer["digest"])),
        "annotations": dict(sorted(_annotations(metadata, created).items())),
    }
    contents = [config, archive, *([provenance] if provenance is not None else [])]
    return Packed({Digest.of(content): content for content in contents}, _go_json(manifest))


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def _fields(metadata: Metadata) -> dict[str, Any]:
    """In the order of Helm's struct, without what is empty (pkg/chart/v2/metadata.go)."""
    return _without_empty(
        name=metadata.name,
        home=metadata.home,
        sources=list(metadata.sources),
        version=metadata.version,
        description=metadata.description,
        keywords=list(metadata.keywords),
        maintainers=[_maintainer(each) for each in metadata.maintainers],
        icon=metadata.icon,
        apiVersion=metadata.api_version,
        condition=metadata.condition,
        tags=metadata.tags,
        appVersion=metadata.app_version,
        deprecated=metadata.deprecated,
        annotations=dict(sorted(metadata.annotations.items())),
        kubeVersion=metadata.kube_version,
        dependencies=[_dependency(each) for each in metadata.dependencies],
        type=metadata.type,
    )


def _maintainer(maintainer: Maintainer) -> dict[str, Any]:
    return _without_empty(name=maintainer.name, email=maintainer.email, url=maintainer.url)


def _dependency(dependency: Dependency) -> dict[str, Any]:
    optional = {
        "version": dependency.version,
        "repository": dependency.repository,
        "condition": dependency.condition,
        "tags": list(dependency.tags),
        "enabled": dependency.enabled,
        "import-values": list(dependency.import_values),
        "alias": dependency.alias,
    }
    kept = {name: value for name, value in optional.items() if value or name == "repository"}
    return {"name": dependency.name, **kept}


def _without_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _annotations(metadata: Metadata, created: datetime) -> dict[str, str]:
    """The chart's own may override all but title and version."""
    wanted = {
        "org.opencontainers.image.description": metadata.description,
        _TITLE: metadata.name,
        _VERSION: metadata.version,
        "org.opencontainers.image.url": metadata.home,
        "org.opencontainers.image.created": _rfc3339(created),
        "org.opencontainers.image.source": next(iter(metadata.sources), ""),
        "org.opencontainers.image.authors": ", ".join(_authors(metadata.maintainers)),
    }
    own = {name: value for name, value in metadata.annotations.items() if name not in (_TITLE, _VERSION)}
    return {name: value for name, value in wanted.items() if value.strip()} | own


def _authors(maintainers: Iterable[Maintainer]) -> Iterator[str]:
    for maintainer in maintainers:
        yield maintainer.name + (f" ({maintainer.email})" if maintainer.email else "")


def _rfc3339(moment: datetime) -> str:
    if moment.utcoffset() == UTC.utcoffset(None):
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return moment.isoformat(timespec="seconds")


def _go_json(value: object) -> bytes:
    """As Go's encoding/json writes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()
