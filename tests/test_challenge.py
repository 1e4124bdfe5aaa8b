"""The first answer to whoever has not said who he is: where it sends him, and what becomes of what he sends along."""

import asyncio
import socket
from collections.abc import Callable

import httpx
import pytest

from charthouse.app import create_app
from charthouse.composition import open_existing
from charthouse.settings import Settings, load
from support.process import PATIENCE, Running, receive_answer
from support.requests import running

PASSWORD = "root's canary9f3b1c"
PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "charts.example.com"}


@pytest.mark.parametrize(
    ("flags", "headers", "realm"),
    [
        ({}, {"Host": "localhost:5000"}, "http://localhost:5000"),
        ({}, {"Host": "127.0.0.1:41091"}, "http://127.0.0.1:41091"),
        ({}, {"Host": "[::1]:5000"}, "http://[::1]:5000"),
        ({}, {"Host": "localhost:5000", **PROXY}, "http://localhost:5000"),  # from nobody who is trusted
        ({"host": "0.0.0.0"}, {"Host": "charts.example.com"}, "http://charts.example.com"),
        ({"host": "0.0.0.0"}, {"Host": "charts.example.com:8443"}, "http://charts.example.com:8443"),
        ({"host": "0.0.0.0"}, {"Host": "192.0.2.7:5000"}, "http://192.0.2.7:5000"),
        ({"host": "::"}, {"Host": "[2001:db8::7]:5000"}, "http://[2001:db8::7]:5000"),
        ({"host": "0.0.0.0", "trusted_proxies": "127.0.0.1"}, PROXY, "https://charts.example.com"),
        (
            {"host": "0.0.0.0", "trusted_proxies": "127.0.0.1"},
            PROXY | {"X-Forwarded-Host": "[2001:db8::7]:8443"},
            "https://[2001:db8::7]:8443",
        ),
        ({"host": "0.0.0.0", "trusted_proxies": "10.0.0.0/8"}, {"Host": "upstream:1", **PROXY}, "http://upstream:1"),
        (
            {"host": "0.0.0.0", "public_url": "https://charts.example.com:8443"},
            {"Host": "upstream:5000"},
            "https://charts.example.com:8443",
        ),
    ],
)
async def test_the_token_service_is_named_as_the_client_names_the_registry(make_settings, flags, headers, realm):
    app = create_app(make_settings(**flags), durable=False)
    async with running(app) as client:
        await app.registry.users.add("root", PASSWORD, administrator=True)
        answer = await client.get("/v2/", headers=headers)
        assert answer.headers["www-authenticate"].startswith(f'Bearer realm="{realm}/token",')


async def close(settings: Settings) -> None:
    registry = await open_existing(settings)
    try:
        await registry.users.add("root", PASSWORD, administrator=True)
    finally:
        await registry.close()


@pytest.fixture
def closed(start: Callable[..., Running]) -> Running:
    server = start(builds="registry").wait_until_ready()
    asyncio.run(close(load({"data": server.data}, environ={})))
    return server


MANIFEST = "PUT /v2/team-a/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n"
NEXT = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_write_without_credentials_is_refused_before_its_body_comes(closed: Running):
    """Of 100 MB not one byte is sent, and whoever asked whether to send it is not told to go on."""
    with socket.create_connection(("127.0.0.1", closed.port), PATIENCE) as client:
        client.sendall(MANIFEST.format(100_000_000, "Expect: 100-continue\r\n").encode())
        assert client.recv(12) == b"HTTP/1.1 401"
        assert b"sign in first" in receive_answer(client)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_after_it_the_connection_takes_the_next_request(closed: Running, expect: str):
    with socket.create_connection(("127.0.0.1", closed.port), PATIENCE) as client:
        client.sendall(MANIFEST.format(2, expect).encode() + (b"" if expect else b"{}"))
        assert client.recv(12) == b"HTTP/1.1 401"
        assert b"sign in first" in receive_answer(client)
        client.sendall((b"{}" if expect else b"") + NEXT)
        assert client.recv(12) == b"HTTP/1.1 401"
        assert b"sign in first" in receive_answer(client)


async def test_pulls_with_a_stored_password_hash_it_once(app, client: httpx.AsyncClient, monkeypatch):
    """As Helm does it: each time a challenge, a token for the password, and then the token."""
    await app.registry.users.add("root", PASSWORD, administrator=True)
    guard, counted = app._guard, []
    await client.get("/v2/", auth=("root", "wrong canary9f3b1c"))  # so that there is a door
    door = guard._sign_in._basic._door()
    verify = door._verify
    monkeypatch.setattr(door, "_verify", lambda *words: counted.append(words) or verify(*words))
    query = {"service": "charthouse", "scope": "repository:team-a/app:pull"}
    for _ in range(20):
        assert (await client.get("/v2/team-a/app/manifests/1")).status_code == 401
        token = (await client.get("/token", params=query, auth=("root", PASSWORD))).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/v2/team-a/app/manifests/1", headers=headers)).status_code == 404
    assert len(counted) == 1
