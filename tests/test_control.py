"""The control of a registry for tests over HTTP: what is under `/_test/`."""

import base64
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse.testing import Registry, make_chart
from charthouse.testing.registries import Registries, describe
from charthouse.testing.samples import LANGUAGES, OPERATIONS
from support.tools import find_installed

PATIENCE = 60  # seconds
TOKEN = "sesame"


@pytest.fixture
def registry() -> Iterator[Registry]:
    registries = Registries(TOKEN)
    try:
        yield registries.start()
    finally:
        registries.end_all()


@pytest.fixture
def control(registry: Registry) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{registry.url}/_test", headers=headers, trust_env=False) as client:
        yield client


def get(registry: Registry, path: str) -> httpx.Response:
    return httpx.get(f"{registry.url}/v2/{path}", trust_env=False)


def test_a_registry_of_a_test_has_no_control_unless_it_is_asked_for() -> None:
    with Registry() as registry:
        assert httpx.get(f"{registry.url}/_test/openapi.json", trust_env=False).status_code == 404


def test_charts_requests_faults_and_time_are_controlled(registry: Registry, control: httpx.Client) -> None:
    archive = make_chart("app", "2.0.0")
    encoded = base64.b64encode(archive.content).decode()
    wanted = {"namespace": "team-a", "charts": [{"name": "app", "version": "1.0.0"}], "archives": [encoded]}
    assert control.post("/seed", json=wanted).json() == ["team-a/app:1.0.0", "team-a/app:2.0.0"]
    assert get(registry, "team-a/app/tags/list").json()["tags"] == ["1.0.0", "2.0.0"]

    assert control.post("/faults", json={"rules": [{"times": 1, "status": 502}]}).status_code == 204
    assert control.get("/faults").json() == [{"times": 1, "status": 502}]
    assert [get(registry, "").status_code for _ in range(2)] == [502, 200]
    assert control.delete("/faults").status_code == 204
    assert control.get("/faults").json() == []
    assert control.post("/faults", json={"personality": "ecr"}).status_code == 204
    assert control.post("/faults", json={"personality": "none"}).status_code == 422
    assert control.post("/faults", json={"rules": [{"satus": 502}]}).status_code == 422

    requests = control.get("/requests").json()
    assert [(each["path"], each["status"], bool(each["fault"])) for each in requests] == [
        ("/v2/team-a/app/tags/list", 200, False),
        ("/v2/", 502, True),
        ("/v2/", 200, False),
    ]
    before = registry.clock()
    assert control.post("/clock", json={"advance": 3600}).json()["now"] >= before + 3600

    assert control.post("/reset").status_code == 204
    assert control.get("/requests").json() == []
    assert control.get("/faults").json() == []
    assert registry.charts() == []
    assert registry.clock() < before + 3600


