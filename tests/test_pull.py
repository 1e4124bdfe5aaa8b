"""Pull: end-1, end-2, end-3. A table of requests against one repository that holds what the tables name."""

import re

import httpx
import pytest
from hypothesis import given, strategies as st

from charthouse.errors import RangeNotSatisfiable
from charthouse.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest
from charthouse.oci.pull import byte_range
from support.requests import Remote, descriptor, encoded, error_of, image, index

pytest_plugins = ("support.shared",)

CONFIG, LARGE = b"{}", bytes(range(256)) * 40  # LARGE is a file, the other blobs are rows
IMAGE = image(CONFIG, LARGE, annotations={"org.opencontainers.image.title": "app"})
INDEX = index(IMAGE)
NESTED = index(INDEX, media_type=OCI_INDEX)
EMPTY_INDEX = index(annotations={"empty": "yes"})
DOCKER = image(CONFIG, LARGE, mediaType=DOCKER_MANIFEST)
DOCKER_INDEX = encoded(
    {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor(DOCKER, DOCKER_MANIFEST)]}
)
OTHER = b'{"any": "thing", "of": [1.50, "\\u00e9", "\xc3\xa9"]}'
D = {
    name: Digest.of(content)
    for name, content in (("config", CONFIG), ("large", LARGE), ("image", IMAGE), ("empty", b""))
}
ABSENT, ABSENT_512 = "sha256:" + "0" * 64, "sha512:" + "0" * 128


@pytest.fixture(scope="module")
async def shelf(shared_client):
    remote = Remote(shared_client, "pull/app")
    for content in (CONFIG, LARGE, b""):
        await remote.push_blob(content)
    await remote.push_blob(LARGE, "sha512")
    for tag, body, media_type in (
        ("1.0", IMAGE, OCI_MANIFEST),
        ("index", INDEX, OCI_INDEX),
        ("nested", NESTED, OCI_INDEX),
        ("empty", EMPTY_INDEX, OCI_INDEX),
        ("docker", DOCKER, DOCKER_MANIFEST),
        ("docker-list", DOCKER_INDEX, DOCKER_LIST),
        ("other", OTHER, "application/vnd.example+json"),
    ):
        await remote.push_manifest(body, tag, media_type)
    return remote


async def test_end_1_the_registry_says_that_it_speaks_the_protocol(shared_client):
    response = await shared_client.get("/v2/")
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"


def blob_headers(content, digest):
    return {
        "content-type": "application/octet-stream",
        "content-length": str(len(content)),
        "docker-content-digest": digest,
        "etag": f'"{digest}"',
        "accept-ranges": "bytes",
    }


def manifest_headers(content, media_type):
    digest = Digest.of(content)
    return {
        "content-type": media_type,
        "content-length": str(len(content)),
        "docker-content-digest": digest,
        "etag": f'"{digest}"',
    }


LARGE_512 = Digest.of(LARGE, "sha512")
PULLS = [
    ("end-2", f"blobs/{D['config']}", blob_headers(CONFIG, D["config"]), CONFIG),
    ("end-2-large", f"blobs/{D['large']}", blob_headers(LARGE, D["large"]), LARGE),
    ("end-2-sha512", f"blobs/{LARGE_512}", blob_headers(LARGE, LARGE_512), LARGE),
    ("end-2-zero-bytes", f"blobs/{D['empty']}", blob_headers(b"", D["empty"]), b""),
    ("end-3-tag", "manifests/1.0", manifest_headers(IMAGE, OCI_MANIFEST), IMAGE),
    ("end-3-digest", f"manifests/{D['image']}", manifest_headers(IMAGE, OCI_MANIFEST), IMAGE),
    ("end-3-index", "manifests/index", manifest_headers(INDEX, OCI_INDEX), INDEX),
    ("end-3-nested-index", "manifests/nested", manifest_headers(NESTED, OCI_INDEX), NESTED),
    ("end-3-empty-index", "manifests/empty", manifest_headers(EMPTY_INDEX, OCI_INDEX), EMPTY_INDEX),
    ("end-3-docker", "manifests/docker", manifest_headers(DOCKER, DOCKER_MANIFEST), DOCKER),
    ("end-3-docker-list", "manifests/docker-list", manifest_headers(DOCKER_INDEX, DOCKER_LIST), DOCKER_INDEX),
    ("end-3-any-type", "manifests/other", manifest_headers(OTHER, "application/vnd.example+json"), OTHER),
]


