"""Bad input: the right status and code, a message that a person understands, and nothing stored."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn

from charthouse.app import Application, create_app
from charthouse.manifest import (
    CHART_CONFIG,
    CHART_LAYER,
    DESCRIPTOR_LIMIT,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
)
from charthouse.names import Digest
from support.requests import Remote, descriptor, encoded, error_of, image, index, pieces, running

pytest_plugins = ("support.shared",)

ABSENT = "sha256:" + "0" * 64
LARGE = b"large enough to be a file" * 1000


async def assert_empty(remote) -> None:
    """The repository was never made."""
    error_of(await remote.call("GET", "tags/list"), 404, "NAME_UNKNOWN")


# --- names and digests ------------------------------------------------------------------------------------------------

BAD_NAMES = ["A", "a/B", ".a", "a.", "-a", "a-", "_a", "a_", "a..b", "a___b", "a.-b", "a:b", "a b", "a%25b", "a+b"]
BAD_NAMES += ["a@b", "~a", "a;b", "a\\b", "a//b", "_catalog", "'or'1'='1", "%2e%2e", "a/%2e%2e/b", "a%2f%2fb", "a%00b"]
BAD_NAMES += ["a%0Ab", "a%09", "%C3%A9", "%D9%A3", "%F0%9F%9A%A2", "%ff", "%3Cscript%3E", "a" * 256, "a/" * 127 + "ab"]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_name_that_is_none_is_400_everywhere(shared_client, name):
    for method, path in [
        ("GET", "tags/list"),
        ("GET", "manifests/1.0"),
        ("PUT", "manifests/1.0"),
        ("DELETE", "manifests/1.0"),
        ("GET", f"blobs/{ABSENT}"),
        ("DELETE", f"blobs/{ABSENT}"),
        ("GET", f"referrers/{ABSENT}"),
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?mount={ABSENT}"),
        ("PATCH", "blobs/uploads/id"),
    ]:
        response = await shared_client.request(method, f"/v2/{name}/{path}", content=image())
        message = error_of(response, 400, "NAME_INVALID")
        assert message.isprintable()
        assert len(message) < 500


BAD_DIGESTS = [
    "",
    "sha256",
    "sha256:",
    "sha256:abc",
    "sha256:baddigest",
    "../../etc/passwd",
    "\0",
    "x" * 5000,
    ABSENT + "\n",
]
BAD_DIGESTS += [f"{algorithm}:{'0' * 64}" for algorithm in ("SHA256", "sha512", "sha256:sha256", "md5", "")]
BAD_DIGESTS += [f"sha256:{encoded}" for encoded in ("0" * 63, "0" * 65, "G" * 64, "A" * 64, "\u0660" * 64)]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
async def test_a_digest_that_is_none_is_400_wherever_a_push_names_one(remote, digest):
    for content in (b"", b"small", LARGE):
        error_of(
            await remote.call("POST", "blobs/uploads/", params={"digest": digest}, content=content),
            400,
            "DIGEST_INVALID",
        )
        error_of(await remote.finish(await remote.start_upload(), digest, content), 400, "DIGEST_INVALID")
    error_of(await remote.call("POST", "blobs/uploads/", params={"mount": digest}), 400, "DIGEST_INVALID")
    await assert_empty(remote)


async def test_an_upload_that_ends_without_a_digest_is_400_and_lives(remote):
    location = await remote.start_upload()
    message = error_of(await remote.client.put(location, content=b"x"), 400, "DIGEST_INVALID")
    assert "?digest=sha256:<hex>" in message
    assert (await remote.finish(location, Digest.of(b"x"), b"x")).status_code == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=len)
async def test_a_blob_with_another_digest_than_it_says_is_400_with_both_and_not_kept(remote, content, algorithm):
    said, real = Digest.of(b"something else", algorithm), Digest.of(content, algorithm)
    chunked = await remote.start_upload()
    await remote.patch(chunked, content)
    for response in (
        await remote.call("POST", "blobs/uploads/", params={"digest": said}, content=content),
        await remote.finish(await remote.start_upload(), said, content),
        await remote.finish(chunked, said),
    ):
        message = error_of(response, 400, "DIGEST_INVALID")
        assert said in message
        assert real in message
    await assert_empty(remote)
    assert (await remote.client.get(chunked)).headers["range"] == "0-0"
    assert (await remote.finish(chunked, real, content)).status_code == 201


# --- upload ids -------------------------------------------------------------------------------------------------------


async def assert_unknown(client, location) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        query = f"?digest={Digest.of(b'x')}" if method == "PUT" else ""
        response = await client.request(method, location + query, content=b"x")
        assert "POST /blobs/uploads/" in error_of(response, 404, "BLOB_UPLOAD_UNKNOWN")


UNKNOWN_IDS = [
    "x",
    "x" * 48,
    "A" * 48,
    "=" * 48,
    "A" * 5000,
    "%00",
    "%C3%A9" * 48,
    "%2e%2e",
    "00000000-0000-4000-8000-0",
]


@pytest.mark.parametrize("upload_id", UNKNOWN_IDS)
async def test_an_upload_id_that_was_not_given_out_is_unknown(remote, upload_id):
    await assert_unknown(remote.client, remote.url("blobs/uploads/") + upload_id)
    await assert_empty(remote)


async def test_an_upload_id_that_was_changed_in_any_place_is_unknown(remote):
    location = await remote.start_upload()
    head, _, upload_id = location.rpartition("/")
    for place in range(len(upload_id)):
        other = "B" if upload_id[place] == "A" else "A"
        changed = upload_id[:place] + other + upload_id[place + 1 :]
        error_of(await remote.client.get(f"{head}/{changed}"), 404, "BLOB_UPLOAD_UNKNOWN")
    for changed in (upload_id[:-1], upload_id + "A", upload_id + "=", upload_id + "%0A", upload_id.swapcase()):
        await assert_unknown(remote.client, f"{head}/{changed}")
    assert (await remote.finish(location, Digest.of(b"x"), b"x")).status_code == 201


async def test_the_same_bytes_in_another_spelling_are_no_upload_id(remote):
    """`+` and `-` are one letter to a lenient base64, and would be two uploads."""
    while "-" not in (location := await remote.start_upload()).rpartition("/")[2]:
        pass
    head, _, upload_id = location.rpartition("/")
    await assert_unknown(remote.client, f"{head}/{upload_id.replace('-', '+')}")


async def test_an_upload_id_of_another_repository_is_unknown(remote):
    other = Remote(remote.client, remote.name + "/other")
    location = await remote.start_upload()
    await remote.patch(location, b"mine")
    await assert_unknown(remote.client, other.url("blobs/uploads/") + location.rpartition("/")[2])
    assert (await remote.client.get(location)).headers["range"] == "0-3"
    await assert_empty(other)


async def test_an_upload_expires(client, clock, settings):
    remote = Remote(client, "bad/expired")
    begun, untouched = await remote.start_upload(), await remote.start_upload()
    await remote.patch(begun, LARGE)
    clock.now += settings.upload_expiry
    assert (await client.get(begun)).status_code == 204
    clock.now += 1
    for location in (begun, untouched):
        await assert_unknown(client, location)
    await assert_empty(remote)


@pytest.mark.parametrize("second", ["PATCH", "PUT", "DELETE"])
async def test_while_one_request_writes_to_an_upload_another_is_told_to_wait(remote, second):
    location, digest = await remote.start_upload(), Digest.of(LARGE + LARGE)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield LARGE
        began.set()
        await go_on.wait()
        yield LARGE

    async def first() -> int:
        return (await remote.client.patch(location, content=slowly())).status_code

    writing = asyncio.create_task(first())
    await began.wait()
    query = f"?digest={digest}" if second == "PUT" else ""
    response = await remote.client.request(second, location + query, content=LARGE + LARGE)
    go_on.set()
    assert "wait for its answer" in error_of(response, 400, "BLOB_UPLOAD_INVALID")
    assert await writing == 202
    assert (await remote.finish(location, digest)).status_code == 201
    assert (await remote.call("GET", f"blobs/{digest}")).content == LARGE + LARGE


@pytest.mark.parametrize(
    "value",
    ["9-0", "0-", "-5", "a-b", "0", "", "0-9/x", "bytes=0-9", "0 - 9", "\u0660-\u0669", "0-" + "9" * 20, "1-2-3"],
)
async def test_a_content_range_that_is_none_is_400_and_nothing_is_kept(remote, value):
    location = await remote.start_upload()
    headers = {"Content-Range": value.encode()}
    for response in (
        await remote.client.patch(location, content=b"0123456789", headers=headers),
        await remote.client.put(
            location, params={"digest": Digest.of(b"0123456789")}, content=b"0123456789", headers=headers
        ),
    ):
        assert "<first>-<last>" in error_of(response, 400, "BLOB_UPLOAD_INVALID")
    assert (await remote.client.get(location)).headers["range"] == "0-0"
    await assert_empty(remote)


# --- bodies that end early or are too long ----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(app: Application) -> AsyncIterator[int]:
    """The port of a real server for an application that has started. At the end every request has been dealt with."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with contextlib.closing(config.bind_socket()) as listening:
        await server.startup(sockets=[listening])
        yield listening.getsockname()[1]
        await server.shutdown(sockets=[listening])


