"""Faults on demand: a layer between the record and the rights that follows the rules of a test.

Every rule that matches a request takes part in it: the first that answers by itself is the answer, and the others
change what the registry says.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from charthouse.at_once import Finished, Layer
from charthouse.clocks import Clock
from charthouse.testing.records import RECORD, query_of

if TYPE_CHECKING:
    from charthouse.testing.rules import Rule

TICK = 0.02  # seconds of an answer that are sent at once under `bandwidth`
_LISTS = ("/tags/list", "/v2/_catalog", "/referrers/")


@dataclass(slots=True)
class _Active:
    rule: "Rule"
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
    def rules(self) -> "list[Rule]":
        return [active.rule for active in self._active]

    def add(self, rules: "Iterable[Rule]") -> None:
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


def _asked(scope: Scope, rules: "Iterable[Rule]") -> Scope:
    """The request as the registry gets it."""
    if not any(part in scope["path"] for part in _LISTS):
        return scope
    query = query_of(scope)
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

    def __init__(self, rules: "list[Rule]", connection: _Connection, send: Send) -> None:
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
        """The end goes out with the last piece: whoever has the whole body finds the request in the record as over."""
        if self._bandwidth is not None:
            size = max(int(self._bandwidth * TICK), 1)
            while body:
                await asyncio.sleep(min(len(body), size) / self._bandwidth)
                if len(body) <= size:
                    break
                await self._send({"type": "http.response.body", "body": body[:size], "more_body": True})
                body = body[size:]
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _lead_elsewhere(headers: MutableHeaders, origin: str) -> None:
    if headers.get("location", "").startswith("/"):
        headers["location"] = origin + headers["location"]
    if headers.get("link", "").startswith("</"):
        headers["link"] = f"<{origin}{headers['link'][1:]}"
