"""The request log in front of small applications, with a clock of its own and a stream that remembers each write."""

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from charthouse.request_log import LineWriter, RequestLog, printable, start_logging

NOON = 1_800_014_400.25  # 2027-01-15T12:00:00.250Z
HOSTILE = 'x\n{"forged": 1}\r\x1b[2J\u202e'


class Recording(io.StringIO):
    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal
        self.writes: list[str] = []
        self.written = asyncio.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.writes.append(text)
        self.written.set()
        return len(text)

    @property
    def lines(self) -> list[str]:
        return "".join(self.writes).splitlines()


async def hello(request: Request) -> Response:
    request.state.user = "anna"
    return PlainTextResponse("hello", 201, headers={"X-Seen-Id": request.state.request_id})


async def boom(_: Request) -> Response:
    raise RuntimeError("a fault of our own")


async def says(_: Request) -> Response:
    logging.getLogger("charthouse.test").warning("meanwhile: %s", HOSTILE)
    return PlainTextResponse("hello")


def ask(
    app: ASGIApp, path: str, *, terminal: bool = False, agent: str = "Helm/4.3.1"
) -> tuple[httpx.Response, Recording]:
    """The answer to one request, and what was logged."""
    stream = Recording(terminal=terminal)
    lines = LineWriter(stream)
    start_logging(lines, lambda: NOON)

    async def run() -> httpx.Response:
        log = RequestLog(app, lines=lines, clock=lambda: NOON)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(log), base_url="http://localhost") as client:
            return await client.get(path, headers={"User-Agent": agent.encode("latin-1", "replace")})

    answer = asyncio.run(run())
    lines.flush()
    return answer, stream


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def app() -> Starlette:
    routes = [Route("/boom", boom), Route("/says", says), Route("/{path:path}", hello)]
    return Starlette(routes=[Mount("/v2", Starlette(routes=routes)), *routes])


def test_a_request_is_one_json_object(app: Starlette):
    answer, stream = ask(app, "/v2/a/manifests/1.0.0")
    (line,) = stream.lines
    entry = json.loads(line)
    assert entry.pop("milliseconds") > 0
    assert entry == {
        "time": "2027-01-15T12:00:00.250Z",
        "client": "127.0.0.1",
        "user": "anna",
        "method": "GET",
        "path": "/v2/a/manifests/1.0.0",
        "status": 201,
        "bytes": 5,
        "user_agent": "Helm/4.3.1",
        "request_id": answer.headers["x-request-id"],
    }


def test_a_request_is_one_line_for_people_on_a_terminal(app: Starlette):
    answer, stream = ask(app, "/v2/a/manifests/1.0.0", terminal=True)
    (line,) = stream.lines
    assert " 127.0.0.1 anna GET /v2/a/manifests/1.0.0 201 5 B " in line
    assert line.endswith(f' ms "Helm/4.3.1" [{answer.headers["x-request-id"]}]')


def test_the_application_knows_the_request_id_and_no_two_are_equal(app: Starlette):
    first, second = (ask(app, "/a")[0] for _ in range(2))
    assert first.headers["x-seen-id"] == first.headers["x-request-id"]
    assert len(first.headers["x-request-id"]) == 16
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_the_query_string_is_not_logged(app: Starlette):
    assert "secret" not in "".join(ask(app, "/a?token=secret")[1].writes)


@pytest.mark.parametrize("terminal", [True, False])
def test_neither_path_nor_user_agent_nor_message_forges_a_line(app: Starlette, terminal: bool):
    path = "/says" if terminal else "/v2/says"
    for hostile_path in (path, "/" + "".join(f"%{byte:02x}" for byte in HOSTILE.encode())):
        _, stream = ask(app, hostile_path, terminal=terminal, agent="x\x1b[2J\x85y")
        text = "".join(stream.writes)
        assert text.count("\n") == len(stream.writes)
        assert text.replace("\n", "").isprintable()


def test_long_values_are_cut(app: Starlette):
    _, stream = ask(app, "/" + "a" * 5000, agent="b" * 5000)
    assert len(stream.lines[0]) < 1000


@pytest.mark.provokes("a fault of our own")
@pytest.mark.parametrize("path", ["/boom", "/v2/boom"])
@pytest.mark.parametrize("terminal", [True, False])
def test_an_exception_is_logged_once_and_answered_with_the_request_id(app: Starlette, path: str, terminal: bool):
    answer, stream = ask(app, path, terminal=terminal)
    request_id = answer.headers["x-request-id"]
    (error,) = answer.json()["errors"]
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert error["code"] == "UNSUPPORTED"
    assert f"request id {request_id}" in error["message"]
    text = "".join(stream.writes)
    assert text.count("RuntimeError: a fault of our own") == 1
    assert "a fault of our own" not in answer.text
    assert text.count(request_id) == 2  # in the error's line and in the request's


@pytest.mark.provokes("a fault of our own")
def test_an_exception_after_the_answer_has_begun_adds_nothing_to_it():
    sent: list[Any] = []

    async def half(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a fault of our own")

    stream = call(half, sent)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert json.loads(stream.lines[0])["level"] == "error"
    assert json.loads(stream.lines[1])["bytes"] == 4


def test_a_client_that_went_away_is_no_error():
    async def disconnected(*_: Any) -> None:
        raise ClientDisconnect

    stream = call(disconnected, [])
    (line,) = stream.lines
    assert json.loads(line)["status"] is None


def test_headers_that_are_sent_again_and_again_stay_as_they_are():
    headers = [(b"etag", b"x")]

    async def cached(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    call(cached, [])
    assert headers == [(b"etag", b"x")]


def call(app: Callable[..., Any], sent: list[Any]) -> Recording:
    stream = Recording()
    lines = LineWriter(stream)
    start_logging(lines, lambda: NOON)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is asked for")

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "path": "/a", "headers": [], "client": None}
        await RequestLog(app, lines=lines, clock=lambda: NOON)(scope, receive, send)

    asyncio.run(run())
    lines.flush()
    return stream


def test_lines_are_written_together_a_moment_later():
    async def run() -> list[str]:
        stream = Recording()
        lines = LineWriter(stream)
        lines.later("one")
        lines.later("two")
        assert stream.writes == []
        await asyncio.wait_for(stream.written.wait(), 30)
        return stream.writes

    assert asyncio.run(run()) == ["one\ntwo\n"]


def test_a_line_is_written_at_once_on_a_terminal():
    stream = Recording(terminal=True)
    LineWriter(stream).later("one")
    assert stream.writes == ["one\n"]


def test_what_is_written_together_is_no_more_than_a_pipe_takes_in_one_piece():
    async def run() -> list[str]:
        stream = Recording()
        lines = LineWriter(stream)
        for number in range(100):
            lines.later(f"{number:0199}")
        lines.flush()
        return stream.writes

    writes = asyncio.run(run())
    assert [len(write) for write in writes] == [4000] * 5
    assert "".join(writes).splitlines() == [f"{number:0199}" for number in range(100)]


def test_a_stream_that_is_closed_stops_nobody():
    stream = io.StringIO()
    lines = LineWriter(stream)
    stream.close()
    lines.now("one")


def test_what_does_not_print_is_written_as_an_escape():
    assert printable("a\x1b[2J\né\u202e") == r"a\x1b[2J\né\u202e"
