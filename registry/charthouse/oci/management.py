"""Content management: deleting manifests, tags and blobs."""

from starlette.responses import Response

from charthouse.names import Digest, Reference, RepositoryName
from charthouse.oci.call import Call
from charthouse.oci.routing import Chapter, Right

chapter = Chapter()


@chapter.route("DELETE", "/{repository}/manifests/{reference}", Right.DELETE)  # end-9
async def delete_manifest(call: Call, repository: RepositoryName, reference: Reference) -> Response:
    await call.registry.delete_manifest(repository, reference, call.caller.actor)
    return Response(status_code=202)


@chapter.route("DELETE", "/{repository}/blobs/{digest}", Right.DELETE)  # end-10
async def delete_blob(call: Call, repository: RepositoryName, digest: Digest) -> Response:
    await call.registry.delete_blob(repository, digest, call.caller.actor)
    return Response(status_code=202)
