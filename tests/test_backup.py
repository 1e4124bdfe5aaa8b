"""Backups: out of a running registry, into an empty one, from either database into either."""

import contextlib
import json
import os
import secrets
import sqlite3
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from sqlalchemy import text

from charthouse import queries
from charthouse.auth.access import Pattern
from charthouse.backup import UNFINISHED, Backup, Copied, restoring
from charthouse.composition import open_existing, open_registry
from charthouse.core import Caller, Registry
from charthouse.database import Connection, DatabaseError
from charthouse.database.sqlite_connection import Direct
from charthouse.errors import ManifestUnknown, VaultError
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest, RepositoryName, Tag
from charthouse.settings import Settings, load
from charthouse.tables import SCHEMA_VERSION, metadata, registry_id
from charthouse.vaults import METADATA, Pieces, VaultWriter, blob_path, open_reader, open_writer
from charthouse.verification import Checked, Pace
from durability.client import Client
from support import postgres
from support.requests import image, index
from support.server import serving
from test_cli import Run, run  # noqa: F401 - a fixture

NAME = RepositoryName("team-a/app")
PATIENCE = 60  # seconds for what takes less than five on an idle machine
PUSHERS = 4
PLACES = ("backup", "backup.tar")


def layer(seed: str) -> bytes:
    """More than is kept in the database."""
    return seed.encode() * 6000


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def push(registry: Registry, tag: str, *layers: bytes, repository: RepositoryName = NAME) -> bytes:
    for content in (b"{}", *layers):
        await registry.push_blob(repository, Caller(), Digest.of(content), pieces(content))
    manifest = image(b"{}", *layers)
    await registry.push_manifest(repository, Tag(tag), manifest, OCI_MANIFEST, Caller())
    return manifest


async def pull(registry: Registry, digest: Digest, repository: RepositoryName = NAME) -> bytes:
    blob = await registry.pulls.get_blob(repository, digest)
    return b"".join([piece async for piece in blob.read(0, blob.size)])


async def back_up(registry: Registry, place: Path) -> Copied:
    vault = open_writer(place)
    try:
        return await registry.backup.run(vault, lambda: None)
    finally:
        vault.close()


@contextlib.asynccontextmanager
async def restored(place: Path, settings: Settings) -> AsyncIterator[tuple[Registry, list[str]]]:
    """The new registry, and what is wrong with blobs of the backup."""
    with contextlib.closing(open_reader(place)) as vault, restoring(settings, vault) as taken:
        registry = await open_registry(settings, durable=False, restoring=True)
        try:
            faults = await registry.backup.fill(taken, vault, lambda: None)
        finally:
            await registry.close()
    registry = await open_registry(settings, durable=False)
    try:
        yield registry, faults
    finally:
        await registry.close()


@pytest.fixture
def target(tmp_path: Path, target_url: str) -> Settings:
    """Where nothing is yet."""
    return load({"data": tmp_path / "target", "database": target_url, "policy": "oci"}, environ={})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    return load({"data": tmp_path / "elsewhere"}, environ={})


TABLES = [table for table in metadata.sorted_tables if table is not registry_id]


def rows(connection: Connection) -> dict[str, list[list[Any]]]:
    """All that is copied: what a blob store calls its blobs, and the registry's id, are its own."""
    found = {}
    for table in TABLES:
        names = ", ".join(column.name for column in table.columns if (table.name, column.name) != ("blobs", "key"))
        everything = connection.execute(text(f"SELECT {names} FROM {table.name}")).all()
        found[table.name] = sorted([list(row) for row in everything], key=repr)
    return found


async def verified(registry: Registry) -> list[Checked]:
    return [checked async for checked in registry.verification.run(Pace(0), deep=True) if checked.how]


# Under load


