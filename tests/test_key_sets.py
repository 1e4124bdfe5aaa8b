"""The keys of other issuers: read from a file or fetched, and kept while no others can be had."""

import asyncio
import errno
import json
import logging
import socket
from collections.abc import Iterator

import pytest

from charthouse.auth import key_sets
from charthouse.auth.key_sets import FRESH, PAUSE, SIZE_LIMIT, STALE, KeyFile, KeysUnavailable, KeyUrl, parse
from support.issuer import Issuer, KeyServer, SigningKey

ISSUER = "https://issuer.test"
FIRST, SECOND = SigningKey("first"), SigningKey("second", "RS256")


def jwks(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.public for key in keys]}).encode()


@pytest.fixture
def served() -> Iterator[KeyServer]:
    server = KeyServer(jwks(FIRST))
    with server.running() as url:
        server.url = url
        yield server


@pytest.fixture
def keys(served: KeyServer, clock) -> KeyUrl:
    return KeyUrl(served.url, "corp", clock)


async def known(keys: KeyUrl, kid: str) -> bool:
    await keys.look_for(kid)
    return keys.find(kid) is not None


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


# What is a JWK set


def test_keys_of_kinds_that_are_not_accepted_are_passed_over():
    others = [{**FIRST.public, "use": "enc", "kid": "e"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, None, 7, {}]
    content = json.dumps({"keys": [*others, FIRST.public, SECOND.public]}).encode()
    assert {kid: key.algorithm for kid, key in parse(content).items()} == {"first": "ES256", "second": "RS256"}


def test_of_two_keys_with_one_name_the_first_counts():
    impostor = SigningKey("first").public
    found = parse(json.dumps({"keys": [FIRST.public, impostor]}).encode())["first"]
    assert found.prepared.to_dict() == parse(jwks(FIRST))["first"].prepared.to_dict()


def test_a_private_key_in_the_set_is_taken_for_its_public_part():
    private = FIRST.prepared.to_dict()
    (found,) = parse(json.dumps({"keys": [{**private, **FIRST.public}]}).encode()).values()
    assert found.prepared.is_public()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "they are no JWK set"),
        (b"<html>", "they are no JWK set"),
        (b"[" * 60_000, "they are no JWK set"),
        (b"[]", "they are no JWK set"),
        (b"{}", "they are no JWK set"),
        (b'{"keys": {}}', "it is empty"),
        (b'{"keys": []}', "it is empty"),
        (b'{"keys": [{}]}', "a key has no kid"),
        (b'{"keys": [{"kid": "a", "kty": "oct", "k": "AA"}]}', "use RS256 or ES256"),
        (b" " * SIZE_LIMIT + b"{}", "more than 65,536 bytes"),
    ],
)
def test_what_is_no_set_of_keys_that_count_says_why(content: bytes, why: str):
    with pytest.raises(KeysUnavailable, match=why):
        parse(content)


# Of a file


def test_a_file_is_read_again_when_it_changes_and_a_damaged_one_changes_nothing(tmp_path, caplog):
    issuer = Issuer(ISSUER, {})
    path = issuer.write(tmp_path / "jwks.json")
    keys = KeyFile(path, "corp")
    before = keys.version
    assert keys.find("first")
    assert not keys.find("second")
    issuer.published = [SECOND.public]
    issuer.write(path)
    assert keys.version != before
    assert (keys.find("first"), bool(keys.find("second"))) == (None, True)
    for damage in (lambda: path.write_text("{"), path.unlink):
        damage()
        assert keys.find("second")
        assert keys.find("second")
    assert [line.split(": ")[0] for line in errors(caplog)] == ["the keys of the issuer corp stay as they were"] * 2


# Of a URL


async def test_a_url_is_asked_once_for_all_who_wait_and_again_when_its_keys_are_not_fresh(served, keys, clock):
    with served.hold():
        waiting = [asyncio.create_task(known(keys, "first")) for _ in range(10)]
        await asyncio.to_thread(served.asked.wait)
    assert await asyncio.gather(*waiting) == [True] * 10
    assert served.requests == ["/keys"]
    clock.now += FRESH
    assert await known(keys, "first")
    assert len(served.requests) == 1
    clock.now += 1
    assert await known(keys, "first")
    assert len(served.requests) == 2


async def test_the_event_loop_goes_on_while_the_issuer_is_asked(served, keys):
    with served.hold():
        waiting = asyncio.create_task(known(keys, "first"))
        await asyncio.to_thread(served.asked.wait)  # nobody would come back from it if the request held the loop
        assert not waiting.done()
    assert await waiting


async def test_a_new_key_is_fetched_when_a_token_names_it_but_only_once_in_a_while(served, keys, clock):
    """Whoever invents names of keys makes nobody ask the issuer all the time."""
    assert await known(keys, "first")
    version = keys.version
    served.content = jwks(FIRST, SECOND)
    assert not await known(keys, "second")
    assert len(served.requests) == 1
    clock.now += PAUSE
    assert await known(keys, "second")
    assert keys.version == version + 1
    for number in range(100):
        assert not await known(keys, f"invented-{number}")
    assert len(served.requests) == 2


async def test_a_key_that_is_published_no_more_ends_with_the_next_fetch(served, keys, clock):
    assert await known(keys, "first")
    served.content = jwks(SECOND)
    clock.now += FRESH + 1
    assert not await known(keys, "first")
    assert keys.find("second")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 500}, "it answered 500"),
        ({"status": 302, "headers": {"Location": "https://elsewhere.test/keys"}}, "it answered 302"),
        ({"status": 307, "headers": {"Location": "/others"}}, "it answered 307"),
        ({"content": b"<html>"}, "they are no JWK set"),
        ({"content": b" " * (SIZE_LIMIT + 1)}, "more than 65,536 bytes"),
        ({"content": jwks(FIRST)[:-1], "headers": {"Content-Length": "100000"}}, "they are no JWK set"),
    ],
    ids=["500", "302", "307", "a page", "too large", "cut"],
)
async def test_keys_stay_for_a_day_when_no_others_can_be_fetched_and_the_log_has_one_line(
    served, keys, clock, caplog, fault, said
):
    caplog.set_level(logging.INFO)
    assert await known(keys, "first")
    for name, value in fault.items():
        setattr(served, name, value)
    for _ in range(5):
        clock.now += FRESH + 1
        assert await known(keys, "first")
        if keys._fetching:
            await keys._fetching
    (line,) = errors(caplog)
    assert line.startswith(f"the keys of the issuer corp cannot be fetched from {served.url}, and stay as they were")
    assert said in line
    assert "/others" not in served.requests
    clock.now += STALE
    assert not await known(keys, "first")
    served.status, served.headers, served.content = 200, {}, jwks(FIRST)
    clock.now += PAUSE
    assert await known(keys, "first")
    assert caplog.records[-1].message == "the keys of the issuer corp are fetched again"


async def test_nobody_waits_again_for_an_issuer_that_did_not_answer(served, keys, clock):
    assert await known(keys, "first")
    served.status = 500
    clock.now += FRESH + 1
    assert await known(keys, "first")
    clock.now += PAUSE
    with served.hold():
        assert await known(keys, "first")
    assert keys._fetching
    await keys._fetching


async def test_an_issuer_that_is_not_there_gives_no_keys(clock, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    keys = KeyUrl(url, "corp", clock)
    assert not await known(keys, "first")
    assert errors(caplog)[0].endswith(
        f"from {url}, and stay as they were: [Errno {errno.ECONNREFUSED}] Connection refused"
    )


async def test_an_issuer_that_never_ends_its_answer_is_given_up(served, keys, monkeypatch, caplog):
    monkeypatch.setattr(key_sets, "PATIENCE", 0.05)
    with served.hold():
        assert not await known(keys, "first")
    assert "no whole answer came" in errors(caplog)[0]


async def test_a_registry_that_ends_waits_for_no_issuer(served, keys):
    with served.hold():
        waiting = asyncio.create_task(known(keys, "first"))
        await asyncio.to_thread(served.asked.wait)
        keys.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_issuer_is_told_nothing_and_reached_by_no_other_way(served, keys, monkeypatch):
    """One of this machine by no proxy, whatever the environment names."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await known(keys, "first")
    (headers,) = served.sent
    assert set(headers) == {"accept", "accept-encoding", "connection", "host", "user-agent"}
