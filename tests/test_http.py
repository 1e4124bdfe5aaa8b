"""HTTP/1.1 on raw sockets, in plain and inside TLS: what is refused, what is cut off, what takes too long."""

import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.process import PATIENCE, Running, eventually, receive_all, receive_answer, stop


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that only talk to it."""
    yield from _running(tmp_path_factory.mktemp("shared"), {}, request.param)


@pytest.fixture(scope="module", params=["plain", "tls"])
def impatient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {"HEADER_TIMEOUT": 0.2, "IDLE_TIMEOUT": 0.2, "BODY_WINDOW": 0.2, "UNREAD_TIMEOUT": 0.2}
    yield from _running(tmp_path_factory.mktemp("impatient"), limits, request.param)


def _running(folder: Path, limits: dict[str, float], kind: str, builds: str = "program") -> Iterator[Running]:
    flags = {"tls": "self-signed"} if kind == "tls" else {}
    running = Running(folder, limits, builds, **flags).wait_until_ready()
    if kind == "tls":
        running.trusted = running.authority
    yield running
    stop(running)


# HTTP

PUT = b"PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: localhost\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_a_tls_hello_gets_an_answer_that_begins_with_http_and_one_hint_in_the_log(start: Callable[..., Running]):
    server = start().wait_until_ready()
    hello = bytes.fromhex("16030100c4010000c00303") + bytes(185)
    for _ in range(3):
        assert server.ask(hello).startswith(b"HTTP/1.1 400 ")
    server.end()
    hints = [line for line in server.said().splitlines() if "tried TLS" in line]
    assert len(hints) == 1
    assert "--plain-http" in hints[0]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"X: " + b"a" * 33_000 + b"\r\n", id="one long"),
        pytest.param(b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(40)), id="many long"),
        pytest.param(b"".join(b"X-%d: a\r\n" % n for n in range(101)), id="many"),
    ],
)
def test_too_many_headers_are_431(server: Running, headers: bytes):
    assert server.ask(PUT + headers + b"\r\n").startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("before", [b"GET /", PUT + b"X: ", PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: "])
def test_headers_without_end_are_cut_off(server: Running, before: bytes):
    with server.connect() as client:
        client.sendall(before)
        sent = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while sent < 30_000_000:
                sent += client.send(b"a" * 65536)
    assert sent < 10_000_000  # what the kernel's buffers take, and no more


def test_trailers_without_end_are_cut_off(server: Running):
    with server.connect() as client:
        client.sendall(PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            client.sendall(b"X: y\r\n" * 200)
            assert receive_all(client).startswith(b"HTTP/1.1 431 ")


def test_headers_below_the_limits_are_read(server: Running):
    headers = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 300) for n in range(98))
    assert server.ask(PUT + headers + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        PUT + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        PUT + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
        PUT + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        PUT + b"Content-Length: 4, 4\r\n\r\nbody",
        PUT + b"Content-Length: +4\r\n\r\nbody",
        PUT + b"Content-Length: -4\r\n\r\nbody",
        PUT + b"Content-Length: 0x4\r\n\r\nbody",
        PUT + b"Content-Length: 4 4\r\n\r\nbody",
        PUT + b"Content-Length: \r\n\r\nbody",
        PUT + b"Content-Length: 99999999999999999999999\r\n\r\nbody",
        PUT + b"Content-Length : 4\r\n\r\nbody",
        PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        PUT.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nbody\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n0x4\r\nbody\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n4\nbody\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbodyX0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nContent-Length: 4\r\n\r\n",
        PUT
        + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PUT + b"X: a\r\n b\r\n\r\n",
        PUT + b"X: a\x00b\r\n\r\n",
        PUT + b"X: a\nY: b\r\n\r\n",
        PUT + b"X Y: a\r\n\r\n",
        PUT + b"Host: elsewhere\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: \r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        b'GET /v2/ HTTP/1.1\r\nHost: a"b\r\n\r\n',
        b"GET /v2/ HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost, elsewhere\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET http://elsewhere/v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://user@localhost/v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http:///v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/v2/ HTTP/1.0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\nHost: localhost\n\n",
        b"GET /v2/ HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /v2/\r\n\r\n",
        b"CONNECT localhost:5000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=repr,
)
def test_what_a_proxy_might_read_differently_is_refused_with_all_that_follows(server: Running, request_bytes: bytes):
    answer = server.ask(request_bytes + NEXT)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
    assert b"smuggled" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a/../b",
        "/v2/a/./b",
        "/v2/..",
        "/v2/a/%2e%2e/b",
        "/v2/a/%2E./b",
        "/v2/a%2fb",
        "/v2/a%2Fb",
        "/v2//a",
        "/v2/a//",
        "//v2/a",
        "/v2/a;x=1",
        "/v2/a%3bx",
        "/v2/a\\b",
        "/v2/a%5cb",
        "/v2/a%00",
        "/v2/a%0d%0ab",
        "/v2/a%1f",
        "/v2/a%7f",
        "/v2/a%zz",
        "/v2/a%",
        "/v2/a#b",
        "http://localhost//v2",
        "http://localhost/v2/../a",
    ],
)
def test_path_tricks_are_refused_on_the_raw_path(server: Running, path: str):
    answer = server.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"NAME_INVALID" in answer


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2/a/blobs/sha256%3Aabc", "/v2/a/blobs/sha256:abc"),
        ("/v2/a/blobs/sha256%3aabc", "/v2/a/blobs/sha256:abc"),
        ("/charts/a-1.0.0+build.5.tgz", "/charts/a-1.0.0+build.5.tgz"),
        ("/charts/a-1.0.0%2Bbuild.5.tgz", "/charts/a-1.0.0+build.5.tgz"),
        ("/v2/a/blobs/uploads/?digest=sha256%3Aabc&from=a%2Fb;..//%00", "/v2/a/blobs/uploads/"),
        ("/v2/a/manifests/.hidden..", "/v2/a/manifests/.hidden.."),
        ("http://localhost/v2/", "/v2/"),
    ],
)
def test_paths_that_clients_send_are_read(server: Running, target: str, path: str):
    assert json.loads(server.get(target))["path"] == path


def test_trailers_are_no_headers(server: Running):
    chunked = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"4;x=1\r\nbody\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n"
    read = json.loads(server.ask(PUT + chunked + body).partition(b"\r\n\r\n")[2])
    assert read["body"] == "body"
    assert "authorization" not in read["headers"]


def test_an_upgrade_is_not_made_and_the_connection_ends_with_the_answer(server: Running):
    answer = server.ask(b"GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + NEXT)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"smuggled" not in answer


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 8", b"all of it"[:8]), (b"Transfer-Encoding: chunked", b"3\r\nall\r\n5\r\n of i\r\n0\r\n\r\n")],
)
def test_an_upgrade_that_comes_with_a_body_is_ignored_and_the_body_read(server: Running, framing: bytes, body: bytes):
    """RFC 9110, 7.8. Java's HttpClient sends it with every request on a new connection."""
    head = PUT + H2C + framing + b"\r\n\r\n"
    for pieces in ([head + body + NEXT], [head, body + NEXT], [head + body[:4], body[4:], NEXT]):
        answer = server.ask(*pieces)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "all of i"
    nothing = server.ask(PUT + H2C + b"Content-Length: 0\r\n\r\n")
    assert json.loads(nothing.partition(b"\r\n\r\n")[2])["body"] == ""