class Pushers:
    """Clients that push until they are told to stop. `acknowledged` grows while they do: repository, tag, manifest."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._some = threading.Condition()
        self.acknowledged: list[tuple[str, str, bytes, bytes]] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(PUSHERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        with self._some:
            assert self._some.wait_for(lambda: self.failures or len(self.acknowledged) >= count, PATIENCE)

    def _run(self, number: int) -> None:
        with Client(self._port) as client:
            count = 0
            while not self._stop.is_set() and not self.failures:
                count += 1
                self._push(client, f"team-{number}/app-{count % 7}", f"1.{count}")

    def _push(self, client: Client, repository: str, tag: str) -> None:
        content = secrets.token_bytes(20_000)
        manifest = image(b"{}", content)
        answers = [
            client("POST", f"/v2/{repository}/blobs/uploads/?digest={Digest.of(blob)}", blob)
            for blob in (b"{}", content)
        ]
        answers.append(client("PUT", f"/v2/{repository}/manifests/{tag}", manifest, content_type=OCI_MANIFEST))
        with self._some:
            self.failures += [str(answer) for answer in answers if answer.status != 201]
            self.acknowledged.append((repository, tag, manifest, content))
            self._some.notify_all()


@pytest.fixture
async def targets(request: pytest.FixtureRequest, tmp_path: Path) -> list[Settings]:
    """Where nothing is yet, on each database: one backup is enough for both."""
    url = await postgres.make_database(request.getfixturevalue("postgres_server"))
    return [
        load({"data": tmp_path / f"target{number}", "database": database, "policy": "oci"}, environ={})
        for number, database in enumerate(["", url])
    ]


async def test_everything_acknowledged_before_it_began_is_there_after_a_restore_and_whatever_is_there_is_whole(
    tmp_path: Path, database_url: str, targets: list[Settings], did: Callable[[str], None]
):
    """Four clients push to a server while the backup runs beside it, into the same folder twice."""
    place = tmp_path / "backup"
    with serving(tmp_path, database=database_url) as server, Pushers(server.port) as pushers:
        pushers.wait_for(30)
        await back_up_beside(server.settings, place)
        before = {(repository, tag) for repository, tag, _, _ in pushers.acknowledged}
        await back_up_beside(server.settings, place)
        pushers.wait_for(len(before) + 10)
    assert not pushers.failures
    for target in targets:
        async with restored(place, target) as (new, faults):
            assert faults == []
            found = await compare(new, pushers.acknowledged)
            assert before <= found
            await push(new, "new", layer("new"))  # the new registry takes pushes
            assert await pull(new, Digest.of(layer("new"))) == layer("new")
        did(f"restored {len(found)} versions, of which {len(before)} had been acknowledged, lost 0")


async def back_up_beside(settings: Settings, place: Path) -> None:
    """As the command does, beside a running server."""
    registry = await open_existing(settings)
    try:
        await back_up(registry, place)
    finally:
        await registry.close()


async def compare(registry: Registry, acknowledged: Sequence[tuple[str, str, bytes, bytes]]) -> set[tuple[str, str]]:
    """The versions that are there, each of which pulls as it was pushed."""
    names, _ = await registry.list_repositories("", 1000, Caller())
    found = {(str(name), tag) for name in names for tag in (await registry.list_tags(name, "", 1000))[0]}
    pushed = {(repository, tag): (manifest, content) for repository, tag, manifest, content in acknowledged}
    for repository, tag in found:
        manifest, content = pushed[repository, tag]
        name = RepositoryName(repository)
        assert (await registry.pulls.get_manifest(name, Tag(tag))).content == manifest
        assert await pull(registry, Digest.of(content), name) == content
    return found


# What is in it


@pytest.mark.parametrize("place", PLACES)
async def test_a_restored_registry_has_every_row_and_every_byte(
    registry: Registry, tmp_path: Path, target: Settings, place: str
):
    manifest = await push(registry, "1.0", layer("a"), layer("b"))
    above = index(manifest, media_type=OCI_MANIFEST)
    await registry.push_manifest(NAME, Tag("all"), above, OCI_INDEX, Caller())
    await registry.users.add("ann", "a long canary9f3b1c", administrator=True)
    secret = await registry.api_tokens.add("ci", [Pattern("team-a/*")], frozenset(["pull"]), None)
    copied = await back_up(registry, tmp_path / place)
    assert (copied.blobs, copied.new, copied.damaged, copied.gone) == (2, 2, {}, 0)
    async with restored(tmp_path / place, target) as (new, faults):
        assert faults == []
        assert await new._database.scan(rows) == await registry._database.scan(rows)
        assert (await new.pulls.get_manifest(NAME, Tag("all"))).content == above
        assert [await pull(new, Digest.of(layer(seed))) for seed in "ab"] == [layer("a"), layer("b")]
        assert await verified(new) == []
        await push(new, "2.0", layer("c"), repository=RepositoryName("team-b/new"))  # the next id is a new one
        await push(new, "2.0", layer("c"))
        assert new.api_tokens.find(secret, await new.users.directory()).name == "ci"


async def test_the_backup_of_a_restored_registry_is_the_same(registry: Registry, tmp_path: Path, target: Settings):
    """There and back."""
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "first")
    async with restored(tmp_path / "first", target) as (new, _):
        await back_up(new, tmp_path / "second")
    first, second = (contents(tmp_path / place) for place in ("first", "second"))
    assert first == second


def contents(place: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    blobs = {path.name: path.read_bytes() for path in (place / "blobs").rglob("*") if path.is_file()}
    with contextlib.closing(sqlite3.connect(place / METADATA)) as opened:
        return rows(Direct(opened)), blobs


async def test_a_second_backup_copies_only_what_is_new_and_forgets_what_nothing_names(
    registry: Registry, tmp_path: Path, elsewhere: Settings
):
    await push(registry, "1.0", layer("a"))
    await push(registry, "2.0", layer("b"))
    assert (await back_up(registry, tmp_path / "backup")).new == 2
    kept = tmp_path / "backup" / blob_path(Digest.of(layer("b")))
    before = kept.stat()
    await push(registry, "3.0", layer("c"))
    await registry.delete_version(NAME, Tag("1.0"))
    await registry._database.write(queries.forget_blob, Digest.of(layer("a")))
    copied = await back_up(registry, tmp_path / "backup")
    assert (copied.blobs, copied.new, copied.new_bytes) == (2, 1, len(layer("c")))
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    names = {path.name for path in (tmp_path / "backup/blobs").rglob("*") if path.is_file()}
    assert names == {Digest.of(layer(seed)).hex for seed in "bc"}
    async with restored(tmp_path / "backup", elsewhere) as (new, _):
        assert await new.list_tags(NAME, "", 10) == (["2.0", "3.0"], False)


@pytest.mark.parametrize("place", PLACES)
async def test_only_its_owner_can_read_a_backup(registry: Registry, tmp_path: Path, place: str):
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / place)
    whole = tmp_path / place
    files = [path for path in whole.rglob("*") if path.is_file()] if whole.is_dir() else [whole]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_a_backup_can_sign_nothing(registry: Registry, settings: Settings, tmp_path: Path):
    """Neither the keys of access tokens nor the key of upload ids are in it."""
    assert registry.access_tokens.keys.signing
    secrets_of = [key["d"] for key in json.loads((settings.data / "token-keys.json").read_text())["keys"]]
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "backup")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file())
    assert len(secrets_of) == 2
    assert not any(key.encode() in everything for key in secrets_of)
    assert (settings.data / "upload.key").read_bytes() not in everything


# What goes wrong


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("moment", ["blob", "metadata"])
async def test_a_backup_that_is_interrupted_leaves_the_one_before(
    registry: Registry, tmp_path: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch, place: str, moment: str
):
    """And the first one is never taken for whole."""

    async def interrupted() -> None:
        vault = open_writer(tmp_path / place)

        def fail(*_: object) -> None:
            raise Interrupted

        async def fail_later(*_: object) -> str:
            raise Interrupted

        monkeypatch.setattr(vault, *(("add", fail_later) if moment == "blob" else ("finish", fail)))
        with pytest.raises(Interrupted):
            await registry.backup.run(vault, lambda: None)
        vault.close()

    await push(registry, "1.0", layer("a"))
    await interrupted()
    with pytest.raises(VaultError, match=r"holds no whole backup|there is no"):
        async with restored(tmp_path / place, elsewhere):
            pass
    await back_up(registry, tmp_path / place)
    await push(registry, "2.0", layer("b"))
    await interrupted()
    async with restored(tmp_path / place, elsewhere) as (new, faults):
        assert (await new.list_tags(NAME, "", 10), faults) == ((["1.0"], False), [])
        assert await verified(new) == []
    assert (await back_up(registry, tmp_path / place)).blobs == 2


async def test_a_damaged_blob_is_named_and_the_rest_is_in_the_backup(
    registry: Registry, settings: Settings, tmp_path: Path, elsewhere: Settings
):
    await push(registry, "1.0", layer("a"))
    await push(registry, "2.0", layer("b"))
    digest = Digest.of(layer("a"))
    flip(next((settings.data / "blobs").rglob(f"{digest.hex}.*")))
    copied = await back_up(registry, tmp_path / "backup")
    assert list(copied.damaged) == [digest]
    assert "its bytes have the digest" in copied.damaged[digest]
    async with restored(tmp_path / "backup", elsewhere) as (new, faults):
        assert faults == [f"blob {digest}: the backup does not have it"]
        (found,) = await verified(new)
        assert (found.digest, found.versions) == (digest, [f"{NAME}:1.0"])
        with pytest.raises(ManifestUnknown):
            await new.pulls.stat_manifest(NAME, Tag("1.0"))
        assert await pull(new, Digest.of(layer("b"))) == layer("b")
        await push(new, "1.0", layer("a"))
        assert await pull(new, digest) == layer("a")


async def test_bytes_that_an_earlier_backup_has_heal_what_is_damaged_since(
    registry: Registry, settings: Settings, tmp_path: Path, elsewhere: Settings
):
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "backup")
    flip(next((settings.data / "blobs").rglob(f"{Digest.of(layer('a')).hex}.*")))
    assert len(await verified(registry)) == 1
    assert (await back_up(registry, tmp_path / "backup")).damaged == {}
    async with restored(tmp_path / "backup", elsewhere) as (new, faults):
        assert faults == []
        assert await verified(new) == []
        assert await pull(new, Digest.of(layer("a"))) == layer("a")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def test_bytes_that_went_bad_in_the_backup_are_never_restored_as_good_ones(
    registry: Registry, tmp_path: Path, elsewhere: Settings
):
    await push(registry, "1.0", layer("a"), layer("b"))
    await back_up(registry, tmp_path / "backup")
    flip(tmp_path / "backup" / blob_path(Digest.of(layer("a"))))
    os.truncate(tmp_path / "backup" / blob_path(Digest.of(layer("b"))), 100)
    async with restored(tmp_path / "backup", elsewhere) as (new, faults):
        assert len(faults) == 2
        assert {checked.digest for checked in await verified(new)} == {Digest.of(layer(seed)) for seed in "ab"}


async def test_what_is_deleted_and_collected_while_it_runs_is_left_out_whole(
    registry: Registry, settings: Settings, tmp_path: Path, elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
):
    """The snapshot has the version and its index, and the blob's file went before it was copied."""
    manifest = await push(registry, "1.0", layer("a"))
    await registry.push_manifest(NAME, Tag("all"), index(manifest), OCI_INDEX, Caller())
    await push(registry, "2.0", layer("b"))
    digest = Digest.of(layer("a"))

    async def nothing(*_: object) -> None:
        pass

    named = Backup._copy_named

    async def after_collection(self: Backup, taken: Connection, vault: VaultWriter, copied: Copied) -> None:
        await registry._database.write(queries.forget_blob, digest)
        next((settings.data / "blobs").rglob(f"{digest.hex}.*")).unlink()
        await named(self, taken, vault, copied)

    monkeypatch.setattr(Backup, "_copy_stored", nothing)
    monkeypatch.setattr(Backup, "_copy_named", after_collection)
    copied = await back_up(registry, tmp_path / "backup")
    assert (copied.blobs, copied.gone, copied.damaged) == (1, 1, {})
    async with restored(tmp_path / "backup", elsewhere) as (new, faults):
        assert faults == []
        assert await new.list_tags(NAME, "", 10) == (["2.0"], False)
        assert await verified(new) == []


