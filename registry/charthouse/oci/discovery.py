"""Content discovery: tags, referrers, and the catalog that the specification reserves and Docker documents."""

import json
from urllib.parse import quote

from starlette.responses import Response

from charthouse.manifest import OCI_INDEX
from charthouse.names import Digest, RepositoryName
from charthouse.oci.call import Call
from charthouse.oci.errors import NO_SNIFFING
from charthouse.oci.routing import Chapter, Right
from charthouse.queries import Referrer

chapter = Chapter()


@chapter.route("GET", "/{repository}/tags/list", Right.PULL)  # end-8a, end-8b
@chapter.route("HEAD", "/{repository}/tags/list", Right.PULL)
async def list_tags(call: Call, repository: RepositoryName) -> Response:
    last, limit = call.page
    await _keep(call, repository)
    tags, more = await call.registry.list_tags(repository, last, limit)
    link = next_link(f"/v2/{repository}/tags/list", n=str(limit), last=tags[-1]) if more and tags else {}
    return _json({"name": repository, "tags": tags}, headers=link)


@chapter.route("GET", "/{repository}/referrers/{digest}", Right.PULL)  # end-12a, end-12b
@chapter.route("HEAD", "/{repository}/referrers/{digest}", Right.PULL)
async def list_referrers(call: Call, repository: RepositoryName, digest: Digest) -> Response:
    artifact_type = call.parameter("artifactType")
    last, limit = call.page
    await _keep(call, repository)
    referrers, more = await call.registry.list_referrers(repository, digest, artifact_type, last, limit)
    headers = {} if artifact_type is None else {"OCI-Filters-Applied": "artifactType"}
    if more and referrers:
        kept = {} if artifact_type is None else {"artifactType": artifact_type}
        headers |= next_link(_referrers_path(repository, digest), n=str(limit), last=referrers[-1].digest, **kept)
    descriptors = ", ".join(map(_descriptor, referrers))
    index = f'{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "manifests": [{descriptors}]}}'
    return Response(index, media_type=OCI_INDEX, headers=NO_SNIFFING | headers)


@chapter.route("GET", "/_catalog", Right.CATALOG)
@chapter.route("HEAD", "/_catalog", Right.CATALOG)
async def list_repositories(call: Call) -> Response:
    last, limit = call.page
    names, more = await call.registry.list_repositories(last, limit, call.caller)
    link = next_link("/v2/_catalog", n=str(limit), last=names[-1]) if more and names else {}
    return _json({"repositories": names}, headers=link)


async def _keep(call: Call, repository: RepositoryName) -> None:
    """Before the list is read: what changes meanwhile is in it, and raises the generation."""
    generation = await call.registry.generation(repository)
    if generation:
        call.good_for(repository, generation)


def _referrers_path(repository: RepositoryName, digest: str) -> str:
    return f"/v2/{repository}/referrers/{digest}"


def _descriptor(referrer: Referrer) -> str:
    """As JSON, of what is kept as JSON: a thousand of them are not read and written again."""
    parts = [
        f'{{"mediaType": {json.dumps(referrer.media_type)}, "digest": "{referrer.digest}", "size": {referrer.size}',
        f', "artifactType": "{referrer.artifact_type}"' if referrer.artifact_type else "",
        f', "annotations": {referrer.annotations}' if referrer.annotations != "{}" else "",
    ]
    return "".join([*parts, "}"])


def _json(document: dict[str, object], headers: dict[str, str], media_type: str = "application/json") -> Response:
    return Response(json.dumps(document), media_type=media_type, headers=NO_SNIFFING | headers)


def next_link(path: str, **parameters: str) -> dict[str, str]:
    """A relative `Link`: newer clients refuse one that leads to another origin."""
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return {"Link": f'<{path}?{text}>; rel="next"'}
