"""What a client sends, written down between it and the registry."""

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass

from support.listening import Handler, Listener

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass(frozen=True)
class Exchange:
    method: str
    target: str
    request: Mapping[str, str]
    status: int
    answer: Mapping[str, str]
    body: bytes  # the answer's


class Recorder(Listener):
    """Clients speak to `host`; whatever passes is added to `exchanges` before the answer goes back."""

    def __init__(self, upstream: int) -> None:
        super().__init__(_Relay)
        self.upstream = upstream
        self.exchanges: list[Exchange] = []

    def take(self, **names: str) -> list[str]:
        """The requests since the last call, `METHOD path status` each, and forgets them.

        `names` are what digests are called in the result. What a client does with several blobs at once has no order
        of its own: such a run of requests is sorted.
        """
        taken, self.exchanges[:] = self.exchanges[:], []
        lines = [_line(exchange, names) for exchange in taken]
        print("\n".join(["requests:", *(f"  {line}" for line in lines)]))
        return _sort_blobs(lines)


def _line(exchange: Exchange, names: Mapping[str, str]) -> str:
    target = re.sub(r"^/v2/", "", exchange.target)
    target = re.sub(r"(/blobs/uploads/)[^?]+", r"\1<id>", target).replace("sha256%3A", "sha256:")
    for name, digest in names.items():
        target = target.replace(digest, f"<{name}>")
    return f"{exchange.method} {target} {exchange.status}"


def _sort_blobs(lines: list[str]) -> list[str]:
    done: list[str] = []
    run: list[str] = []
    for line in [*lines, ""]:
        if "/blobs/" in line:
            run.append(line)
        else:
            done += [*sorted(run), line]
            run = []
    return done[:-1]


class _Relay(Handler):
    server: Recorder

    def _pass_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        try:
            # A header may come twice; http.client would make its own Host and Accept-Encoding.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP or name.lower() == "content-length":
                    connection.putheader(name, value)
            content = self._content()
            if "content-length" not in self.headers:
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        sent = {name.lower(): value for name, value in self.headers.items()}
        self.server.exchanges.append(Exchange(self.command, self.path, sent, answer.status, headers, body))
        self._answer(answer, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def _content(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().partition(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _answer(self, answer: http.client.HTTPResponse, body: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.headers.get("content-length") if self.command == "HEAD" else str(len(body))
        if length is not None and answer.status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)
