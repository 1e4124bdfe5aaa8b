"""What is shipped: the wheel in a foreign project, and the container, as far as that can be shown without an engine."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from charthouse import __version__
from charthouse.certificates import self_signed
from charthouse.settings import FIELDS, PASSWORD_FILE, PREFIX, load

ROOT = Path(__file__).parents[1]
READY = re.compile(rb"listening on (https?://127\.0\.0\.1:\d+)\n")
PATIENCE = 60  # seconds for what takes few on an idle machine
NUMBERED = re.compile(r"[1-9]\d*:[1-9]\d*")

FOREIGN = {
    "registry/__init__.py": "",
    "registry/models.py": "ANSWER = 42\n",
    "migrations/__init__.py": "",
    "migrations/first.py": "ANSWER = 43\n",
}


@contextlib.contextmanager
def _serving(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The URL of a server that is started in `folder`, with nothing but these variables. It must end with 0."""
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        guard = threading.Timer(PATIENCE, process.kill)  # a server that says nothing ends, and its output with it
        guard.start()
        try:
            match = next(filter(None, map(READY.fullmatch, process.stdout)), None)
            assert match, f"{words} ended with {process.wait()} before it was ready"
            yield match[1].decode()
        finally:
            process.terminate()
            status = process.wait()
            guard.cancel()
    assert status == 0


# The wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, which has its dependencies from ours: no network is asked."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(ours)  # its own .pth files, that of our checkout too, do not count there
    install = ["uv", "pip", "install", "--offline", "--no-deps", "--python", environment / "bin/python", wheel]
    subprocess.run([Path(sys.executable).parent / install[0], *install[1:]], check=True, capture_output=True)
    return environment / "bin"


def test_nothing_but_charthouse_is_installed_at_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = f"charthouse-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"charthouse", information}
    assert f"{information}/licenses/LICENSE" in names
    migrations = {f"charthouse/{path.relative_to(ROOT)}" for path in (ROOT / "migrations").rglob("*.py")}
    assert migrations >= {"charthouse/migrations/env.py", "charthouse/migrations/versions/0001_the_registry.py"}
    assert migrations | {"charthouse/migrations/script.py.mako", "charthouse/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_a_project_keeps_its_own_packages_called_registry_and_migrations(installed: Path, tmp_path: Path) -> None:
    for path, content in FOREIGN.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    question = (
        "import charthouse, charthouse.migrate, registry.models, migrations.first;"
        "print(registry.models.ANSWER, migrations.first.ANSWER, charthouse.__file__, charthouse.migrate.scripts())"
    )
    words = [installed / "python", "-c", question]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert answer[:2] == ["42", "43"]
    assert all(Path(path).is_relative_to(installed.parent) for path in answer[2:])


def test_serve_needs_no_checkout_no_configuration_and_no_variables(installed: Path, tmp_path: Path) -> None:
    with _serving([str(installed / "charthouse"), "serve", "--port", "0"], tmp_path, {}) as url:
        assert httpx.get(f"{url}/v2/", trust_env=False).status_code == 200
        assert httpx.get(f"{url}/readyz", trust_env=False).text == "ready\n"
    assert (tmp_path / "charthouse-data" / "charthouse.db").exists()


def test_the_registry_for_tests_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Around a command, as `uvx charthouse exec` starts it, and as a fixture, which pytest finds by itself."""
    script = 'curl -sf "$CHART_REGISTRY_URL/v2/app/tags/list"'
    write = "from charthouse.testing import make_chart; make_chart('app', '1.2.3').write('.')"
    (tmp_path / "test_app.py").write_text("def test_app(chart_registry):\n    assert chart_registry.charts() == []\n")
    without = ["-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]  # of our environment
    words = (
        [installed / "python", "-c", write],
        [installed / "charthouse", "exec", "--seed", ".", "--", "sh", "-c", script],
        [installed / "python", "-m", "pytest", "-q", *without, "test_app.py"],
    )
    variables = {"PATH": os.environ["PATH"]}
    answers = [
        subprocess.run(each, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True).stdout
        for each in words
    ]
    assert json.loads(answers[1]) == {"name": "app", "tags": ["1.2.3"]}
    assert "1 passed" in answers[2]


# The container


@dataclass
class Stage:
    """What the Dockerfile says of one of its images: instructions in order, and the last word of each kind."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        return [arguments for name, arguments in self.instructions if name == instruction][-1]

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.last("ENV").split())


def _stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            stage = stages[arguments.partition(" AS ")[2]] = Stage()
        stage.instructions.append((name, arguments.strip()))
    return stages


def _words(arguments: str) -> list[str]:
    words: list[str] = json.loads(arguments)
    return words


def test_the_image_runs_as_a_numbered_user_with_one_volume() -> None:
    stage = _stages()[""]
    assert NUMBERED.fullmatch(stage.last("USER"))
    assert [arguments for name, arguments in stage.instructions if name == "VOLUME"] == ["/data"]
    assert f"chown {stage.last('USER')} /data" in stage.last("RUN")
    assert _words(stage.last("ENTRYPOINT")) == ["charthouse", "serve"]


def test_the_image_sets_only_settings_that_there_are() -> None:
    environment = _stages()[""].environment
    settings = load({}, environ=environment)
    assert (settings.host, str(settings.data)) == (("0.0.0.0",), "/data")


def test_all_that_the_dockerfile_copies_is_in_its_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in _stages().values()
        for name, arguments in stage.instructions
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


class Image:
    """Carries a Dockerfile out in a folder: its `/x` is `<root>/x`, its Python an environment of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._environment = root / "python"
        self._folder = root
        venv.create(self._environment, with_pip=True, symlinks=True)

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": f"{self._environment}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)}

    def build(self, stage: Stage, others: dict[str, "Image"]) -> "Image":
        for name, arguments in stage.instructions:
            if name == "WORKDIR":
                self._folder = self.inside(arguments)
                self._folder.mkdir(parents=True)
            elif name == "COPY":
                self._copy(arguments, others)
            elif name == "RUN":
                self._run(arguments)
        return self

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _copy(self, arguments: str, others: dict[str, "Image"]) -> None:
        *sources, target = arguments.split()
        other = others[sources.pop(0).removeprefix("--from=")] if sources[0].startswith("--from=") else None
        for source in sources:
            found = other.inside(source) if other else ROOT / source
            if found.is_dir():
                shutil.copytree(found, self._folder / target)
            else:
                shutil.copy(found, self._folder / target)

    def _run(self, command: str) -> None:
        moved = re.sub(r"(?<=\s)/(?=\w)", f"{self.root}/", command)
        print(f"$ {moved}")
        # The network's variables are the machine's: a proxy, certificates, an index of packages nearby.
        network = {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()
        }
        subprocess.run(["sh", "-c", moved], cwd=self._folder, env={**network, **self.variables}, check=True)


@pytest.mark.clients  # takes half a minute, and the network where pip has nothing cached
@pytest.mark.provokes("Connection refused")
def test_the_dockerfile_makes_a_registry_that_is_healthy(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may give a folder to another user, as the Dockerfile does")
    images: dict[str, Image] = {}
    for name, stage in _stages().items():
        (tmp_path / f"image-{name}").mkdir()
        images[name] = Image(tmp_path / f"image-{name}").build(stage, images)
    image, stage = images[""], _stages()[""]
    assert f"{image.inside('/data').stat().st_uid}:{image.inside('/data').stat().st_gid}" == stage.last("USER")
    entry = [str(image.root / "python/bin" / _words(stage.last("ENTRYPOINT"))[0]), "serve"]
    variables = {**image.variables, **stage.environment, "CHARTHOUSE_DATA": str(image.inside("/data"))}

    alone = subprocess.run(entry, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert "--open-to-everyone" in alone.stderr
    assert "--host" in alone.stderr

    with _serving([*entry, "--open-to-everyone", "--port", "0"], tmp_path, variables) as url:
        assert httpx.get(f"{url}/readyz", trust_env=False).text == "ready\n"
        assert _health(stage, url, variables) == 0
    assert _health(stage, url, variables) != 0


def _service_variables() -> list[dict[str, str]]:
    """What docs/testing.md gives to a container that is a service of GitLab's or GitHub's pipelines."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/testing.md").read_text(), re.MULTILINE | re.DOTALL)
    gitlab, github, closed = (yaml.safe_load(block) for block in blocks)
    return [
        gitlab["test"]["variables"],
        github["jobs"]["test"]["services"]["registry"]["env"],
        closed["test"]["variables"],
    ]


