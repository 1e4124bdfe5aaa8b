"""Makes a data folder with the `charthouse` that this Python imports, packed beside this file, named by its schema.

    PYTHONPATH=<a checkout of that program>/registry python tests/schemas/make.py

`tests/test_schemas.py` opens each with today's program. `pushed.json` in it says what was acknowledged: the paths under
/v2/ with their digests and media types, tags and referrers.
"""

import contextlib
import hashlib
import http.client
import io
import json
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."
HELM = "application/vnd.cncf.helm."
MANIFEST, INDEX = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json"
RESERVE = "reserve"  # 8 MiB of nothing, where the program makes one


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def packed(name: str, version: str, readme: bytes) -> bytes:
    """A chart's archive."""
    files = {
        "Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n".encode(),
        "values.yaml": b"replicas: 1\n",
        "templates/service.yaml": b"kind: Service\n",
        "README.md": readme,
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=0) as archive:  # large here, and small in our file
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


class Client:
    """Pushes, and keeps what was acknowledged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.content: dict[str, tuple[str, str]] = {}  # digest and media type by path
        self.tags: dict[str, dict[str, str]] = {}
        self.referrers: dict[str, list[str]] = {}  # digests by path

    def _send(self, method: str, path: str, body: bytes, media_type: str, status: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request(method, f"/v2/{path}", body, {"Content-Type": media_type})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == status, (method, path, answer.status, said)

    def blob(self, repository: str, content: bytes) -> None:
        path = f"{repository}/blobs/uploads/?digest={digest(content)}"
        self._send("POST", path, content, "application/octet-stream", 201)
        self.content[f"{repository}/blobs/{digest(content)}"] = digest(content), ""

    def manifest(self, repository: str, document: dict[str, Any], tag: str = "") -> bytes:
        """By its digest, where there is no tag."""
        body = json.dumps(document, indent=1).encode()
        self._send("PUT", f"{repository}/manifests/{tag or digest(body)}", body, document["mediaType"], 201)
        found = digest(body), document["mediaType"]
        self.content[f"{repository}/manifests/{digest(body)}"] = found
        if tag:
            self.content[f"{repository}/manifests/{tag}"] = found
            self.tags.setdefault(repository, {})[tag] = digest(body)
        if subject := document.get("subject"):
            self.referrers.setdefault(f"{repository}/referrers/{subject['digest']}", []).append(digest(body))
        return body

    def image(self, repository: str, config: bytes, layers: dict[bytes, str], tag: str = "", **fields: Any) -> bytes:
        for content in (config, *layers):
            self.blob(repository, content)
        config_type = fields.pop("config_type", f"{OCI}config.v1+json")
        described_layers = [described(content, media_type) for content, media_type in layers.items()]
        head = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described(config, config_type)}
        return self.manifest(repository, {**head, "layers": described_layers, **fields}, tag)

    def chart(self, repository: str, version: str, readme: bytes) -> bytes:
        name = repository.rpartition("/")[2]
        config = json.dumps({"apiVersion": "v2", "name": name, "version": version}).encode()
        layers = {packed(name, version, readme): f"{HELM}chart.content.v1.tar+gzip"}
        tag = version.replace("+", "_")
        return self.image(repository, config, layers, tag, config_type=f"{HELM}config.v1+json")


def push(client: Client) -> None:
    """Blobs that are rows, and files, one of them in two repositories; tags, indexes, referrers, what has no tag."""
    small, large = b"# A chart\n", b"# A chart that is a file\n" * 500
    client.chart("team-a/app", "1.0.0", small)
    client.chart("team-a/app", "1.0.1+build.5", large)
    signed = client.chart("team-a/app", "1.1.0", b"# Another\n" * 1_000)
    client.chart("team-b/app", "1.0.1+build.5", large)
    for number in range(2):
        signature = {f"signature {number} ".encode() * 500: f"{OCI}layer.v1.tar+gzip"}
        subject = described(signed, MANIFEST)
        client.image("team-a/app", b"{}", signature, subject=subject, annotations={"number": str(number)})
    children = [
        client.image("tools/run", b"{}", {bytes([number]) * 5_000: f"{OCI}layer.v1.tar"}) for number in range(2)
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(child, MANIFEST) for child in children]}
    client.manifest("tools/run", index, "latest")
    client.manifest("tools/run", {**index, "annotations": {"no": "tag"}})


@contextlib.contextmanager
def serving(data: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "charthouse", "serve", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.terminate()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with serving(data) as port:
            client = Client(port)
            push(client)
        pushed = {"content": client.content, "tags": client.tags, "referrers": client.referrers}
        (data / "pushed.json").write_text(json.dumps(pushed, indent=1))
        (data / RESERVE).unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(data / "charthouse.db")) as database:
            ((revision,),) = database.execute("SELECT version_num FROM alembic_version").fetchall()
        with tarfile.open(Path(__file__).with_name(f"{revision}.tar.gz"), "w:gz") as archive:
            archive.add(data, "data")
        sys.stderr.write(f"{revision}: {len(client.content)} answers\n")


if __name__ == "__main__":
    main()
