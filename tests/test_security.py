"""docs/security.md: each row names tests, and each of them is there. Beside it, what is proven nowhere else."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import charthouse
from charthouse.app import Application
from charthouse.auth import methods
from charthouse.auth.access import Pattern, parse_actions
from charthouse.auth.passwords import Passwords
from charthouse.names import Namespace
from support.requests import Remote, image
from support.tools import ROOT

PACKAGE = Path(charthouse.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
PAGE = (ROOT / "docs/security.md").read_text()
PASSWORD = "correct horse canary9f3b1c"

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


# The page


def rows(page: str) -> list[str]:
    """Of all tables, without their heads."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [line for line in lines if not re.match(r"\| what happened \||\|[-|]+$", line)]


def faults(page: str) -> list[str]:
    """Rows without a test, and tests that are not there."""
    found = []
    for row in rows(page):
        named = _NAMED.findall(row.rpartition(" | ")[2])
        found += [f"no test: {row}"] if not named else []
        found += [f"{file}::{name}" for file, name in named if name not in functions_of(file)]
    return found


@functools.cache
def functions_of(file: str) -> set[str]:
    path = ROOT / file
    return set(_functions(ast.parse(path.read_text()))) if path.exists() else set()


def _functions(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from (f"{child.name}::{name}" for name in _functions(child))
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name.startswith("test_"):
            yield child.name


def test_each_row_names_tests_and_each_of_them_is_there():
    assert faults(PAGE) == []
    assert len(rows(PAGE)) > 50


def test_a_row_without_a_test_and_a_test_that_is_gone_would_be_found():
    page = (
        "| what happened | here | proven by |\n|---|---|---|\n| a | b | nothing |\n"
        "| c | d | `tests/test_security.py::test_gone` |\n| e | f | `tests/gone.py::test_x` |\n"
        "| g | h | `tests/test_collection.py::TestClocks::test_gone` |\n"
    )
    assert faults(page) == [
        "no test: | a | b | nothing |",
        "tests/test_security.py::test_gone",
        "tests/gone.py::test_x",
        "tests/test_collection.py::TestClocks::test_gone",
    ]


# What the sources have


@functools.cache
def imported(source: str) -> set[str]:
    """By their whole names, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{each.name}" for each in node.names}
    return found


def who_imports(*modules: str) -> set[str]:
    return {file for file, source in SOURCES.items() if imported(source) & set(modules)}


def test_the_registry_connects_to_nobody():
    """But to its database, and to the addresses of issuers' keys: no other module has a client, and those with sockets
    only listen. `charthouse bench` is one."""
    clients = ("http.client", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib")
    assert who_imports(*clients) == {"auth/key_sets.py"}
    connects = re.compile(
        r"\bcreate_connection\(|\bopen_connection\(|\bopen_unix_connection\(|\.connect(_ex)?\(|urlopen\("
    )
    ours = {
        "migrate.py",
        "database/sqlite.py",
        "database/sqlite_connection.py",
        "database/postgres_connection.py",
    }  # to the database
    assert {
        file for file, source in SOURCES.items() if connects.search(source) and not file.startswith("bench/")
    } == ours


def test_nothing_that_runs_what_it_reads_is_used():
    assert who_imports("pickle", "marshal", "shelve", "dill", "jsonpickle", "runpy") == set()
    runs = re.compile(r"(?<![\w.])(eval|exec)\(|\byaml\.(unsafe_load|full_load|load|load_all|Loader|UnsafeLoader)\b")
    assert [file for file, source in SOURCES.items() if runs.search(source)] == []


def test_pushed_archives_are_read_by_nothing_but_our_own_reader():
    """tarfile is for what is written here, and for a backup of one's own."""
    assert who_imports("tarfile", "shutil.unpack_archive", "zipfile") == {
        "bench/charts.py",
        "helm/sources.py",
        "vaults/tar.py",
    }
    assert [file for file, source in SOURCES.items() if re.search(r"\.extract(all)?\(|unpack_archive", source)] == []
    assert SOURCES["helm/sources.py"].count("tarfile.open(") == SOURCES["helm/sources.py"].count('mode="w"') == 1


def test_no_statement_compares_with_like():
    compares = re.compile(r"\b(I?LIKE|GLOB|SIMILAR TO|REGEXP)\b|\.i?like\(")
    queries = {file: source for file, source in SOURCES.items() if file.startswith("queries/")}
    assert len(queries) > 5
    assert [file for file, source in queries.items() if compares.search(source)] == []


# What is installed


def requirements(path: str) -> dict[str, str]:
    """What the compiled file says of each package, by its name."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and line[0] not in "# "]
    return {re.split(r"[=\[ ;]", line)[0]: line for line in lines}


@pytest.mark.parametrize(
    "path", ["requirements.txt", "tests/requirements.txt", "tests/requirements-go.txt", ".ci/audit-requirements.txt"]
)
def test_everything_that_is_installed_is_pinned_with_its_hash(path: str):
    packages = requirements(path)
    assert packages
    assert [name for name, line in packages.items() if not re.search(r"==\S+.* --hash=sha256:[0-9a-f]{64}", line)] == []


def test_nothing_that_parses_multipart_forms_is_installed():
    assert not {"python-multipart", "multipart"} & set(requirements("requirements.txt"))


# Who may do what


@pytest.fixture
async def closed(app: Application) -> Application:
    users = app.registry.users
    await users.add("admin", PASSWORD, administrator=True)
    await users.add("ann", PASSWORD)
    await users.grant("ann", Pattern("team-a/*"), parse_actions("pull,push,overwrite,delete"))
    await app.registry.namespaces.set(Namespace("team-a"), {"policy": "oci"})
    return app


async def test_who_uses_a_repository_is_granted_nothing_by_that(closed, client: httpx.AsyncClient):
    client.auth = httpx.BasicAuth("ann", PASSWORD)
    before = await closed.registry.users.directory()
    remote = Remote(client, "team-a/new")
    await remote.push_image("1")
    for path in ("manifests/1", "tags/list"):
        assert (await remote.call("GET", path)).status_code == 200
    assert (await Remote(client, "team-a/other").put_manifest(image(), "1")).status_code == 404
    assert (await remote.call("DELETE", "manifests/1")).status_code == 202
    assert (await closed.registry.users.directory()).grants == before.grants


async def test_a_user_who_is_not_there_costs_a_hash_like_any_other(closed, client, monkeypatch):
    """Against a hash of somebody's own kind, since a time of its own would tell."""
    verify, hashes = Passwords._verify, []

    def watched(self: Passwords, password: str, hashed: str | None) -> bool:
        hashes.append(hashed)
        return verify(self, password, hashed)

    monkeypatch.setattr(Passwords, "_verify", watched)
    for name in ("ann", "nobody"):
        assert (await client.get("/v2/", auth=(name, "wrong canary9f3b1c"))).status_code == 401
    there, absent = hashes
    assert {each.split("$")[1:4][0] for each in (there, absent)} == {"argon2id"}
    assert there.split("$")[:4] == absent.split("$")[:4]


FORM = {
    "grant_type": "password",
    "service": "charthouse",
    "client_id": "x",
    "username": "ann",
    "password": "wrong canary9f3b1c",
}
BASIC = httpx.BasicAuth("ann", "wrong canary9f3b1c")


@pytest.mark.parametrize(
    ("method", "path", "shown"),
    [
        ("GET", "/v2/", {"auth": BASIC}),
        ("PUT", "/v2/team-a/app/manifests/1", {"auth": BASIC}),
        ("GET", "/token?service=charthouse", {"auth": BASIC}),
        ("POST", "/token", {"data": FORM}),
        ("GET", "/api/v1/whoami", {"auth": BASIC}),
    ],
    ids=["a ping", "a push", "a token by GET", "a token by POST", "the administrators' API"],
)
async def test_wrong_passwords_are_slowed_on_every_way_in(closed, client, method, path, shown):
    """One count for all of them."""
    ways = [("GET", "/v2/", {"auth": BASIC}), ("POST", "/token", {"data": FORM})]
    for number in range(methods.FREE_TRIES):
        other, url, options = ways[number % len(ways)]
        assert (await client.request(other, url, **options)).status_code == 401
    response = await client.request(method, path, **shown)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
