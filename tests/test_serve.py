"""`charthouse serve` as a process: start, end, workers, and the HTTP layer on raw sockets.

Run as a program this file is the server under test: the real `serve` around an application that can be slow, fail and
raise on demand.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from charthouse import http_protocol
from charthouse.errors import DatabaseError
from charthouse.locks import FileLock, server_lock
from charthouse.server import serve
from charthouse.settings import Settings, load

PATIENCE = 30  # seconds for what takes milliseconds on an idle machine


# The application under test


async def pid(_: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def read(request: Request) -> Response:
    """Answers when the body has come, with the path, the headers and the body as they arrived."""
    body = await request.body()
    headers = [name.decode() for name, _ in request.scope["headers"]]
    return PlainTextResponse(json.dumps({"path": request.scope["path"], "headers": headers, "body": body.decode()}))


async def early(_: Request) -> Response:
    return PlainTextResponse("too large", 413)


async def endless(_: Request) -> Response:
    async def zeros() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)
            await asyncio.sleep(0)

    return StreamingResponse(zeros())


async def boom(_: Request) -> Response:
    raise RuntimeError("a fault of our own")


class Program(Starlette):
    """An application with the lifespan that the server starts it with."""

    def lifespan(self) -> contextlib.AbstractAsyncContextManager[Any]:
        return self.router.lifespan_context(self)

    def at_once(self, _: Any) -> None:
        return None


def build(settings: Settings) -> Program:
    def start(data: Path) -> None:
        (data / f"started.{os.getpid()}").touch()
        if (data / "fail").exists():
            raise DatabaseError("the database is newer than this program")
        is_last = len(list(data.glob("started.*"))) == settings.workers
        if is_last:
            eventually(lambda: not (data / "hold").exists())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        await asyncio.to_thread(start, settings.data)
        yield {}
        (settings.data / "ended").touch()

    routes = [
        Route("/pid", pid),
        Route("/early", early, methods=["PUT"]),
        Route("/endless", endless),
        Route("/boom", boom),
        Route("/{path:path}", read, methods=["GET", "PUT", "POST"]),
    ]
    return Program(routes=routes, lifespan=lifespan)


def main(flags: str, limits: str) -> int:
    for name, value in json.loads(limits).items():
        setattr(http_protocol, name, value)
    return serve(load(json.loads(flags), environ={}), build)


# A running server, and what a client says to it


class Running:
    def __init__(self, folder: Path, limits: dict[str, float], **flags: Any) -> None:
        flags = {"data": str(folder / "data"), "port": 0, **flags}
        self.data = Path(flags["data"])
        self.errors = folder / f"stderr.{len(list(folder.iterdir()))}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(flags), json.dumps(limits)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.port = 0

    def wait_until_ready(self) -> "Running":
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), self.said()
        self.port = int(line.rpartition(":")[2])
        return self

    def said(self) -> str:
        return self.errors.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def started(self) -> set[int]:
        """The processes that have built the application."""
        return {int(path.suffix[1:]) for path in self.data.glob("started.*")}

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(self, *pieces: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return receive_all(client)

    def get(self, path: str) -> bytes:
        answer = self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return answer.partition(b"\r\n\r\n")[2]


def receive_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def receive_answer(client: socket.socket) -> bytes:
    """One answer with a Content-Length, on a connection that stays."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += client.recv(65536)
    return body


