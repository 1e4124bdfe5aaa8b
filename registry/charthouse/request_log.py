"""The log: one line per request, and what the program says meanwhile, on one stream and with one request id.

Human-readable on a terminal, a JSON object per line otherwise. Requests do not pass through the logging module, whose
record alone costs as much as all of this.
"""

import asyncio
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TextIO

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.errors import DatabaseError

Clock = Callable[[], float]  # Unix seconds

FLUSH_AFTER = 0.2  # seconds that a line may wait for others
PATH_LIMIT = 512  # characters; a repository's longest name, `/manifests/` and a sha512 digest fit
AGENT_LIMIT = 120  # characters
INTERNAL_ERROR = 500
_PIPE_BUF = 4096  # bytes that a pipe takes in one piece, so that the workers' lines do not mix

_request_id: ContextVar[str] = ContextVar("request_id", default="")


class LineWriter:
    """Whole lines to a stream, several at a time; at once on a terminal. For any thread."""

    def __init__(self, stream: TextIO) -> None:
        self.is_terminal = stream.isatty()
        self._stream = stream
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._due: asyncio.TimerHandle | None = None

    def later(self, line: str) -> None:
        """Within FLUSH_AFTER; only in the event loop."""
        self._lines.append(line)
        if self.is_terminal:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(FLUSH_AFTER, self._flush_due)

    def now(self, line: str) -> None:
        self._lines.append(line)
        self.flush()

    def _flush_due(self) -> None:
        self._due = None
        self.flush()

    def flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            try:
                for piece in _pieces(lines):
                    self._stream.write(piece)
                    self._stream.flush()
            except (OSError, ValueError):
                return  # nobody reads the log any more; that is no reason to stop serving


def _pieces(lines: list[str]) -> list[str]:
    """The lines, joined as far as a pipe takes them in one piece."""
    pieces: list[str] = []
    size = _PIPE_BUF
    for line in lines:
        size += len(line) + 1
        if size > _PIPE_BUF:
            pieces.append("")
            size = len(line) + 1
        pieces[-1] += line + "\n"
    return pieces


def start_logging(lines: LineWriter, clock: Clock) -> None:
    """Everything that this process says through the logging module goes where the requests are logged."""
    handler = _Handler(lines, clock)
    handler.addFilter(_add_request_id)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("charthouse").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = _request_id.get()
    return True


class _Handler(logging.Handler):
    def __init__(self, lines: LineWriter, clock: Clock) -> None:
        super().__init__()
        self._lines = lines
        self._clock = clock
        self._format = _human_record if lines.is_terminal else _json_record
        self._tracebacks = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            traceback = self._tracebacks.formatException(record.exc_info) if record.exc_info else ""
            self._lines.now(self._format(self._clock(), record, traceback))
        except Exception:  # noqa: BLE001 - as every handler: what cannot be logged must not stop what was going on
            self.handleError(record)


def _json_record(now: float, record: logging.LogRecord, traceback: str) -> str:
    entry = {"time": _utc(now), "level": record.levelname.lower(), "message": record.getMessage()}
    entry |= {"request_id": record.__dict__["request_id"]} if record.__dict__["request_id"] else {}
    return json.dumps(entry | ({"traceback": traceback} if traceback else {}))


def _human_record(now: float, record: logging.LogRecord, traceback: str) -> str:
    request_id = record.__dict__["request_id"]
    head = f"{_local(now)} {record.levelname.lower()}: {printable(record.getMessage())}"
    lines = [head + (f" [{request_id}]" if request_id else "")]
    return "\n".join(lines + [printable(line) for line in traceback.splitlines()])


def log_fault(log: logging.Logger, what: str, error: Exception) -> None:
    """A DatabaseError says all in its line; whatever nobody expected has its traceback."""
    if isinstance(error, DatabaseError):
        log.critical("%s: %s", what, error)
    else:
        log.error(what, exc_info=error)


