"""A SQLite file that is damaged: one line that names it and says what to do, whatever the command is."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from charthouse.database.sqlite_connection import open_file
from charthouse.settings import DATABASE_NAME
from charthouse.vaults import METADATA
from support.server import serving
from test_cli import Run, Stored, refusal, run  # noqa: F401 - the fixtures

PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry with charts in it, and a backup of it beside."""
    folder = tmp_path_factory.mktemp("whole")
    with serving(folder) as server:
        stored = Stored("team-a", [], server, folder)
        for number in range(3):
            stored.push("app", f"1.0.{number}")
    return folder


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole / "data", tmp_path / "data")


def overwrite(path: Path, pages: Iterator[int]) -> None:
    """`pages` count from 1, as SQLite's do."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(b"\x55" * PAGE)


def all_of(path: Path) -> Iterator[int]:
    yield from range(1, path.stat().st_size // PAGE + 1)


def behind_the_first(path: Path) -> Iterator[int]:
    yield from list(all_of(path))[1:]


def roots(path: Path, kind: str) -> list[int]:
    """Of all tables or indexes but the two that a server reads when it starts."""
    query = "SELECT rootpage FROM sqlite_master WHERE type = ? AND tbl_name NOT IN (?, ?) AND rootpage > 1"
    with contextlib.closing(open_file(path, read_only=True)) as opened:
        return [page for (page,) in opened.execute(query, [kind, "alembic_version", "registry_id"])]


DAMAGES: dict[str, tuple[Callable[[Path], Iterator[int]], str]] = {
    "every page": (all_of, "file is not a database"),
    "every page but the first": (behind_the_first, "database disk image is malformed"),
    "the pages of the tables": (lambda path: iter(roots(path, "table")), "database disk image is malformed"),
}


COMMANDS = [["verify"], ["gc"], ["charts"], ["backup", "backup"]]
SERVE = [["serve", "--port", "0"], ["serve", "--port", "0", "--workers", "2"]]
CASES = [
    *[("every page", words) for words in (COMMANDS[0], SERVE[0])],
    *[("every page but the first", words) for words in COMMANDS + SERVE],
    *[("the pages of the tables", words) for words in COMMANDS],
]


@pytest.mark.parametrize(("damage", "words"), CASES, ids=str)
def test_a_damaged_database_is_one_line_that_names_the_file_and_the_way_out(
    refusal: Callable[..., str],  # noqa: F811 - the fixture
    data: Path,
    tmp_path: Path,
    words: list[str],
    damage: str,
):
    pages, reason = DAMAGES[damage]
    overwrite(data / DATABASE_NAME, pages(data / DATABASE_NAME))
    words = [str(tmp_path / word) if word == "backup" and place else word for place, word in enumerate(words)]
    line = refusal(*words, "--data", data)
    assert line.startswith(f"charthouse: the database {data / DATABASE_NAME} is damaged, ")
    assert reason in line
    assert "restore the last backup with `charthouse restore`" in line
    assert "with .recover or .dump" in line


def test_a_server_that_comes_across_damage_answers_with_an_error_and_names_the_file_in_a_line_of_its_log(
    data: Path, tmp_path: Path
):
    overwrite(data / DATABASE_NAME, iter(roots(data / DATABASE_NAME, "table")))
    with serving(tmp_path) as server:
        for path in ("team-a/app/manifests/1.0.0", "team-a/app/tags/list", "_catalog"):
            answer = httpx.get(f"http://{server.host}/v2/{path}", trust_env=False)
            assert answer.status_code == 500, answer.text
            assert str(data) not in answer.text
        said = server.log.read_text()
        assert f"internal error: the database {data / DATABASE_NAME} is damaged, " in said
        assert "Traceback" not in said


def test_verify_finds_damage_that_nothing_else_comes_across(refusal: Callable[..., str], data: Path):  # noqa: F811
    """No row of the audit is read by a pull or a push."""
    with contextlib.closing(open_file(data / DATABASE_NAME, read_only=True)) as opened:
        (page,) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'audit'").fetchone()
    overwrite(data / DATABASE_NAME, iter([page]))
    assert f"{data / DATABASE_NAME} is damaged, " in refusal("verify", "--data", data)


def test_verify_deep_finds_an_index_that_lacks_a_row(run: Run, refusal: Callable[..., str], data: Path):  # noqa: F811
    """By exchanging the definition for one with fewer rows, building the index and taking the definition back."""
    assert ": 0 damaged" in run("verify", "--deep", "--data", data).stdout
    with contextlib.closing(sqlite3.connect(data / DATABASE_NAME, isolation_level=None)) as opened:
        name, sql = opened.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'tags'"
        ).fetchone()
        opened.execute(f"DROP INDEX {name}")
        opened.execute(f"{sql} WHERE name = 'none'")
        opened.execute("PRAGMA writable_schema=ON")
        opened.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", [sql, name])
    assert f"{data / DATABASE_NAME} is damaged, " in refusal("verify", "--deep", "--data", data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_one_line_and_leaves_nothing(
    run: Run,  # noqa: F811
    refusal: Callable[..., str],  # noqa: F811
    data: Path,
    tmp_path: Path,
    damage: str,
):
    run("backup", tmp_path / "backup", "--data", data)
    pages, reason = DAMAGES[damage]
    overwrite(tmp_path / "backup" / METADATA, pages(tmp_path / "backup" / METADATA))
    line = refusal("restore", tmp_path / "backup", "--data", tmp_path / "new")
    assert line == f"charthouse: the backup's {METADATA} cannot be used: {reason}"
    assert not list((tmp_path / "new").iterdir())
