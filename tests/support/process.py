"""`charthouse serve` as a process, and what a client says to it on a raw socket.

The server under test is `main`, in a process of its own: the real `serve` around the registry, or around an application
that can be slow, fail and raise on demand.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from charthouse import http_protocol
from charthouse.errors import DatabaseError
from charthouse.server import build_app, serve
from charthouse.settings import Settings, load
from support.forked import Process

PATIENCE = 30  # seconds for what takes milliseconds on an idle machine


# The application under test


async def pid(_: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def read(request: Request) -> Response:
    """Answers when the body has come, with the scheme, the path, the headers and the body as they arrived."""
    body = await request.body()
    headers = [name.decode() for name, _ in request.scope["headers"]]
    seen = {"scheme": request.scope["scheme"], "path": request.scope["path"], "headers": headers, "body": body.decode()}
    return PlainTextResponse(json.dumps(seen))


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


def main() -> int:
    flags, limits, builds = sys.argv[1:]
    for name, value in json.loads(limits).items():
        setattr(http_protocol, name, value)
    settings = load(json.loads(flags), environ={})
    if builds == "registry":
        return serve(settings, build_app)
    return serve(settings, build, lambda _: False)  # the program has no database to look for users in


# A running server, and what a client says to it


class Running:
    def __init__(self, folder: Path, limits: dict[str, float], builds: str = "program", **flags: Any) -> None:
        flags = {"data": str(folder / "data"), "port": 0, **flags}
        self.data = Path(flags["data"])
        self.errors = folder / f"stderr.{len(list(folder.iterdir()))}"
        with self.errors.open("wb") as errors:
            self.process = Process(
                json.dumps(flags),
                json.dumps(limits),
                builds,
                program="support.process:main",
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.port = 0
        self.trusted: Path | None = None

    def wait_until_ready(self) -> "Running":
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert re.match(r"listening on https?://127\.0\.0\.1:", line), self.said()
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
        """Inside TLS, if there is something to trust."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        if not self.trusted:
            return plain
        return ssl.create_default_context(cafile=self.trusted).wrap_socket(plain, server_hostname="localhost")

    @property
    def authority(self) -> Path:
        """Of a server with `tls="self-signed"`."""
        return self.data / "tls/ca.pem"

    def ask(self, *pieces: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return receive_all(client)

    def get(self, path: str) -> bytes:
        answer = self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return answer.partition(b"\r\n\r\n")[2]


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [int(child) for found in lists for child in found.split()]
    return []


def workers_of(pid: int) -> list[int]:
    """From when they are spawned, without the helper that multiprocessing starts beside them."""
    return [child for child in children(pid) if b"spawn_main" in _command(child)]


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


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


def stop(*servers: Running) -> None:
    from support.unhandled import look_through  # the server under test does not know it

    for server in servers:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout
        server.process.stdout.close()
        look_through(server.said())
    for server in servers:
        eventually(lambda server=server: not any(is_alive(process) for process in server.started()))