def test_a_body_after_an_ignored_upgrade_has_to_be_right(server: Running):
    answer = server.ask(PUT + H2C + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + NEXT)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"smuggled" not in answer


def test_a_connection_is_used_again(server: Running):
    with server.connect() as client:
        for path in (b"/one", b"/two", b"/three"):
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert json.loads(receive_answer(client))["path"] == path.decode()


def test_a_refusal_comes_after_the_answers_to_the_requests_before_it(server: Running):
    good = b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\nGET /two HTTP/1.1\r\nHost: localhost\r\n\r\n"
    statuses = re.findall(rb"HTTP/1.1 (\d+)", server.ask(good + b"GET /.. HTTP/1.1\r\n\r\n"))
    assert statuses == [b"200", b"200", b"400"]


def test_a_body_that_was_answered_early_is_not_read_to_its_end(server: Running):
    with server.connect() as client:
        client.sendall(b"PUT /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        assert receive_answer(client) == b"too large"
        sent = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while sent < 100_000_000:
                sent += client.send(bytes(65536))
    assert sent < 20_000_000  # what the kernel's buffers take, and no more


def test_a_date_is_sent_and_the_name_of_the_server_is_not(server: Running):
    head = server.ask(NEXT).partition(b"\r\n\r\n")[0].lower()
    assert b"\r\ndate: " in head
    assert b"\r\nserver: " not in head


# Slow clients


def test_a_connection_on_which_nothing_is_asked_is_closed(impatient: Running):
    assert impatient.ask() == b""


@pytest.mark.parametrize(
    "piece", [b"GET / HT", PUT + b"X: y\r\n", PUT + b"Content-Length: 100\r\n\r\nbod"], ids=["line", "headers", "body"]
)
def test_a_request_that_does_not_go_on_is_408(impatient: Running, piece: bytes):
    assert impatient.ask(piece).startswith(b"HTTP/1.1 408 ")


def test_headers_that_drip_are_408(impatient: Running):
    with impatient.connect() as client:
        client.sendall(PUT)
        client.settimeout(0.05)
        received = b""
        while not received:
            with contextlib.suppress(TimeoutError):
                client.sendall(b"X: y\r\n")
                received = client.recv(100)
    assert received.startswith(b"HTTP/1.1 408 ")


def test_a_connection_is_closed_when_no_next_request_comes(impatient: Running):
    with impatient.connect() as client:
        client.sendall(b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert json.loads(receive_answer(client))["path"] == "/one"
        assert receive_all(client) == b""


def test_a_client_that_reads_nothing_is_cut_off(impatient: Running):
    with impatient.connect() as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: '"path": "/endless"' in impatient.said())


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_a_body_beyond_the_limit_is_refused_before_it_comes_and_the_connection_ends(tmp_path: Path, kind: str):
    with contextlib.contextmanager(_running)(tmp_path, {}, kind, "registry") as server:
        for line, limit in (
            (b"PUT /v2/a/manifests/1", 4 * 1024**2),
            (b"POST /v2/a/blobs/uploads/?digest=sha256:" + b"0" * 64, 10 * 1024**3),
        ):
            head = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (line, limit + 1)
            assert server.ask(head + b"{").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_pulls_cost_twice_as_much_at_worst_beside_a_thousand_slow_clients(tmp_path: Path, kind: str):
    """In the server's processor time, which other programs change little; the rates are printed."""
    patient = {"HEADER_TIMEOUT": 600.0, "BODY_WINDOW": 600.0}  # the machine may be slower than our limits
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.contextmanager(_running)(tmp_path, patient, kind, "registry"))
        body = b'{"schemaVersion": 2, "manifests": []}'
        pushed = server.ask(PUSH % len(body) + body)
        assert pushed.startswith(b"HTTP/1.1 201 "), pushed
        puller = stack.enter_context(server.connect())
        alone = measure(server, puller, body)
        slow = [stack.enter_context(begin(server, number)) for number in range(1000)]
        beside = measure(server, puller, body)
        held = [client for client in slow if is_established(client)]
    print(f"{len(held)} slow clients held; alone {alone}, beside them {beside}")
    assert len(held) == len(slow)
    assert beside.processor < 2 * alone.processor