@pytest.mark.parametrize("service", [0, 1, 2], ids=["GitLab", "GitHub", "GitLab, with users and TLS"])
def test_a_service_container_for_tests_needs_its_variables_alone(service: int, tmp_path: Path) -> None:
    """The image's entry point, without arguments and with the image's variables and those that are documented; but on a
    free port. A client reaches it by the service's name."""
    stage, documented = _stages()[""], _service_variables()[service]
    entry = [str(Path(sys.executable).parent / _words(stage.last("ENTRYPOINT"))[0]), "serve"]
    assert all(isinstance(value, str) for value in documented.values())
    variables = {**stage.environment, **documented, f"{PREFIX}PORT": "0", f"{PREFIX}DATA": str(tmp_path / "data")}
    with _serving(entry, tmp_path, variables) as url:
        headers = {"Host": f"registry:{url.rpartition(':')[2]}", "Authorization": "Bearer sesame"}
        plain = url.replace("https:", "http:")  # where TLS is spoken, plain HTTP is too on this machine
        found = httpx.get(f"{plain}/_test/registry", headers=headers, trust_env=False).json()
        user = (found["username"], found["password"])
        named = {"Host": headers["Host"]}
        assert httpx.get(f"{plain}/v2/", auth=user, headers=named, trust_env=False).status_code == 200
        assert _health(stage, url, variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}) == 0
        further = httpx.post(f"{plain}/_test/registries", json={}, headers=headers, trust_env=False).json()
        assert further["url"].startswith("http://registry:")
    assert not (tmp_path / "data").exists()


@pytest.mark.provokes("Connection refused")
def test_the_health_check_speaks_tls_where_the_certificate_is_a_variable(tmp_path: Path) -> None:
    server = str(self_signed(tmp_path / "tls", [], time.time()).server)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # has a `python`, as the image does
    variables = {"PATH": path, f"{PREFIX}TLS_CERT": server, f"{PREFIX}TLS_KEY": server}
    words = [sys.executable, "-m", "charthouse", "serve", "--port", "0"]
    with _serving(words, tmp_path, variables) as url:
        assert url.startswith("https://")
        assert _health(_stages()[""], url, variables) == 0
        assert _health(_stages()[""], url, {"PATH": path}) != 0
    assert _health(_stages()[""], url, variables) != 0


def _health(stage: Stage, url: str, variables: dict[str, str]) -> int:
    words = _words(stage.last("HEALTHCHECK").partition("CMD ")[2])
    assert "5000" in words[-1]
    assert int(stage.last("EXPOSE")) == FIELDS["port"].default
    words[-1] = words[-1].replace("5000", url.rpartition(":")[2])
    return subprocess.run(words, env=variables, capture_output=True, check=False).returncode


# Compose


def _compose(**variables: str) -> dict:
    """What `docker compose` makes of the file where these variables are set."""
    compose: dict = _interpolated(yaml.safe_load((ROOT / "docker-compose.yml").read_text()), variables)
    return compose


def _interpolated(node: Any, variables: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, variables) for value in node]
    return _interpolate(node, variables) if isinstance(node, str) else node


def _interpolate(text: str, variables: dict[str, str]) -> str:
    """`${A:-b}`, `${A:+b}` and `${A:?b}`, from the innermost outwards. Raises ValueError where compose ends."""
    while match := re.search(r"\$\{(\w+):([-+?])([^${}]*)\}", text):
        name, kind, word = match.groups()
        value = variables.get(name, "")
        if kind == "?" and not value:
            value = f"\0{word}\0"  # counts where it is used
        meant = {"-": value or word, "+": word if value else "", "?": value}[kind]
        text = text[: match.start()] + meant + text[match.end() :]
    if missing := re.search("\0(.*?)\0", text):
        raise ValueError(missing[1])
    return text


def _mounts(service: dict) -> dict[str, str]:
    """Where a service has each volume."""
    return dict(mount.split(":")[:2] for mount in service["volumes"])


def _published(compose: dict) -> dict[str, list[str]]:
    return {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}


def test_compose_publishes_on_loopback_alone_until_tls_files_are_given() -> None:
    port = FIELDS["port"].default
    assert _published(_compose()) == {"registry": [f"127.0.0.1:{port}:{port}"]}
    with pytest.raises(ValueError, match="PUBLISH needs TLS_FOLDER"):
        _compose(PUBLISH="0.0.0.0")
    assert _published(_compose(PUBLISH="0.0.0.0", TLS_FOLDER="/etc/tls")) == {"registry": [f"0.0.0.0:{port}:{port}"]}


