"""The folder of a distribution, written without one. Source: distribution, `registry/storage/paths.go`."""

from pathlib import Path

from charthouse.names import Digest


class DistributionFolder:
    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def _v2(self) -> Path:
        return self.root / "docker/registry/v2"

    def repository(self, name: str) -> Path:
        return self._v2 / "repositories" / name

    def data(self, digest: Digest) -> Path:
        return self._v2 / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex / "data"

    def layer_link(self, name: str, digest: Digest) -> Path:
        return self.repository(name) / "_layers" / digest.algorithm / digest.hex / "link"

    def revision_link(self, name: str, digest: Digest) -> Path:
        return self.repository(name) / "_manifests/revisions" / digest.algorithm / digest.hex / "link"

    def tag_link(self, name: str, tag: str) -> Path:
        return self.repository(name) / "_manifests/tags" / tag / "current/link"

    def add_blob(self, name: str, content: bytes) -> None:
        digest = Digest.of(content)
        write(self.data(digest), content)
        write(self.layer_link(name, digest), digest.encode())

    def add_manifest(self, name: str, content: bytes, *tags: str) -> None:
        digest = Digest.of(content)
        write(self.data(digest), content)
        write(self.revision_link(name, digest), digest.encode())
        for tag in tags:
            write(self.tag_link(name, tag), digest.encode())
            index = self.tag_link(name, tag).parents[1] / "index" / digest.algorithm / digest.hex / "link"
            write(index, digest.encode())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
