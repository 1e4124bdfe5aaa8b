"""Who may be named in Host (DNS rebinding)."""

import httpx
import pytest

from charthouse.app import create_app
from charthouse.hosts import is_local
from support.requests import error_of, running


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:5000",
        "registry.localhost:5000",
        "localhost.",
        "127.0.0.1:5000",
        "127.1.2.3",
        "[::1]:5000",
        "host.docker.internal:5000",
        "host.containers.internal",
    ],
)
def test_these_are_names_of_this_machine(host: str):
    assert is_local(host, ())


@pytest.mark.parametrize(
    "host",
    [
        "charts.example",
        "localhost.charts.example",
        "127.0.0.1.charts.example",
        "notlocalhost",
        "192.0.2.1:5000",
        "[2001:db8::1]",
        "",
        "0.0.0.0",
        "localhost@charts.example",
    ],
)
def test_these_are_not(host: str):
    assert not is_local(host, ())


def test_host_name_adds_names_whatever_their_case():
    assert is_local("Charts.Example:5000", ("charts.example",))


async def ask(client: httpx.AsyncClient, path: str, host: str) -> httpx.Response:
    return await client.get(path, headers={"Host": host})


@pytest.mark.parametrize("path", ["/", "/v2/", "/v2/a/manifests/1.0", "/healthz"])
async def test_on_loopback_another_name_is_refused_on_every_path_with_the_flag_that_allows_it(make_settings, path):
    async with running(create_app(make_settings(), durable=False)) as client:
        message = error_of(await ask(client, path, "charts.example:5000"), 421, "DENIED")
        assert "'charts.example'" in message
        assert "--host-name charts.example" in message
        assert (await ask(client, path, "localhost:5000")).status_code != 421


async def test_a_name_that_is_empty_is_refused_too(make_settings):
    async with running(create_app(make_settings(), durable=False)) as client:
        error_of(await ask(client, "/v2/", ""), 421, "DENIED")


async def test_a_name_that_is_no_name_is_not_given_back_as_a_flag(make_settings):
    async with running(create_app(make_settings(), durable=False)) as client:
        assert "--host-name NAME" in error_of(await ask(client, "/v2/", "a b"), 421, "DENIED")


async def test_elsewhere_every_name_is_answered_until_names_are_given(make_settings):
    flags = {"host": "0.0.0.0", "open_to_everyone": True}
    async with running(create_app(make_settings(**flags), durable=False)) as client:
        assert (await ask(client, "/v2/", "charts.example")).status_code == 200
    async with running(create_app(make_settings(**flags, host_name="registry"), durable=False)) as client:
        assert (await ask(client, "/v2/", "registry:5000")).status_code == 200
        error_of(await ask(client, "/v2/", "charts.example"), 421, "DENIED")