async def test_a_blob_that_is_pushed_again_while_it_is_read_is_copied_from_where_it_is_now(
    registry: Registry, settings: Settings, tmp_path: Path
):
    """Its file is missing, and so is healed by a push between the snapshot and its copy."""
    await push(registry, "1.0", layer("a"))
    digest = Digest.of(layer("a"))
    next((settings.data / "blobs").rglob(f"{digest.hex}.*")).unlink()
    vault = open_writer(tmp_path / "backup")
    add = vault.add

    async def add_after_a_push(wanted: Digest, size: int, content: Pieces) -> str:
        try:
            return await add(wanted, size, content)
        except BaseException:
            if len(await verified(registry)):
                await push(registry, "1.0", layer("a"))
            raise

    vault.add = add_after_a_push  # type: ignore[method-assign]
    copied = await registry.backup.run(vault, lambda: None)
    vault.close()
    assert (copied.blobs, copied.damaged) == (1, {})


# What is refused


async def test_two_backups_into_one_place_do_not_meet(tmp_path: Path):
    for name in PLACES:
        vault = open_writer(tmp_path / name)
        with pytest.raises(VaultError, match="another backup is writing"):
            open_writer(tmp_path / name)
        vault.close()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(VaultError, match="is not empty and holds no backup"):
        open_writer(tmp_path)
    with pytest.raises(VaultError, match="is a file"):
        open_writer(tmp_path / "notes.txt")


