"""No browser takes for a page what somebody pushed, or an answer of the API."""

import re

import httpx
import pytest

from charthouse import oci
from support.requests import Remote
from test_api import OPERATIONS, example

pytest_plugins = ("support.shared",)

CONTENT = b"<html><script>alert(1)</script>"
INERT = {
    "content-type": "application/octet-stream",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "content-disposition": "attachment",
}
CHAPTERS = (oci.push, oci.pull, oci.discovery, oci.management)
ROUTES = [(method, path) for part in CHAPTERS for method, path, *_ in part.chapter.routes]


def is_marked(response: httpx.Response) -> bool:
    """Also where there is nothing to read: what is no JSON and has no bytes needs no mark."""
    if "json" not in response.headers.get("content-type", "") and not response.content:
        return True
    return response.headers.get("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("times", ["first", "again, from the pull cache"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("condition", "status"),
    [({}, 200), ({"Range": "bytes=1-2"}, 206), ({"If-None-Match": "*"}, 304)],
    ids=["200", "206", "304"],
)
async def test_every_answer_about_a_blob_is_inert(remote: Remote, times, method, condition, status):
    digest = await remote.push_blob(CONTENT)
    await remote.push_blob(b"{}")
    for _ in range(2 if times != "first" else 1):
        response = await remote.call(method, f"blobs/{digest}", headers=condition)
    assert response.status_code == (200 if (method, status) == ("HEAD", 206) else status)
    assert INERT.items() <= dict(response.headers).items()


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: part or "root")
async def test_no_answer_of_a_route_of_the_registry_api_is_sniffed(remote: Remote, method, path):
    """What is there, what is not, and what cannot be."""
    await remote.push_image("1.0")
    digest = await remote.push_blob(CONTENT)
    there = {"repository": remote.name, "digest": digest, "reference": "1.0", "upload_id": "none"}
    for parts in (there, there | {"repository": "not/there"}, dict.fromkeys(there, "<NOT>")):
        url = re.sub(r"\{(\w+)\}", lambda part, parts=parts: parts[part[1]], path)
        assert is_marked(await remote.client.request(method, f"/v2{url}"))


@pytest.mark.parametrize(
    "url", ["/v2/<x>", "/token", "/token?scope=<x>", "/.well-known/jwks.json", "/api/v1/openapi.json"]
)
async def test_no_other_json_is_sniffed(shared_client: httpx.AsyncClient, url):
    for method in ("GET", "POST"):
        assert is_marked(await shared_client.request(method, url))


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=lambda case: str(case)[:40])
async def test_no_answer_of_the_administrators_api_is_sniffed(shared_client, method, path, operation):
    assert is_marked(await shared_client.request(method, **example(operation, path)))


async def test_the_page_has_no_scripts_and_stands_in_no_frame(shared_client: httpx.AsyncClient):
    policy = (await shared_client.get("/")).headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not [each for each in policy if each.startswith("script-src")]
