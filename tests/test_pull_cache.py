"""The pull cache: it answers what the API would, at once or the long way, and nothing older than the last change."""

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse.app import Application, create_app
from charthouse.at_once import Finished
from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest, RepositoryName
from charthouse.pull_cache import ENTRY_LIMIT, LIST_LIMIT
from support.requests import Remote, descriptor, image, running
from support.server import serving
from test_counts import counting

NAME = "team-a/app"
CHANGES = 60  # of one tag, in the tests that look for stale answers
READERS = 4
LAYER, UNNAMED = b"a layer of more than a row " * 999, b"no manifest names this"
PIPELINED = 1200  # requests in one piece: deeper than Python's stack


def scope_of(path: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    sent = {"host": "localhost:5000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": f"/v2/{NAME}/{path}",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }


@pytest.fixture
async def remote(client: httpx.AsyncClient) -> Remote:
    """With one image, under the tag `1`, that was pulled once."""
    remote = Remote(client, NAME)
    await remote.push_image("1")
    return remote


@pytest.fixture
def at_once(app: Application, database_url: str) -> Callable[..., Finished | None]:
    """What the application answers without waiting. On PostgreSQL nothing is certain without asking."""

    def at_once(path: str, *args: Any, **headers: str) -> Finished | None:
        finished = app.at_once(scope_of(path, *args, **headers))
        if database_url:
            assert finished is None
        return finished

    return at_once


async def warm(remote: Remote, *paths: str) -> list[httpx.Response]:
    """Twice: the first answer is kept, the second sees that it holds."""
    return [(await remote.call("GET", path), await remote.call("GET", path))[1] for path in paths]


PATHS = [
    "manifests/1",
    f"manifests/{Digest.of(image(b'{}', LAYER))}",
    f"blobs/{Digest.of(b'{}')}",
    f"blobs/{Digest.of(LAYER)}",
    f"blobs/{Digest.of(LAYER, 'sha512')}",
    f"blobs/{Digest.of(UNNAMED)}",
    "manifests/2",
    f"manifests/{Digest.of(b'no')}",
    f"blobs/{Digest.of(b'no')}",
    "blobs/sha256:no",
    "manifests/-",
    "no/repository/manifests/1",
]


@pytest.mark.parametrize("limit", [64 * 1024 * 1024, 5000, 0], ids=["kept", "read again", "not kept"])
async def test_what_is_answered_at_once_is_what_is_answered_the_long_way(make_settings, database_url, limit):
    """With a cache for all, one with room for a blob's headers and not for its bytes, and none."""
    app = create_app(make_settings(pull_cache=limit), durable=False)
    async with running(app) as client:
        remote = Remote(client, NAME)
        for blob in (b"{}", LAYER, UNNAMED):
            await remote.push_blob(blob)
        await remote.push_blob(LAYER, "sha512")
        await remote.push_manifest(image(b"{}", LAYER), "1")
        for path, method, number in itertools.product(PATHS, ("GET", "HEAD"), range(3)):
            finished = app.at_once(scope_of(path, method))  # not known; known; seen to hold
            response = await remote.call(method, path)
            if database_url:
                assert finished is None
                continue
            lines = dict(line.split(b": ", 1) for line in finished.headers.splitlines())
            assert lines == {name.lower(): value for name, value in response.headers.raw}, (path, number)
            assert (finished.status, finished.body) == (response.status_code, response.content)


LISTS = ["tags/list", "tags/list?n=1", "tags/list?n=1&last=1", f"referrers/{Digest.of(image(b'{}', LAYER))}"]


async def test_a_list_is_kept_until_its_repository_changes(remote, app, client, database_url):
    """Each page for itself, and not beside another repository's change."""

    async def listed(path: str) -> tuple[int, bytes, str | None]:
        name, _, query = path.partition("?")
        finished = app.at_once(scope_of(name) | {"query_string": query.encode()})
        answer = await remote.call("GET", path)
        if finished is not None:
            assert (finished.status, finished.body) == (answer.status_code, answer.content)
            assert (b"link: " in finished.headers) == ("link" in answer.headers)
        return finished is not None, answer.content, answer.headers.get("link")

    await remote.push_blob(LAYER)
    subject = image(b"{}", LAYER)
    await remote.push_manifest(subject, "2")
    before = [await listed(path) for path in LISTS]
    await Remote(client, "team-b/app").push_image("1")
    assert [await listed(path) for path in LISTS] == [(not database_url, *rest) for _, *rest in before]
    await remote.push_image("3", subject=descriptor(subject, OCI_MANIFEST))
    after = [await listed(path) for path in LISTS]
    assert [kept for kept, *_ in after] == [False] * len(LISTS)
    changed = ["tags/list", "tags/list?n=1&last=1", LISTS[-1]]  # or has a next page
    assert [path for path, old, new in zip(LISTS, before, after, strict=True) if old[1:] != new[1:]] == changed
    await remote.call("DELETE", "manifests/3")
    assert [(await listed(path))[1:] for path in LISTS[:3]] == [rest[1:] for rest in before[:3]]


async def test_a_list_is_kept_that_is_larger_than_what_is_found_may_be(remote, at_once, client, database_url):
    """Of a thousand signatures, say."""
    subject = image(b"{}")
    await remote.push_manifest(subject, "2")
    for number in "345":
        annotations = {"org.example.text": number * (ENTRY_LIMIT // 2)}
        await remote.push_image(number, subject=descriptor(subject, OCI_MANIFEST), annotations=annotations)
    path = f"referrers/{Digest.of(subject)}"
    (listed,) = await warm(remote, path)
    assert ENTRY_LIMIT < len(listed.content) < LIST_LIMIT
    found = at_once(path)
    assert found is None if database_url else found is not None and found.body == listed.content


async def test_what_is_not_kept_lists_nothing_at_once(make_settings):
    app = create_app(make_settings(pull_cache=0), durable=False)
    async with running(app) as client:
        await Remote(client, NAME).push_image("1")
        await warm(Remote(client, NAME), "tags/list")
        assert app.at_once(scope_of("tags/list")) is None


async def test_an_upload_begins_at_once_and_is_finished_the_long_way(remote, at_once, database_url):
    for path in ("blobs/uploads/", "blobs/uploads"):
        finished = at_once(path, "POST", content_length="0")
        if not database_url:
            location = re.search(rb"location: (.+)\r\n", finished.headers)[1].decode()
            assert finished.status == 202
            assert (await remote.finish(location, Digest.of(path.encode()), path.encode())).status_code == 201


@pytest.mark.parametrize("headers", [{"content_length": "1"}, {"transfer_encoding": "chunked"}])
async def test_what_comes_with_a_body_goes_the_long_way(at_once, headers):
    assert at_once("blobs/uploads/", "POST", **headers) is None


async def test_a_mount_goes_the_long_way(app, client):
    await client.get("/v2/")
    asked = scope_of("blobs/uploads/", "POST") | {"query_string": b"mount=" + Digest.of(b"{}").encode()}
    assert app.at_once(asked) is None


async def test_no_upload_begins_at_once_where_namespaces_have_to_be_made_first(make_settings):
    app = create_app(make_settings(require_namespaces=True), durable=False)
    async with running(app) as client:
        await client.get("/v2/")
        assert app.at_once(scope_of("blobs/uploads/", "POST")) is None


async def test_a_blob_whose_file_has_changed_is_not_given_at_once(remote, app, at_once, settings):
    """Neither by who reads it for the first time nor by who knew it: each reading is compared with the digest."""
    digest = await remote.push_blob(LAYER)
    await remote.push_manifest(image(b"{}", LAYER), "1")
    path = f"blobs/{digest}"
    at_once(path)
    (file,) = (settings.data / "blobs" / "sha256").glob(f"??/{digest.hex}.*")
    file.write_bytes(LAYER[:-1] + b"!")
    app._cache._limit = 0
    app._cache._make_room()
    assert at_once(path) is None
    assert (await remote.call("GET", path)).status_code == 500


async def test_head_is_answered_without_a_body(remote, at_once, database_url):
    await remote.call("HEAD", "manifests/1")
    response = await remote.call("HEAD", "manifests/1")
    finished = at_once("manifests/1", "HEAD")
    if not database_url:
        assert finished.body == b""
        assert f"content-length: {len(image())}".encode() in finished.headers
    assert response.headers["content-length"] == str(len(image()))


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "manifests/1", {"range": "bytes=0-1"}),
        ("GET", "manifests/1", {"if_none_match": "*"}),
        ("PUT", "manifests/1", {}),
        ("DELETE", "manifests/1", {}),
        ("GET", "tags/list", {"if_none_match": "*"}),
        ("GET", "manifests/1", {"host": "evil.example"}),
    ],
)
async def test_what_depends_on_more_than_the_path_goes_the_long_way(remote, app, method, path, headers):
    await warm(remote, "manifests/1")
    assert app.at_once(scope_of(path, method, **headers)) is None


