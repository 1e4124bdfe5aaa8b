"""A request to the API, and what handlers ask of it: parsed at the edge, so that behind it every value is right."""

import re
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import cast
from urllib.parse import parse_qsl

from starlette.requests import Request

from charthouse.core import Caller, Registry
from charthouse.errors import BlobUploadInvalid, ManifestTooLarge, PaginationInvalid
from charthouse.names import RepositoryName, shown
from charthouse.pull_cache import HELD, Held

PAGE_LIMIT = 1000  # entries of one page, whatever `n` says (CVE-2023-2253)
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)
_NUMBER = re.compile(r"\d+", re.ASCII)


class Call(Request):
    """One call of the API, with the registry that it is for."""

    @property
    def registry(self) -> Registry:
        return cast("Registry", self.scope["charthouse.registry"])

    @property
    def caller(self) -> Caller:
        return cast("Caller", self.scope["charthouse.caller"])

    def good_for(
        self, repository: RepositoryName, generation: int, again: Callable[[], bytes | None] | None = None
    ) -> None:
        """The answer may be given again while the repository has this generation. `again` gives its body anew."""
        self.scope[HELD] = Held(repository, generation, again)

    @cached_property
    def parameters(self) -> dict[str, list[str]]:
        """The query string. A `+` stands for itself: media types have it, and nothing here has spaces."""
        found: dict[str, list[str]] = {}
        raw = self.scope["query_string"].decode("latin-1").replace("+", "%2B")
        for name, value in parse_qsl(raw, keep_blank_values=True):
            found.setdefault(name, []).append(value)
        return found

    def parameter(self, name: str) -> str | None:
        return self.parameters.get(name, [None])[0]

    @property
    def page(self) -> tuple[str, int]:
        """`last` and `n`, at most PAGE_LIMIT. Raises PaginationInvalid."""
        last, n = self.parameter("last") or "", self.parameter("n")
        last = last.partition("\0")[0]  # what comes after "a\0" comes after "a", and PostgreSQL has no text with NUL
        if n is None:
            return last, PAGE_LIMIT
        if not _NUMBER.fullmatch(n):
            raise PaginationInvalid(f"n={shown(n)} is not a number of entries")
        return last, PAGE_LIMIT if len(n) > len(str(PAGE_LIMIT)) else min(int(n), PAGE_LIMIT)

    @property
    def content_type(self) -> str:
        """Without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    @property
    def content_range(self) -> tuple[int, int] | None:
        """First and last position of the chunk. Raises BLOB_UPLOAD_INVALID."""
        value = self.headers.get("content-range")
        if value is None:
            return None
        match = _CONTENT_RANGE.fullmatch(value.strip())
        if not match or int(match[1]) > int(match[2]):
            raise BlobUploadInvalid(f"Content-Range {shown(value)} is not of the form <first>-<last>")
        return int(match[1]), int(match[2])

    @property
    def is_conditional(self) -> bool:
        """Whether the answer depends on more than method and path."""
        return "range" in self.headers or "if-none-match" in self.headers

    @property
    def has_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    @property
    def length(self) -> int:
        """Of the body, as far as it says so; the server has seen that it is a number."""
        return int(self.headers.get("content-length", 0))

    async def pieces(self) -> AsyncIterator[bytes]:
        """A blob's bytes as they come in."""
        async for piece in self.stream():
            if piece:
                yield piece

    async def read_limited(self, limit: int) -> bytes:
        """The whole body. Raises MANIFEST_INVALID with 413 as soon as it is too large."""
        too_large = ManifestTooLarge(f"the manifest has more than {limit:,} bytes")
        if self.length > limit:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        async for piece in self.stream():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise too_large
        return b"".join(pieces)
