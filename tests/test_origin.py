"""What a client calls the registry and who it is, with and without a proxy in front."""

import io
import json
import logging
import time
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st

from charthouse.app import create_app
from charthouse.origin import Origins, TrustedProxies, is_host
from charthouse.request_log import LineWriter, RequestLog
from charthouse.settings import SettingsError, load, networks
from support.requests import error_of, running

PROXY, CLIENT, OTHER = "10.0.0.7", "198.51.100.4", "203.0.113.9"
TRUSTED = networks("10.0.0.0/8,fd00::/8,127.0.0.1")


def scope_of(*headers: tuple[str, str], client: str = PROXY, scheme: str = "http") -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": scheme,
        "client": (client, 1234),
        "server": ("127.0.0.1", 5000),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }


async def behind(scope: dict[str, Any]) -> dict[str, Any]:
    """The scope as the application gets it."""

    async def app(*_: Any) -> None:
        pass

    await TrustedProxies(app, TRUSTED)(scope, None, None)  # type: ignore[arg-type]
    return scope


FORWARDED = (
    ("Host", "upstream:5000"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "charts.example.com:8443"),
    ("X-Forwarded-For", CLIENT),
)


async def test_a_trusted_proxy_says_scheme_host_and_client():
    scope = await behind(scope_of(*FORWARDED))
    assert Origins("").of(scope).url == "https://charts.example.com:8443"
    assert scope["client"] == (CLIENT, 0)
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"charts.example.com:8443"]


@pytest.mark.parametrize("client", [OTHER, "11.0.0.7", "::ffff:10.0.0.7", "unix", ""])
async def test_nobody_else_does(client: str):
    scope = await behind(scope_of(*FORWARDED, client=client))
    assert Origins("").of(scope).url == "http://upstream:5000"
    assert scope["client"][0] == client


async def test_a_socket_without_an_address_is_no_trusted_proxy():
    scope = await behind({**scope_of(*FORWARDED), "client": None})
    assert Origins("").of(scope).url == "http://upstream:5000"


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ([CLIENT], CLIENT),
        ([f"{OTHER}, {CLIENT}"], CLIENT),  # what the client itself had said stands first
        ([OTHER, CLIENT], CLIENT),
        ([f"{CLIENT}, 10.1.2.3, 127.0.0.1"], CLIENT),
        ([f"{CLIENT}:4711"], CLIENT),
        (["[2001:db8::4]:4711"], "2001:db8::4"),
        (["2001:db8::4"], "2001:db8::4"),
        (["unknown"], PROXY),
        (["_hidden, 10.1.2.3"], "10.1.2.3"),
        ([""], PROXY),
        ([], PROXY),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_trusted_proxys(forwarded_for: list[str], client: str):
    scope = await behind(scope_of(*(("X-Forwarded-For", value) for value in forwarded_for)))
    assert scope["client"][0] == client


@pytest.mark.parametrize("host", ["a b", 'a"', "a/b", "a@b", "a\r\nX: y", "a:port", "[::1", "", "ä"])
async def test_a_host_that_is_none_is_not_taken(host: str):
    assert not is_host(host)
    scope = await behind(scope_of(("Host", "upstream:5000"), ("X-Forwarded-Host", host)))
    assert Origins("").of(scope).host == "upstream:5000"
    assert Origins("").of(scope_of(("Host", host))).host == "127.0.0.1:5000"


@given(st.lists(st.tuples(st.sampled_from(["Host", *(name for name, _ in FORWARDED)]), st.text())))
async def test_no_header_breaks_anything(headers: list[tuple[str, str]]):
    scope = scope_of()
    scope["headers"] = [(name.lower().encode(), value.encode("utf-8", "replace")) for name, value in headers]
    origin = Origins("").of(await behind(scope))
    assert origin.scheme in ("http", "https")
    assert is_host(origin.host)


async def test_the_public_url_counts_before_everything():
    scope = await behind(scope_of(*FORWARDED))
    assert Origins("https://charts.example.org").of(scope).url == "https://charts.example.org"