def eventually(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def is_alive(process_id: int) -> bool:
    """A zombie, whose new parent has not looked yet, is dead."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    servers: list[Running] = []

    def start(limits: dict[str, float] | None = None, **flags: Any) -> Running:
        servers.append(Running(tmp_path, limits or {}, **flags))
        return servers[-1]

    yield start
    stop(*servers)


def stop(*servers: Running) -> None:
    for server in servers:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout
        server.process.stdout.close()
    for server in servers:
        eventually(lambda server=server: not any(is_alive(process) for process in server.started()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that only talk to it."""
    running = Running(tmp_path_factory.mktemp("shared"), {})
    yield running.wait_until_ready()
    stop(running)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = {"HEADER_TIMEOUT": 0.2, "IDLE_TIMEOUT": 0.2, "BODY_WINDOW": 0.2, "UNREAD_TIMEOUT": 0.2}
    running = Running(tmp_path_factory.mktemp("impatient"), limits)
    yield running.wait_until_ready()
    stop(running)


# Start


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_answers_before_the_line_that_says_so(start: Callable[..., Running], tmp_path: Path, workers: int):
    hold = tmp_path / "data" / "hold"
    hold.parent.mkdir()
    hold.touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(port=port, workers=workers)
    eventually(lambda: len(server.started()) == workers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    hold.unlink()
    server.wait_until_ready()
    assert server.port == port
    assert int(server.get("/pid")) in server.started()


def test_port_0_is_one_free_port_on_both_loopback_addresses(server: Running):
    with socket.create_connection(("::1", server.port)) as client:
        client.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")


def test_the_banner_gives_the_commands_for_this_server(server: Running):
    eventually(lambda: "helm install" in server.said())
    said = server.said()
    assert f"http://127.0.0.1:{server.port}, http://[::1]:{server.port}\n" in said
    assert f"{server.data} (SQLite)\n" in said
    assert "anyone on this machine\n" in said
    assert f"helm push mychart-1.0.0.tgz oci://localhost:{server.port} --plain-http\n" in said
    assert f"helm install myrelease oci://localhost:{server.port}/mychart --version 1.0.0 --plain-http\n" in said


def test_a_url_of_an_ipv6_address_has_brackets(start: Callable[..., Running]):
    server = start(host="::1")
    assert server.process.stdout
    assert server.process.stdout.readline().startswith("listening on http://[::1]:")


def test_the_banner_does_not_tell_the_password_of_the_database(start: Callable[..., Running]):
    server = start(database="postgresql://anna:geheim@db.example/charts").wait_until_ready()
    eventually(lambda: "helm install" in server.said())
    assert "PostgreSQL db.example/charts\n" in server.said()
    assert "geheim" not in server.said()


def test_a_taken_port_is_one_line(start: Callable[..., Running]):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start(port=port)
        assert server.wait() == 2
    assert server.said() == (
        f"charthouse: port {port} on 127.0.0.1 is taken: choose another with --port or CHARTHOUSE_PORT,"
        " or 0 for a free one\n"
    )


def test_a_second_server_on_the_folder_says_so(start: Callable[..., Running]):
    start().wait_until_ready()
    second = start()
    assert second.wait() == 2
    assert second.said().startswith("charthouse: another server runs on the data folder ")
    assert second.said().count("\n") == 1


def test_a_server_waits_a_moment_for_the_workers_of_one_that_was_killed(start: Callable[..., Running], tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    with server_lock(data):
        server = start()
        eventually((data / "start.lock").exists)
    server.wait_until_ready()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_holds_the_lock_of_the_folder(start: Callable[..., Running], workers: int):
    server = start(workers=workers).wait_until_ready()
    inode = server_lock(server.data).path.stat().st_ino
    holders = [line.split() for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]
    assert {(kind, mode) for _, kind, _, mode, *_ in holders} == {("FLOCK", "READ")}
    assert {int(process) for _, _, _, _, process, *_ in holders} == server.started() | {server.process.pid}


@pytest.mark.parametrize("data", ["/proc/charts", "a-file", "a-file/inside"])
def test_a_folder_that_cannot_be_written_is_one_line_with_the_command_that_helps(
    start: Callable[..., Running], tmp_path: Path, data: str
):
    (tmp_path / "a-file").touch()
    server = start(data=str(tmp_path / data))
    assert server.wait() == 2
    line = server.said()
    assert line.startswith(f"charthouse: cannot write to the data folder {tmp_path / data}: ")
    assert f"this process is user {os.getuid()}: sudo chown -R {os.getuid()} {tmp_path / data}" in line
    assert line.count("\n") == 1


def test_other_machines_are_served_only_when_that_was_said(start: Callable[..., Running]):
    server = start(host="0.0.0.0")
    assert server.wait() == 2
    assert server.said() == (
        "charthouse: --host 0.0.0.0 can be reached from other machines, and there are no users yet: give"
        " --open-to-everyone to let anyone push, or leave --host at 127.0.0.1 and ::1\n"
    )
    start(host="0.0.0.0", open_to_everyone=True).wait_until_ready()


def test_a_public_url_on_loopback_is_for_others_too(start: Callable[..., Running]):
    flags = {"public_url": "https://charts.example.com"}
    server = start(**flags)
    assert server.wait() == 2
    assert server.said() == (
        "charthouse: --public-url https://charts.example.com says that others reach this registry, and there are no"
        " users yet: give --open-to-everyone to let anyone push\n"
    )
    start(**flags, open_to_everyone=True).wait_until_ready()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_database_that_cannot_be_used_is_one_line(start: Callable[..., Running], tmp_path: Path, workers: int):
    fail = tmp_path / "data" / "fail"
    fail.parent.mkdir()
    fail.touch()
    server = start(workers=workers)
    assert server.wait() == 2
    assert server.said() == "charthouse: the database is newer than this program\n"


# End


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish_and_the_exit_status_is_0(
    start: Callable[..., Running], workers: int, number: int
):
    server = start(workers=workers).wait_until_ready()
    with server.connect() as client:
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # it runs
        server.process.send_signal(number)
        eventually(lambda: is_refused(server.port))
        client.sendall(b"body")
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")
    assert server.wait() == 0
    assert (server.data / "ended").exists()


def is_refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_ends_at_once(start: Callable[..., Running], workers: int):
    server = start(workers=workers).wait_until_ready()
    with server.connect() as client:
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: is_refused(server.port))
        assert server.end(signal.SIGINT) == 130
        eventually(lambda: not any(is_alive(process) for process in server.started()))


def test_the_lines_of_the_last_requests_are_written_before_it_ends(start: Callable[..., Running]):
    server = start().wait_until_ready()
    server.get("/last")
    server.end()
    assert json.loads(server.said().splitlines()[-1])["path"] == "/last"


# Workers


def test_workers_end_with_a_killed_parent_and_a_restart_on_the_port_works_at_once(start: Callable[..., Running]):
    server = start(workers=2).wait_until_ready()
    before = server.started()
    with server.connect() as client:  # a request that runs keeps nobody alive
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        again = start(port=server.port, workers=2).wait_until_ready()
    assert not any(is_alive(process) for process in before)
    assert int(again.get("/pid")) in again.started() - before


def test_a_worker_that_was_killed_is_replaced(start: Callable[..., Running]):
    server = start(workers=2).wait_until_ready()
    first = server.started()
    killed = int(server.get("/pid"))
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(server.started()) == 3)
    (new,) = server.started() - first
    (other,) = first - {killed}
    os.kill(other, signal.SIGSTOP)
    assert int(server.get("/pid")) == new
    os.kill(other, signal.SIGCONT)
    assert f"worker {killed} ended with status -9: starting another" in server.said()
    assert server.end() == 0


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
        with contextlib.suppress(ConnectionError):
            while sent < 30_000_000:
                sent += client.send(b"a" * 65536)
    assert sent < 10_000_000  # what the kernel's buffers take, and no more


def test_trailers_without_end_are_cut_off(server: Running):
    with server.connect() as client:
        client.sendall(PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
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
        PUT + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody",
        PUT + b"X: a\r\n b\r\n\r\n",
        PUT + b"X: a\x00b\r\n\r\n",
        PUT + b"X: a\nY: b\r\n\r\n",
        PUT + b"X Y: a\r\n\r\n",
        PUT + b"Host: elsewhere\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
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
        with contextlib.suppress(ConnectionError):
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


# The log


def test_a_request_is_one_line_and_what_went_wrong_has_the_same_id(start: Callable[..., Running]):
    server = start().wait_until_ready()
    answer = json.loads(server.get("/boom?secret=1"))
    server.end()
    lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    (error,) = [line for line in lines if line.get("level") == "error"]
    (request,) = [line for line in lines if line.get("path") == "/boom"]
    assert request["status"] == 500
    assert error["traceback"].endswith("RuntimeError: a fault of our own")
    assert error["request_id"] == request["request_id"]
    assert request["request_id"] in answer["errors"][0]["message"]
    assert "secret" not in server.said()


# Locks


def test_a_lock_excludes_and_a_shared_one_does_not(tmp_path: Path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire(shared=True, blocking=False)
    assert second.acquire(shared=True, blocking=False)
    assert not second.acquire(blocking=False)
    first.release()
    assert second.acquire(blocking=False)
    assert not first.acquire(shared=True, blocking=False)
    second.release()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
