"""HTTP/1.1 as it arrives: uvicorn's protocol with the limits that it lacks.

What a proxy in front of us might read differently is refused here, on the raw request, before anything is decoded. The
parser (llhttp, strict) refuses repeated, signed or contradicting Content-Length and Transfer-Encoding, bare line feeds,
folded headers and bad chunks itself; `tests/test_http.py` holds the corpus.
Source: RFC 9112; Apache's mod_reqtimeout and LimitRequestFields for the numbers.
"""

import asyncio
import json
import logging
import re
import ssl
from enum import Enum, auto
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from charthouse.at_once import REMEMBERED, Finished, header_lines
from charthouse.names import shown
from charthouse.origin import is_host
from charthouse.settings import is_loopback
from charthouse.tls import HANDSHAKE, Tls, TlsTransport

log = logging.getLogger(__name__)

HEADER_BYTES = 32 * 1024  # of the request line and all headers; Helm sends 400, and 8 KiB of token at most
HEADER_COUNT = 100  # Apache's default; Helm sends 6
HEADER_TIMEOUT = 10.0  # seconds from a request's first byte, or from the connection, to the end of its headers
IDLE_TIMEOUT = 30.0  # seconds between an answer and the next request
BODY_WINDOW = 20.0  # seconds over which a body's rate is taken
BODY_RATE = 500  # bytes per second, at least
HEADS_KEPT = 4  # of a connection: what a client sends but for the request line, which has an Accept for each kind
UNREAD_TIMEOUT = 120.0  # seconds in which a client takes nothing of an answer; a slow line's buffers empty in bursts
LINGER_TIMEOUT = 2.0  # seconds to go on reading after the last word: closed at once, the client could not read it
LINGER_BYTES = 1024 * 1024  # likewise; what comes after them of an answered body waits unread, of anything else ends it
HINT_INTERVAL = 60.0  # seconds between two hints in the log

TLS_HINT = (
    "a client tried TLS, and this port speaks plain HTTP: add --plain-http to helm push, pull, install and upgrade"
    " (and to oras; --insecure for crane, --tls disabled for regctl, --dest-tls-verify=false for skopeo)"
)
PLAIN_HINT = (
    "a client tried plain HTTP, and this port speaks TLS: leave --plain-http out with helm (oras takes"
    " --plain-http=false for localhost, regctl --tls enabled), and use https:// in URLs"
)
TRUST_HINT = "a client does not trust the certificate (%s): give helm or oras --ca-file %s, or name it in SSL_CERT_FILE"
CLIENT_HINT = (
    "a client showed no certificate of this registry's authority (%s): give helm or oras --cert-file and --key-file,"
    " curl --cert and --key"
)
FAILURE_HINT = "a client's TLS failed: %s"

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
# What one reader of a path takes for a separator, a step upwards or an end, and another one does not.
_TRICK = re.compile(
    rb"//|/\.\.?(?=/|$)|[\\;#\x00-\x20\x7f-\xff]|%(?:[01]|2[ef]|3b|5c|7f|(?![0-9a-f]{2}))", re.IGNORECASE
)
# A request line that nobody reads in two ways. Whatever else it may be is left to the parser.
_PLAIN_LINE = re.compile(rb"(GET|HEAD) (/[A-Za-z0-9/_.:-]*) HTTP/1\.1")


_is_host = lru_cache(maxsize=256)(lambda value: is_host(value.decode("latin-1")))


Head = list[tuple[bytes, bytes]]
KnownHead = tuple[Head, dict[object, object]]  # with what the application remembers of it
_FRAMING = (b"content-length", b"transfer-encoding")


class State(ServerState):
    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__()
        self.tls = tls
        self._hinted: dict[str, float] = {}  # when each hint was logged last, in the event loop's time

    def hint(self, now: float, hint: str, *values: object) -> None:
        if now - self._hinted.get(hint, -HINT_INTERVAL) >= HINT_INTERVAL:
            self._hinted[hint] = now
            log.warning(hint, *values)


