"""Push: blobs in one or many requests, mounts, manifests."""

from starlette.responses import Response

from charthouse.errors import DigestInvalid, NameInvalid
from charthouse.manifest import MANIFEST_LIMIT
from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.oci.call import Call
from charthouse.oci.routing import Chapter, Right

chapter = Chapter()


def _start_upload_at_once(call: Call, repository: RepositoryName) -> Response | None:
    if call.has_body or call.scope["query_string"]:
        return None
    upload_id = call.registry.start_upload_at_once(repository, call.caller)
    return None if upload_id is None else _accepted(repository, upload_id, 0)


@chapter.route("POST", "/{repository}/blobs/uploads/", Right.PUSH, _start_upload_at_once)  # end-4a, end-4b, end-11
@chapter.route("POST", "/{repository}/blobs/uploads", Right.PUSH, _start_upload_at_once)
async def start_upload(call: Call, repository: RepositoryName) -> Response:
    digest, mount = call.parameter("digest"), call.parameter("mount")
    if digest is not None:
        pushed = Digest.parse(digest)
        await call.registry.push_blob(repository, call.caller, pushed, call.pieces(), call.length)
        return _created(repository, pushed)
    if mount is not None:
        source = call.parameter("from")
        wanted = Digest.parse(mount)
        if await call.registry.mount_blob(repository, wanted, _source(source) if source else None, call.caller):
            return _created(repository, wanted)
    return _accepted(repository, await call.registry.start_upload(repository, call.caller), 0)


@chapter.route("GET", "/{repository}/blobs/uploads/{upload_id}", Right.PUSH)  # end-13
async def get_upload(call: Call, repository: RepositoryName, upload_id: str) -> Response:
    offset = await call.registry.upload_offset(repository, upload_id, call.caller)
    return _accepted(repository, upload_id, offset, status=204)


@chapter.route("PATCH", "/{repository}/blobs/uploads/{upload_id}", Right.PUSH)  # end-5
async def append(call: Call, repository: RepositoryName, upload_id: str) -> Response:
    offset = await call.registry.append(
        repository, upload_id, call.caller, call.pieces(), call.content_range, call.length
    )
    return _accepted(repository, upload_id, offset)


@chapter.route("PUT", "/{repository}/blobs/uploads/{upload_id}", Right.PUSH)  # end-6
async def finish_upload(call: Call, repository: RepositoryName, upload_id: str) -> Response:
    wanted = call.parameter("digest")
    if wanted is None:
        raise DigestInvalid("the request that ends an upload needs the blob's digest: add ?digest=sha256:<hex>")
    digest = Digest.parse(wanted)
    await call.registry.finish_upload(
        repository, upload_id, call.caller, digest, call.pieces(), call.content_range, call.length
    )
    return _created(repository, digest)


@chapter.route("DELETE", "/{repository}/blobs/uploads/{upload_id}", Right.PUSH)  # end-14
async def cancel_upload(call: Call, repository: RepositoryName, upload_id: str) -> Response:
    await call.registry.cancel_upload(repository, upload_id, call.caller)
    return Response(status_code=204)


@chapter.route("PUT", "/{repository}/manifests/{reference}", Right.PUSH)  # end-7a, end-7b
async def put_manifest(call: Call, repository: RepositoryName, reference: Reference) -> Response:
    tags = [Tag.parse(tag) for tag in call.parameters.get("tag", ())]
    content = await call.read_limited(MANIFEST_LIMIT)
    pushed = await call.registry.push_manifest(repository, reference, content, call.content_type, call.caller, tags)
    headers = {"Location": f"/v2/{repository}/manifests/{pushed.digest}", "Docker-Content-Digest": pushed.digest}
    if pushed.subject:
        headers["OCI-Subject"] = pushed.subject
    response = Response(status_code=201, headers=headers)
    for tag in tags:
        response.headers.append("OCI-Tag", tag)
    return response


def _source(text: str) -> RepositoryName:
    """A name that cannot be is a repository that is not there."""
    try:
        return RepositoryName.parse(text)
    except NameInvalid:
        return RepositoryName("")


def _created(repository: RepositoryName, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return Response(status_code=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _accepted(repository: RepositoryName, upload_id: str, offset: int, status: int = 202) -> Response:
    headers = {
        "Location": f"/v2/{repository}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(offset - 1, 0)}",  # what one byte says as well; the specification has no word for none
        "Docker-Upload-UUID": upload_id,
    }
    return Response(status_code=status, headers=headers)