async def test_a_pull_from_the_cache_reads_no_content_and_at_once_no_row_at_all(remote, app, at_once, database_url):
    await warm(remote, "manifests/1")
    with counting(app) as counts:
        at_once("manifests/1")
        await remote.call("GET", "manifests/1")
    assert counts["statements"] == (2 if database_url else 0)  # the generations of rights and of the repository


async def test_a_busy_repository_cools_no_other(remote, app, client, database_url):
    await warm(remote, "manifests/1")
    await Remote(client, "team-b/app").push_image("1")
    with counting(app) as counts:
        if database_url:
            assert app.at_once(scope_of("manifests/1")) is None  # it has to wait for what it asks
            assert (await remote.call("GET", "manifests/1")).content == image()
        else:
            assert app.at_once(scope_of("manifests/1")).body == image()
    assert counts["statements"] == 2  # the generations of rights and of the repository, and not the manifest


async def test_a_change_elsewhere_costs_a_repository_one_question_and_not_one_for_each_pull(
    remote, app, client, at_once, database_url
):
    paths = ["manifests/1", f"manifests/{Digest.of(image())}", f"blobs/{Digest.of(b'{}')}"]
    await warm(remote, *paths)
    await Remote(client, "team-b/app").push_image("1")
    with counting(app) as counts:
        for path in paths:
            at_once(path)
    assert counts["statements"] == (0 if database_url else 2)  # the generations of rights and of the repository


