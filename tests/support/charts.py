"""Small charts that the tests make, and the key that signs them."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pysequoia
import yaml

TEMPLATE = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-settings
data:
  greeting: {{ .Values.greeting | quote }}
"""


def files(name: str, version: str, **fields: Any) -> dict[str, bytes]:
    """A chart's files by their paths in its folder; `fields` are further ones of its Chart.yaml."""
    chart = {"apiVersion": "v2", "name": name, "version": version, "description": f"The chart {name}", **fields}
    return {
        "Chart.yaml": yaml.safe_dump(chart).encode(),
        "values.yaml": f"greeting: hello from {name} {version}\n".encode(),
        "README.md": f"# {name}\n".encode(),
        "templates/settings.yaml": TEMPLATE.encode(),
    }


def write(folder: Path, name: str, version: str, **fields: Any) -> Path:
    """The chart as a folder, as somebody writes it. Returns the folder."""
    for path, content in files(name, version, **fields).items():
        target = folder / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder / name


def pack(folder: Path, name: str, version: str, **fields: Any) -> Path:
    """The chart as `helm package` names it. The same chart has the same bytes every time."""
    archive = folder / f"{name}-{version}.tgz"
    archive.write_bytes(gzip.compress(_tar(name, files(name, version, **fields)), mtime=0))
    return archive


def layer(folder: Path, name: str) -> Path:
    """A tar file to make a container image of."""
    path = folder / f"{name}.tar"
    path.write_bytes(_tar(name, {"content": name.encode() * 4000}))
    return path


def _tar(name: str, contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in contents.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Signer:
    """Signs as `helm package --sign` does; `keyring` is what others verify with."""

    def __init__(self, folder: Path) -> None:
        self._key = pysequoia.Tsk.generate(
            user_id="Charthouse's tests <tests@charthouse.example>", profile=pysequoia.Profile.RFC4880
        )
        self.keyring = folder / "keyring.gpg"
        self.keyring.write_bytes(self.public_key)

    @property
    def public_key(self) -> bytes:
        return bytes(self._key.extract_certificate())

    @property
    def secret_key(self) -> bytes:
        return bytes(self._key)

    def sign(self, archive: Path) -> Path:
        """The provenance file, beside the archive."""
        with tarfile.open(archive) as tar:
            metadata = next(tar.extractfile(entry) for entry in tar if entry.name.count("/") == 1).read()
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        statement = metadata + f"\n...\nfiles:\n  {archive.name}: sha256:{digest}\n".encode()
        provenance = archive.with_name(f"{archive.name}.prov")
        provenance.write_bytes(pysequoia.sign(self._key.signer(), statement, mode=pysequoia.SignatureMode.CLEAR))
        return provenance
