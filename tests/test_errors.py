"""Errors: the specification's codes and ours are one list, and so are the framework's answers; and what stays pure."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import charthouse
from charthouse import errors
from charthouse.errors import RegistryError
from charthouse.oci.errors import render
from support.requests import CODES, Remote, error_of

pytest_plugins = ("support.shared",)

PACKAGE = Path(charthouse.__file__).parent
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RegistryError)]
CLASSES.remove(RegistryError)
WITHOUT_A_RAISER: set[type] = set()
SOURCES = {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def test_every_code_of_the_specification_has_a_class_of_its_own_with_the_status_of_its_table():
    statuses = {
        "BLOB_UNKNOWN": 404,
        "BLOB_UPLOAD_INVALID": 400,
        "BLOB_UPLOAD_UNKNOWN": 404,
        "DIGEST_INVALID": 400,
        "MANIFEST_BLOB_UNKNOWN": 404,
        "MANIFEST_INVALID": 400,
        "MANIFEST_UNKNOWN": 404,
        "NAME_INVALID": 400,
        "NAME_UNKNOWN": 404,
        "SIZE_INVALID": 400,
        "UNAUTHORIZED": 401,
        "DENIED": 403,
        "UNSUPPORTED": 405,
        "TOOMANYREQUESTS": 429,
    }
    assert set(statuses) == CODES
    for code, status in statuses.items():
        name = "TooManyRequests" if code == "TOOMANYREQUESTS" else code.title().replace("_", "")
        found = getattr(errors, name)
        assert (found.code, found.status) == (code, status)


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_has_a_code_of_the_specification_and_the_status_of_a_failure(error):
    assert error.code in CODES
    assert 400 <= error.status < 600


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_is_raised_somewhere(error):
    others = "\n".join(text for path, text in SOURCES.items() if path.name != "errors.py")
    assert bool(re.search(rf"\b{error.__name__}\(", others)) == (error not in WITHOUT_A_RAISER)


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_is_rendered_as_the_specification_says(error):
    response = render(error("the fact\nand \ud800 too", detail="more", headers={"X-Fact": "1"}))
    assert response.status_code == error.status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-fact"] == "1"
    expected = (
        b'{"errors": [{"code": "%s", "message": "the fact\\nand \\ud800 too", "detail": "more"}]}' % error.code.encode()
    )
    assert response.body == expected


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("DELETE", "/v2/", "GET, HEAD"),
        ("POST", "/v2/a/manifests/1.0", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/v2/a/blobs/sha256:0", "DELETE, GET, HEAD"),
        ("PUT", "/v2/a/blobs/uploads/", "POST"),
        ("DELETE", "/v2/a/blobs/uploads", "POST"),
        ("POST", "/v2/a/blobs/uploads/id", "DELETE, GET, PATCH, PUT"),
        ("DELETE", "/v2/a/tags/list", "GET, HEAD"),
        ("PUT", "/v2/a/referrers/sha256:0", "GET, HEAD"),
        ("POST", "/v2/_catalog", "GET, HEAD"),
        ("OPTIONS", "/v2/a/tags/list", "GET, HEAD"),
        ("BREW", "/v2/a/tags/list", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_possible_is_405_and_says_which_are(shared_client, method, path, allowed):
    response = await shared_client.request(method, path)
    message = error_of(response, 405, "UNSUPPORTED")
    assert method in message
    assert path in message
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/v2/x",
        "/v2/a/b",
        "/v2/a/manifests",
        "/v2/a/manifests/",
        "/v2/tags/list",
        "/v2/a/tags",
        "/v2/a/tags/list/",
        "/v2//",
        "/v2/a/blobs/",
        "/v2/a/referrers/",
        "/v2/_oci",
        "/v2/_catalog/",
        "/v2/a/blobs/uploads/x/y",
        "/v2/%00",
        "/v2/a%0Ab",
    ],
)
async def test_a_path_that_is_none_of_the_api_is_404_in_the_words_of_the_api(shared_client, path):
    for method in ("GET", "POST", "PUT"):
        error_of(await shared_client.request(method, path), 404, "NAME_UNKNOWN")


async def test_a_fault_of_the_registry_is_an_error_of_the_api_without_its_insides(shared_client):
    """What is damaged is said, not how it is stored here."""
    remote = Remote(shared_client, "errors/damaged")
    content = b"damaged" * 1000
    digest = await remote.push_blob(content)
    folder = Path(shared_client._transport.app.registry.settings.data) / "blobs"
    (path,) = folder.rglob(f"{digest.hex}*")
    path.write_bytes(content[:-1])
    response = await remote.call("GET", f"blobs/{digest}")
    assert str(folder) not in error_of(response, 500, "BLOB_UNKNOWN")


def test_every_end_point_of_the_specification_has_its_mark_at_a_route():
    chapters = [PACKAGE / "oci" / f"{name}.py" for name in ("push", "pull", "discovery", "management")]
    lines = [line for path in chapters for line in SOURCES[path].splitlines() if line.startswith("@")]
    marks = {int(number) for line in lines for number in re.findall(r"\bend-(\d+)", line.partition("#")[2])}
    assert marks == set(range(1, 15))


def imported_by(*modules: str) -> set[str]:
    """What a fresh interpreter has loaded after importing these."""
    program = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


WEB = {"fastapi", "starlette", "uvicorn", "httptools", "uvloop", "anyio"}
DATABASE = {"sqlalchemy", "alembic", "sqlite3", "asyncpg"}


def test_what_is_pure_needs_neither_web_framework_nor_database():
    helm = [f"charthouse.helm.{path.stem}" for path in (PACKAGE / "helm").glob("[!_]*.py")]
    auth = [f"charthouse.auth.{name}" for name in ("scope", "tokens", "keys", "api_tokens")]
    pure = ["charthouse.names", "charthouse.manifest", "charthouse.errors", *helm, *auth]
    assert not imported_by(*pure) & (WEB | DATABASE)


def test_the_registry_needs_no_web_framework():
    assert not imported_by("charthouse.core", "charthouse.queries", "charthouse.tables") & WEB


def test_only_the_queries_know_sql():
    """Statements stand in one place; who opens, locks and migrates the database is `database` and `migrate`."""
    allowed = {"tables.py", "migrate.py"}
    for path, text in SOURCES.items():
        if (
            path.name not in allowed
            and path.parent.name not in ("database", "queries")
            and "migrations" not in path.parts
        ):
            assert not re.search(r"\b(SELECT|INSERT INTO|DELETE FROM)\b", text), path


def test_importing_has_no_effect(tmp_path):
    """No file, no thread, no message: two registries live in one process, and nothing before `create_app`."""
    modules = [
        ".".join(("charthouse", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in SOURCES
        if path.name not in ("__main__.py", "__init__.py") and "migrations" not in path.parts
    ]
    program = f"import threading, {', '.join(modules)}; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(SOURCES), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_handler_of_exceptions_names_what_it_expects(path):
    """A bare `except:` would take a cancelled request for a fault."""
    assert not [
        node for node in ast.walk(ast.parse(SOURCES[path])) if isinstance(node, ast.ExceptHandler) and not node.type
    ]
