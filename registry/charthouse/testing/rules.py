"""What goes wrong on demand: `Rule` is also the body of `POST /_test/faults`, so its fields are its documentation.

Apart from the layer that follows it, because pydantic is imported for it: only tests that want something to go wrong
wait for that.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Scope

from charthouse.testing.records import query_of

_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 416: "SIZE_INVALID", 429: "TOOMANYREQUESTS"}


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
        if self.digest is not None and self.digest not in path and self.digest not in query_of(scope).values():
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


def _repository(path: str) -> str:
    name = path.removeprefix("/v2/")
    for part in ("/blobs/", "/manifests/", "/tags/list", "/referrers/"):
        before, found, _ = name.rpartition(part)
        if found:
            return before
    return ""


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _is_upload(scope: Scope) -> bool:
    return scope["method"] in ("PATCH", "PUT") and "/blobs/uploads/" in scope["path"]


def _authorization(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), "")