def test_further_registries_are_started_and_ended(registry: Registry, control: httpx.Client, tmp_path: Path) -> None:
    make_chart("app", "1.0.0").write(tmp_path)
    closed = control.post("/registries", json={"auth": "basic"}).json()
    credentials = closed["username"], closed["password"]
    answers = [httpx.get(f"{closed['url']}/v2/", auth=auth, trust_env=False) for auth in (None, credentials)]
    assert [answer.status_code for answer in answers] == [401, 200]
    further = control.post("/registries", json={"tls": True, "policy": "charts", "seed": str(tmp_path)}).json()
    assert further["host"] != registry.host
    options: dict[str, Any] = {"verify": ssl.create_default_context(cafile=further["ca_file"]), "trust_env": False}
    answer = httpx.get(f"{further['url']}/v2/app/tags/list", **options)
    assert answer.json()["tags"] == ["1.0.0"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    requests = httpx.get(f"{further['url']}/_test/requests", headers=headers, **options)
    assert [each["path"] for each in requests.json()] == ["/v2/app/tags/list"]
    assert registry.charts() == registry.requests == []
    assert control.delete(f"/registries/{further['id']}").status_code == 204
    assert control.delete(f"/registries/{further['id']}").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(further["url"], **options)
    assert control.post("/registries", json={"host": ["nowhere"]}).status_code == 422


def test_what_control_cannot_do_it_says(control: httpx.Client) -> None:
    assert control.post("/seed", json={"folder": "/nowhere"}).json() == {
        "detail": "/nowhere: No such file or directory"
    }
    refused = control.post("/registries", json={"seed": "/nowhere"})
    assert refused.status_code == 422
    assert refused.json()["detail"] == "the seed /nowhere cannot be read: No such file or directory"
    named = control.post("/registries", json={"tls": True, "san": ["a b"]})
    assert named.status_code == 422
    assert "san of a registry for tests is ['a b']: 'a b' is no host name" in named.json()["detail"]
    assert control.delete("/registries/7").json()["detail"] == "there is no registry 7 that was asked for here"
    for path, wrong, detail in (
        ("/registries", {"auth": "ldap"}, "auth: Input should be 'none', 'basic' or 'bearer'"),
        ("/registries", {"polcy": "charts"}, "polcy: there is no such field; /_test/openapi.json has all"),
        ("/faults", {"rules": [{"satus": 502}]}, "rules.0.satus: there is no such field; /_test/openapi.json has all"),
        ("/clock", {"advance": -1}, "advance: Input should be greater than or equal to 0"),
    ):
        answer = control.post(path, json=wrong)
        assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    described = control.get("/openapi.json").json()["paths"]["/_test/registries"]["post"]["responses"]["422"]
    assert described["content"]["application/json"]["schema"]["$ref"].endswith("/Refusal")


@pytest.fixture
def strict() -> Iterator[Registry]:
    registries = Registries(TOKEN)
    try:
        yield registries.start(mtls=True, auth="bearer")
    finally:
        registries.end_all()


def test_control_is_reached_without_a_certificate_and_hands_it_out(strict: Registry, tmp_path: Path) -> None:
    """In plain HTTP, on the port where everything else wants TLS and a certificate."""
    plain, headers = f"http://{strict.host}", {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{plain}/_test/registry", trust_env=False).status_code == 401
    found = httpx.get(f"{plain}/_test/registry", headers=headers, trust_env=False).json()
    assert found["control_url"] == f"{plain}/_test"
    for name in ("ca", "client_cert", "client_key"):
        (tmp_path / name).write_text(found[name])
    context = ssl.create_default_context(cafile=tmp_path / "ca")
    refused = httpx.get(f"{plain}/v2/", auth=("tester", found["password"]), trust_env=False)
    assert refused.status_code == 400
    assert "this port speaks TLS" in refused.json()["errors"][0]["message"]
    assert httpx.get(f"{plain}/healthz", trust_env=False).status_code == 200
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{strict.url}/v2/", verify=context, trust_env=False)
    context.load_cert_chain(tmp_path / "client_cert", tmp_path / "client_key")
    options: dict[str, Any] = {"verify": context, "trust_env": False}
    answer = httpx.get(f"{strict.url}/v2/", auth=(found["username"], found["password"]), **options)
    assert answer.status_code == 200
    assert httpx.get(f"{strict.url}/_test/requests", headers=headers, **options).json()[-1]["status"] == 200


def test_the_certificate_of_a_further_registry_comes_with_it(registry: Registry, control: httpx.Client) -> None:
    further = control.post("/registries", json={"mtls": True}).json()
    assert further["client_cert"] == Path(further["client_cert_file"]).read_text()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    seed = {"charts": [{"name": "app", "version": "1.0.0"}]}
    seeded = httpx.post(f"{further['control_url']}/seed", json=seed, headers=headers, trust_env=False)
    assert seeded.json() == ["app:1.0.0"]


def test_another_machine_is_told_a_name_that_it_knows() -> None:
    registries = Registries(TOKEN)
    try:
        registry = registries.start(host="0.0.0.0")
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": f"registry:{registry.port}"}
        url = f"http://127.0.0.1:{registry.port}/_test/registries"
        further = httpx.post(url, json={"tls": True}, headers=headers, trust_env=False).json()
        assert further["url"] == f"https://registry:{further['id']}"
        assert further["ca"] == Path(further["ca_file"]).read_text()
        assert httpx.get(f"http://127.0.0.1:{further['id']}/v2/", trust_env=False).status_code == 200
    finally:
        registries.end_all()


# --- examples in the documentation ------------------------------------------------------------------------------------

RUN = {
    "Shell": ("sample.sh", ["bash", "-eu", "sample.sh"]),
    "Go": ("sample.go", ["go", "run", "sample.go"]),
    "JavaScript": ("sample.mjs", ["node", "sample.mjs"]),
    "Java": ("Sample.java", ["java", "Sample.java"]),
}
MARKS = {"Go": [pytest.mark.examples], "JavaScript": [pytest.mark.examples], "Java": [pytest.mark.nightly]}


def reaches(answer: str) -> bool:
    return httpx.get(f"{json.loads(answer)['url']}/v2/", trust_env=False).status_code == 200


# What each operation has done to the registry, and what it said.
DID: dict[str, Callable[[Registry, str], bool]] = {
    "registry": lambda registry, answer: json.loads(answer)["url"] == registry.url,
    "reset": lambda registry, answer: registry.requests == [] and answer == "",
    "seed": lambda registry, answer: registry.tags("team-a/app") == ["1.2.3"] and "team-a/app:1.2.3" in answer,
    "requests": lambda _, answer: [each["path"] for each in json.loads(answer)] == ["/v2/"],
    "list faults": lambda _, answer: json.loads(answer) == [{"status": 502}],
    "faults": lambda registry, answer: len(registry.faults) == 2 and answer == "",
    "clear faults": lambda registry, answer: registry.faults == [] and answer == "",
    "clock": lambda registry, answer: json.loads(answer)["now"] > time.time() + 3000 < registry.clock(),
    "collect": lambda _, answer: json.loads(answer) == {"blobs": 0, "manifests": 0, "uploads": 0},
    "registries": lambda _, answer: reaches(answer),
    "end": lambda _, answer: answer == "",
}


def test_every_operation_has_an_example_in_every_language(control: httpx.Client) -> None:
    paths = control.get("/openapi.json").json()["paths"]
    shown = {
        (method.upper(), path.removeprefix("/_test").replace("{number}", "{id}")): operation["x-codeSamples"]
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert shown.keys() == {(each.method, each.path) for each in OPERATIONS.values()}
    for asked in OPERATIONS.values():
        written = [{"lang": language, "source": write(asked)} for language, write in LANGUAGES.items()]
        assert shown[asked.method, asked.path] == written


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("language", [pytest.param(name, marks=MARKS.get(name, ())) for name in LANGUAGES])
def test_the_examples_in_the_documentation_run_as_they_are(
    registry: Registry, control: httpx.Client, tmp_path: Path, name: str, language: str
) -> None:
    file, command = RUN[language]
    find_installed(command[0])
    (tmp_path / file).write_text(LANGUAGES[language](OPERATIONS[name]))
    get(registry, "")
    registry.fail(status=502)
    started = control.post("/registries", json={}).json()
    variables = {"CHART_REGISTRY_CONTROL_URL": describe(registry).control_url, "CHART_REGISTRY_CONTROL_TOKEN": TOKEN}
    done = subprocess.run(
        [*command, started["id"]],
        cwd=tmp_path,
        env=os.environ | variables | {"GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert DID[name](registry, done.stdout)
    ended = name == "end"
    assert (control.delete(f"/registries/{started['id']}").status_code == 404) == ended