@pytest.mark.parametrize(("path", "headers", "content"), [pytest.param(*row[1:], id=row[0]) for row in PULLS])
async def test_what_was_pushed_comes_back_byte_for_byte_and_head_is_get_without_the_body(shelf, path, headers, content):
    got = await shelf.call("GET", path)
    assert got.status_code == 200
    assert got.content == content
    assert headers.items() <= dict(got.headers).items()
    head = await shelf.call("HEAD", path)
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)


@pytest.mark.parametrize("path", [row[1] for row in PULLS], ids=[row[0] for row in PULLS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_client_that_has_it_already_gets_304(shelf, method, path):
    etag = (await shelf.call("HEAD", path)).headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        response = await shelf.call(method, path, headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["docker-content-digest"] == etag.strip('"')
    assert (await shelf.call(method, path, headers={"If-None-Match": '"other"'})).status_code == 200


ABSENCES = [
    ("end-2", f"blobs/{ABSENT}", 404, "BLOB_UNKNOWN", ABSENT),
    ("end-2-sha512", f"blobs/{ABSENT_512}", 404, "BLOB_UNKNOWN", ABSENT_512),
    ("end-2-manifest-is-no-blob", f"blobs/{D['image']}", 404, "BLOB_UNKNOWN", D["image"]),
    ("end-2-no-digest", "blobs/baddigest", 400, "DIGEST_INVALID", "'baddigest'"),
    ("end-2-short-digest", "blobs/sha256:abc", 400, "DIGEST_INVALID", "64 lower-case hexadecimal"),
    ("end-2-algorithm", "blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID", "'md5'"),
    ("end-3-tag", "manifests/2.0", 404, "MANIFEST_UNKNOWN", "2.0"),
    ("end-3-digest", f"manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN", ABSENT),
    ("end-3-blob-is-no-manifest", f"manifests/{D['config']}", 404, "MANIFEST_UNKNOWN", D["config"]),
    ("end-3-bad-tag", "manifests/.hidden", 400, "MANIFEST_INVALID", "'.hidden'"),
    ("end-3-bad-digest", "manifests/sha256:abc", 400, "DIGEST_INVALID", "'sha256:abc'"),
]


@pytest.mark.parametrize(("path", "status", "code", "words"), [pytest.param(*row[1:], id=row[0]) for row in ABSENCES])
async def test_what_is_not_here_is_an_error_that_names_it(shelf, path, status, code, words):
    got = await shelf.call("GET", path)
    assert words in error_of(got, status, code)
    assert (await shelf.call("HEAD", path)).status_code == status


@pytest.mark.parametrize(
    "path", [f"manifests/{D['image']}", "manifests/1.0", f"blobs/{D['large']}", f"blobs/{D['config']}"]
)
async def test_nothing_is_served_from_a_repository_that_does_not_hold_it(shelf, remote, path):
    assert remote.name in error_of(await remote.call("GET", path), 404, "NAME_UNKNOWN")
    await remote.push_blob(b"only this")
    got = await remote.call("GET", path)
    error_of(got, 404, "BLOB_UNKNOWN" if path.startswith("blobs") else "MANIFEST_UNKNOWN")


SIZE = len(LARGE)
RANGES = [  # what a client asks for, the status, the slice that it gets
    ("bytes=500-1499", 206, (500, 1500)),
    ("bytes=0-0", 206, (0, 1)),
    ("bytes=500-", 206, (500, SIZE)),
    ("bytes=-500", 206, (SIZE - 500, SIZE)),
    ("bytes=-999999", 206, (0, SIZE)),
    (f"bytes=9000-{SIZE + 1000}", 206, (9000, SIZE)),
    (f"bytes={SIZE - 1}-", 206, (SIZE - 1, SIZE)),
    ("bytes=0-9223372036854775807", 206, (0, SIZE)),
    (f"bytes={SIZE}-", 416, None),
    ("bytes=999999-9999999", 416, None),
    ("bytes=9223372036854775807-", 416, None),
    ("bytes=500-0", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=0-1,5-6", 200, (0, SIZE)),  # one range only: RFC 9110 lets a server answer with the whole
    ("bytes=-", 200, (0, SIZE)),
    ("bytes=a-b", 200, (0, SIZE)),
    ("lines=1-2", 200, (0, SIZE)),
    (f"bytes={'9' * 30}-", 200, (0, SIZE)),
    ("", 200, (0, SIZE)),
]


@pytest.mark.parametrize(("asked", "status", "slice_"), RANGES, ids=[row[0] for row in RANGES])
async def test_end_2_a_range_of_a_blob(shelf, asked, status, slice_):
    response = await shelf.call("GET", f"blobs/{D['large']}", headers={"Range": asked})
    if slice_ is None:
        assert asked in error_of(response, status, "SIZE_INVALID")
        assert response.headers["content-range"] == f"bytes */{SIZE}"
        return
    start, end = slice_
    assert (response.status_code, response.content) == (status, LARGE[start:end])
    assert response.headers["content-length"] == str(end - start)
    assert response.headers["docker-content-digest"] == D["large"]
    assert response.headers.get("content-range") == (f"bytes {start}-{end - 1}/{SIZE}" if status == 206 else None)


async def test_end_2_a_range_of_a_small_blob_and_of_none_at_all(shelf):
    small = await shelf.call("GET", f"blobs/{D['config']}", headers={"Range": "bytes=1-"})
    assert (small.status_code, small.content, small.headers["content-range"]) == (206, b"}", "bytes 1-1/2")
    empty = await shelf.call("GET", f"blobs/{D['empty']}", headers={"Range": "bytes=0-"})
    error_of(empty, 416, "SIZE_INVALID")
    assert empty.headers["content-range"] == "bytes */0"


async def test_end_2_a_range_counts_only_for_the_content_that_if_range_names(shelf):
    for etag, status in ((f'"{D["large"]}"', 206), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)):
        headers = {"Range": "bytes=1-2", "If-Range": etag}
        assert (await shelf.call("GET", f"blobs/{D['large']}", headers=headers)).status_code == status


async def test_a_blob_is_no_page_for_a_browser(shelf):
    headers = (await shelf.call("GET", f"blobs/{D['config']}")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == "attachment"
    assert (await shelf.call("GET", "manifests/1.0")).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [row[1] for row in PULLS], ids=[row[0] for row in PULLS])
async def test_nothing_is_compressed(shelf, path):
    response = await shelf.call("GET", path, headers={"Accept-Encoding": "gzip, br, zstd"})
    assert "content-encoding" not in response.headers


async def test_a_manifest_comes_as_it_is_whatever_the_client_accepts(shelf):
    for accept in ("text/html", DOCKER_MANIFEST, "*/*"):
        response = await shelf.call("GET", "manifests/1.0", headers={"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, OCI_MANIFEST)


async def test_names_of_many_components_and_with_the_words_of_the_api_are_only_names(shared_client):
    for name in (
        "a/b/c/d/e",
        "a/blobs/b",
        "a/manifests/b",
        "a/tags/list/b",
        "a/blobs/uploads",
        "uploads",
        "a--b/c__d.e_f",
    ):
        remote = Remote(shared_client, name)
        body = await remote.push_image("1.0")
        assert (await remote.call("GET", "manifests/1.0")).content == body
        assert (await remote.call("GET", f"blobs/{D['config']}")).content == CONFIG
        assert (await remote.call("GET", "tags/list")).json() == {"name": name, "tags": ["1.0"]}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_answer(shared_client, path):
    assert (await shared_client.get(path)).status_code == 200


def oracle(header: str, size: int) -> tuple[int, int] | str | None:
    """RFC 9110, 14.1: by lists of positions instead of arithmetic."""
    match = re.fullmatch("bytes=([0-9]*)-([0-9]*)", header)
    if not match or header == "bytes=-":
        return None
    first, last = match.groups()
    positions = list(range(size))
    if not first:
        found = positions[-int(last) :] if int(last) else []
    else:
        found = [p for p in positions if p >= int(first) and (not last or p <= int(last))]
    return (found[0], found[-1] + 1) if found else f"bytes */{size}"


numbers = st.one_of(st.just(""), st.integers(0, 40).map(str), st.integers(0, 10**18).map(str))


@given(header=st.builds("bytes={}-{}".format, numbers, numbers), size=st.integers(0, 32))
def test_byte_range_is_what_the_rfc_says(header, size):
    try:
        found = byte_range(header, size)
    except RangeNotSatisfiable as error:
        found = error.headers["Content-Range"]
    assert found == oracle(header, size)


@given(st.text(), st.integers(0, 32))
def test_byte_range_takes_any_text(header, size):
    assert byte_range(header, size) is None or header.strip().startswith("bytes=")


async def test_a_pull_without_a_body_says_so_to_a_client_that_reads_streams(shelf):
    async with shelf.client.stream("HEAD", shelf.url(f"blobs/{D['large']}")) as response:
        assert isinstance(response, httpx.Response)
        assert await response.aread() == b""