class Refusal(Exception):
    """Why a request does not reach the application."""

    def __init__(self, status: HTTPStatus, message: str, code: str = "UNSUPPORTED") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def render(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        body = json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}".encode(),
            *(name + b": " + value for name, value in headers),
            b"content-type: application/json",
            b"x-content-type-options: nosniff",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        return b"\r\n".join([*lines, b"", body])


class Reading(Enum):
    """What is expected from the client."""

    HEADERS = auto()
    BODY = auto()
    NOTHING = auto()  # it waits for its answer
    NEXT = auto()
    REST = auto()  # of a body that was answered before its end
    END = auto()  # nothing more is read


class Protocol(HttpToolsProtocol):
    """A connection. `since` is when `reading` began, in the event loop's time; `sweep` looks at it every second."""

    server_state: State

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.reading = Reading.HEADERS
        self.since = self.loop.time()
        self.is_new = True  # nothing was asked yet
        self.unanswered = 0  # requests that the application has, or that wait for it
        self.received = 0  # bytes of the body in this window
        self.unparsed = 0  # bytes since the parser last got somewhere
        self.header_bytes = 0
        self.unsent = 0  # bytes of answers that the client has not taken, at the last sweep
        self.finished: Finished | None = None  # the answer to the request whose headers are being read
        self.resumed = b""  # what the next parser is given, when this one ends at a request that asks for an upgrade
        self.last_word: Refusal | None = None  # waits for the answers before it
        self.begun = 0  # requests that begin in the bytes that are being read
        self.head: Head = []  # of the last request
        # By their bytes, those that the parser has read: with credentials, so no longer than the connection.
        self.heads: dict[bytes, KnownHead] = {}

    # What arrives

    def data_received(self, data: bytes) -> None:
        if self.reading is Reading.END:
            self._discard(len(data))
            return
        if self.is_new and self.scheme == "http" and self._begins_otherwise(data):
            return
        is_first = self.reading is Reading.NEXT
        self.begun = 0
        if is_first and self._is_answered_as_known(data):
            return
        self.unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_reason(error))
        else:
            if self.unparsed > HEADER_BYTES:
                self._refuse(_too_large())
            elif is_first:
                self._keep_head(data)

    # What is known

    def _is_answered_as_known(self, data: bytes) -> bool:
        """Whether it is a plain request with a head that the parser has read on this connection, and its answer is
        finished: to read it anew costs as much as all the rest (docs/performance.md)."""
        line, _, head = data.partition(b"\r\n")
        known = self.heads.get(head)
        match = _PLAIN_LINE.fullmatch(line) if known is not None else None
        if known is None or match is None or _TRICK.search(match[2]) or self.unanswered or self.flow.write_paused:
            return False
        scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": known[0],
            REMEMBERED: known[1],
            "state": self.app_state.copy(),
            "method": match[1].decode("ascii"),
            "path": self.root_path + match[2].decode("ascii"),
            "raw_path": match[2],
            "query_string": b"",
        }
        finished = self.app.at_once(scope)
        if finished is None:
            return False
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        self._write(finished)
        return True

    def _keep_head(self, data: bytes) -> None:
        """Where the data were one plain request from its first byte to its last, answered while it was read. Of the
        same bytes the parser would make the same again, and whatever the path is."""
        line, _, head = data.partition(b"\r\n")
        is_whole = self.reading is Reading.NEXT and self.begun == 1
        if not is_whole or not _PLAIN_LINE.fullmatch(line) or any(name in _FRAMING for name, _ in self.head):
            return
        if len(self.heads) == HEADS_KEPT:
            self.heads.clear()
        self.heads[head] = self.head, {}

    def _ignore_upgrade(self, rest: bytes) -> None:
        """RFC 9110, 7.8: a server may. The connection ends with this request's answer (`on_headers_complete`), so that
        nobody who believes in the upgrade gets more than that through."""
        if not self.resumed:
            self._read(Reading.END)
            return
        self.parser = httptools.HttpRequestParser(_Body(self))
        self.data_received(self.resumed + rest)

    def _begins_otherwise(self, data: bytes) -> bool:
        """Whether these first bytes are no plain HTTP, or must not be. Helm 3.18 to 3.22 try TLS first, and fall back
        when the answer begins with HTTP/."""
        tls = self.server_state.tls
        if data.startswith(HANDSHAKE):
            if tls:
                self._begin_tls(tls, data)
            else:
                self._turn_away(TLS_HINT)
            return True
        if tls and not self.may_be_plain(tls):
            self._turn_away(PLAIN_HINT)
            return True
        return False

    def may_be_plain(self, tls: Tls) -> bool:
        """Whether it answers plain HTTP where it speaks TLS."""
        return tls.plain_on_loopback and self.server is not None and is_loopback(self.server[0])

    def _begin_tls(self, tls: Tls, data: bytes) -> None:
        inside = TlsTransport(self.transport, tls.context, self, partial(self._tls_failed, tls))
        self.transport, self.flow, self.scheme = inside, FlowControl(inside), "https"
        inside.data_received(data)

    def _tls_failed(self, tls: Tls, error: ssl.SSLError) -> None:
        reason, now = error.reason or "no reason given", self.loop.time()
        if tls.clients and reason in ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"):
            self.server_state.hint(now, CLIENT_HINT, reason)
        elif "UNKNOWN_CA" in reason or "CERTIFICATE" in reason:  # what OpenSSL's clients say, and Go's
            self.server_state.hint(now, TRUST_HINT, reason, tls.authority or "with the certificate's authority")
        else:
            self.server_state.hint(now, FAILURE_HINT, reason)

    def _turn_away(self, hint: str) -> None:
        self.server_state.hint(self.loop.time(), hint)
        self._say(_bad_request(hint))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._read(Reading.HEADERS)
        self.is_new = False
        self.begun += 1
        self.header_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.header_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.header_bytes += len(name) + len(value) + len(b": \r\n")
        if self.header_bytes > HEADER_BYTES or len(self.headers) >= HEADER_COUNT:
            raise _too_large()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_headers()
        super().on_headers_complete()
        self.unanswered += 1
        if self.parser.should_upgrade():  # nobody here speaks anything else, and the parser reads no further
            self.cycle.keep_alive = False
            self.resumed = _head_of_body(self.headers)
        self.head = self.headers
        self.headers = []  # trailers come through on_header too, and are no headers of the request
        self._read(Reading.BODY)
        if self.finished is not None:
            self._answer_at_once(self.finished)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Unless the answer is finished already. A request that waited for others goes the long way: a thousand in one
        piece would answer each other a thousand calls deep."""
        if not self.unanswered and cycle.keep_alive and not self.parser.should_upgrade() and not self.flow.write_paused:
            self.finished = app.at_once(cycle.scope)
        if self.finished is None:
            super()._start_asgi_task(cycle, app)

    def _answer_at_once(self, finished: Finished) -> None:
        self.finished = None
        self.cycle.response_started = self.cycle.response_complete = True
        self._write(finished)
        self.on_response_complete()

    def _write(self, finished: Finished) -> None:
        line, defaults = STATUS_LINE[finished.status], header_lines(self.server_state.default_headers)
        self.transport.write(b"".join((line, defaults, finished.headers, b"\r\n", finished.body)))

    def on_body(self, body: bytes) -> None:
        self.received += len(body)
        self.unparsed = 0
        if self.reading is Reading.REST and self.received > LINGER_BYTES:
            self.transport.pause_reading()  # and not closed: Go's client fails at its next write, and drops the answer
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.resumed and self.parser.should_upgrade():
            return  # the parser has left the body out
        super().on_message_complete()
        self._read(Reading.NEXT if self.reading is Reading.REST else Reading.NOTHING)

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each answer."""
        self.server_state.total_requests += 1
        self.unanswered -= 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.last_word:
            self._say(self.last_word)
        elif self.reading is Reading.NOTHING:
            self._read(Reading.NEXT)
        elif self.reading is Reading.BODY:
            self._read(Reading.REST)

    def _read(self, reading: Reading) -> None:
        self.reading = reading
        self.since = self.loop.time()
        self.received = self.unparsed = 0

    # What is refused

    def _check_headers(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _bad_request(f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            raise _bad_request(f"a request has one Host header, this one has {len(hosts)}")
        if hosts and not _is_host(hosts[0]):
            raise _bad_request(f"the Host header {shown(hosts[0].decode('latin-1'))} is no name and no address")
        encodings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if encodings and (version == "1.0" or [value.lower() for value in encodings] != [b"chunked"]):
            raise _bad_request("the only Transfer-Encoding that is understood is chunked, once and in HTTP/1.1")
        path = self.url.partition(b"?")[0]
        if match := _ABSOLUTE_FORM.match(path):
            path = path[match.end() :]
            if [match[1].lower()] != [host.lower() for host in hosts]:  # RFC 9112, 3.2.2: a proxy goes by the first
                raise _bad_request("the request line names another host than the Host header")
        if trick := _TRICK.search(path):
            found = shown(trick.group().decode("latin-1") or "%")
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the path holds {found}, which no address here does", "NAME_INVALID")

    def _refuse(self, refusal: Refusal) -> None:
        client = self.client[0] if self.client else "somebody"
        log.warning("refused what %s sent: %d %s", client, refusal.status, refusal.message)
        if self.reading is Reading.REST:
            self.transport.close()  # this request has its answer
        elif not self.unanswered:
            self._say(refusal)
        elif self.reading is not Reading.BODY:
            self.last_word = refusal  # after the answers to the requests before it
            self._read(Reading.END)
        elif self.unanswered > 1 or self.cycle.response_started:
            self.transport.close()  # in the middle of an answer nothing else can be said
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        self.last_word, self.unanswered = None, 0
        self._read(Reading.END)
        self.transport.write(refusal.render(self.server_state.default_headers))
        self.transport.write_eof()

    def shutdown(self) -> None:
        if self.reading is Reading.END and not self.unanswered:
            self.transport.close()
        else:
            super().shutdown()

    def _discard(self, size: int) -> None:
        self.received += size
        if self.received > LINGER_BYTES:
            self.transport.close()

    # What takes too long

    def sweep(self, now: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent or self.flow.read_paused:  # the client takes what we send; or we are who is slow
            self.unsent, self.since, self.received = unsent, now, 0
        elif unsent:
            if now - self.since > UNREAD_TIMEOUT:
                self.transport.abort()
        else:
            self._check_time(now - self.since)

    def _check_time(self, passed: float) -> None:
        match self.reading:
            case Reading.HEADERS if passed > HEADER_TIMEOUT:
                self._give_up(f"the headers of a request come within {HEADER_TIMEOUT:g} seconds")
            case Reading.BODY if passed > BODY_WINDOW and not self.cycle.waiting_for_100_continue:
                if self.received < BODY_RATE * BODY_WINDOW:
                    self._give_up(f"a body comes with at least {BODY_RATE} bytes per second")
                else:
                    self._read(Reading.BODY)
            case Reading.NEXT if passed > IDLE_TIMEOUT:
                self.transport.close()
            case Reading.REST | Reading.END if passed > LINGER_TIMEOUT and not self.unanswered:
                self.transport.close()

    def _give_up(self, message: str) -> None:
        if self.is_new:
            self.transport.close()
        else:
            self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, message))


class _Body:
    """What becomes of a body whose request another parser has begun."""

    def __init__(self, connection: Protocol) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


def _head_of_body(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Java's client asks for h2c with every request, those with a body too, which llhttp skips then: so another parser
    is told how long the body is, and gets it. Empty where there is none."""
    framing = [name + b": " + value for name, value in headers if name in _FRAMING]
    return b"\r\n".join([b"POST / HTTP/1.1", b"connection: close", *framing, b"", b""]) if framing else b""


def sweep(connections: set[Any], now: float) -> None:
    for connection in list(connections):
        connection.sweep(now)


def _reason(error: httptools.HttpParserError) -> Refusal:
    cause = error.__context__
    return cause if isinstance(cause, Refusal) else _bad_request(f"this is not HTTP/1.1: {error}")


def _bad_request(message: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def _too_large() -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"a request has at most {HEADER_COUNT} headers and {HEADER_BYTES} bytes of them",
    )
