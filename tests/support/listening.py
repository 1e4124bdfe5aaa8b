"""A small HTTP server of a test's own, on a free port, for as long as the test needs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client of this process may keep its connections

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def host(self) -> str:
        return f"localhost:{self.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, as registries do, and says nothing on standard error."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass
