"""`charthouse exec`, `charthouse serve --ephemeral`, and the control over HTTP: for tests in any language."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse.testing import Registry, make_chart, samples
from charthouse.testing.registries import Registries
from support.tools import find_installed

PATIENCE = 60  # seconds
CHARTHOUSE = [sys.executable, "-m", "charthouse"]
TOKEN = "sesame"


def execute(
    *words: object, status: int = 0, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CHARTHOUSE, "exec", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=os.environ | (environ or {}),
        cwd=cwd,
    )
    assert done.returncode == status, done.stderr
    return done


def shell(script: str) -> list[str]:
    return ["--", "bash", "-euc", script]


# --- exec -------------------------------------------------------------------------------------------------------------


def test_the_command_finds_a_registry_by_its_variables() -> None:
    done = execute(*shell('curl -sf "$CHART_REGISTRY_URL/v2/"; echo; env'))
    answer, *lines = done.stdout.splitlines()
    environ = dict(line.partition("=")[::2] for line in lines)
    assert answer == "{}"
    assert environ["CHART_REGISTRY_URL"] == f"http://{environ['CHART_REGISTRY_HOST']}"
    assert environ["CHART_REGISTRY_HOST"].startswith("localhost:")
    assert len(environ["CHART_REGISTRY_CONTROL_TOKEN"]) >= 24
    assert environ["HELM_REGISTRY_CONFIG"] == f"{environ['DOCKER_CONFIG']}/config.json"
    assert not Path(environ["DOCKER_CONFIG"]).exists()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 3", 3), ("kill -TERM $$", 128 + signal.SIGTERM), ("exit 0", 0)],
)
def test_its_exit_status_is_the_commands(command: str, status: int) -> None:
    execute(*shell(command), status=status)


def test_a_command_that_cannot_be_run_is_one_line_as_in_a_shell(tmp_path: Path) -> None:
    assert execute("--", "no-such-command", status=127).stderr == (
        "charthouse: cannot run no-such-command: No such file or directory\n"
    )
    (tmp_path / "text").write_text("")
    assert "Permission denied" in execute("--", tmp_path / "text", status=126).stderr
    assert "--policy" in execute("--policy", "none", "--", "true", status=2).stderr
    assert "there is no personality 'none'" in execute("--personality", "none", "--", "true", status=2).stderr


def test_a_folder_of_charts_that_cannot_be_taken_is_one_line_that_names_it(tmp_path: Path) -> None:
    nowhere = execute("--seed", tmp_path / "nowhere", "--", "true", status=2)
    assert nowhere.stderr == f"charthouse: --seed {tmp_path / 'nowhere'} cannot be read: No such file or directory\n"
    (tmp_path / "app-1.0.0.tgz").write_text("no archive")
    broken = execute("--seed", tmp_path, "--", "true", status=2).stderr
    assert f"in {tmp_path / 'app-1.0.0.tgz'}" in broken
    assert broken.count("\n") == 1


def test_options_of_the_command_are_its_own() -> None:
    assert execute("printf", "%s", "--tls").stdout == "--tls"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_reach_the_command(name: str) -> None:
    # It looks after itself, should the signal be lost.
    script = (
        f"trap 'echo caught; exit 7' {name.removeprefix('SIG')}; echo ready; for i in {{1..300}}; do sleep 0.1; done"
    )
    process = subprocess.Popen(
        [*CHARTHOUSE, "exec", *shell(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, name))
        assert process.stdout.read() == "caught\n"
        assert process.wait(PATIENCE) == 7


def test_with_tls_clients_trust_it_unasked() -> None:
    script = """
        curl -sf "$CHART_REGISTRY_URL/v2/"
        curl -sf "http://$CHART_REGISTRY_HOST/v2/"
        curl -sf "https://charts.test:${CHART_REGISTRY_HOST#*:}/v2/" --resolve "*:${CHART_REGISTRY_HOST#*:}:127.0.0.1"
    """
    assert execute("--tls", "--san", "charts.test", *shell(script)).stdout == "{}{}{}"


def test_with_a_user_its_variables_say_who() -> None:
    script = """
        ! curl -sf "$CHART_REGISTRY_URL/v2/"
        curl -sf -u "$CHART_REGISTRY_USERNAME:$CHART_REGISTRY_PASSWORD" "$CHART_REGISTRY_URL/v2/"
        cat "$DOCKER_CONFIG/config.json"
    """
    answer = execute("--auth", "basic", *shell(script)).stdout
    assert answer.startswith("{}")
    assert len(json.loads(answer.removeprefix("{}"))["auths"]) == 2


def test_it_begins_with_a_folder_of_charts_and_settings_of_its_own(tmp_path: Path) -> None:
    make_chart("app", "1.2.3").write(tmp_path)
    list_tags = shell('curl -sf "$CHART_REGISTRY_URL/v2/app/tags/list"')
    done = execute("--seed", tmp_path, *list_tags, environ={"CHARTHOUSE_POLICY": "nonsense"})
    assert json.loads(done.stdout)["tags"] == ["1.2.3"]


def test_a_charthouse_inside_has_its_own_settings(tmp_path: Path) -> None:
    done = execute("--", *CHARTHOUSE, "charts", "--data", tmp_path, status=2)
    assert "there is no registry in" in done.stderr


@pytest.mark.parametrize("name", ["requests.jsonl", "requests.har"])
def test_requests_are_logged_without_credentials(tmp_path: Path, name: str) -> None:
    log = tmp_path / name
    script = """
        curl -sf -u me:secret "$CHART_REGISTRY_URL/v2/?a=b&a=c"
        curl -s "$CHART_REGISTRY_URL/v2/app/tags/list"
        curl -sf -H "Authorization: Bearer $CHART_REGISTRY_CONTROL_TOKEN" -X POST "$CHART_REGISTRY_URL/_test/reset"
        curl -sf "$CHART_REGISTRY_URL/v2/"
    """
    done = execute("--log", log, *shell(script))
    assert f"3 requests (200: 2, 404: 1); see {log}" in done.stderr
    text = log.read_text()
    assert "bWU6c2VjcmV0" not in text
    if log.suffix == ".har":
        entries = json.loads(text)["log"]["entries"]
        assert entries[0]["request"]["queryString"] == [{"name": "a", "value": "b"}, {"name": "a", "value": "c"}]
        found = [(entry["request"]["url"].partition("/v2/")[2], entry["response"]["status"]) for entry in entries]
    else:
        requests = [json.loads(line) for line in text.splitlines()]
        found = [
            (each["path"].removeprefix("/v2/") + "?" * bool(each["query"]) + each["query"], each["status"])
            for each in requests
        ]
    assert found == [("?a=b&a=c", 200), ("app/tags/list", 404), ("", 200)]


# --- serve --ephemeral ------------------------------------------------------------------------------------------------


def test_an_ephemeral_server_says_in_a_file_where_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    words = ["--ephemeral", "--port", "0", "--ready-file", str(tmp_path / "ready"), "--versions", "immutable"]
    with subprocess.Popen([*CHARTHOUSE, "serve", *words], stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = json.loads((tmp_path / "ready").read_text())
        assert line == f"listening on {ready['url']}\n"
        assert ready["pid"] == process.pid
        assert (tmp_path / "ready").stat().st_mode & 0o077 == 0
        headers = {"Authorization": f"Bearer {ready['control_token']}"}
        chart = {"charts": [{"name": "app", "version": "1.0.0"}]}
        seeded = httpx.post(f"{ready['url']}/_test/seed", json=chart, headers=headers, trust_env=False)
        assert seeded.json() == ["app:1.0.0"]
        changed = {"charts": [{"name": "app", "version": "1.0.0", "appVersion": "2"}]}
        refused = httpx.post(f"{ready['url']}/_test/seed", json=changed, headers=headers, trust_env=False)
        assert refused.status_code == 409
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--database", "postgresql://localhost/x"], "leave --database and --workers out"),
        (["--workers", "2"], "leave --database and --workers out"),
        (["--ready-file", "/nowhere/ready"], "--ready-file /nowhere/ready cannot be written: No such file"),
        (["--host", "0.0.0.0"], "--open-to-everyone"),
    ],
)
def test_what_an_ephemeral_server_cannot_be_is_one_line(words: list[str], message: str) -> None:
    done = subprocess.run(
        [*CHARTHOUSE, "serve", "--ephemeral", "--port", "0", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# --- control ----------------------------------------------------------------------------------------------------------


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
    assert (refused.status_code, refused.json()["detail"]) == (422, "/nowhere: No such file or directory")
    assert control.delete("/registries/7").json()["detail"] == "there is no registry 7 that was asked for here"
    assert "'basic' or 'bearer'" in control.post("/registries", json={"auth": "ldap"}).text


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


RUN = {
    "Shell": ("sample.sh", ["bash", "-eu", "sample.sh"]),
    "Go": ("sample.go", ["go", "run", "sample.go"]),
    "JavaScript": ("sample.mjs", ["node", "sample.mjs"]),
    "Java": ("Sample.java", ["java", "Sample.java"]),
}


def test_every_operation_has_an_example(control: httpx.Client) -> None:
    paths = control.get("/openapi.json").json()["paths"]
    assert [
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "x-codeSamples" not in operation
    ] == []


@pytest.mark.parametrize(
    ("name", "language"),
    [
        pytest.param(name, language, marks=[pytest.mark.nightly] if language == "Java" else [])
        for name, found in samples.SAMPLES.items()
        for language in found
    ],
)
def test_the_samples_in_the_documentation_run_as_they_are(
    registry: Registry, control: httpx.Client, tmp_path: Path, name: str, language: str
) -> None:
    file, command = RUN[language]
    find_installed(command[0])
    document = control.get("/openapi.json").json()
    shown = [
        sample
        for operations in document["paths"].values()
        for operation in operations.values()
        for sample in operation.get("x-codeSamples", ())
    ]
    source = samples.SAMPLES[name][language]
    assert {"lang": language, "source": source} in shown
    (tmp_path / file).write_text(source)
    get(registry, "")
    if name in ("list faults", "clear faults"):
        registry.fail(status=502)
    environ = {"CHART_REGISTRY_URL": registry.url, "CHART_REGISTRY_CONTROL_TOKEN": TOKEN, "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    if name == "registries":
        answer = done.stdout.strip()
        host = json.loads(answer)["host"] if language == "Shell" else answer
        assert httpx.get(f"http://{host}/v2/", trust_env=False).status_code == 200
    elif name == "seed":
        assert registry.tags("team-a/app") == ["1.2.3"]
    elif name == "faults":
        assert len(registry.faults) == 1
    elif name == "list faults":
        assert json.loads(done.stdout) == [{"status": 502}]
    elif name == "collect":
        assert json.loads(done.stdout) == {"blobs": 0, "manifests": 0, "uploads": 0}
    elif name == "clear faults":
        assert registry.faults == []
    elif name == "requests":
        assert [each["path"] for each in json.loads(done.stdout)] == ["/v2/"]
    elif name == "reset":
        assert registry.requests == []