async def hang_up_within(port: int, method: str, path: str, body: bytes) -> bytes:
    """Says that one byte more comes than does. Returns what the server still said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {OCI_MANIFEST}",
        f"Content-Length: {len(body) + 1}",
        "Expect: 100-continue",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await reader.readuntil(b"100 Continue\r\n\r\n")  # the body is being read: what comes is seen before the end is
    writer.write(body)
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
async def test_of_a_blob_or_manifest_that_was_cut_off_nothing_is_stored(app, client, content):
    remote, body = Remote(client, "bad/cut"), image(config=descriptor(b"", urls=["https://x.example"]))
    query = f"?digest={Digest.of(content)}"
    location = await remote.start_upload()
    async with served(app) as port:
        for method, path, sent in (
            ("PUT", location + query, content),
            ("POST", remote.url("blobs/uploads/") + query, content),
            ("PUT", remote.url("manifests/1.0"), body),
        ):
            assert b" 2" not in (await hang_up_within(port, method, path, sent)).partition(b"\r\n")[0]
    await assert_empty(remote)
    assert (await client.get(location)).headers["range"] == "0-0"
    assert (await remote.finish(location, Digest.of(content), content)).status_code == 201


async def test_an_upload_that_was_cut_off_goes_on_where_it_was(app, client):
    remote = Remote(client, "bad/cut")
    location = await remote.start_upload()
    async with served(app) as port:
        await hang_up_within(port, "PATCH", location, LARGE)
    assert (await client.get(location)).headers["range"] == f"0-{len(LARGE) - 1}"
    async with served(app) as port:
        await hang_up_within(port, "PUT", f"{location}?digest={Digest.of(LARGE + b'end')}", b"en")
    assert (await client.get(location)).headers[
        "range"
    ] == f"0-{len(LARGE) - 1}"  # the bytes of the cut PUT do not count
    await assert_empty(remote)
    assert (await remote.finish(location, Digest.of(LARGE + b"end"), b"end")).status_code == 201


async def test_head_has_no_body_on_the_wire(app, client):
    remote = Remote(client, "bad/head")
    await remote.push_image("1.0")
    async with served(app) as port:
        for path in ("", f"{remote.name}/tags/list", f"{remote.name}/manifests/1.0", f"{remote.name}/manifests/2.0"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"HEAD /v2/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.read()).endswith(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()


async def test_a_manifest_of_more_than_four_mebibytes_is_413_however_it_comes(remote):
    body = b"{" + b" " * MANIFEST_LIMIT
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1024 * 1024)
            yield b" " * read[-1]

    for content in (body, pieces(body), endless()):
        message = error_of(await remote.put_manifest(content, "1.0"), 413, "MANIFEST_INVALID")
        assert "4,194,304 bytes" in message
    await assert_empty(remote)
    assert sum(read) <= MANIFEST_LIMIT + read[-1]


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(make_settings):
    async def nothing() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with running(create_app(make_settings(blob_limit=10_000), durable=False)) as client:
        remote = Remote(client, "bad/large")
        location = await remote.start_upload()
        for method, url, size in (
            ("PUT", remote.url("manifests/1.0"), MANIFEST_LIMIT + 1),
            ("PATCH", location, 10_001),
            ("PUT", f"{location}?digest={Digest.of(b'x')}", 10_001),
            ("POST", remote.url(f"blobs/uploads/?digest={Digest.of(b'x')}"), 10_001),
        ):
            answer = await client.request(method, url, content=nothing(), headers={"Content-Length": str(size)})
            assert answer.status_code == 413
        assert (await client.get(location)).status_code == 204


async def test_a_blob_of_more_than_the_limit_is_413_and_what_was_there_stays(make_settings):
    async with running(create_app(make_settings(blob_limit=10_000), durable=False)) as client:
        remote = Remote(client, "bad/large")
        location = await remote.start_upload()
        await remote.patch(location, b"x" * 9_000)
        refused = [
            await remote.patch(location, b"x" * 1_001),
            await remote.finish(location, Digest.of(b"x" * 10_001), b"x" * 1_001),
            await remote.finish(await remote.start_upload(), Digest.of(b"x" * 10_001), b"x" * 10_001),
            await remote.call(
                "POST", "blobs/uploads/", params={"digest": Digest.of(b"x" * 10_001)}, content=b"x" * 10_001
            ),
        ]
        for response in refused:
            assert "10,000 bytes" in error_of(response, 413, "SIZE_INVALID")
        assert (await client.get(location)).headers["range"] == "0-8999"
        await assert_empty(remote)
        assert (await remote.finish(location, Digest.of(b"x" * 10_000), b"x" * 1_000)).status_code == 201


# --- manifests (what is read from them and what is refused is in test_manifest.py) ------------------------------------

BAD_MANIFESTS = [
    (b"", OCI_MANIFEST),
    (b"{", OCI_MANIFEST),
    (b"\xff", OCI_MANIFEST),
    (b"[" * 1_000_000, OCI_MANIFEST),
    (b'{"a":' * 500_000, OCI_MANIFEST),
    (b'{"a": ' + b"9" * 1_000_000 + b"}", OCI_MANIFEST),
    (b'{"schemaVersion": 2, "schemaVersion": 2}', OCI_MANIFEST),
    (encoded({"schemaVersion": 2, "config": descriptor(b""), "layers": [], "manifests": []}), OCI_MANIFEST),
    (encoded({"schemaVersion": 2, "config": descriptor(b""), "layers": [], "manifests": []}), OCI_INDEX),
    (image(config=descriptor(b"{}", size=2**63)), OCI_MANIFEST),
    (image(config=descriptor(b"{}", size=-1)), OCI_MANIFEST),
    (image(config=descriptor(b"{}", urls=7)), OCI_MANIFEST),
    (image(config=descriptor(b"{}", digest="sha256:\ud800")), OCI_MANIFEST),
    (image(layers=[descriptor(b"{}")] * (DESCRIPTOR_LIMIT + 1)), OCI_MANIFEST),
    (index(*[b"{}"] * (DESCRIPTOR_LIMIT + 1)), OCI_INDEX),
    (image(schemaVersion=1), OCI_MANIFEST),
    (image(), DOCKER_MANIFEST),
    (image(), OCI_INDEX),
    (image(), "text"),
    (image(mediaType=None), None),
    (image(mediaType=None), "application/x\xe9"),
    (index(), OCI_MANIFEST),
    (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
]


@pytest.mark.parametrize(("body", "media_type"), BAD_MANIFESTS, ids=[f"{b[:24]!r} {m}" for b, m in BAD_MANIFESTS])
async def test_a_manifest_that_is_none_is_400_and_not_kept(remote, body, media_type):
    headers = {"Content-Type": media_type.encode("latin-1")} if media_type else {}
    for reference in ("1.0", Digest.of(body)):
        response = await remote.call("PUT", f"manifests/{reference}", content=body, headers=headers)
        assert len(error_of(response, 400, "MANIFEST_INVALID")) < 500
    await assert_empty(remote)


async def test_nul_and_lone_surrogates_anywhere_are_kept_as_they_came(remote):
    await remote.push_blob(b"{}")
    odd = "a\0\ud800"
    body = image(
        config=descriptor(b"{}", odd, annotations={odd: odd}),
        layers=[descriptor(b"{}", odd, urls=[odd])],
        annotations={odd: odd},
        artifactType=odd,
        **{odd: odd},
    )
    await remote.push_manifest(body, "1.0")
    assert (await remote.call("GET", "manifests/1.0")).content == body
    document = encoded({"schemaVersion": 2, "manifests": [descriptor(b"missing", odd)], odd: 1})
    assert "\\ud800" in error_of(await remote.put_manifest(document, "2.0", OCI_INDEX), 404, "MANIFEST_BLOB_UNKNOWN")


async def test_a_chart_with_an_odd_config_is_refused_in_words_and_nothing_is_stored(remote):
    layer = descriptor(b"{}", CHART_LAYER)
    await remote.push_blob(b"{}")
    for config in (
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"name": "\\u0000\\ud800", "version": "1", "appVersion": 7}',
        b"9" * 5000,
    ):
        await remote.push_blob(config)
        body = image(config=descriptor(config, CHART_CONFIG), layers=[layer])
        assert "the config blob" in error_of(await remote.put_manifest(body, "1.0"), 400, "MANIFEST_INVALID")
        assert await remote.statuses(f"manifests/{Digest.of(body)}") == [404]


# --- queries ----------------------------------------------------------------------------------------------------------

ODD_QUERIES = ["", "?", "=&=", "%", "%zz", "%00=%00", "n=1&n=a", "n=1;last=a", "last=%ff%fe", "last=%ed%a0%80"]
ODD_QUERIES += ["last=%F0%9F%9A%A2", "last=%27%20OR%201%3D1--", "last=" + "x" * 20_000, "artifactType=%00"]
ODD_QUERIES += ["&" * 3000, "&".join(["x=y"] * 2000)]


@pytest.mark.parametrize("query", ODD_QUERIES, ids=lambda query: query[:20])
async def test_an_odd_query_is_no_fault_of_the_registry(remote, query):
    await remote.push_image("1.0")
    for path in (
        remote.url("tags/list"),
        remote.url(f"referrers/{ABSENT}"),
        "/v2/_catalog",
        remote.url("manifests/1.0"),
    ):
        assert (await remote.client.get(f"{path}?{query}")).status_code in (200, 400)
    assert (await remote.call("POST", f"blobs/uploads/?{query}")).status_code == 202


@pytest.mark.parametrize(
    "tag", ["", "%00", "-a", ".a", "a" * 129, "a%2Fb", "%C3%A9", "a:b", "a%0A", "sha256:" + "0" * 64]
)
async def test_a_tag_parameter_that_is_none_is_400(remote, tag):
    await remote.push_blob(b"{}")
    error_of(await remote.put_manifest(image(), query=f"?tag={tag}"), 400, "MANIFEST_INVALID")
    assert (await remote.call("GET", "tags/list")).json()["tags"] == []
