"""Pull: manifests and blobs."""

import re

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charthouse.errors import BlobDamaged, RangeNotSatisfiable
from charthouse.names import Digest, Reference, RepositoryName
from charthouse.oci.call import Call
from charthouse.oci.errors import NO_SNIFFING
from charthouse.oci.routing import Chapter, Right
from charthouse.pulls import Blob
from charthouse.queries import StoredManifest

chapter = Chapter()

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)

# A blob is whatever somebody pushed: no browser may take it for a page of this origin.
_INERT = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "attachment",
}


_PING = NO_SNIFFING | {"Docker-Distribution-API-Version": "registry/2.0"}


class BlobResponse(Response):
    """Sends a blob's bytes as they are read."""

    def __init__(self, blob: Blob, start: int, length: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers | {"Content-Length": str(length)})
        self._pieces = blob.read(start, length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the ASGI signature
        piece = await anext(self._pieces, b"")  # before the status: a blob that cannot be read is no 200
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        try:
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except BlobDamaged:
            return  # without the rest: the server cuts the connection, and the client sees that bytes are missing
        await send({"type": "http.response.body", "body": b""})


@chapter.route("GET", "/", Right.PING)  # end-1
@chapter.route("GET", "", Right.PING)
@chapter.route("HEAD", "/", Right.PING)
async def ping(_: Call) -> Response:
    return Response(b"{}", media_type="application/json", headers=_PING)


def _blob_at_once(call: Call, repository: RepositoryName, digest: Digest) -> Response | None:
    blob = None if call.is_conditional else call.registry.pulls.get_blob_at_once(repository, digest)
    if blob is None or (content := b"" if call.method == "HEAD" else blob.at_once()) is None:
        return None
    _keep_named(call, repository, blob)
    return Response(content, headers=_blob_headers(blob) | {"Content-Length": str(blob.size)})


def _manifest_at_once(call: Call, repository: RepositoryName, reference: Reference) -> Response | None:
    manifest = None if call.is_conditional else call.registry.pulls.get_manifest_at_once(repository, reference)
    if manifest is None:
        return None
    call.good_for(repository, manifest.generation)
    return Response(manifest.content, headers=_manifest_headers(manifest))


@chapter.route("HEAD", "/{repository}/blobs/{digest}", Right.LOOK, _blob_at_once)  # end-2
async def head_blob(call: Call, repository: RepositoryName, digest: Digest) -> Response:
    blob = await call.registry.pulls.stat_blob(repository, digest)
    _keep_named(call, repository, blob)
    headers = _blob_headers(blob)
    if _is_known(call, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(headers=headers | {"Content-Length": str(blob.size)})


@chapter.route("GET", "/{repository}/blobs/{digest}", Right.PULL, _blob_at_once)  # end-2
async def get_blob(call: Call, repository: RepositoryName, digest: Digest) -> Response:
    blob = await call.registry.pulls.get_blob(repository, digest)
    _keep_named(call, repository, blob)
    headers = _blob_headers(blob)
    if _is_known(call, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    whole = call.headers.get("if-range", headers["ETag"]) != headers["ETag"]  # RFC 9110, 13.1.5
    wanted = None if whole else byte_range(call.headers.get("range", ""), blob.size)
    if wanted is None:
        return BlobResponse(blob, 0, blob.size, 200, headers)
    start, end = wanted
    return BlobResponse(
        blob, start, end - start, 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{blob.size}"}
    )


@chapter.route("HEAD", "/{repository}/manifests/{reference}", Right.LOOK, _manifest_at_once)  # end-3
async def head_manifest(call: Call, repository: RepositoryName, reference: Reference) -> Response:
    manifest = await call.registry.pulls.stat_manifest(repository, reference)
    call.good_for(repository, manifest.generation)
    headers = _manifest_headers(manifest)
    if _is_known(call, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(headers=headers | {"Content-Length": str(manifest.size)})


@chapter.route("GET", "/{repository}/manifests/{reference}", Right.PULL, _manifest_at_once)  # end-3
async def get_manifest(call: Call, repository: RepositoryName, reference: Reference) -> Response:
    manifest = await call.registry.pulls.get_manifest(repository, reference)
    call.good_for(repository, manifest.generation)
    headers = _manifest_headers(manifest)
    if _is_known(call, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(manifest.content, headers=headers)


def _keep_named(call: Call, repository: RepositoryName, blob: Blob) -> None:
    """An answer about a blob that no manifest names is never given again from memory: each extends its grace."""
    if blob.is_named:
        is_read = call.method == "GET" and blob.is_file
        call.good_for(repository, blob.generation, blob.at_once if is_read else None)


def _blob_headers(blob: Blob) -> dict[str, str]:
    return _INERT | {"Docker-Content-Digest": blob.digest, "ETag": f'"{blob.digest}"', "Accept-Ranges": "bytes"}


def _manifest_headers(manifest: StoredManifest) -> dict[str, str]:
    return {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": manifest.digest,
        "ETag": f'"{manifest.digest}"',
        "X-Content-Type-Options": "nosniff",
    }


def _is_known(call: Call, etag: str) -> bool:
    """RFC 9110, 13.1.2."""
    known = [tag.strip().removeprefix("W/") for tag in call.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of a single range; None for the whole, which is also the answer to several ranges.

    Raises a 416 where nothing of it is there (RFC 9110, 14.1.2).
    """
    match = _RANGE.fullmatch(header.strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable(
            f"range {header.strip()!r} asks for bytes that a blob of {size:,} bytes does not have",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end
