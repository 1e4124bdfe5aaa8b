"""A head that the parser has read on a connection is not read again, and what comes of the request is the same."""

from typing import Any

import pytest

from charthouse.at_once import REMEMBERED, Finished
from charthouse.http_protocol import HEADS_KEPT
from support.connection import Connection

HEAD = b"Host: localhost:5000\r\nAccept: application/json\r\nAuthorization: Basic eDp5\r\n\r\n"
PATHS = [b"/v2/team-a/app/manifests/1.0.0", b"/v2/a/blobs/sha256:0f", b"/v2/", b"/"]


class Answering:
    """Answers at once, writes down what it is asked, and spoils it: layers may write into a scope."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    def at_once(self, scope: Any) -> Finished:
        self.scopes.append({**scope, "headers": list(scope["headers"]), "state": dict(scope["state"])})
        scope["state"]["user"] = "somebody"
        scope |= {"client": ("192.0.2.1", 1), "scheme": "https", "headers": [], "charthouse.route": "another"}
        return Finished(200, b"content-length: 2\r\n", b"" if scope["method"] == "HEAD" else b"{}")

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def request(path: bytes, method: bytes = b"GET", head: bytes = HEAD) -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + head


class Asked(Connection):
    """Answered at once, whatever is asked."""

    def __init__(self) -> None:
        self.app = Answering()
        super().__init__(self.app)


@pytest.fixture
async def known() -> Asked:
    """A connection on which HEAD is known: the first request is the connection's, the second is kept."""
    connection = Asked()
    assert [connection.ask(request(b"/v2/"))[1] for _ in range(3)] == [1, 1, 0]
    connection.app.scopes.clear()
    return connection


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("path", PATHS)
async def test_the_application_is_asked_as_if_the_parser_had_read_it(known: Asked, path: bytes, method: bytes):
    parsed = Asked()
    assert known.ask(request(path, method)) == (parsed.ask(request(path, method))[0], 0)
    assert [scope.pop(REMEMBERED) for scope in known.app.scopes] == [{}]
    assert known.app.scopes == parsed.app.scopes


@pytest.mark.parametrize(
    "path",
    [b"/v2/%61/manifests/1", b"/v2/?n=1", b"/a//b", b"/a/../b", b"/a;b", b"http://localhost:5000/v2/", b"*", b"/a b"],
)
async def test_a_target_that_might_be_read_in_two_ways_goes_to_the_parser(known: Asked, path: bytes):
    answer, parsed = known.ask(request(path))
    assert parsed == 1
    assert answer == Asked().ask(request(path))[0]


@pytest.mark.parametrize(
    "data",
    [
        request(b"/v2/", b"POST"),
        request(b"/v2/", b"get"),
        request(b"/v2/").replace(b"1.1", b"1.0"),
        request(b"/v2/").replace(b"1.1\r\n", b"1.1\n"),
        request(b"/v2/", head=HEAD.replace(b"json", b"yaml")),
        request(b"/v2/", head=HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")),
        request(b"/v2/") + request(b"/v2/x"),
        b"\r\n" + request(b"/v2/"),
    ],
)
async def test_what_is_not_one_plain_request_with_that_head_goes_to_the_parser(known: Asked, data: bytes):
    assert known.ask(data)[1] == 1


async def test_a_request_that_comes_in_two_pieces_goes_to_the_parser(known: Asked):
    """Also one whose second piece is a whole request with that head."""
    whole = request(b"/v2/")
    answer, parsed = known.ask(whole[:9], whole[9:])
    assert (parsed, answer.count(b"HTTP/1.1 200")) == (2, 1)
    answer, parsed = known.ask(b"GET /v2/ HTTP/1.1\r\nX: ", whole)
    assert (parsed, answer.count(b"HTTP/1.1 200")) == (2, 1)


@pytest.mark.parametrize("framing", [b"Content-Length: 0", b"Transfer-Encoding: chunked"])
async def test_a_head_that_says_how_long_a_body_is_is_read_each_time(framing: bytes):
    connection = Asked()
    head = HEAD.replace(b"\r\n\r\n", b"\r\n" + framing + b"\r\n\r\n")
    body = b"0\r\n\r\n" if b"chunked" in framing else b""
    assert [connection.ask(request(b"/v2/", head=head) + body)[1] for _ in range(4)] == [1] * 4


async def test_two_requests_in_one_piece_make_no_known_head():
    connection = Asked()
    both = request(b"/v2/") + request(b"/v2/x")
    assert [connection.ask(both)[1] for _ in range(3)] == [1] * 3
    assert not connection.protocol.heads


async def test_a_connection_keeps_few_heads(known: Asked):
    for number in range(20):
        known.ask(request(b"/v2/", head=b"X: %d\r\n" % number + HEAD))
        assert len(known.protocol.heads) <= HEADS_KEPT