PUSH = (
    b"PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/vnd.oci.image.index.v1+json\r\nContent-Length: %d\r\n\r\n"
)
MANIFEST = b"PUT /v2/a/manifests/2 HTTP/1.1\r\nHost: localhost\r\n"
BEGINNINGS = [
    b"",
    b"GET /v2/ HTTP/1.1\r\nHost: loc",
    MANIFEST + b"X: y\r\n",
    MANIFEST + b"Content-Length: 9999\r\n\r\n{",
]


def begin(server: Running, number: int) -> socket.socket:
    """A client that has sent the beginning of a request and goes on slowly; inside TLS, every other one of a hello."""
    if server.trusted and number % 2:
        client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
    else:
        client = server.connect()
        client.sendall(BEGINNINGS[number // 2 % len(BEGINNINGS)])
    return client


def is_established(client: socket.socket) -> bool:
    """By the kernel's word: the server has not ended it."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


@dataclass(frozen=True)
class Measured:
    processor: float  # microseconds of the server's event loop for a pull
    rate: float  # pulls a second

    def __str__(self) -> str:
        return f"{self.processor:.0f} µs and {self.rate:.0f} pulls/s"


def measure(server: Running, client: socket.socket, body: bytes) -> Measured:
    """One client that pulls the same manifest again and again: the best of five times, which nothing else disturbed."""
    times = [_measure(server, client, body, 500) for _ in range(5)]
    return Measured(min(each.processor for each in times), max(each.rate for each in times))


def _measure(server: Running, client: socket.socket, body: bytes, count: int) -> Measured:
    spent = Path(f"/proc/{server.process.pid}/schedstat")  # nanoseconds on a processor, first of all
    before, began = int(spent.read_text().split()[0]), time.perf_counter()
    for _ in range(count):
        client.sendall(b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert receive_answer(client) == body
    passed = time.perf_counter() - began
    return Measured((int(spent.read_text().split()[0]) - before) / count / 1000, count / passed)