async def test_the_generations_of_many_repositories_are_asked_for_sixteen_at_a_time(app, client):
    """Whoever pulls from PostgreSQL at the same moment shares a question."""
    names = [RepositoryName(f"team-{number}/app") for number in range(40)]
    for name in names[::2]:
        await Remote(client, name).push_blob(b"{}")
    with counting(app) as counts:
        assert await app.registry.generations(names) == dict.fromkeys(names[::2], 1)
    assert counts["statements"] == 3


async def test_a_change_of_its_own_repository_is_seen_at_once(remote, at_once, database_url):
    await warm(remote, "manifests/1")
    changed = await remote.push_image("1", annotations={"n": "2"})
    finished = at_once("manifests/1")
    assert database_url or finished.body == changed
    assert (await remote.call("GET", "manifests/1")).content == changed


async def test_pulls_that_wait_together_ask_once(remote, app, client):
    await warm(remote, "manifests/1")
    await Remote(client, "team-b/app").push_image("1")
    with counting(app) as counts:
        await asyncio.gather(*(remote.call("GET", "manifests/1") for _ in range(20)))
    # Of rights and of the repository: the first one's question, and one for all who came while it was on its way.
    assert counts["statements"] <= 4


async def test_a_blob_that_was_deleted_is_not_given_any_more(remote, at_once, database_url):
    path = f"blobs/{Digest.of(b'{}')}"
    await warm(remote, path, "manifests/1")
    await remote.call("DELETE", f"manifests/{Digest.of(image())}")
    await remote.call("DELETE", path)
    finished = at_once(path)
    assert database_url or finished.status == 404
    assert [(await remote.call("GET", each)).status_code for each in (path, "manifests/1")] == [404, 404]


async def test_the_cache_keeps_no_more_bytes_than_it_may(make_settings):
    """Each entry counts with its headers and its overhead."""
    app = create_app(make_settings(pull_cache=4096), durable=False)
    async with running(app) as client:
        remote = Remote(client, NAME)
        for number in range(8):
            await remote.push_image(str(number), annotations={"n": str(number)})
            await remote.call("GET", f"manifests/{number}")
        entries = app._cache._entries
        assert 0 < len(entries) <= 4
        assert sum(entry.cost for entry in entries.values()) == app._cache._size <= 4096


