"""Charts without the helm binary: what `make_chart` gives, Helm packs, lints, installs and verifies like any other."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charthouse.helm.sources import tar_of

if TYPE_CHECKING:
    from charthouse.testing.signing import SigningKey

TEMPLATE = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-{{ .Chart.Name }}
data:
  version: {{ .Chart.Version | quote }}
"""

_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no system
_STORED = 0xFFFF  # bytes of a block that is not compressed

Content = str | bytes | Mapping[str, Any]  # a mapping is written as YAML


@dataclass(frozen=True, slots=True)
class ChartArchive:
    """A chart as `helm package` leaves it: `<name>-<version>.tgz`, and its .prov when it was signed."""

    name: str
    version: str
    content: bytes
    provenance: bytes | None = None

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.tgz"

    def write(self, folder: Path) -> Path:
        """Into that folder, with the .prov beside it. Returns the archive's path."""
        path = Path(folder) / self.filename
        path.write_bytes(self.content)
        if self.provenance is not None:
            path.with_name(f"{path.name}.prov").write_bytes(self.provenance)
        return path


def make_chart(
    name: str,
    version: str,
    *,
    values: Content | None = None,
    templates: Mapping[str, Content] | None = None,
    files: Mapping[str, Content] | None = None,
    dependencies: Iterable[ChartArchive | Mapping[str, Any]] = (),
    signed_by: "SigningKey | None" = None,
    **metadata: Any,
) -> ChartArchive:
    """A chart, byte for byte the same for the same words on every machine (but a signature has its time in it).

    `templates` are named below templates/, `files` from the chart's folder; without `templates` it has one config map.
    A dependency that is a chart goes into charts/, one that is a mapping (name, version, repository) is only named.
    `metadata` are further fields of Chart.yaml. What is wrong on purpose is written as it is given.
    """
    dependencies = list(dependencies)
    chart: dict[str, Any] = {"apiVersion": "v2", "name": name, "version": version, "description": f"The chart {name}"}
    named = [_named(dependency) for dependency in dependencies]
    chart |= {"dependencies": named} if named else {}
    contents: dict[str, Content] = {"Chart.yaml": chart | metadata, "values.yaml": {} if values is None else values}
    contents |= {f"templates/{path}": text for path, text in _templates(templates).items()}
    contents |= {f"charts/{each.filename}": each.content for each in dependencies if isinstance(each, ChartArchive)}
    contents |= files or {}
    written = {path: _bytes(content) for path, content in contents.items()}
    archive = ChartArchive(name, version, _gzip(tar_of(name, written)))
    return archive if signed_by is None else signed_by.sign(archive, written["Chart.yaml"])


def _templates(templates: Mapping[str, Content] | None) -> Mapping[str, Content]:
    return {"config.yaml": TEMPLATE} if templates is None else templates


def _named(dependency: ChartArchive | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(dependency, ChartArchive):
        return {"name": dependency.name, "version": dependency.version, "repository": ""}
    return dict(dependency)


def _bytes(content: Content) -> bytes:
    if isinstance(content, Mapping):
        import yaml  # `charthouse exec` makes no charts before its command runs

        return yaml.safe_dump(dict(content), sort_keys=False).encode()
    return content.encode() if isinstance(content, str) else content


def _gzip(content: bytes) -> bytes:
    """Not compressed: what compressed bytes are differs between releases of zlib and of Python."""
    return b"".join([_GZIP_HEADER, *_stored(content), struct.pack("<II", zlib.crc32(content), len(content))])


def _stored(content: bytes) -> Iterator[bytes]:
    """RFC 1951, 3.2.4."""
    for start in range(0, len(content), _STORED):
        block = content[start : start + _STORED]
        is_last = start + _STORED >= len(content)
        yield struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
