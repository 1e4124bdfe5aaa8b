"""Files of blobs that rot on the disk, under a running server: found, never served, healed."""

import contextlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from durability.sizes import Size
from support import forked
from support.requests import image
from support.server import Server, serving

SIZES = (5_000, 20_000, 300_000, 3_000_000)  # read at once, kept in memory or not, and in pieces
REPOSITORIES = ("team-a/one", "team-a/two", "team-b/three")


def flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, dice: random.Random) -> None:
    os.truncate(path, dice.randrange(path.stat().st_size))


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def forget_a_page(path: Path, dice: random.Random) -> None:
    """As file systems do that lost what was written last: the size is right, the bytes are zero."""
    content = bytearray(path.read_bytes())
    start = dice.randrange(0, len(content), 4096)
    end = min(start + 4096, len(content))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, truncate, delete, forget_a_page]


@dataclass
class Stored:
    """What was pushed: layers, and the images that name them, some in several repositories."""

    layers: list[bytes]
    images: dict[str, list[tuple[str, bytes, list[bytes]]]] = field(default_factory=dict)  # by repository

    def naming(self, layer: bytes) -> list[tuple[str, str, bytes, list[bytes]]]:
        """Repository, tag, manifest and its layers."""
        return [
            (repository, tag, body, layers)
            for repository, images in self.images.items()
            for tag, body, layers in images
            if layer in layers
        ]


class Client:
    def __init__(self, server: Server) -> None:
        self._http = httpx.Client(base_url=f"http://{server.host}/v2/", trust_env=False, timeout=60)

    def close(self) -> None:
        self._http.close()

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._http.request(method, path, **options)

    def push(self, repository: str, tag: str, body: bytes, layers: list[bytes]) -> None:
        """As Helm does: nothing that is there already."""
        if self("HEAD", f"{repository}/manifests/{Digest.of(body)}").status_code == 200:
            return
        for content in (b"{}", *layers):
            digest = Digest.of(content)
            if self("HEAD", f"{repository}/blobs/{digest}").status_code != 200:
                done = self("POST", f"{repository}/blobs/uploads/?digest={digest}", content=content)
                assert done.status_code == 201, done.text
        headers = {"Content-Type": OCI_MANIFEST}
        done = self("PUT", f"{repository}/manifests/{tag}", content=body, headers=headers)
        assert done.status_code == 201, done.text


def push_everything(client: Client, dice: random.Random) -> Stored:
    stored = Stored([dice.randbytes(size) for size in SIZES for _ in range(2)])
    for repository in REPOSITORIES:
        stored.images[repository] = []
        for number in range(4):
            layers = dice.sample(stored.layers, 3)
            body = image(b"{}", *layers, annotations={"number": str(number)})
            client.push(repository, f"v{number}", body, layers)
            stored.images[repository].append((f"v{number}", body, layers))
    return stored


def verify(server: Server, *, status: int) -> Any:
    """What the command finds, beside the running server."""
    words = ["verify", "--deep", "--json", "--data", str(server.settings.data)]
    words += ["--database", server.settings.database] if server.settings.database else []
    done = forked.run(*words, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_what_rots_is_found_and_never_served_and_healed_by_the_next_push(
    tmp_path: Path, database_url: str, dice: random.Random, size: Size
):
    counts: Counter[str] = Counter()
    with serving(tmp_path, database=database_url) as server, contextlib.closing(Client(server)) as client:
        stored = push_everything(client, dice)
        pushed = [layer for layer in stored.layers if stored.naming(layer)]
        for _ in range(size.rots):
            layer, damage = dice.choice(pushed), dice.choice(DAMAGES)
            (path,) = (server.settings.data / "blobs").rglob(f"{Digest.of(layer).hex}.*")
            before = path.read_bytes()
            damage(path, dice)
            if path.exists() and path.read_bytes() == before:
                continue  # a page of zeros was one before
            counts[damage.__name__] += 1
            rot_once(client, server, stored, layer, dice, counts)
        assert verify(server, status=0)["damaged"] == []
        files = [file for file in (server.settings.data / "blobs").rglob("*") if file.is_file()]
        assert len(files) == len(pushed)
        said = server.log.read_text()
    print(f"{dict(counts)}; 0 wrong bytes served")
    assert "Traceback" not in said


def rot_once(
    client: Client, server: Server, stored: Stored, layer: bytes, dice: random.Random, counts: Counter[str]
) -> None:
    digest, naming = Digest.of(layer), stored.naming(layer)
    repository = naming[0][0]
    answer = None
    if len(layer) < 1_000_000 and dice.random() < 0.5:  # larger ones begin before their last byte is read
        answer = client("GET", f"{repository}/blobs/{digest}")
    if answer is not None and answer.status_code == 200:
        assert answer.content == layer  # from memory, where nothing rots
        counts["still right in the pull cache"] += 1
    if answer is not None and answer.status_code != 200:
        assert answer.status_code == 500, answer.status_code
        counts["found by a pull"] += 1
    else:
        (found,) = verify(server, status=1)["damaged"]
        assert found["digest"] == digest
        assert sorted(found["versions"]) == sorted(f"{name}:{tag}" for name, tag, *_ in naming)
        counts["found by verify"] += 1
    for name, tag, body, _ in naming:
        for path in (f"blobs/{digest}", f"manifests/{tag}", f"manifests/{Digest.of(body)}"):
            assert client("HEAD", f"{name}/{path}").status_code == 404, path
            assert client("GET", f"{name}/{path}").status_code == 500, path
    for name, images in stored.images.items():
        for tag, body, layers in images:
            if layer not in layers:
                assert client("GET", f"{name}/manifests/{tag}").content == body
    client.push(*dice.choice(naming))
    for name, tag, body, _ in naming:
        assert client("GET", f"{name}/manifests/{tag}").content == body
        assert client("GET", f"{name}/blobs/{digest}").content == layer
    counts["healed"] += 1