# On sockets


@contextlib.contextmanager
def connected(port: int) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Requests on one connection: `ask("PUT", "manifests/1", body)`, after /v2/<name>/."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:

        def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
            connection.request(method, f"/v2/{NAME}/{path}", body, {"Content-Type": OCI_MANIFEST} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

        yield ask


def push_numbered(ask: Callable[..., tuple[int, bytes]], number: int) -> None:
    assert ask("PUT", "manifests/latest", image(annotations={"number": str(number)}))[0] == 201


def test_a_thousand_requests_in_one_piece_are_answered_in_their_order(tmp_path: Path):
    with serving(tmp_path) as server, connected(server.port) as ask:
        ask("POST", f"blobs/uploads/?digest={Digest.of(b'{}')}", b"{}")
        push_numbered(ask, 1)
        ask("GET", "manifests/latest")
        ask("GET", "manifests/latest")
        requests = [
            f"{'GET' if number % 3 else 'HEAD'} /v2/{NAME}/manifests/latest HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for number in range(PIPELINED)
        ]
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            sender = threading.Thread(target=connection.sendall, args=("".join(requests).encode(),))
            sender.start()
            connection.settimeout(30)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < PIPELINED or not received.endswith(b"}\n"):
                received += connection.recv(65536)
            sender.join()
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [bool(body) for body in bodies] == [bool(number % 3) for number in range(PIPELINED)]
    ids = re.findall(rb"x-request-id: (\w+)", received)
    assert len(set(ids)) == PIPELINED
    lines = [line for line in server.log.read_text().splitlines() if f'"path": "/v2/{NAME}/manifests/latest"' in line]
    assert {json.loads(line)["request_id"] for line in lines} >= {each.decode() for each in ids}


@contextlib.contextmanager
def one_registry(tmp_path: Path, database_url: str) -> Iterator[list[int]]:
    """Where one registry answers: a server with two workers, or two servers on one PostgreSQL database."""
    with contextlib.ExitStack() as stack:
        if database_url:
            folders = [tmp_path / name for name in ("one", "two")]
            for folder in folders:
                folder.mkdir()
            servers = [stack.enter_context(serving(folder, database=database_url)) for folder in folders]
            yield [server.port for server in servers]
        else:
            yield [stack.enter_context(serving(tmp_path, "--workers", "2")).port]


async def test_no_answer_is_older_than_the_last_acknowledged_change(tmp_path: Path, database_url: str):
    with one_registry(tmp_path, database_url) as ports:
        await asyncio.to_thread(hammer, ports)


def hammer(ports: list[int]) -> None:
    """One connection moves a tag and deletes it, others on every worker and server pull all the time."""
    acknowledged = 0  # even: the tag names that number; odd: it is deleted
    ended = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        with connected(ports[0]) as ask:
            for number in range(2, 2 * CHANGES, 2):
                push_numbered(ask, number)
                acknowledged = number
                if number % 8 == 0:
                    assert ask("DELETE", "manifests/latest")[0] == 202
                    acknowledged = number + 1

    def read(port: int) -> int:
        count = 0
        with connected(port) as ask:
            while not ended.is_set():
                before = acknowledged
                status, body = ask("GET", "manifests/latest")
                after = acknowledged + 2  # one more change may have been made and not acknowledged yet
                assert status in (200, 404), body
                seen = int(json.loads(body)["annotations"]["number"]) if status == 200 else None
                allowed = {number for number in range(before, after + 1) if number % 2 == 0}
                if seen is None:
                    assert any(number % 8 == 1 for number in range(before, after + 1)), (before, after)
                else:
                    assert seen in allowed, (before, seen, after)
                count += 1
        return count

    with connected(ports[0]) as ask:
        ask("POST", f"blobs/uploads/?digest={Digest.of(b'{}')}", b"{}")
        push_numbered(ask, 0)
    with ThreadPoolExecutor(READERS + 1) as pool:
        readers = [pool.submit(read, ports[number % len(ports)]) for number in range(READERS)]
        try:
            pool.submit(write).result()
        finally:
            ended.set()
        counts = [reader.result() for reader in readers]
    print(f"{CHANGES} changes; pulls: {counts}; stale: 0")
    assert min(counts) > 0