class RequestLog:
    """Outermost of the middleware: gives each request its id, logs its line, and answers for what went wrong."""

    def __init__(self, app: Layer, *, lines: LineWriter, clock: Clock) -> None:
        self._app = app
        self._lines = lines
        self._clock = clock
        self._format = _human_request if lines.is_terminal else _json_request
        # Counted, not drawn: asking the system gives the interpreter's lock away, and a push waits to have it back.
        self._ids = map(f"{os.urandom(4).hex()}{{:08x}}".format, itertools.count())

    def at_once(self, scope: Scope) -> Finished | None:
        finished = self._app.at_once(scope)
        if finished is None:
            return None
        request = _Request(scope, next(self._ids))
        request.status, request.bytes = finished.status, len(finished.body)
        self._lines.later(self._format(self._clock(), request))
        headers = b"%sx-request-id: %s\r\n" % (finished.headers, request.id.encode())
        return Finished(finished.status, headers, finished.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope, next(self._ids))
        answer = _Answer(request, send)
        _request_id.set(request.id)
        try:
            await self._app(scope, receive, answer.send)
            await answer.release()
        except ClientDisconnect:
            return  # the line below says that there was no answer
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and answered
            log_fault(logging.getLogger("charthouse"), "internal error", error)
            await answer.apologise()
        finally:
            self._lines.later(self._format(self._clock(), request))


class _Request:
    """One request, seen from outside, and what became of it."""

    __slots__ = ("bytes", "id", "scope", "started", "status")

    def __init__(self, scope: Scope, request_id: str) -> None:
        self.scope = scope
        self.id = request_id
        self.started = time.perf_counter()
        self.status = 0  # none yet
        self.bytes = 0
        scope.setdefault("state", {})["request_id"] = self.id

    @property
    def milliseconds(self) -> float:
        return (time.perf_counter() - self.started) * 1000

    @property
    def client(self) -> str:
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    @property
    def user(self) -> str:
        return str(self.scope["state"].get("user") or "")

    @property
    def path(self) -> str:
        """Without the query string, which may hold secrets."""
        return str(self.scope["path"])[:PATH_LIMIT]

    @property
    def agent(self) -> str:
        for name, value in self.scope["headers"]:
            if name == b"user-agent":
                return str(value[:AGENT_LIMIT], "latin-1")
        return ""


class _Answer:
    """What the application sends, on its way out: counted, and with the request's id."""

    __slots__ = ("_held", "_request", "_send")

    def __init__(self, request: _Request, send: Send) -> None:
        self._request = request
        self._send = send
        self._held: list[Message] | None = []

    async def send(self, message: Message) -> None:
        if self._held is not None and (self._held or message.get("status") == INTERNAL_ERROR):
            self._held.append(message)
            return
        if message["type"] == "http.response.start":
            self._request.status = message["status"]
            # A new message: whoever sent this one may send its headers again.
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._request.id.encode())]}
        else:
            self._request.bytes += len(message.get("body", b""))
        await self._send(message)

    async def release(self) -> None:
        """A 500 waits until the application has returned: Starlette answers an exception with a page before it
        raises it again, and `apologise` does that better."""
        held, self._held = self._held, None
        for message in held or ():
            await self.send(message)

    async def apologise(self) -> None:
        """Unless an answer has begun: then the server cuts the connection, so that nobody takes it for whole."""
        if self._request.status:
            return
        self._held = None
        text = f"internal error, request id {self._request.id}: the registry's log has more"
        body = json.dumps({"errors": [{"code": "UNSUPPORTED", "message": text}]}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.send({"type": "http.response.start", "status": INTERNAL_ERROR, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _json_request(now: float, request: _Request) -> str:
    return (
        f'{{"time": "{_utc(now)}", "client": {quoted(request.client)}, "user": {quoted(request.user)},'
        f' "method": {quoted(request.scope["method"])}, "path": {quoted(request.path)},'
        f' "status": {request.status or "null"}, "bytes": {request.bytes}, "milliseconds": {request.milliseconds:.3f},'
        f' "user_agent": {quoted(request.agent)}, "request_id": "{request.id}"}}'
    )


def _human_request(now: float, request: _Request) -> str:
    return (
        f"{_local(now)} {request.client or '-'} {printable(request.user) or '-'} {request.scope['method']}"
        f" {printable(request.path)} {request.status or 'no answer'} {request.bytes} B {request.milliseconds:.1f} ms"
        f' "{printable(request.agent)}" [{request.id}]'
    )


def printable(text: str) -> str:
    """Without what moves a terminal's cursor, changes its colours or begins a line of its own."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _utc(now: float) -> str:
    return f"{_second(int(now))}.{int(now % 1 * 1000):03}Z"


def _local(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now))
