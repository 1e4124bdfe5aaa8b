"""The commands as a person runs them: processes, on real data folders, with a server beside them and without."""

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.main import get_command

from charthouse import __version__
from charthouse.__main__ import command
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, OCI_MANIFEST
from charthouse.names import Digest
from charthouse.settings import DATABASE_NAME, FIELDS, PREFIX
from support import forked
from support.charts import pack
from support.requests import descriptor, image
from support.server import Server, serving


def _commands(group: Any, *words: str) -> Iterator[str]:
    """Every command with its groups before it: `namespace add`."""
    for name, each in group.commands.items():
        yield from _commands(each, *words, name) if hasattr(each, "commands") else [" ".join([*words, name])]


COMMANDS = sorted(_commands(get_command(command)))
PATIENCE = 60  # seconds for what takes less than one on an idle machine
WEB = {"fastapi", "starlette", "uvicorn"}
MISSING = "team-a/none"

_numbers = itertools.count()

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("charts", "--json", CHARTHOUSE_DATA="…")`: a command in an empty folder, with no variables but those.

    With `through`, a program before it or none, it is started anew.
    """
    here = tmp_path / "here"
    here.mkdir()

    def run(*words: object, status: int = 0, through: tuple[str, ...] | None = None, **environment: str) -> Any:
        env = {"PATH": os.environ["PATH"], "HOME": str(here), "COLUMNS": "200", **environment}
        if through is None:
            done = forked.run(*words, timeout=PATIENCE, cwd=here, env=env)
        else:
            command = [*through, sys.executable, "-m", "charthouse", *map(str, words)]
            done = subprocess.run(
                command, cwd=here, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        print(f"$ charthouse {shlex.join(map(str, words))}\n{done.stdout}{done.stderr}")
        assert "Traceback" not in done.stderr
        assert done.returncode == status
        assert not list(here.iterdir()), "a command leaves nothing where it was run"
        return done

    return run


@pytest.fixture
def refusal(run: Run) -> Callable[..., str]:
    """The one line that a command ends with when a person gave it what cannot be."""

    def refusal(*words: object, status: int = 2, **options: Any) -> str:
        done = run(*words, status=status, **options)
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("data: ")]
        assert line.startswith("charthouse: ")
        assert not done.stdout
        return line

    return refusal


def test_what_is_forked_says_the_same_and_ends_the_same_as_what_is_started(run: Run) -> None:
    for words, status in ((["--version"], 0), (["servx"], 2), (["charts"], 2)):
        forked, started = run(*words, status=status), run(*words, status=status, through=())
        assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


# Help


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version", through=()).stdout == f"charthouse {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, run: Run) -> None:
    *group, last = name.split()
    text = run(*group, last, "--help").stdout
    assert re.search(rf"Examples?:\s+charthouse {name}\b", text)
    assert last in run(*group, "--help").stdout


def test_every_setting_has_a_flag(run: Run) -> None:
    text = run("serve", "--help").stdout
    assert [name for name in FIELDS if f"  --{name.replace('_', '-')} " not in text] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serve", "--prot", "5001"], "No such option: --prot"),
        (["servx"], "No such command 'servx'"),
        (["delete"], "Missing argument 'name'"),
        (["charts", "--json=3"], "Option '--json' does not take a value"),
    ],
)
def test_a_word_that_cannot_be_is_one_line_that_names_it_and_where_it_came_from(
    words: list[str], expected: str, refusal: Callable[..., str]
) -> None:
    line = refusal(*words)
    assert expected in line
    assert "on the command line: " in line
    assert "--help" in line


def _imported(run: Run, *words: str) -> set[str]:
    """The packages that a command imports."""
    lines = run(*words, through=(), PYTHONPROFILEIMPORTTIME="1").stderr.splitlines()
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}


def test_the_version_waits_for_no_database_and_no_web_framework(run: Run) -> None:
    imported = _imported(run, "--version")
    assert "typer" in imported
    assert not imported & {*WEB, "sqlalchemy", "alembic", "rich"}


# Settings


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        (["--port", "99999"], {}, "--port on the command line is '99999': give a whole number from 0 to 65535"),
        (["--policy", "all"], {}, "--policy on the command line is 'all': give charts or oci"),
        (["--host", "example"], {}, "--host on the command line"),
        ([], {"CHARTHOUSE_WORKERS": "0"}, "CHARTHOUSE_WORKERS from the environment is '0': give a whole number"),
        ([], {"CHARTHOUSE_SPARSE_MANIFESTS": "maybe"}, "CHARTHOUSE_SPARSE_MANIFESTS from the environment is 'maybe'"),
        ([], {"CHARTHOUSE_PROT": "5001"}, "unknown setting CHARTHOUSE_PROT from the environment; there are host, port"),
        (["--config", "none.toml"], {}, "the configuration file none.toml cannot be read: No such file or directory"),
        (["--host", "0.0.0.0"], {}, "--open-to-everyone"),
    ],
)
def test_an_impossible_setting_is_one_line_that_names_it_and_where_it_came_from(
    words: list[str], environment: dict[str, str], expected: str, refusal: Callable[..., str]
) -> None:
    assert expected in refusal("serve", *words, **environment)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prot = 5001", "unknown setting prot in {file}; there are host, port"),
        ("port = 'http'", "port in {file} is 'http': give a whole number from 0 to 65535"),
        ("host = []", "host in {file} is []: name at least one address"),
        ("port = ", "{file} is not valid TOML"),
        ("[serve]\nport = 5001", "unknown setting serve in {file}"),
    ],
)
def test_a_bad_line_in_the_file_is_one_line_that_names_the_file(
    content: str, expected: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "charthouse.toml"
    file.write_text(content)
    assert expected.format(file=file) in refusal("serve", "--config", file)


def test_a_password_in_a_wrong_database_url_is_not_printed(refusal: Callable[..., str]) -> None:
    line = refusal("serve", CHARTHOUSE_DATABASE="mysql://charthouse:secret@db/charthouse")
    assert "CHARTHOUSE_DATABASE from the environment" in line
    assert "secret" not in line


def test_a_flag_goes_before_a_variable_and_that_before_the_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "charthouse.toml"
    file.write_text(f"data = '{tmp_path}/from-file'")
    sources: list[tuple[list[object], dict[str, str], str]] = [
        (["--config", file], {}, "from-file"),
        ([], {"CHARTHOUSE_CONFIG": str(file)}, "from-file"),
        (["--config", file], {"CHARTHOUSE_DATA": f"{tmp_path}/from-variable"}, "from-variable"),
        (
            ["--config", file, "--data", f"{tmp_path}/from-flag"],
            {"CHARTHOUSE_DATA": f"{tmp_path}/from-variable"},
            "from-flag",
        ),
    ]
    for words, environment, expected in sources:
        stderr = run("charts", *words, status=2, **environment).stderr
        assert stderr.startswith(f"data: {tmp_path}/{expected}\n")


def test_what_kubernetes_puts_into_the_environment_is_no_setting(run: Run, tmp_path: Path) -> None:
    """Of a Service called charthouse, and of one called charthouse-database."""
    services = {
        f"{PREFIX}{service}{name}": value
        for service in ("", "DATABASE_")
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "5000",
            "SERVICE_PORT_HTTP": "5000",
            "PORT": "tcp://10.0.0.1:5000",
            "PORT_5000_TCP": "tcp://10.0.0.1:5000",
            "PORT_5000_TCP_ADDR": "10.0.0.1",
            "PORT_5000_TCP_PORT": "5000",
            "PORT_5000_TCP_PROTO": "tcp",
        }.items()
    }
    assert "there is no registry in" in run("charts", "--data", tmp_path / "none", status=2, **services).stderr


# Starting


def test_a_taken_port_is_one_line_that_names_it(refusal: Callable[..., str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal("serve", "--port", port, "--data", tmp_path / "data")
    assert f"port {port} on 127.0.0.1 is taken" in line
    assert "--port" in line


def test_a_folder_that_cannot_be_written_is_one_line_with_the_command_that_mends_it(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    line = refusal("serve", "--port", 0, "--data", data, through=_without_privileges())
    assert f"cannot write to the data folder {data}" in line
    assert f"this process is user {os.getuid()}" in line
    assert f"chown -R {os.getuid()} {data}" in line


def _without_privileges() -> tuple[str, ...]:
    """Root writes to any folder; without these two capabilities its modes count for it as well."""
    lost = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}") if os.getuid() == 0 else ()


def test_a_data_folder_that_is_a_file_is_one_line(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    line = refusal("serve", "--port", 0, "--data", tmp_path / "data")
    assert "it is a file, not a folder" in line


# Charts


@dataclass(frozen=True)
class Stored:
    """A namespace with charts of its own, the flags that lead to it, and the server that has it."""

    namespace: str
    flags: list[str]
    server: Server
    work: Path

    def push(self, name: str, version: str, **fields: Any) -> str:
        """Returns the manifest's digest."""
        repository, tag = f"{self.namespace}/{name}", version.replace("+", "_")
        archive = pack(self.work, name, version, **fields).read_bytes()
        config = json.dumps({"apiVersion": "v2", "name": name, "version": version, **fields}).encode()
        manifest = image(config=descriptor(config, CHART_CONFIG), layers=[descriptor(archive, CHART_LAYER)])
        for blob in (archive, config):
            self.server.request("POST", f"{repository}/blobs/uploads/?digest={Digest.of(blob)}", content=blob)
        headers = {"Content-Type": OCI_MANIFEST}
        self.server.request("PUT", f"{repository}/manifests/{tag}", content=manifest, headers=headers)
        return Digest.of(manifest)

    def tags(self, repository: str) -> list[str]:
        """As the server tells them."""
        tags: list[str] = self.server.request("GET", f"{repository}/tags/list").json()["tags"]
        return tags


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
async def module_database(request: pytest.FixtureRequest, anyio_backend: str) -> str:
    if request.param == "sqlite":
        return ""
    server: str = request.getfixturevalue("postgres_server")
    name = f"cli_{os.getpid()}"
    connection = await asyncpg.connect(server.format(name="postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    finally:
        await connection.close()
    return server.format(name=name)


@pytest.fixture(scope="module")
def module_server(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), database=module_database) as server:
        yield server


@pytest.fixture
def stored(module_server: Server, tmp_path: Path) -> Stored:
    return _stored(module_server, tmp_path)


def _stored(server: Server, work: Path) -> Stored:
    settings = server.settings
    flags = ["--data", str(settings.data), *(["--database", settings.database] if settings.database else [])]
    return Stored(f"team-{next(_numbers)}", flags, server, work)


def test_charts_are_listed_as_a_table(run: Run, stored: Stored) -> None:
    stored.push("app", "1.0.0", appVersion="7.1", description="An application [bold]")
    stored.push("app", "1.1.0+build.5", deprecated=True)
    done = run("charts", f"{stored.namespace}/app", *stored.flags)
    header, *rows = [re.split(" {2,}", line.strip()) for line in done.stdout.splitlines()]
    assert header == ["repository", "version", "app version", "size", "pushed", "provenance", "description"]
    assert [row[:2] for row in rows] == [
        [f"{stored.namespace}/app", "1.0.0"],
        [f"{stored.namespace}/app", "1.1.0+build.5 deprecated"],
    ]
    assert rows[0][2] == "7.1"
    assert rows[0][-1] == "An application [bold]"
    assert done.stderr == f"data: {stored.flags[1]}{' and PostgreSQL' if len(stored.flags) > 2 else ''}\n"


def test_charts_are_listed_as_json(run: Run, stored: Stored) -> None:
    digest = stored.push("app", "1.0.0+build.5")
    stored.push("web", "0.1.0", deprecated=True)
    found = json.loads(run("charts", "--json", *stored.flags).stdout)
    app, web = [chart for chart in found if chart["repository"].startswith(f"{stored.namespace}/")]
    assert (app["repository"], app["digest"]) == (f"{stored.namespace}/app", digest)
    assert (app["version"], app["tags"]) == ("1.0.0+build.5", ["1.0.0_build.5"])
    assert (app["deprecated"], app["provenance"]) == (False, None)
    assert (web["name"], web["deprecated"]) == ("web", True)
    assert [type(chart["deprecated"]) for chart in (app, web)] == [bool, bool]


def test_a_version_is_deleted_by_the_name_that_helm_shows(run: Run, stored: Stored) -> None:
    stored.push("app", "1.0.0")
    stored.push("app", "1.1.0+build.5")
    done = run("delete", f"{stored.namespace}/app:1.1.0+build.5", *stored.flags)
    assert done.stdout.startswith(f"deleted {stored.namespace}/app:1.1.0")
    assert stored.tags(f"{stored.namespace}/app") == ["1.0.0"]


def test_a_chart_is_deleted_with_all_its_versions(run: Run, stored: Stored) -> None:
    stored.push("app", "1.0.0")
    stored.push("app", "1.1.0")
    assert "2 manifests" in run("delete", f"{stored.namespace}/app", "--yes", *stored.flags).stdout
    assert f"{stored.namespace}/app" not in stored.server.request("GET", "_catalog").json()["repositories"]


def test_a_chart_is_not_deleted_when_nobody_answers_the_question(run: Run, stored: Stored) -> None:
    stored.push("app", "1.0.0")
    done = run("delete", f"{stored.namespace}/app", *stored.flags, status=1)
    assert f"delete {stored.namespace}/app with all its versions?" in done.stdout
    assert stored.tags(f"{stored.namespace}/app") == ["1.0.0"]


def test_a_version_is_copied_to_another_repository(run: Run, stored: Stored) -> None:
    digest = stored.push("app", "1.0.0")
    target = f"{stored.namespace}/prod/app"
    assert digest in run("copy", f"{stored.namespace}/app:1.0.0", target, *stored.flags).stdout
    assert stored.tags(target) == ["1.0.0"]
    assert stored.server.digests(target, "1.0.0")["manifest"] == digest


def test_what_is_not_there_is_one_line_and_a_status_of_its_own(refusal: Callable[..., str], stored: Stored) -> None:
    stored.push("app", "1.0.0")
    assert "1.0.9" in refusal("delete", f"{stored.namespace}/app:1.0.9", *stored.flags, status=1)
    assert MISSING in refusal("copy", f"{MISSING}:1.0.0", "team-b/none", *stored.flags, status=1)


def test_a_name_that_cannot_be_is_one_line(refusal: Callable[..., str]) -> None:
    assert "Team-A" in refusal("charts", "Team-A", status=1)
    assert "write team-a/app:1.0.0" in refusal("copy", "team-a/app", "prod/app")


def test_gc_beside_a_running_server_says_what_would_go_and_then_removes_it(run: Run, stored: Stored) -> None:
    repository = f"{stored.namespace}/collected"  # of a name that no other test has: they share the blobs
    digest = stored.push("collected", "1.0.0")
    stored.push("collected", "2.0.0")
    blobs = [digest for kind, digest in stored.server.digests(repository, "1.0.0").items() if kind != "manifest"]
    stored.server.request("DELETE", f"{repository}/manifests/{digest}")
    assert "blobs of" in run("gc", "--dry-run", *stored.flags).stdout.splitlines()[-1]  # that wait
    without = ["--gc-grace", "0", *stored.flags]
    lines = run("gc", "--dry-run", *without).stdout.splitlines()
    for blob in blobs:
        (line,) = [line for line in lines if blob in line]
        assert line.startswith(f"blob     {repository}@{blob} (")
        assert "bytes): no manifest names it since " in line
    assert lines[-1].startswith("would remove ")
    planned = json.loads(run("gc", "--dry-run", "--json", *without).stdout)
    done = json.loads(run("gc", "--json", *without).stdout)
    assert (done["blobs"], done["blob_bytes"]) == (planned["blobs"], planned["blob_bytes"])
    assert done["released"] == len(planned["items"]) >= len(blobs)
    assert run("gc", *without).stdout == "removed nothing\n"
    assert stored.tags(repository) == ["2.0.0"]
    for blob in stored.server.digests(repository, "2.0.0").values():
        assert blob not in blobs


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_the_commands_need_no_server(run: Run, tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database=database_url) as server:
        stored = _stored(server, tmp_path)
        stored.push("app", "1.0.0")
        stored.push("app", "2.0.0")
    run("copy", f"{stored.namespace}/app:2.0.0", "prod/app", *stored.flags)
    run("delete", f"{stored.namespace}/app:2.0.0", *stored.flags)
    found = json.loads(run("charts", "--json", *stored.flags).stdout)
    left = [(chart["repository"], chart["version"]) for chart in found]
    assert left == [("prod/app", "2.0.0"), (f"{stored.namespace}/app", "1.0.0")]


@pytest.mark.parametrize("words", [["charts"], ["delete", "team-a/app:1.0.0"], ["copy", "team-a/app:1.0.0", "b/app"]])
def test_a_folder_that_is_not_there_is_refused_and_not_made(
    words: list[str], refusal: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "none"
    assert f"there is no registry in {folder}" in refusal(*words, "--data", folder)
    assert not folder.exists()


def test_a_folder_without_a_registry_stays_empty(refusal: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert f"there is no registry in {folder}" in refusal("charts", "--data", folder)
    assert not list(folder.iterdir())


def test_charts_waits_for_no_web_framework(run: Run, tmp_path: Path) -> None:
    with serving(tmp_path):
        pass
    assert (tmp_path / "data" / DATABASE_NAME).exists()
    imported = _imported(run, "charts", "--data", str(tmp_path / "data"))
    assert "sqlalchemy" in imported
    assert not imported & WEB


def test_pushing_a_chart_that_is_not_packed_yet_says_how_to_pack_it(run: Run, tmp_path: Path):
    """And is no success, as little as a folder with nothing to push."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "mychart").mkdir()
    (tmp_path / "mychart/Chart.yaml").write_text("apiVersion: v2\nname: mychart\nversion: 1.0.0\n", encoding="utf-8")
    said = run("push", tmp_path / "empty", tmp_path / "mychart", status=2).stderr
    assert said.strip().endswith(f"{tmp_path}/mychart is a chart not packed yet: helm package {tmp_path}/mychart")
    nothing = run("push", tmp_path / "empty", status=2).stderr
    assert nothing.strip() == f"charthouse: there is no chart (.tgz) in {tmp_path}/empty"
