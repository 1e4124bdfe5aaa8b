"""The processes that answer: this one, or several workers, children that share the sockets, with this one as parent.

Between the parent and a worker runs a pipe: the worker says READY and LISTENING, the parent LISTEN and STOP, and a pipe
that ends means that the parent has ended, however it did.
"""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from charthouse import http_protocol
from charthouse.at_once import Layer
from charthouse.errors import DatabaseError
from charthouse.locks import FileLock
from charthouse.request_log import LineWriter, RequestLog, start_logging
from charthouse.settings import Settings, SettingsError
from charthouse.tls import Tls, open_tls


class Application(Layer, Protocol):
    """What is served: an ASGI application that is started and ended by `lifespan`."""

    def lifespan(self) -> AbstractAsyncContextManager[object]: ...


Build = Callable[[Settings], Application]

GRACE = 30  # seconds that running requests have to finish
COLLECT_EVERY = 20_000  # objects made and kept until Python looks for cycles among the young
RESTART_PAUSE = 1.0  # seconds before a worker that did not even start is started again; twice as many each time
LONGEST_PAUSE = 30.0  # seconds
INTERRUPTED = 130  # exit status after a second Ctrl+C, as a shell gives it

READY, LISTENING, LISTEN, STOP = b"ready", b"listening", b"listen", b"stop"

log = logging.getLogger(__name__)


def http_config(app: ASGIApp) -> uvicorn.Config:
    """How connections are served, whichever loop they are in."""
    return uvicorn.Config(
        app,
        http=http_protocol.Protocol,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        ws="none",
        lifespan="off",  # see Server.serve
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )


class Server(uvicorn.Server):
    """uvicorn's, which raises a signal again when it has obeyed it, and has no idea of slow clients."""

    def __init__(
        self,
        app: Application,
        lines: LineWriter,
        before_listening: Callable[[], Awaitable[None]],
        listening: Callable[[], None],
        tls: Tls | None = None,
    ) -> None:
        super().__init__(http_config(RequestLog(app, lines=lines, clock=time.time)))
        self.server_state: http_protocol.State = http_protocol.State(tls)
        self._app = app
        self._before_listening = before_listening
        self._listening = listening

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """The application's own errors come out of here; uvicorn would print them and go on."""
        with self.capture_signals():
            async with self._app.lifespan():
                _collect_less()
                await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._before_listening()
        if not self.should_exit:
            await super().startup(sockets)
            self._listening()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # of a tick of 0.1 s
            http_protocol.sweep(self.server_state.connections, asyncio.get_running_loop().time())
            if self.server_state.tls:
                self.server_state.tls.refresh()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        with _on_signals(self.handle_exit):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self.should_exit:
            os._exit(INTERRUPTED)
        super().handle_exit(sig, frame)


def _collect_less() -> None:
    """What is there now stays, and requests leave next to no cycles: looking for them took a tenth of a push."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 20)


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    signals = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        signals.append(signal.SIGBREAK)
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def serve_here(
    settings: Settings,
    build: Build,
    sockets: list[socket.socket],
    lines: LineWriter,
    announce: Callable[[], None],
    tls: Tls | None,
) -> int:
    async def at_once() -> None:
        pass

    Server(build(settings), lines, at_once, announce, tls).run(sockets)
    return 0


@dataclass(eq=False)
class Worker:
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    is_told: bool = False  # to listen
    is_listening: bool = False

    def tell(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended; `Workers` hears of that by itself
            self.pipe.send_bytes(word)


class Workers:
    """The parent of several workers: it starts them, replaces who dies, and stops them."""

    def __init__(
        self,
        settings: Settings,
        build: Build,
        sockets: list[socket.socket],
        lock: FileLock,
        announce: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._build = build
        self._sockets = sockets
        self._lock = lock
        self._announce = announce
        self._workers: list[Worker] = []
        self._is_announced = False
        self._is_stopping = False
        self._status = 0
        self._pause = RESTART_PAUSE

    def run(self) -> int:
        with _on_signals(self._stop_on_signal):
            self._start()  # alone until it is ready: it migrates the database, and what is wrong is said once
            while self._workers:
                self._wait()
        return self._status

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._settings, self._build, self._sockets, self._lock, theirs))
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self._workers.append(worker)
        if self._is_stopping:  # a signal came meanwhile, and did not know of this one
            worker.tell(STOP)

    def _wait(self) -> None:
        pipes = {worker.pipe: worker for worker in self._workers if not worker.pipe.closed}
        sentinels = {worker.process.sentinel: worker for worker in self._workers}
        for found in wait([*pipes, *sentinels]):
            if isinstance(found, Connection):
                self._hear(pipes[found])
            elif isinstance(found, int):
                self._bury(sentinels[found])

    def _hear(self, worker: Worker) -> None:
        try:
            word = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            worker.pipe.close()  # its process ends, which `_wait` sees next
            return
        worker.is_ready = worker.is_ready or word == READY
        while len(self._workers) < self._settings.workers and not self._is_stopping:
            self._start()
        worker.is_listening = worker.is_listening or word == LISTENING
        if all(each.is_ready for each in self._workers):
            for each in self._workers:
                if not each.is_told:
                    each.is_told = True
                    each.tell(LISTEN)
        if not self._is_announced and all(each.is_listening for each in self._workers):
            self._is_announced = True
            self._announce()

    def _bury(self, worker: Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if self._is_stopping:
            return
        if not self._is_announced:
            self._status = max(worker.process.exitcode or 0, 1)
            self._stop()
            return
        log.error("worker %s ended with status %s: starting another", worker.process.pid, worker.process.exitcode)
        if worker.is_listening:
            self._pause = RESTART_PAUSE
        else:
            self._wait_a_while()
        if not self._is_stopping:
            self._start()

    def _wait_a_while(self) -> None:
        """What keeps a worker from starting, such as a certificate that was replaced by a broken one, keeps the next
        one too until somebody mends it; meanwhile the others answer."""
        until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        while not self._is_stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, RESTART_PAUSE / 10))

    def _stop_on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._is_stopping:
            os._exit(INTERRUPTED)  # and the workers with us
        self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        for bound in self._sockets:  # or they would still take connections, which nobody answers
            bound.close()
        for worker in self._workers:
            worker.tell(STOP)


def work(settings: Settings, build: Build, sockets: list[socket.socket], lock: FileLock, pipe: Connection) -> None:
    """A worker's life, in a process of its own. It holds the lock as it holds the sockets: from its first moment."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to all of us; until we can obey, the parent does
    lines = LineWriter(sys.stderr)
    start_logging(lines, time.time)
    may_listen = threading.Event()

    async def permission() -> None:
        pipe.send_bytes(READY)
        await asyncio.to_thread(may_listen.wait)

    try:
        app, tls = build(settings), open_tls(settings)
        server = Server(app, lines, permission, lambda: pipe.send_bytes(LISTENING), tls)
        threading.Thread(target=_obey, args=(pipe, server, may_listen), daemon=True).start()
        server.run(sockets)
    except (SettingsError, DatabaseError) as error:
        sys.stderr.write(f"charthouse: {error}\n")
        raise SystemExit(2) from None
    finally:
        lines.flush()
        lock.release()


def _obey(pipe: Connection, server: Server, may_listen: threading.Event) -> None:
    """In a thread, so that a worker that hangs ends with its parent too. It ends as if killed: the next server on
    this folder and port need not wait for anything."""
    while True:
        try:
            word = pipe.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)
        server.should_exit = server.should_exit or word == STOP
        may_listen.set()
