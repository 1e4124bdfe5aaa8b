"""Secrets, looked for over the whole run in every place where none may be. One that is found fails the run.

A pytest plugin, which `support.unhandled` brings along. The passwords of the tests have MARK in them, or are those of
the documentation; tokens, keys and hashes are known by their form, whoever made them. They are looked for in

- every record that this process logs, and every word that a process of the tests writes on its standard error;
- every answer that is an error, and every answer of the administrators' API but the one that gives a token;
- at the end, all logs, SQLite's files and backups in the folders of the tests, PostgreSQL's log, and its log of writes,
  which has every row that a statement wrote, also those that are deleted since. There hashes of passwords are at home.
"""

import asyncio
import base64
import bisect
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from support import findings

MARK = "canary9f3b1c"
TITLE = "a secret where none may be"
PHRASES = ("correct horse battery", "another horse, other staples", "secret phrase")  # of the documentation
SEARCHED = re.compile(r".*\.log|stderr\.\d+|.*\.db(-wal|-shm|-journal)?|.*\.tar")


def _in_base64(text: str) -> Iterator[str]:
    """As it stands in an Authorization header, whatever is before and behind it."""
    for shift, unsure in enumerate((0, 2, 3)):
        encoded = base64.b64encode(bytes(shift) + text.encode()).decode().rstrip("=")
        yield encoded[unsure:-1]


_WORDS = [re.escape(word) for word in (MARK, *_in_base64(MARK), *PHRASES)]
_FORMS = [
    r"\bch[tr]_[0-9A-Za-z]{49}\b",  # API tokens and refresh tokens
    r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",  # access tokens
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\s|\\[nr])*[0-9A-Za-z+/]{40}",  # a chart may show where one would stand
    r'"d": ?"[\w-]{43}"',  # a private JWK
]
_HASHES = [r"\$argon2id?\$v=", r"\$2[aby]\$\d\d\$"]
_AT_REST = re.compile("|".join([*_WORDS, *_FORMS]).encode())
_SAID = re.compile("|".join([*_WORDS, *_FORMS, *_HASHES]))
# One of these is in each of them: to look for them first takes a tenth of the time.
_SIGNS = [MARK, *_in_base64(MARK), *PHRASES, "cht_", "chr_", "eyJ", "PRIVATE KEY-----", '"d":', "$argon2", "$2"]
_SIGNS_AT_REST = [sign.encode() for sign in _SIGNS[:-2]]


def look_through(place: str, said: str) -> None:
    """What somebody can read while the registry runs. Enough of a secret is told to know it by."""
    if found := _secret_in(said):
        before = said[max(found.start() - 60, 0) : found.start()]
        findings.add(TITLE, f"{_test()}: {place}: {before!r} and then {found[0][:12]}…")


def _secret_in(said: str) -> "re.Match[str] | None":
    return _SAID.search(said) if any(sign in said for sign in _SIGNS) else None


def _secret_at_rest(content: bytes) -> "re.Match[bytes] | None":
    return _AT_REST.search(content) if any(sign in content for sign in _SIGNS_AT_REST) else None


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


def _watch_log() -> None:
    """When records have all that was said with them."""
    handle = logging.Logger.handle

    def watching(self: logging.Logger, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        look_through("a record of the log", f"{record.getMessage()}\n{trace}\n{record.__dict__}")
        handle(self, record)

    logging.Logger.handle = watching  # type: ignore[method-assign]


def _watch_answers() -> None:
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def watching(self: httpx.Client, *arguments: Any, **named: Any) -> httpx.Response:
        return _look_through_answer(send(self, *arguments, **named))

    async def awatching(self: httpx.AsyncClient, *arguments: Any, **named: Any) -> httpx.Response:
        return _look_through_answer(await asend(self, *arguments, **named))

    httpx.Client.send, httpx.AsyncClient.send = watching, awatching  # type: ignore[method-assign]


def _look_through_answer(response: httpx.Response) -> httpx.Response:
    """One that is read piece by piece is left alone."""
    method, path = response.request.method, response.request.url.path
    is_of_api = path.startswith("/api/v1/") and not path.endswith("/openapi.json")  # which has examples of passwords
    gives_a_token = (method, path) == ("POST", "/api/v1/tokens") and response.status_code == httpx.codes.CREATED
    if response.is_closed and (response.is_error or (is_of_api and not gives_a_token)):
        look_through(f"{response.status_code} for {method} {path}", f"{response.headers.raw}\n{response.text}")
    return response


def pytest_configure() -> None:
    _watch_log()
    _watch_answers()


# At the end


@pytest.fixture(scope="session", autouse=True)
def _folders_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    for folder, _, names in os.walk(tmp_path_factory.getbasetemp()):
        for path in (Path(folder, name) for name in names if SEARCHED.fullmatch(name)):
            _look_through_file(path, str(path))


def _look_through_file(path: Path, name: str) -> None:
    content = path.read_bytes() if path.is_file() else b""
    if found := _secret_at_rest(content):
        _add(name, content, found)


def _add(name: str, content: bytes, found: "re.Match[bytes]") -> None:
    before = content[max(found.start() - 60, 0) : found.start()]
    findings.add(TITLE, f"{name}: {before!r} and then {found[0][:12]!r}…")


def look_through_postgres(url: str, written: Sequence[tuple[int, str]]) -> None:
    """The server's log, and its log of writes: `written` is how long that was when a test had ended, and which."""
    data, size = asyncio.run(_described(url))
    _look_through_file(data.parent / "log", "the log of PostgreSQL")
    for path in (path for path in (data / "pg_wal").iterdir() if path.is_file()):
        content = path.read_bytes()
        if found := _secret_at_rest(content):
            position = _begin(path.name, size) + found.start()
            after = bisect.bisect_left(written, (position, ""))
            test = written[after][1] if after < len(written) else "the last test"
            _add(f"{test} or one before it: a row in PostgreSQL", content, found)


def _begin(name: str, size: int) -> int:
    """Where a segment of the log of writes begins, in bytes: its name is a timeline and two numbers."""
    return (int(name[8:16], 16) << 32) + int(name[16:24], 16) * size


async def _described(url: str) -> tuple[Path, int]:
    """Its folder, with everything written there, and the bytes of a segment."""
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute("CHECKPOINT")
        size = await connection.fetchval("SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'")
        return Path(await connection.fetchval("SHOW data_directory")), size
    finally:
        await connection.close()
