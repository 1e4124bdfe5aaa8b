"""Requests as an HTTP archive, which browsers and proxies show.

Source: HAR 1.2, https://w3c.github.io/web-performance/specs/HAR/Overview.html.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from charthouse import __version__
from charthouse.testing.records import Request, public

_KNOWN = {status.value: status.phrase for status in HTTPStatus}


def document(requests: Sequence[Request], origin: str) -> dict[str, Any]:
    creator = {"name": "charthouse", "version": __version__}
    return {"log": {"version": "1.2", "creator": creator, "entries": [_entry(each, origin) for each in requests]}}


def _entry(request: Request, origin: str) -> dict[str, Any]:
    query = f"?{request.query}" if request.query else ""
    return {
        "startedDateTime": datetime.fromtimestamp(request.time, UTC).isoformat(),
        "time": request.milliseconds,
        "request": {
            "method": request.method,
            "url": f"{origin}{request.path}{query}",
            "queryString": _pairs(parse_qsl(request.query, keep_blank_values=True)),
            "headers": _pairs(public(request)["headers"].items()),
            **_SIZES,
        },
        "response": {
            "status": request.status,
            "statusText": _KNOWN.get(request.status, ""),
            "headers": _pairs(request.answer.items()),
            "redirectURL": request.answer.get("location", ""),
            "content": {"size": request.bytes, "mimeType": request.answer.get("content-type", "")},
            **_SIZES,
        },
        "cache": {},
        "timings": {"send": 0, "wait": request.milliseconds, "receive": 0},
    }


_SIZES: dict[str, Any] = {"httpVersion": "HTTP/1.1", "cookies": [], "headersSize": -1, "bodySize": -1}


def _pairs(values: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values]
