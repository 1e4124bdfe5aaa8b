"""Every API that OpenAPI describes, asked what the description allows and what it does not: the answer is as described,
and never a fault of the server.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, assume, given, settings as tuned, strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from charthouse import api
from charthouse.app import create_app
from charthouse.auth.access import Pattern, parse_actions
from charthouse.core import Registry
from charthouse.settings import load
from charthouse.testing import control
from charthouse.testing.registries import Registries
from durability import sizes
from support import postgres
from support.requests import running
from test_api import PASSWORD, described

Ask = Callable[..., httpx.Response]

SOME = tuned(
    max_examples=sizes.size().questions,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # to make a case smaller takes minutes, and they are small
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
THERE = {"name": ["ann", "ci", "admin"], "group": ["devs"], "number": ["none"]}
TOKEN = "sesame"


def operations_of(document: dict[str, Any]) -> list[Any]:
    return [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]


def case_of(operation: Any, data: st.DataObject) -> Case:
    """What the description allows, or what it does not; as often as not about something that is there."""
    case: Case = data.draw(operation.as_strategy(generation_mode=data.draw(st.sampled_from(GenerationMode))))
    for name in case.path_parameters or {}:
        if data.draw(st.booleans()):
            case.path_parameters[name] = data.draw(st.sampled_from(THERE[name]))
    return case


def request_of(case: Case, base: str) -> dict[str, Any]:
    """As httpx takes it."""
    words = case.as_transport_kwargs(base_url=f"http://localhost:5000{base}")
    if isinstance(words.get("data"), str | bytes):
        words["content"] = words.pop("data")
    taken = ("method", "url", "headers", "params", "json", "data", "content")
    return {name: words[name] for name in taken if words.get(name) is not None}


ADMINISTRATION = operations_of(described())
CONTROL = operations_of(control.application(None, "").openapi())
named = {"ids": lambda operation: operation.label}


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """To the event loop of a registry: hypothesis asks from outside."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def ask(request, portal: BlockingPortal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A registry with users, a group, a grant and a token. An exception is raised, and no answer."""
    database = ""
    if request.param == "postgres":
        database = portal.call(postgres.make_database, request.getfixturevalue("postgres_server"))
    app = create_app(
        load({"data": tmp_path_factory.mktemp("openapi"), "database": database}, environ={}), durable=False
    )
    with portal.wrap_async_context_manager(running(app)) as client:
        portal.call(fill, app.registry)
        yield lambda **words: portal.call(partial(client.request, **words))


async def fill(registry: Registry) -> None:
    await registry.users.add("admin", PASSWORD, administrator=True)
    await registry.users.add("ann", PASSWORD)
    await registry.users.add_to_group("devs", "ann")
    await registry.users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push"))
    await registry.api_tokens.add("ci", [Pattern("*")], parse_actions("pull"), None)


@pytest.mark.parametrize("operation", ADMINISTRATION, **named)
def test_an_administrator_gets_what_the_description_says(ask: Ask, operation):
    @SOME
    @given(data=st.data())
    def asked(data: st.DataObject) -> None:
        case = case_of(operation, data)
        case.validate_response(ask(**request_of(case, api.PREFIX), auth=("admin", PASSWORD)), checks=CHECKS)

    asked()


@pytest.mark.parametrize("operation", ADMINISTRATION, **named)
def test_anybody_else_gets_what_it_says_of_him(ask: Ask, operation):
    @SOME
    @given(data=st.data())
    def asked(data: st.DataObject) -> None:
        case = case_of(operation, data)
        response = ask(**request_of(case, api.PREFIX))
        case.validate_response(response, checks=CHECKS)
        assert response.status_code in (401, 404), "of nothing that there is"

    asked()


@pytest.fixture(scope="module")
def controlled() -> Iterator[httpx.Client]:
    registries = Registries(TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    registry = registries.start()
    with httpx.Client(base_url=registry.url, headers=headers, trust_env=False, timeout=60) as client:
        yield client
    registries.end_all()


@pytest.mark.parametrize("operation", CONTROL, **named)
def test_control_is_answered_as_its_description_says(controlled: httpx.Client, operation):
    @SOME
    @given(data=st.data())
    def asked(data: st.DataObject) -> None:
        case = case_of(operation, data)
        assume(re.fullmatch(r"/[\w./-]+", unquote(case.formatted_path)))  # others are refused before they come so far
        words = request_of(case, "")
        words["url"] = words["url"].replace("http://localhost:5000", "")
        words["headers"] = {**words["headers"], **controlled.headers}
        response = controlled.request(**words)
        case.validate_response(response, checks=CHECKS)
        if operation.label == "POST /_test/registries" and response.status_code == httpx.codes.CREATED:
            controlled.delete(f"/_test/registries/{response.json()['id']}")

    asked()