def test_composes_tls_files_are_the_registrys_settings() -> None:
    names = (f"{PREFIX}TLS_CERT", f"{PREFIX}TLS_KEY", f"{PREFIX}PUBLIC_URL")
    registry = _compose()["services"]["registry"]
    assert load({}, environ={name: registry["environment"][name] for name in names}) == load({}, environ={})
    registry = _compose(TLS_FOLDER="/etc/tls", PUBLIC_URL="https://charts.example.com")["services"]["registry"]
    settings = load({}, environ={name: registry["environment"][name] for name in names})
    folder = Path(_mounts(registry)["/etc/tls"])
    assert (settings.tls_cert, settings.tls_key) == (folder / "tls.crt", folder / "tls.key")
    assert settings.own_names == ("charts.example.com",)


def test_compose_fits_the_image_and_the_settings() -> None:
    compose, stage = _compose(), _stages()[""]
    registry = compose["services"]["registry"]
    variables = {**stage.environment, **registry["environment"]}
    config = Path(variables[f"{PREFIX}CONFIG"])
    assert not load({}, environ=variables).open_to_everyone, "it has users"
    assert "command" not in registry
    assert _mounts(registry) == {"data": stage.last("VOLUME"), "secrets": str(config.parent), "tls": "/tls"}
    assert registry["read_only"]
    for name in ("registry", "administrator"):
        assert compose["services"][name]["environment"][PASSWORD_FILE] == "/secrets/admin-password"
    mounted = {volume for service in compose["services"].values() for volume in _mounts(service)}
    assert mounted == set(compose["volumes"])


def test_compose_waits_for_the_secrets_and_for_a_healthy_database() -> None:
    services = _compose()["services"]
    assert services["database"]["depends_on"] == {"secrets": {"condition": "service_completed_successfully"}}
    assert services["administrator"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["registry"]["depends_on"] == {"administrator": {"condition": "service_completed_successfully"}}
    assert services["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert "healthcheck" not in services["registry"], "it has the image's"


def _write_secrets(folder: Path) -> dict[str, str]:
    """What the first service does, its volume being `folder`. Returns each file's content by its path inside."""
    service = _compose()["services"]["secrets"]
    assert service["entrypoint"] == ["python", "-c"]
    (program,) = service["command"]
    inside = _mounts(service)["secrets"]
    subprocess.run([sys.executable, "-c", program.replace(inside, str(folder))], check=True)
    return {f"{inside}/{path.name}": path.read_text() for path in folder.iterdir()}


def test_composes_secrets_are_random_and_written_once(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = map(_write_secrets, folders)
    assert _write_secrets(folders[0]) == one
    assert one.keys() == two.keys()
    assert all(one[path] != two[path] for path in one)


def test_composes_administrator_is_made_once_and_his_password_shown_once(tmp_path: Path) -> None:
    """The services' programs, one after the other, on a folder in place of their volumes."""
    services, written = _compose()["services"], _write_secrets(tmp_path)
    environment = {"PATH": os.environ["PATH"], f"{PREFIX}DATA": str(tmp_path / "data")}
    environment[PASSWORD_FILE] = str(tmp_path / "admin-password")

    def run(*words: str) -> str:
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    assert services["administrator"]["entrypoint"] == ["charthouse", "init"]
    init = (sys.executable, "-m", "charthouse", "init")
    assert "has the administrator admin now" in run(*init)
    assert "there is a user admin already: nothing was changed" in run(*init)
    (program,) = services["password"]["command"]
    show = (sys.executable, "-c", program.replace("/secrets", str(tmp_path)))
    assert run(*show) == f"admin: {written['/secrets/admin-password']}\n"
    assert "it was shown already" in run(*show)
    assert "there is a user admin already" in run(*init)  # at the next start, without the file


def test_registry_and_database_have_the_same_secret(tmp_path: Path) -> None:
    services, written = _compose()["services"], _write_secrets(tmp_path)
    registry, database = services["registry"]["environment"], services["database"]["environment"]
    password = written[database["POSTGRES_PASSWORD_FILE"]]
    assert len(password) == 64
    config = tmp_path / Path(registry[f"{PREFIX}CONFIG"]).name
    assert written[registry[f"{PREFIX}CONFIG"]] == config.read_text()
    user = database["POSTGRES_USER"]
    assert load({}, config, environ={}).database == f"postgresql://{user}:{password}@database/{user}"
