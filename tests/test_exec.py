"""`charthouse exec`, `charthouse serve --ephemeral`, and the control over HTTP: for tests in any language."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from charthouse.settings import FIELDS, OF_TESTS, SettingsError, load
from charthouse.testing import make_chart
from support import forked

PATIENCE = 60  # seconds
CHARTHOUSE = [sys.executable, "-m", "charthouse"]


def execute(*words: object, status: int = 0, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = forked.run("exec", *words, timeout=PATIENCE, env=os.environ | (environ or {}))
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


LATER = {"sqlalchemy", "uvicorn", "fastapi", "yaml", "cryptography", "charthouse.core", "charthouse.app"}
WATCHED = """if 1:
    import subprocess, sys
    class Popen(subprocess.Popen):
        def __init__(self, *words, **named):
            print(sorted({later} & sys.modules.keys()), flush=True)
            super().__init__(*words, **named)
    subprocess.Popen = Popen
    {before}
    sys.argv = ["charthouse", "exec", *sys.argv[1:]]
    from charthouse.__main__ import main
    main()"""


def watched(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`charthouse exec`, which prints first what it has imported when it runs its command."""
    code = WATCHED.format(later=LATER, before=before)
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.parametrize(("options", "imported"), [([], []), (["--tls"], ["cryptography"])])
def test_the_command_begins_before_what_answers_it_is_imported(options: list[str], imported: list[str]) -> None:
    """That takes half a second. What it asks until then waits for the answer."""
    done = watched(*options, *shell('curl -sf "$CHART_REGISTRY_URL/v2/"'))
    assert (done.returncode, done.stdout) == (0, f"{imported}\n{{}}")


@pytest.mark.provokes("ModuleNotFoundError")
def test_a_command_is_ended_whose_registry_cannot_start() -> None:
    """What is read here ends when it has."""
    done = watched("--", "sleep", "1000", before='sys.modules["charthouse.testing.inside"] = None')
    assert (done.returncode, done.stdout) == (1, "[]\n")


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
    assert "--policy on the command line" in execute("--policy", "none", "--", "true", status=2).stderr
    assert "'a b' is no host name" in execute("--san", "a b", "--", "true", status=2).stderr
    assert "there is no personality 'none'" in execute("--personality", "none", "--", "true", status=2).stderr


def test_a_folder_of_charts_that_cannot_be_taken_is_one_line_that_names_it(tmp_path: Path) -> None:
    nowhere = execute("--seed", tmp_path / "nowhere", "--", "true", status=2)
    assert nowhere.stderr == f"charthouse: the seed {tmp_path / 'nowhere'} cannot be read: No such file or directory\n"
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
    with forked.Process("exec", *shell(script), stdout=subprocess.PIPE, text=True) as process:
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


def test_with_certificates_of_clients_the_command_has_one_and_control_needs_none() -> None:
    script = """
        ! curl -sf "$CHART_REGISTRY_URL/v2/"
        ! curl -sf "http://$CHART_REGISTRY_HOST/v2/"
        shown="--cert $CHART_REGISTRY_CLIENT_CERT_FILE --key $CHART_REGISTRY_CLIENT_KEY_FILE"
        curl -sf $shown "$CHART_REGISTRY_URL/v2/"
        ! curl -sf "$CHART_REGISTRY_CONTROL_URL/requests"
        curl -sf -H "Authorization: Bearer $CHART_REGISTRY_CONTROL_TOKEN" "$CHART_REGISTRY_CONTROL_URL/requests"
    """
    answer = execute("--mtls", *shell(script)).stdout
    assert answer.startswith("{}")
    assert [(each["path"], each["status"]) for each in json.loads(answer.removeprefix("{}"))] == [("/v2/", 200)]


def test_a_password_may_be_given() -> None:
    script = 'curl -sf -u "tester:correct horse" "$CHART_REGISTRY_URL/v2/"'
    assert execute("--auth", "basic", "--tester-password", "correct horse", *shell(script)).stdout == "{}"


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


