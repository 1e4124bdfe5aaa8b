"""What the tests of the registry API send: manifests made of descriptors, and requests to one repository."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from charthouse.app import Application
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}  # distribution-spec, "Error Codes"


def descriptor(content: bytes, media_type: str = LAYER_TYPE, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content), **fields}


def encoded(document: Any) -> bytes:
    """Not as our own code would write it, so that nobody can write it again without being noticed."""
    return json.dumps(document, indent=1).encode() + b"\n"


def image(config: bytes = b"{}", /, *layers: bytes, **fields: Any) -> bytes:
    """An image manifest; a field that is None is left out."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG_TYPE),
        "layers": [descriptor(layer) for layer in layers],
        **fields,
    }
    return encoded({key: value for key, value in document.items() if value is not None})


def index(*manifests: bytes, media_type: str = OCI_MANIFEST, **fields: Any) -> bytes:
    children = [descriptor(manifest, media_type) for manifest in manifests]
    return encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **fields})


@dataclass(frozen=True)
class Remote:
    """One repository as a client sees it. Paths are those after `/v2/<name>/`."""

    client: httpx.AsyncClient
    name: str

    def url(self, path: str) -> str:
        return f"/v2/{self.name}/{path}"

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, self.url(path), **options)

    async def start_upload(self) -> str:
        """The new upload's Location."""
        response = await self.call("POST", "blobs/uploads/")
        assert response.status_code == 202, response.text
        return response.headers["location"]

    async def patch(self, location: str, content: bytes, chunk: str | None = None) -> httpx.Response:
        headers = {"Content-Range": chunk} if chunk else {}
        return await self.client.patch(location, content=content, headers=headers)

    async def finish(
        self, location: str, digest: str, content: bytes = b"", chunk: str | None = None
    ) -> httpx.Response:
        headers = {"Content-Range": chunk} if chunk else {}
        return await self.client.put(location, params={"digest": digest}, content=content, headers=headers)

    async def push_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(content, algorithm)
        response = await self.finish(await self.start_upload(), digest, content)
        assert response.status_code == 201, response.text
        return digest

    async def put_manifest(
        self, body: Any, reference: str | None = None, media_type: str | None = OCI_MANIFEST, query: str = ""
    ) -> httpx.Response:
        """By its digest, when no reference is given."""
        headers = {"Content-Type": media_type} if media_type else {}
        path = f"manifests/{reference or Digest.of(body)}{query}"
        return await self.call("PUT", path, content=body, headers=headers)

    async def push_manifest(self, body: bytes, reference: str | None = None, media_type: str = OCI_MANIFEST) -> Digest:
        response = await self.put_manifest(body, reference, media_type)
        assert response.status_code == 201, response.text
        return Digest(response.headers["docker-content-digest"])

    async def push_image(self, tag: str | None = None, **fields: Any) -> bytes:
        """An image with an empty config. Returns its manifest."""
        await self.push_blob(b"{}")
        body = image(**fields)
        await self.push_manifest(body, tag)
        return body

    async def push_index(self, *manifests: bytes, tag: str | None = None, **fields: Any) -> bytes:
        body = index(*manifests, **fields)
        await self.push_manifest(body, tag, OCI_INDEX)
        return body

    async def statuses(self, *paths: str) -> list[int]:
        return [(await self.call("HEAD", path)).status_code for path in paths]


@contextlib.asynccontextmanager
async def running(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """The application, started, and requests that go straight into it."""
    async with app.lifespan():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5000") as client:
            yield client


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for part in parts:
        yield part


def error_of(response: httpx.Response, status: int, code: str) -> str:
    """The message of an error that looks as the specification demands: for a person, without a word of our insides."""
    assert response.status_code == status, (response.status_code, response.text[:300])
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"errors"}
    (error,) = document["errors"]
    assert error["code"] == code in CODES
    assert set(error) <= {"code", "message", "detail"}
    message: str = error["message"]
    assert len(message) > 10
    assert not any(
        word in message
        for word in ("Traceback", "Error:", "sqlite", "asyncpg", "charthouse.", "<class", "object at 0x")
    )
    return message