def test_an_http_address_for_who_may_have_come_by_https_is_one_line_that_names_both_settings(caplog):
    origins = Origins("")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert origins.of(scope_of(*FORWARDED, client=OTHER)).url == "http://upstream:5000"
    (record,) = caplog.records
    assert "--public-url" in record.getMessage()
    assert f"--trusted-proxies {OTHER}" in record.getMessage()


async def test_nothing_is_said_when_all_is_well(caplog):
    with caplog.at_level(logging.WARNING):
        Origins("").of(await behind(scope_of(*FORWARDED)))
        Origins("").of(scope_of(("Host", "localhost")))
        Origins("https://charts.example.com").of(scope_of(*FORWARDED, client=OTHER))
    assert not caplog.records


# In the application


async def ask(client: httpx.AsyncClient, path: str = "/", **headers: str) -> httpx.Response:
    return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_a_foreign_name_is_refused_whoever_says_it(make_settings):
    """A page whose name points to this machine may send any header: its Host gives it away (DNS rebinding)."""
    settings = make_settings(trusted_proxies="127.0.0.1", host_name="charts.example.com")
    async with running(create_app(settings, durable=False)) as client:
        assert (await ask(client, x_forwarded_host="charts.example.com")).status_code == 200
        error_of(await ask(client, host="evil.example", x_forwarded_host="charts.example.com"), 421, "DENIED")
        error_of(await ask(client, host="localhost", x_forwarded_host="evil.example"), 421, "DENIED")


async def test_the_name_of_the_public_url_is_one_of_ours(make_settings):
    settings = make_settings(public_url="https://charts.example.com", open_to_everyone=True)
    async with running(create_app(settings, durable=False)) as client:
        page = await ask(client, host="charts.example.com")
        assert "oci://charts.example.com/mychart" in page.text
        assert "--plain-http" not in page.text
        error_of(await ask(client, host="evil.example"), 421, "DENIED")


async def test_the_page_shows_the_commands_for_what_the_proxy_says(make_settings):
    settings = make_settings(trusted_proxies="127.0.0.1", host_name="charts.example.com")
    async with running(create_app(settings, durable=False)) as client:
        page = await ask(client, x_forwarded_host="charts.example.com", x_forwarded_proto="https")
        assert "helm push mychart-1.0.0.tgz oci://charts.example.com\n" in page.text


async def test_the_log_has_the_clients_address(make_settings):
    lines = LineWriter(stream := io.StringIO())
    app = create_app(make_settings(trusted_proxies="127.0.0.1"), durable=False)
    logged = RequestLog(app, lines=lines, clock=time.time)  # as `serve` does
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(logged), base_url="http://localhost") as client,
    ):
        await ask(client, x_forwarded_for=f"{OTHER}, {CLIENT}")
    lines.flush()
    assert json.loads(stream.getvalue())["client"] == CLIENT


# Settings


@pytest.mark.parametrize(
    "url", ["charts.example.com", "https://", "ftp://a", "https://a/b", "https://a?b", "https://u:p@a", "https://a b"]
)
def test_a_public_url_is_a_scheme_and_a_host(url: str):
    with pytest.raises(SettingsError, match=r"--public-url on the command line is '.*': give a URL without a path"):
        load({"public_url": url}, environ={})


@pytest.mark.parametrize("url", ["https://a", "https://a.example:8443/", "http://[2001:db8::1]:5000", ""])
def test_public_urls(url: str):
    assert load({"public_url": url}, environ={}).public_url == url.rstrip("/")


@pytest.mark.parametrize("words", ["10.0.0.1/8", "nginx", "10.0.0.0/33"])
def test_a_trusted_proxy_is_an_address_or_a_network(words: str):
    with pytest.raises(SettingsError, match=r"--trusted-proxies on the command line is .*: give addresses or networks"):
        load({"trusted_proxies": words}, environ={})
