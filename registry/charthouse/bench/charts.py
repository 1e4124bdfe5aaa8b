"""What the benchmark pushes: distinct, valid charts of about 5 KB, made in 0.1 ms each."""

import hashlib
import json
import random
import struct
import tarfile
import zlib
from base64 import encodebytes
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from charthouse.helm import inspection, packing
from charthouse.helm.archive import DEFAULT
from charthouse.helm.versions import tag_of
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, OCI_MANIFEST

NAME = "chart"  # the last component of every repository, as the name of a chart must be
CHART_YAML_SIZE = 512  # bytes; the same for all, so that the header in the archive is
PLAIN_CONFIG = "application/vnd.charthouse.bench.config.v1+json"
PLAIN_LAYER = "application/vnd.charthouse.bench.content.v1"

MIB = 1024 * 1024

_BLOCK = bytes(range(256)) * 4096  # 1 MiB
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time
_README_SIZE = 4200  # bytes of random text: gzip leaves about 4.3 KB of it
_README_OF_20_KB = 19_500


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is left to know of a push: where it is, and the digests that a pull compares."""

    repository: str
    tag: str
    manifest: str
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """A push: blobs by digest, then the manifest."""

    stored: Stored
    manifest: bytes
    contents: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LargeBlob:
    """`size` MiB that begin with `mark`, so that no two are the same."""

    repository: str
    mark: str
    size: int

    @property
    def digest(self) -> str:
        algorithm = hashlib.sha256()
        for piece in self.pieces():
            algorithm.update(piece)
        return f"sha256:{algorithm.hexdigest()}"

    def pieces(self) -> Iterator[bytes]:
        mark = self.mark.encode()
        yield mark + _BLOCK[len(mark) :]
        for _ in range(self.size - 1):
            yield _BLOCK


def chart(repository: str, version: str) -> Package:
    """A chart that no other repository and version has a byte sequence of. The repository ends in NAME."""
    metadata = {"apiVersion": "v2", "name": NAME, "version": version, "description": f"pushed to {repository}"}
    return _package(repository, version, metadata, CHART_CONFIG, CHART_LAYER)


def plain(repository: str, tag: str) -> Package:
    """The same bytes under media types that no rule for charts looks at."""
    metadata = {"name": NAME, "version": tag, "description": f"pushed to {repository} as no chart"}
    return _package(repository, tag, metadata, PLAIN_CONFIG, PLAIN_LAYER)


def chart_of_20_kb(repository: str, version: str) -> Package:
    metadata = {"apiVersion": "v2", "name": NAME, "version": version, "description": f"pushed to {repository}"}
    return _package(repository, version, metadata, CHART_CONFIG, CHART_LAYER, _README_OF_20_KB)


def plain_of_20_kb(repository: str, tag: str) -> Package:
    metadata = {"name": NAME, "version": tag, "description": f"pushed to {repository} as no chart"}
    return _package(repository, tag, metadata, PLAIN_CONFIG, PLAIN_LAYER, _README_OF_20_KB)


def real(path: Path, namespace: str, *, as_chart: bool) -> Package | None:
    """Somebody's archive as `helm push` sends it, or as many bytes that are no chart; None for what is none."""
    archive = path.read_bytes()
    metadata = inspection.inspect(archive, DEFAULT).metadata
    if metadata is None:
        return None
    packed = packing.pack(metadata, archive, None, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    repository, tag = f"{namespace}/{metadata.name}", tag_of(metadata.version)
    config, layer = packed.blobs.values()
    if as_chart:
        return Package(
            Stored(repository, tag, digest_of(packed.manifest), (*packed.blobs,)), packed.manifest, (config, layer)
        )
    return _wrapped(repository, tag, config + b" ", layer + b"\0", PLAIN_CONFIG, PLAIN_LAYER)


def referrer(repository: str, number: int, subject: Package) -> Package:
    """A manifest that refers to another, with that one's blobs as no chart: only itself is new."""
    document = json.loads(subject.manifest)
    document["config"]["mediaType"], document["layers"][0]["mediaType"] = PLAIN_CONFIG, PLAIN_LAYER
    document["artifactType"] = PLAIN_LAYER
    document["subject"] = {
        "mediaType": OCI_MANIFEST,
        "digest": subject.stored.manifest,
        "size": len(subject.manifest),
    }
    document["annotations"] = {"charthouse.bench.number": str(number)}
    manifest = json.dumps(document).encode()
    return Package(Stored(repository, "", digest_of(manifest), ()), manifest, ())


def _package(
    repository: str,
    tag: str,
    metadata: dict[str, str],
    config_type: str,
    layer_type: str,
    readme_size: int = _README_SIZE,
) -> Package:
    config = json.dumps(metadata, separators=(",", ":")).encode()
    layer = _archive("".join(f"{key}: {value}\n" for key, value in metadata.items()).encode(), readme_size)
    return _wrapped(repository, tag, config, layer, config_type, layer_type)


def _wrapped(repository: str, tag: str, config: bytes, layer: bytes, config_type: str, layer_type: str) -> Package:
    digests = digest_of(config), digest_of(layer)
    manifest = (
        f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",'
        f'"config":{{"mediaType":"{config_type}","digest":"{digests[0]}","size":{len(config)}}},'
        f'"layers":[{{"mediaType":"{layer_type}","digest":"{digests[1]}","size":{len(layer)}}}],'
        f'"annotations":{{"org.opencontainers.image.title":"{NAME}","org.opencontainers.image.version":"{tag}"}}}}'
    ).encode()
    return Package(Stored(repository, tag, digest_of(manifest), digests), manifest, (config, layer))


def _archive(chart_yaml: bytes, readme_size: int) -> bytes:
    """A .tgz in which only Chart.yaml, its last file, differs: what stands before it is compressed once."""
    start, checksum, size = _beginning(readme_size)
    entry = _chart_yaml_header() + chart_yaml.ljust(CHART_YAML_SIZE, b"\n") + bytes(2 * tarfile.BLOCKSIZE)
    packer = zlib.compressobj(level=1, wbits=-9, memLevel=1)  # the smallest, which begins quickest
    trailer = struct.pack("<II", zlib.crc32(entry, checksum), size + len(entry))
    return start + packer.compress(entry) + packer.flush() + trailer


@cache
def _beginning(readme_size: int) -> tuple[bytes, int, int]:
    """The gzip header and the other files, up to where the deflate stream can go on; their checksum and size."""
    text = encodebytes(random.Random(0).randbytes(readme_size))  # noqa: S311 - text that gzip cannot shorten, no secret
    files = {
        "README.md": text,
        "values.yaml": b"greeting: hello\n",
        "templates/settings.yaml": b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n",
    }
    content = b"".join(_header(name, len(content)) + _padded(content) for name, content in files.items())
    packer = zlib.compressobj(wbits=-15)
    compressed = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    return _GZIP_HEADER + compressed, zlib.crc32(content), len(content)


@cache
def _chart_yaml_header() -> bytes:
    return _header("Chart.yaml", CHART_YAML_SIZE)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(f"{NAME}/{name}")
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)
