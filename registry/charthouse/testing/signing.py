"""Keys that sign charts as `helm package --sign` does. Needs `pip install 'charthouse[provenance]'`."""

import dataclasses
import hashlib
from pathlib import Path

import pysequoia

from charthouse.testing.charts import ChartArchive


class SigningKey:
    """`keyring` is what others verify with: `helm verify --keyring`."""

    def __init__(self, user: str = "Charthouse's tests <tests@charthouse.example>") -> None:
        # Helm reads no newer profile.
        self._key = pysequoia.Tsk.generate(user_id=user, profile=pysequoia.Profile.RFC4880)
        self.keyring = bytes(self._key.extract_certificate())

    def write_keyring(self, path: Path) -> Path:
        path.write_bytes(self.keyring)
        return path

    def sign(self, archive: ChartArchive, chart_yaml: bytes) -> ChartArchive:
        return dataclasses.replace(archive, provenance=self.provenance(chart_yaml, archive.filename, archive.content))

    def provenance(self, chart_yaml: bytes, filename: str, content: bytes) -> bytes:
        """The text of a .prov file."""
        digest = hashlib.sha256(content).hexdigest()
        statement = chart_yaml + f"\n...\nfiles:\n  {filename}: sha256:{digest}\n".encode()
        return pysequoia.sign(self._key.signer(), statement, mode=pysequoia.SignatureMode.CLEAR)