async def refuses(place: Path, settings: Settings, words: str) -> None:
    with pytest.raises((VaultError, DatabaseError), match=words):
        async with restored(place, settings):
            pass


async def test_a_restore_is_refused_where_something_is(
    registry: Registry, settings: Settings, tmp_path: Path, make_settings: Callable[..., Settings]
):
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "backup")
    await refuses(tmp_path / "backup", settings, "is not empty, it holds a registry: restore into an empty folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    await refuses(tmp_path / "backup", make_settings(data=tmp_path / "full"), "it holds notes.txt")
    if settings.database:
        await refuses(tmp_path / "backup", make_settings(data=tmp_path / "new"), "the database is not empty")
        assert not list((tmp_path / "new").iterdir())
    assert await pull(registry, Digest.of(layer("a"))) == layer("a")


async def test_what_is_no_whole_backup_is_refused(registry: Registry, tmp_path: Path, elsewhere: Settings):
    await push(registry, "1.0", layer("a"))
    for name in PLACES:
        await back_up(registry, tmp_path / name)
    await refuses(tmp_path / "nowhere", elsewhere, "there is no .*nowhere")
    (tmp_path / "empty").mkdir()
    await refuses(tmp_path / "empty", elsewhere, "holds no whole backup")
    os.truncate(tmp_path / "backup.tar", (tmp_path / "backup.tar").stat().st_size // 2)
    await refuses(tmp_path / "backup.tar", elsewhere, "no tar file that is whole|holds no whole backup")
    (tmp_path / "text.tar").write_text("no archive")
    await refuses(tmp_path / "text.tar", elsewhere, "no tar file that is whole")
    (tmp_path / "backup" / METADATA).write_bytes(b"no database" * 100)
    await refuses(tmp_path / "backup", elsewhere, "cannot be used: file is not a database")
    assert not elsewhere.data.exists() or not list(elsewhere.data.iterdir())


async def test_a_backup_of_a_newer_program_is_refused(registry: Registry, tmp_path: Path, elsewhere: Settings):
    await back_up(registry, tmp_path / "backup")
    newer = f"{int(SCHEMA_VERSION) + 1:04}"
    with contextlib.closing(sqlite3.connect(tmp_path / "backup" / METADATA, isolation_level=None)) as opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", [newer])
    await refuses(tmp_path / "backup", elsewhere, f"the backup has schema {newer} and this program knows up to")


async def test_a_server_does_not_start_in_a_restore_that_did_not_end_and_the_next_one_ends_it(
    registry: Registry, tmp_path: Path, target: Settings
):
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "backup")
    target.data.mkdir()
    (target.data / UNFINISHED).touch()
    (target.data / "blobs").mkdir()
    (target.data / "blobs/left-over").touch()
    with pytest.raises(DatabaseError, match="run `charthouse restore` again"):
        await open_registry(target)
    async with restored(tmp_path / "backup", target) as (new, faults):
        assert faults == []
        assert await pull(new, Digest.of(layer("a"))) == layer("a")
    assert not (target.data / "blobs/left-over").exists()
    await (await open_existing(target)).close()


@pytest.mark.parametrize("trick", ["symlink", "outside"])
async def test_a_tar_file_gives_nothing_but_what_it_holds(
    registry: Registry, tmp_path: Path, elsewhere: Settings, trick: str
):
    """A member that is a link to a file of this machine is as if it were not there."""
    await push(registry, "1.0", layer("a"))
    await back_up(registry, tmp_path / "backup.tar")
    name = blob_path(Digest.of(layer("a")))
    (tmp_path / "secret").write_bytes(layer("a"))
    with tarfile.open(tmp_path / "backup.tar") as good, tarfile.open(tmp_path / "bad.tar", "w") as bad:
        for member in good:
            if member.name != name:
                bad.addfile(member, good.extractfile(member))
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        outside = tarfile.TarInfo("../outside")
        bad.addfile(link if trick == "symlink" else outside)
    async with restored(tmp_path / "bad.tar", elsewhere) as (_, faults):
        assert faults == [f"blob {Digest.of(layer('a'))}: the backup does not have it"]
    assert not (tmp_path / "outside").exists()


# As a person runs it


@pytest.mark.no_tables
async def test_a_person_backs_up_and_restores_to_either_database(
    tmp_path: Path,
    database_url: str,
    postgres_server: str,
    run: Run,  # noqa: F811 - the fixture
):
    data = tmp_path / "data"
    with serving(tmp_path, database=database_url) as server:
        with Pushers(server.port) as pushers:
            pushers.wait_for(1)
        for place in PLACES:
            said = run("backup", tmp_path / place, "--data", data, "--database", database_url).stdout
            assert f"backed up to {tmp_path / place}: " in said
    repository, tag, manifest, content = pushers.acknowledged[0]
    (tmp_path / "new").mkdir()
    other = "" if database_url else await postgres.make_database(postgres_server)
    said = run("restore", tmp_path / "backup.tar", "--data", tmp_path / "new/data", "--database", other).stdout
    assert ": 0 damaged\nrestored " in said
    with serving(tmp_path / "new", database=other) as server, Client(server.port) as client:
        assert client("GET", f"/v2/{repository}/manifests/{tag}", accept=OCI_MANIFEST).body == manifest
        with Pushers(server.port) as pushers:
            pushers.wait_for(1)
        assert not pushers.failures
    (tmp_path / "backup" / blob_path(Digest.of(content))).unlink()
    done = run("restore", tmp_path / "backup", "--data", tmp_path / "third", status=1)
    assert f"blob {Digest.of(content)}: the backup does not have it\n" in done.stderr
    assert f"  {repository}:{tag}\n" in done.stdout


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_a_place_that_cannot_be_written_is_one_line(elsewhere: Settings, tmp_path: Path, run: Run, command: str):  # noqa: F811
    """And nobody's traceback."""
    registry = await open_registry(elsewhere)
    await back_up(registry, tmp_path / "backup")
    await registry.close()
    places = {"backup": ["/proc/nope", elsewhere.data], "restore": [tmp_path / "backup", "/proc/nope"]}
    place, data = places[command]
    done = run(command, place, "--data", data, status=2)
    assert done.stderr.splitlines()[-1].startswith("charthouse: /proc/nope: ")
