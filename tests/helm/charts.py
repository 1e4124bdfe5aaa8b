"""Charts for tests: archives built member by member, and the bombs among them."""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping

from charthouse.helm import archive, metadata
from charthouse.helm.inspection import inspect
from charthouse.helm.rules import ChartPush
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, OCI_MANIFEST, PROVENANCE_LAYER, Manifest, parse
from charthouse.names import Digest, RepositoryName, Tag

CHART_YAML = b"apiVersion: v2\nname: app\nversion: 1.2.3\nicon: https://example.com/icon.png\n"


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as writer:
        for info, content in members:
            writer.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def tgz(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    return gzip.compress(tar(members, form), 1, mtime=0)


def chart(files: Mapping[str, bytes] | None = None, *, chart_yaml: bytes = CHART_YAML, top: str = "app") -> bytes:
    """The archive of a chart with these files beside Chart.yaml."""
    return tgz(
        *(member(f"{top}/{path}", content) for path, content in {"Chart.yaml": chart_yaml, **(files or {})}.items())
    )


def manifest(config: bytes, archive: bytes, provenance: bytes | None = None, **changes: object) -> Manifest:
    layers = [descriptor(CHART_LAYER, archive)]
    if provenance is not None:
        layers.insert(0, descriptor(PROVENANCE_LAYER, provenance))
    document = {"schemaVersion": 2, "config": descriptor(CHART_CONFIG, config), "layers": layers, **changes}
    return parse(json.dumps(document).encode(), OCI_MANIFEST)


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def push(
    content: bytes | None = None,
    *,
    config: bytes = b'{"apiVersion":"v2","name":"app","version":"1.2.3","icon":"https://example.com/icon.png"}',
    repository: str = "team/app",
    tag: str | None = "1.2.3",
    provenance: bytes | None = None,
    **facts: object,
) -> ChartPush:
    """A push without fault, but for what is given."""
    content = chart() if content is None else content
    given = {"manifest": manifest(config, content, provenance), **facts}
    return ChartPush(
        repository=RepositoryName.parse(repository),
        config=metadata.from_config(config),
        inspection=inspect(content, archive.DEFAULT),
        provenance=provenance,
        tag=Tag.parse(tag) if tag else None,
        **given,
    )


def provenance_text(files: str, chart_yaml: bytes = CHART_YAML) -> bytes:
    """What is signed in a provenance file."""
    return chart_yaml + b"\n...\nfiles:\n" + files.encode()


def unsigned(files: str) -> bytes:
    """A provenance file whose signature says nothing."""
    body = provenance_text(files).rstrip(b"\n").replace(b"\n-", b"\n- -") + b"\n"
    signature = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"
    return b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + body + signature


class Zeros(io.RawIOBase):
    """A gzip stream of a header and then zeros, made while it is read: 10 GiB cost 10 MiB and no time."""

    def __init__(self, head: bytes, zeros: int) -> None:
        deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._pending = deflater.compress(head)
        self._pending += deflater.flush(zlib.Z_FULL_FLUSH)
        block = bytes(1024 * 1024)
        self._block = deflater.compress(block) + deflater.flush(zlib.Z_FULL_FLUSH)
        self._left = zeros // len(block)
        self.served = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._pending and self._left:
            self._pending, self._left = self._block, self._left - 1
        part = self._pending[: len(buffer)]
        buffer[: len(part)] = part
        self._pending = self._pending[len(part) :]
        self.served += len(part)
        return len(part)