@contextlib.contextmanager
def serving(folder: Path, *words: object, **settings: str) -> Iterator[tuple[forked.Process, str]]:
    """A server in that folder, with variables for its settings, and where it says that it is."""
    environ = os.environ | {f"CHARTHOUSE_{name.upper()}": value for name, value in settings.items()}
    with forked.Process("serve", *words, stdout=subprocess.PIPE, cwd=folder, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0


def test_an_ephemeral_server_says_in_a_file_where_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    words = ["--ephemeral", "--port", "0", "--ready-file", "ready", "--versions", "immutable"]
    with serving(tmp_path, *words) as (process, url):
        ready = json.loads((tmp_path / "ready").read_text())
        assert (ready["url"], ready["pid"]) == (url, process.pid)
        assert (tmp_path / "ready").stat().st_mode & 0o077 == 0
        headers = {"Authorization": f"Bearer {ready['control_token']}"}
        chart = {"charts": [{"name": "app", "version": "1.0.0"}]}
        seeded = httpx.post(f"{ready['control_url']}/seed", json=chart, headers=headers, trust_env=False)
        assert seeded.json() == ["app:1.0.0"]
        changed = {"charts": [{"name": "app", "version": "1.0.0", "appVersion": "2"}]}
        refused = httpx.post(f"{ready['control_url']}/seed", json=changed, headers=headers, trust_env=False)
        assert refused.status_code == 409
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_a_service_container_is_told_by_its_environment_alone_what_it_is(tmp_path: Path) -> None:
    """All that `exec` has; by the name that the pipeline gives it; who may sign in and what to trust is asked for."""
    make_chart("app", "1.2.3").write(tmp_path)
    settings = {
        "ephemeral": "true",
        "host": "0.0.0.0",
        "port": "0",
        "auth": "bearer",
        "anonymous_pull": "true",
        "tester_password": "correct horse",
        "tls": "true",
        "san": "registry",
        "personality": "ecr",
        "seed": str(tmp_path),
        "control_token": "sesame",
    }
    with serving(tmp_path, **settings) as (_, url):
        port = int(url.rpartition(":")[2])
        control = f"http://127.0.0.1:{port}/_test"
        headers = {"Authorization": "Bearer sesame", "Host": f"registry:{port}"}
        found = httpx.get(f"{control}/registry", headers=headers, trust_env=False).json()
        user = found["username"], found["password"]
        assert (found["url"], user) == (f"https://registry:{port}", ("tester", "correct horse"))
        context = ssl.create_default_context(cadata=found["ca"])
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname="registry") as secure,
        ):
            secure.sendall(b"GET /v2/app/tags/list HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: secure.recv(65536), b""))
        assert answer.endswith(b'{"name": "app", "tags": ["1.2.3"]}')
        upload = f"http://127.0.0.1:{port}/v2/app/blobs/uploads/"
        assert httpx.post(upload, trust_env=False).status_code == 404  # of a registry where repositories are made first
        assert httpx.delete(f"{control}/faults", headers=headers, trust_env=False).status_code == 204
        answers = [httpx.post(upload, auth=auth, trust_env=False) for auth in (None, user)]
        assert [each.status_code for each in answers] == [401, 202]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auth", "bearer"),
        ("tester_password", "correct horse"),
        ("anonymous_pull", "true"),
        ("mtls", "true"),
        ("san", "registry"),
        ("personality", "ecr"),
        ("rules", "off"),
        ("seed", "charts"),
        ("control_token", "sesame"),
        ("ready_file", "ready"),
    ],
)
def test_what_only_a_registry_for_tests_has_is_refused_elsewhere(name: str, value: str) -> None:
    variable = f"CHARTHOUSE_{name.upper()}"
    with pytest.raises(SettingsError, match=rf"{variable} from the environment is .*: only with ephemeral") as refused:
        load({}, environ={variable: value})
    assert name not in ("tester_password", "control_token") or value not in str(refused.value)
    assert load({"ephemeral": True}, environ={variable: value}) != load({"ephemeral": True}, environ={})


def test_what_is_refused_elsewhere_is_all_that_only_tests_have() -> None:
    assert {name for name, field in FIELDS.items() if field.metadata["description"].startswith("For tests: ")} == set(
        OF_TESTS
    )


@pytest.mark.parametrize("name", ["a b", "-a", "a..b", "a/b", "a:5000", "*.test", "x" * 64, "\udcff"])
def test_a_name_that_no_host_can_have_is_one_line_that_names_it(name: str) -> None:
    for setting in ("san", "host_name"):
        with pytest.raises(SettingsError) as refused:
            load({"ephemeral": True, setting: [name]}, environ={})
        flag = f"--{setting.replace('_', '-')}"
        assert str(refused.value).startswith(
            f"{flag} on the command line is {[name]!r}: {name!r} is no host name: give"
        )
    for fine in ("registry", "registry.test", "172.18.0.1", "::1", "my_registry", "bücher.example", "1and1.test"):
        assert load({"ephemeral": True, "san": fine}, environ={}).san == (fine,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--database", "postgresql://localhost/x"], "leave --database and --workers out"),
        (["--workers", "2"], "leave --database and --workers out"),
        (["--ready-file", "/nowhere/ready"], "--ready-file /nowhere/ready cannot be written: No such file"),
        (["--host", "0.0.0.0"], "--open-to-everyone"),
        (["--san", "a b"], "--san on the command line is ['a b']: 'a b' is no host name"),
        (["--personality", "quay"], "there is no personality 'quay'; there are distribution, "),
        (["--auth", "ldap"], "--auth on the command line is 'ldap': give none or basic or bearer"),
        (["--auth", "basic", "--tester-password", "abc"], "tester_password: the password has 3 characters"),
        (["--seed", "/nowhere"], "the seed /nowhere cannot be read: No such file or directory"),
    ],
)
def test_what_an_ephemeral_server_cannot_be_is_one_line(words: list[str], message: str) -> None:
    done = forked.run("serve", "--ephemeral", "--port", "0", *words, timeout=PATIENCE)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
