"""A secret in any place where none may be fails the run that passed, and names the test."""

import asyncio
import base64
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from charthouse.auth import api_tokens, keys, tokens
from charthouse.auth.scope import parse
from charthouse.tables import metadata
from support import canaries, findings, postgres
from support.canaries import MARK
from test_unhandled import run

BASIC = base64.b64encode(f"ann:{MARK}".encode()).decode()
LEAKS = """
import asyncio, contextlib, httpx, logging, sqlite3, subprocess, sys

log = logging.getLogger("charthouse")

def client(kind=httpx.Client, status=401, text="no", **headers):
    return kind(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=text, headers=headers)))

def test_a_record():
    log.error("%s signed in with %s", "ann", "MARK")

def test_what_else_a_record_has():
    log.error("signed in", extra={"header": "Basic BASIC"})

def test_a_traceback():
    try:
        raise OSError("MARK")
    except OSError:
        log.warning("failed", exc_info=True)

def test_standard_error():
    subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('MARK')"], capture_output=True)

def test_an_error():
    client(text="MARK is not right").get("http://localhost/v2/")

def test_a_header_of_an_error():
    client(location="/?MARK").get("http://localhost/v2/")

def test_a_list_of_the_api():
    client(status=200, text="[MARK]").get("http://localhost/api/v1/users")

def test_when_awaited():
    asyncio.run(client(httpx.AsyncClient, text="MARK").get("http://localhost/v2/"))

def test_a_database(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "charthouse.db")) as connection, connection:
        connection.execute("CREATE TABLE audit (who TEXT)")
        connection.execute("INSERT INTO audit VALUES ('MARK')")

def test_the_log_of_a_server(tmp_path):
    (tmp_path / "server.log").write_text("MARK")
""".replace("MARK", MARK).replace("BASIC", BASIC)
GIVEN = """
import httpx, logging

def test_the_token_service_gives_tokens():
    httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="MARK"))).get("http://localhost/token")

def test_no_secret():
    logging.getLogger("charthouse").error("a password")
""".replace("MARK", MARK)


@pytest.fixture
def apart() -> Iterator[Path]:
    """Not where the run that this test is a part of looks."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("words", [[], ["-n", "1"]], ids=["alone", "workers"])
def test_a_secret_fails_the_run_that_passed_and_its_test_is_named(apart, words):
    status, said = run(apart, LEAKS, "--basetemp", str(apart / "base"), *words)
    lines = sorted(line for line in said.splitlines() if line.startswith(canaries.TITLE))
    names = re.findall(r"def (test_\w+)", LEAKS)
    assert [sum(name[:30] in line for line in lines) for name in names] == [1] * len(names)
    assert len(lines) == len(names)
    assert f"{len(names)} passed" in said
    assert status == 1


def test_what_is_none_or_in_its_place_does_not(apart):
    status, said = run(apart, GIVEN, "--basetemp", str(apart / "base"))
    assert canaries.TITLE not in said
    assert status == 0, said


SECRETS = {
    "an API token": api_tokens.new(api_tokens.API),
    "a refresh token": api_tokens.new(api_tokens.REFRESH),
    "an access token": tokens.make(tokens.key(keys._new()), "ann", "1", parse([]), 1),
    "a private key": "-----BEGIN PRIVATE KEY-----\n" + "MIGH" * 16,
    "a private JWK": json.dumps(keys._new()),
    "a hash": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$",
    "a hash of a file": "$2y$05$c2FsdHNhbHRzYWx0c2FsdA",
    "a phrase of the documentation": "correct horse battery staple",
    **{f"Basic, {name}": base64.b64encode(f"{name}:{MARK}x".encode()).decode() for name in ("a", "bo", "ann")},
}


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_known_by_its_form(kind):
    assert canaries._SAID.search(f"before {SECRETS[kind]} behind")
    assert bool(canaries._AT_REST.search(SECRETS[kind].encode())) == (not kind.startswith("a hash"))


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """One for a test alone: the run that it is a part of does not look for it."""
    secret = f"{MARK[:6]}-that-is-none"
    monkeypatch.setattr(canaries, "_SIGNS_AT_REST", [secret.encode()])
    monkeypatch.setattr(canaries, "_AT_REST", canaries.re.compile(secret.encode()))
    return secret


async def test_what_a_statement_wrote_in_postgresql_is_found_also_when_it_was_deleted_since(
    postgres_server, secret, monkeypatch
):
    url = await postgres.take(postgres_server)
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO quota_turns VALUES ($1, 1)", secret)
    await connection.close()
    await postgres.give_back(postgres_server, url)
    await postgres.give_back(postgres_server, await postgres.take(postgres_server))
    found = []
    monkeypatch.setattr(findings, "add", lambda _, line: found.append(line))
    everything = postgres_server.format(name="postgres")
    await asyncio.to_thread(canaries.look_through_postgres, everything, postgres.written)
    assert len(found) == 1
    assert "also_when_it_was_deleted_since (call) or one before it: a row in PostgreSQL" in found[0]
    assert postgres.written[-1][0] > postgres.written[-2][0]


async def test_a_database_that_is_taken_again_is_as_a_new_one(postgres_server):
    new = await postgres.make_database(postgres_server, (await postgres._template(postgres_server))[0])
    url = await postgres.take(postgres_server)
    await write_something(url)
    await postgres.give_back(postgres_server, url)
    again = await postgres.take(postgres_server)
    assert again == url
    assert await rows(again) == await rows(new)
    assert await write_something(again) == await write_something(new) == 1  # the first number that is given


@pytest.mark.parametrize("change", ["DROP TABLE audit", "CREATE TABLE more (id int)", "ALTER TABLE audit ADD more int"])
async def test_a_database_that_a_test_has_changed_is_not_taken_again(postgres_server, change):
    url = await postgres.take(postgres_server)
    connection = await asyncpg.connect(url)
    await connection.execute(change)
    await connection.close()
    await postgres.give_back(postgres_server, url)
    assert url not in postgres._empty[postgres_server]


async def test_nor_one_that_somebody_is_connected_to(postgres_server):
    url = await postgres.take(postgres_server)
    connection = await asyncpg.connect(url)
    await postgres.give_back(postgres_server, url)
    await connection.close()
    assert url not in postgres._empty[postgres_server]


async def write_something(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("INSERT INTO quota_turns VALUES ('ann', 1)")
        return await connection.fetchval(
            "INSERT INTO repositories (name, generation, created_at) VALUES ('a', 1, 1) RETURNING id"
        )
    finally:
        await connection.close()


async def rows(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        return {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in metadata.tables}
    finally:
        await connection.close()
