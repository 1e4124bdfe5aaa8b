"""The wheel and the sdist have no secret of whoever built them, and no path of the machine it was done on."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from charthouse import __version__
from charthouse.auth import api_tokens, keys, tokens
from charthouse.auth.scope import parse
from support.built import build, files_of
from support.tools import ROOT

# Of a data folder, of an editor, of a shell: by their names alone.
PRIVATE_NAMES = re.compile(
    r"(?:^|/)(?:\.env[^/]*|\.git|\.venv|\.hypothesis|\.netrc|\.pypirc|\.npmrc|\.docker|\.kube|id_(?:rsa|ecdsa|ed25519)"
    r"|__pycache__|charthouse-data|charthouse\.db[^/]*|token-keys\.json|upload\.key|disk\.reserve|admin-password|htpasswd"
    r"|[^/]*\.(?:pem|key|p12|pfx|pyc|log|lock|db|sqlite3?|gpg|bak|orig|swp))(?:/|$)"
)
SECRETS = {
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----\s+[\w+/=]{4}",
    "a private JWK": rb'"d"\s*:\s*"[\w-]{40,}"',
    "a token of ours": rb"\bch[tr]_[0-9A-Za-z]{49}\b",
    "a signed token": rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
    "a token of GitHub's or GitLab's": rb"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_\w{60,}|glpat-[\w-]{20,})",
    "a token of PyPI's or npm's": rb"\b(?:pypi-AgE[\w-]{50,}|npm_[0-9A-Za-z]{36})",
    "a key of AWS's": rb"\bAKIA[0-9A-Z]{16}\b",
    "credentials in a URL": rb"\bpostgres(?:ql)?(?:\+\w+)?://[^\s:/@{}]+:(?=[^\s@]*\d)[^\s:/@{}$<]{12,}@",
}


def found(files: Mapping[str, bytes], checkout: Path) -> set[str]:
    """What should not be shipped: a line each."""
    lines = {f"{name}: a file of this name" for name in files if PRIVATE_NAMES.search(name)}
    for kind, pattern in SECRETS.items():
        lines |= {f"{name}: {kind}" for name, content in files.items() if re.search(pattern, content)}
    here = re.compile(rb"(?<![\w.])" + re.escape(str(checkout).encode()) + rb"(?![\w-])")
    if len(checkout.parts) > 2:  # /src is the name of many
        lines |= {f"{name}: where it was built" for name, content in files.items() if here.search(content)}
    return lines


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_nothing_is_shipped_that_is_secret_or_of_the_building_machine(built: list[Path], kind: str) -> None:
    files = files_of(built[kind == "sdist"])
    assert found(files, ROOT) == set()
    assert len(files) > 100


def _private_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signed() -> bytes:
    return tokens.make(tokens.key(keys._new()), "ann", "1", parse(["repository:a:pull"]), 1).encode()


# Made here, so that this file has none: a way to make it, and what it is found as.
PLANTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "notes.txt": (_private_key, "a private key"),
    "keys.json": (lambda: json.dumps(keys._new()).encode(), "a private JWK"),
    "api.py": (lambda: b"TOKEN = '%s'" % api_tokens.new(api_tokens.API).encode(), "a token of ours"),
    "login.py": (lambda: api_tokens.new(api_tokens.REFRESH).encode(), "a token of ours"),
    "jwt.txt": (_signed, "a signed token"),
    "github.py": (lambda: b"ghp_" + b"a1" * 18, "a token of GitHub's or GitLab's"),
    "gitlab.py": (lambda: b"glpat-" + b"a1" * 10, "a token of GitHub's or GitLab's"),
    "pypi.py": (lambda: b"pypi-AgE" + b"a1" * 30, "a token of PyPI's or npm's"),
    "aws.py": (lambda: b"AKIA" + b"A1" * 8, "a key of AWS's"),
    "url.py": (lambda: b"postgresql://charthouse:" + b"a1" * 8 + b"@database/x", "credentials in a URL"),
    ".env": (lambda: b"A=1", "a file of this name"),
    "charthouse-data/blobs/x": (lambda: b"", "a file of this name"),
    "token-keys.json": (lambda: b"{}", "a file of this name"),
    "server.key": (lambda: b"", "a file of this name"),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A checkout with all of it, and what hatchling makes of that."""
    checkout = tmp_path_factory.mktemp("planted") / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, checkout)
    for name in ("registry", "migrations"):
        shutil.copytree(ROOT / name, checkout / name)
    folder = checkout / "registry/charthouse"
    for name, (make, _) in PLANTED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make())
    (folder / "where.py").write_text(f'FOLDER = "{checkout}"\n')
    return checkout, build(checkout, checkout.parent)


@pytest.mark.parametrize(("kind", "top"), [("wheel", ""), ("sdist", f"charthouse-{__version__}/registry/")])
def test_what_is_planted_is_found_in_what_was_built(planted: tuple[Path, list[Path]], kind: str, top: str) -> None:
    checkout, archives = planted
    lines = found(files_of(archives[kind == "sdist"]), checkout)
    expected = {f"{top}charthouse/{name}: {what}" for name, (_, what) in PLANTED.items()}
    assert lines == expected | {f"{top}charthouse/where.py: where it was built"}
    assert {what for _, what in PLANTED.values()} == {*SECRETS, "a file of this name"}
