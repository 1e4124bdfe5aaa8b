"""Faults on demand: a layer between the request log and the rights, and the rules that it follows.

Every rule that matches a request takes part in it: the first that answers by itself is the answer, and the others
change what the registry says. `Rule` is also the body of `POST /_test/faults`, so its fields are its documentation.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.core import Clock
from charthouse.testing.records import RECORD

TICK = 0.02  # seconds of an answer that are sent at once under `bandwidth`
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 416: "SIZE_INVALID", 429: "TOOMANYREQUESTS"}
_LISTS = ("/tags/list", "/v2/_catalog", "/referrers/")


class Rule(BaseModel):
    """What it matches, how often, and what it does. What is not given matches everything, and does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str | None = Field(default=None, description="GET, or several separated by commas.")
    path: str | None = Field(default=None, description="Pattern of the whole path: */blobs/sha256:*")
    repository: str | None = Field(default=None, description="Pattern of a repository's name: team-a/*")
    digest: str | None = Field(default=None, description="A digest in the path, or one that an upload is to have.")
    skip: int = Field(default=0, ge=0, description="So many matching requests pass untouched first.")
    times: int | None = Field(default=None, ge=1, description="So many requests at most are touched.")
    seconds: float | None = Field(
        default=None, ge=0, description="By the registry's clock, after which the rule is over."
    )

    delay: float = Field(default=0, ge=0, description="Seconds before anything else happens.")
    status: int | None = Field(default=None, ge=200, le=599, description="Answered in place of the registry.")
    headers: dict[str, str] = Field(
        default={}, description="Of the answer, in addition to or in place of the registry's."
    )
    body: str | dict[str, Any] | None = Field(default=None, description="Of the answer; an object is sent as JSON.")
    retry_after: int | None = Field(default=None, ge=0, description="429 with Retry-After.")
    challenge: str | None = Field(default=None, description="401 with this WWW-Authenticate.")
    expired_token: bool = Field(default=False, description="Bearer tokens are answered 401 invalid_token.")
    redirect: str | None = Field(
        default=None,
        description="307 to this Location, in which {path} is the request's path and query: http://other{path}",
    )
    upload_at: int | None = Field(
        default=None, ge=0, description="416 that says the upload has so many bytes, for a PATCH or PUT of an upload."
    )
    page_size: int | None = Field(default=None, ge=1, description="Lists have at most so many entries on a page.")
    unpaged: bool = Field(default=False, description="Lists ignore n and last.")
    without: list[str] = Field(
        default=[], description="Headers that the answer lacks: Docker-Content-Digest, Location, Link."
    )
    other_host: str | None = Field(default=None, description="Location and Link lead to this origin: http://other:5000")
    flip: int | None = Field(default=None, ge=0, description="The byte at this position of the body is another one.")
    truncate: int | None = Field(
        default=None, ge=0, description="The body ends after so many bytes, as if that were all."
    )
    cut: int | None = Field(
        default=None,
        ge=0,
        description="The connection ends after so many bytes of the body; 0: before there is an answer.",
    )
    bandwidth: int | None = Field(default=None, ge=1, description="Bytes of the body per second.")

    def matches(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if self.method is not None and scope["method"] not in self.method.upper().replace(" ", "").split(","):
            return False
        if self.path is not None and not fnmatchcase(path, self.path):
            return False
        if self.repository is not None and not fnmatchcase(_repository(path), self.repository):
            return False
        if self.digest is not None and self.digest not in path and self.digest not in _query(scope).values():
            return False
        if self.expired_token and not _authorization(scope).lower().startswith("bearer "):
            return False
        return not (self.upload_at is not None and not _is_upload(scope))

    def answer(self, scope: Scope) -> Response | None:
        """In place of the registry; None when the rule only changes what that says."""
        headers = dict(self.headers)
        status = self.status
        if self.retry_after is not None:
            status, headers["Retry-After"] = status or 429, str(self.retry_after)
        if self.expired_token:
            status, headers["WWW-Authenticate"] = 401, f'{self.challenge or "Bearer"},error="invalid_token"'
        elif self.challenge is not None:
            status, headers["WWW-Authenticate"] = status or 401, self.challenge
        if self.redirect is not None:
            status, headers["Location"] = status or 307, self.redirect.replace("{path}", _target(scope))
        if self.upload_at is not None:
            status, headers["Location"] = status or 416, scope["path"]
            headers["Range"] = f"0-{max(self.upload_at - 1, 0)}"
        return None if status is None else _response(status, headers, self.body)

    def __str__(self) -> str:
        return json.dumps(self.model_dump(exclude_defaults=True))


def _response(status: int, headers: Mapping[str, str], body: str | Mapping[str, Any] | None) -> Response:
    if body is None:
        message = f"a test wants this: {HTTPStatus(status).phrase if status in list(HTTPStatus) else status}"
        body = {"errors": [{"code": _CODES.get(status, "UNSUPPORTED"), "message": message}]}
    if isinstance(body, str):
        return Response(body, status, headers)
    return Response(json.dumps(body), status, headers, media_type="application/json")


@dataclass(slots=True)
class _Active:
    rule: Rule
    until: float | None
    seen: int = 0

    def takes(self, scope: Scope, now: float) -> bool:
        if (self.until is not None and now >= self.until) or not self.rule.matches(scope):
            return False
        self.seen += 1
        before = self.seen - self.rule.skip - 1
        return before >= 0 and (self.rule.times is None or before < self.rule.times)


class Faults:
    """The layer."""

    def __init__(self, app: Layer, clock: Clock) -> None:
        self._app = app
        self._clock = clock
        self._active: list[_Active] = []

    @property
    def rules(self) -> list[Rule]:
        return [active.rule for active in self._active]

    def add(self, rules: Iterable[Rule]) -> None:
        now = self._clock()
        self._active += [_Active(rule, None if rule.seconds is None else now + rule.seconds) for rule in rules]

    def clear(self) -> None:
        self._active.clear()

    def at_once(self, scope: Scope) -> Finished | None:
        return None if self._active else self._app.at_once(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rules = [active.rule for active in self._active if active.takes(scope, self._clock())]
        if not rules:
            await self._app(scope, receive, send)
            return
        scope[RECORD].fault = "; ".join(map(str, rules))
        for rule in rules:
            await asyncio.sleep(rule.delay)
        connection = _Connection(scope, receive)
        if any(rule.cut == 0 for rule in rules):
            await connection.end()
            return
        changed = _Changed(rules, connection, send)
        answers = (rule.answer(scope) for rule in rules)
        answer = next((found for found in answers if found is not None), None)
        if answer is not None:
            await answer(scope, receive, changed.send)
            return
        await self._app(_asked(scope, rules), receive, changed.send)


def _asked(scope: Scope, rules: Iterable[Rule]) -> Scope:
    """The request as the registry gets it."""
    if not any(part in scope["path"] for part in _LISTS):
        return scope
    query = _query(scope)
    for rule in rules:
        if rule.unpaged:
            query = {name: value for name, value in query.items() if name not in ("n", "last")}
        elif rule.page_size is not None:
            asked = query.get("n", "")
            query["n"] = str(min(int(asked), rule.page_size) if asked.isdecimal() else rule.page_size)
    return {**scope, "query_string": urlencode(query).encode()}


class _Connection:
    """What a request came through."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._protocol = scope["state"]["connection"]
        self._receive = receive

    async def end(self) -> None:
        """After what was sent. Waits until it has ended, or the server would take the answer for unfinished."""
        self._protocol.transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Changed:
    """The answer, as the rules want it."""

    def __init__(self, rules: list[Rule], connection: _Connection, send: Send) -> None:
        self._rules = rules
        self._connection = connection
        self._send = send
        self._position = 0  # in the body, as the registry sends it
        self._is_over = False
        self._end = min((rule.truncate for rule in rules if rule.truncate is not None), default=None)
        self._cut = min((rule.cut for rule in rules if rule.cut is not None), default=None)
        self._bandwidth = min((rule.bandwidth for rule in rules if rule.bandwidth is not None), default=None)

    async def send(self, message: Message) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": self._headers(message["headers"])})
        else:
            await self._body(message.get("body", b""), more=message.get("more_body", False))

    def _headers(self, raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = MutableHeaders(raw=list(raw))
        for rule in self._rules:
            headers.update(rule.headers)
            for name in rule.without:
                del headers[name]
            if rule.other_host is not None:
                _lead_elsewhere(headers, rule.other_host)
        if self._end is not None and "content-length" in headers:
            headers["content-length"] = str(min(self._end, int(headers["content-length"])))
        return headers.raw

    async def _body(self, body: bytes, *, more: bool) -> None:
        start = self._position
        self._position += len(body)
        for rule in self._rules:
            if rule.flip is not None and start <= rule.flip < self._position:
                at = rule.flip - start
                body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        if self._end is not None and self._position >= self._end:
            body, more = body[: max(self._end - start, 0)], False
        is_cut = self._cut is not None and self._position >= self._cut
        if is_cut:
            body, more = body[: max((self._cut or 0) - start, 0)], True
        await self._paced(body, more=more)
        self._is_over = not more or is_cut
        if is_cut:
            await self._connection.end()

    async def _paced(self, body: bytes, *, more: bool) -> None:
        if self._bandwidth is not None:
            size = max(int(self._bandwidth * TICK), 1)
            for at in range(0, len(body), size):
                piece = body[at : at + size]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(len(piece) / self._bandwidth)
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _lead_elsewhere(headers: MutableHeaders, origin: str) -> None:
    if headers.get("location", "").startswith("/"):
        headers["location"] = origin + headers["location"]
    if headers.get("link", "").startswith("</"):
        headers["link"] = f"<{origin}{headers['link'][1:]}"


def _repository(path: str) -> str:
    name = path.removeprefix("/v2/")
    for part in ("/blobs/", "/manifests/", "/tags/list", "/referrers/"):
        before, found, _ = name.rpartition(part)
        if found:
            return before
    return ""


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _is_upload(scope: Scope) -> bool:
    return scope["method"] in ("PATCH", "PUT") and "/blobs/uploads/" in scope["path"]


def _authorization(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
