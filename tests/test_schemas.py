"""Data folders that older programs made, one for each schema there was: today's opens them, and each byte is the same.

`tests/schemas/make.py` made them, with those programs.
"""

import contextlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from charthouse import queries
from charthouse.app import create_app
from charthouse.backup import restoring
from charthouse.composition import open_registry
from charthouse.database import sqlite
from charthouse.names import Digest
from charthouse.settings import DATABASE_NAME, Settings
from charthouse.vaults import METADATA, blob_path, open_reader
from charthouse.verification import Pace
from support.requests import Remote, running
from test_migrations import HEAD, REVISIONS, at, content, reflected, run  # noqa: F401 - the fixture

pytestmark = pytest.mark.no_tables

EXTRACTING: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it

MADE = {path.name.partition(".")[0]: path for path in (Path(__file__).parent / "schemas").glob("*.tar.gz")}


def test_there_is_a_data_folder_of_every_schema_but_the_newest():
    """Before a migration is added, `tests/schemas/make.py` makes the one of the schema before it."""
    assert set(REVISIONS) - {HEAD} <= set(MADE)


@pytest.fixture(params=sorted(MADE), scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A revision, and a folder of it, which every test copies."""
    folder = tmp_path_factory.mktemp("made")
    with tarfile.open(MADE[request.param]) as archive:
        archive.extractall(folder, **EXTRACTING)
    return request.param, folder / "data"


async def move_to_postgres(revision: str, path: Path, run: Callable[..., Any]) -> None:  # noqa: F811 - the fixture
    """The rows of a SQLite file into an empty PostgreSQL, with the tables of that revision."""
    await run(at(revision))
    with contextlib.closing(sqlite.connect(path)) as source:
        rows = content(source)

    def fill(target: Connection) -> None:
        for table in reflected(target).sorted_tables:
            if rows[table.name]:
                target.execute(table.insert(), rows[table.name])
        if revision >= "0010":
            queries.count_anew(target)  # what came with its number was counted once more
        for table, column in serials(target):
            target.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), MAX({column})) FROM {table}")
            )

    await run(fill)


def serials(connection: Connection) -> list[tuple[str, str]]:
    """Columns whose next value is counted elsewhere: what comes with its row does not move that."""
    return [
        (table.name, column.name)
        for table in reflected(connection).sorted_tables
        for column in table.primary_key
        if connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar()
    ]


async def pull_everything(client: httpx.AsyncClient, pushed: dict[str, Any]) -> None:
    assert len(pushed["content"]) > 20
    for path, (digest, media_type) in pushed["content"].items():
        answer = await client.get(f"/v2/{path}", headers={"Accept": media_type or "*/*"})
        assert (answer.status_code, Digest.of(answer.content)) == (200, digest), path
        assert answer.headers["docker-content-digest"] == digest
        assert not media_type or answer.headers["content-type"] == media_type
    for repository, tags in pushed["tags"].items():
        assert (await client.get(f"/v2/{repository}/tags/list")).json()["tags"] == sorted(tags)
    for path, digests in pushed["referrers"].items():
        found = (await client.get(f"/v2/{path}")).json()["manifests"]
        assert sorted(each["digest"] for each in found) == sorted(digests)
    catalog = (await client.get("/v2/_catalog")).json()["repositories"]
    assert catalog == sorted(pushed["tags"])


async def serve_and_pull(settings: Settings, pushed: dict[str, Any]) -> None:
    """What was pushed before is there, and stays through a push, a look at all bytes and a collection without grace."""
    app = create_app(settings, durable=False)
    async with running(app) as client:
        await pull_everything(client, pushed)
        for path in pushed["content"]:
            assert (await client.head(f"/v2/{path}", headers={"Accept": "*/*"})).status_code == 200
        await Remote(client, "team-a/app").push_image("new")
        assert [each async for each in app.registry.verification.run(Pace(0), deep=True) if each.how] == []
        assert await app.registry.verification.recount() == []
        await app.registry.collector.run()
        assert await app.registry.verification.recount() == []
        await Remote(client, "team-a/app").call("DELETE", "manifests/new")
        await pull_everything(client, pushed)


async def test_a_data_folder_of_every_schema_opens_and_gives_the_same_bytes(
    make_settings: Callable[..., Settings],
    run: Callable[..., Any],  # noqa: F811
    made: tuple[str, Path],
):
    revision, folder = made
    settings = make_settings(gc_grace=0)
    shutil.copytree(folder, settings.data)
    pushed = json.loads((folder / "pushed.json").read_text())
    if settings.database:
        await move_to_postgres(revision, settings.data / DATABASE_NAME, run)
        (settings.data / DATABASE_NAME).unlink()
    await serve_and_pull(settings, pushed)


def as_backup(folder: Path, place: Path) -> None:
    """What a backup of that registry is: its rows, and its blobs by their digests."""
    shutil.copytree(folder, place / "data")
    (place / "data" / DATABASE_NAME).rename(place / METADATA)
    for path in (place / "data/blobs").glob("*/*/*"):
        target = place / blob_path(Digest(f"{path.parent.parent.name}:{path.name.partition('.')[0]}"))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    shutil.rmtree(place / "data")


async def test_a_backup_of_every_schema_is_restored_and_gives_the_same_bytes(
    make_settings: Callable[..., Settings], tmp_path: Path, made: tuple[str, Path]
):
    _, folder = made
    settings = make_settings(gc_grace=0)
    as_backup(folder, tmp_path / "backup")
    with contextlib.closing(open_reader(tmp_path / "backup")) as vault, restoring(settings, vault) as taken:
        registry = await open_registry(settings, durable=False, restoring=True)
        try:
            assert await registry.backup.fill(taken, vault, lambda *_, **__: None) == []
        finally:
            await registry.close()
    await serve_and_pull(settings, json.loads((folder / "pushed.json").read_text()))
