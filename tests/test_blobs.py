"""Blob stores: one suite for all of them, then what is the filesystem's own: crash safety and what is left behind."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from charthouse.blobs import BlobStore, Damage, UploadBusy, UploadEnded, open_store
from charthouse.blobs.filesystem import PIECE, FilesystemStore, UploadFile
from charthouse.composition import open_registry
from charthouse.core import Caller, Registry
from charthouse.errors import BlobUploadInvalid, BlobUploadUnknown, StorageFull
from charthouse.names import Digest, RepositoryName
from charthouse.settings import DATABASE_NAME, Settings, load
from charthouse.uploads import UploadIds
from support import faults

STORES = ("filesystem",)
NOW = 1_800_000_000.0
EXPIRY = 3600
REPOSITORY = RepositoryName("team-a/app")
CALLER = Caller("ann")
LARGE = bytes(range(256)) * 8192 + b"!"  # more than two pieces


def upload_id(now: float = NOW) -> str:
    return UploadIds(b"key", EXPIRY).new(REPOSITORY, "", now)


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], BlobStore]]:
    """Makes store objects on one and the same store, as each worker has one."""
    made: list[BlobStore] = []

    def make() -> BlobStore:
        made.append(open_store(load({"data": tmp_path / "data"}, environ={}), durable=False))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def store(stores: Callable[[], BlobStore]) -> BlobStore:
    return stores()


async def put(store: BlobStore, content: bytes, digest: Digest | None = None) -> str:
    upload = await store.open_upload(upload_id())
    await upload.write(content)
    key = await upload.publish(digest or Digest.of(content))
    await upload.close()
    return key


async def get(store: BlobStore, key: str, size: int, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.read(key, size, start, size if length is None else length)])


# --- every store ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(LARGE)])
async def test_a_blob_comes_back_as_it_was_written(store: BlobStore, size: int):
    content = LARGE[:size]
    assert await get(store, await put(store, content), size) == content


async def test_a_part_of_a_blob_is_read(store: BlobStore):
    key = await put(store, LARGE)
    for start, length in [(0, 1), (PIECE - 1, 2), (5, PIECE), (len(LARGE) - 1, 1), (7, len(LARGE) - 7)]:
        assert await get(store, key, len(LARGE), start, length) == LARGE[start : start + length]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_the_digest_is_that_of_the_bytes_of_all_requests(store: BlobStore, algorithm: str):
    session = upload_id()
    for piece in (LARGE[:10], LARGE[10:PIECE], LARGE[PIECE:]):
        upload = await store.open_upload(session)
        await upload.write(piece)
        await upload.close()
    upload = await store.open_upload(session)
    assert upload.offset == len(LARGE)
    assert await upload.digest(algorithm) == Digest.of(LARGE, algorithm)
    await upload.close()


@pytest.mark.parametrize("before", [0, 10])
async def test_what_was_rewound_does_not_count(store: BlobStore, before: int):
    session = upload_id()
    upload = await store.open_upload(session)
    await upload.write(LARGE[:before])
    await upload.close()
    upload = await store.open_upload(session)
    await upload.write(LARGE)
    await upload.rewind(before)
    await upload.write(b"another end")
    assert upload.offset == before + 11
    assert await upload.digest("sha256") == Digest.of(LARGE[:before] + b"another end")
    key = await upload.publish(Digest.of(b"any"))
    await upload.close()
    assert await get(store, key, before + 11) == LARGE[:before] + b"another end"


async def test_an_upload_that_nobody_has_written_to_has_no_size(store: BlobStore):
    assert await store.upload_size(upload_id()) is None


async def test_an_upload_goes_on_at_any_worker(stores: Callable[[], BlobStore]):
    session = upload_id()
    upload = await stores().open_upload(session)
    await upload.write(b"first, ")
    await upload.close()
    other = stores()
    assert await other.upload_size(session) == 7
    upload = await other.open_upload(session)
    await upload.write(b"second")
    key = await upload.publish(await upload.digest("sha256"))
    await upload.close()
    assert await get(stores(), key, 13) == b"first, second"


async def test_two_requests_never_write_to_one_upload(stores: Callable[[], BlobStore]):
    session, store = upload_id(), stores()
    upload = await store.open_upload(session)
    for other in (store, stores()):
        with pytest.raises(UploadBusy):
            await other.open_upload(session)
    await upload.close()
    await (await store.open_upload(session)).close()


@pytest.mark.parametrize("end", ["publish", "discard"])
async def test_an_upload_that_is_over_is_over_for_every_worker(stores: Callable[[], BlobStore], end: str):
    session = upload_id()
    upload = await stores().open_upload(session)
    await upload.write(b"first")
    await upload.close()
    upload = await stores().open_upload(session)
    await (upload.publish(Digest.of(b"first")) if end == "publish" else upload.discard())
    await upload.close()
    with pytest.raises(UploadEnded):
        await stores().open_upload(session)
    with pytest.raises(UploadEnded):
        await stores().upload_size(session)


async def test_the_same_bytes_twice_have_two_keys_and_one_goes_without_the_other(store: BlobStore):
    one, other = await put(store, LARGE), await put(store, LARGE)
    await store.delete(one)
    await store.delete(one)
    assert await get(store, other, len(LARGE)) == LARGE
    with pytest.raises(Damage, match="missing"):
        await get(store, one, len(LARGE))


async def test_uploads_go_when_they_have_expired_by_the_clock_of_their_ids(store: BlobStore):
    old, fresh, busy, over = (
        upload_id(NOW - EXPIRY - 1),
        upload_id(NOW),
        upload_id(NOW - EXPIRY - 2),
        upload_id(NOW - 9999),
    )
    for session in (old, fresh, over):
        upload = await store.open_upload(session)
        await upload.write(b"bytes")
        await (upload.discard() if session == over else upload.close())
        await upload.close()
    writing = await store.open_upload(busy)
    await writing.write(LARGE)
    assert await store.forget_uploads(NOW - EXPIRY) == 1
    assert [bool(await store.upload_size(session)) for session in (old, fresh, busy)] == [False, True, True]
    assert await store.upload_size(over) is None  # its mark went too: the id is refused by then
    await writing.close()
    assert await store.forget_uploads(NOW - EXPIRY) == 1
    assert await store.upload_size(busy) is None


async def test_a_request_that_is_cancelled_while_it_opens_an_upload_does_not_keep_it(store: BlobStore):
    session = upload_id()
    for _ in range(20):
        opening = asyncio.ensure_future(store.open_upload(session))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await (await store.open_upload(session)).close()


async def test_a_request_that_is_cancelled_while_it_writes_leaves_no_thread_behind_that_still_does(store: BlobStore):
    session = upload_id()
    upload = await store.open_upload(session)
    writing = asyncio.ensure_future(upload.write(bytes(50 * PIECE)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await upload.rewind(0)
    await upload.close()
    assert await store.upload_size(session) is None


async def test_a_store_that_works_says_so(store: BlobStore):
    await store.check()


# --- the filesystem ---------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def files(data: Path) -> AsyncIterator[FilesystemStore]:
    store = FilesystemStore(data, durable=False)
    yield store
    await store.close()


def left(data: Path) -> list[str]:
    """Every file below, by what it is."""
    found = [path.relative_to(data) for folder in ("blobs", "uploads") for path in (data / folder).rglob("*")]
    return sorted(path.parts[0] + path.suffix * (path.suffix == ".ended") for path in found if (data / path).is_file())


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


async def test_nothing_is_left_of_an_upload_but_its_blob_and_the_mark_of_a_session(files: FilesystemStore, data: Path):
    await put(files, LARGE)
    assert left(data) == ["blobs"]
    session = upload_id()
    upload = await files.open_upload(session)
    await upload.close()
    assert left(data) == ["blobs"]  # a request that wrote nothing
    upload = await _begun(files)
    await upload.publish(Digest.of(b"x"))
    await upload.close()
    assert left(data) == ["blobs", "blobs", "uploads.ended"]
    upload = await _begun(files)
    await upload.discard()
    await upload.close()
    assert left(data) == ["blobs", "blobs", "uploads.ended", "uploads.ended"]
    await files.forget_uploads(NOW + 1)
    assert left(data) == ["blobs", "blobs"]


async def _begun(store: FilesystemStore) -> UploadFile:
    """A session in its second request."""
    session = upload_id()
    upload = await store.open_upload(session)
    await upload.write(b"x")
    await upload.close()
    return await store.open_upload(session)


async def test_foreign_files_among_the_uploads_stay(files: FilesystemStore, data: Path):
    (data / "uploads" / "lost+found").mkdir()
    (data / "uploads" / "note.txt").touch()
    assert await files.forget_uploads(NOW + 1e9) == 0
    assert len(list((data / "uploads").iterdir())) == 2


async def test_who_opened_the_file_before_it_became_a_blob_does_not_write_to_the_blob(
    files: FilesystemStore, data: Path
):
    """The two open it at once; the later one has the lock when the other's file is already in its place."""
    session = upload_id()
    upload = await files.open_upload(session)
    await upload.write(b"the blob")
    late = UploadFile(files, data / "uploads" / session)
    late._lock.fileno()  # opened, not yet locked
    key = await upload.publish(Digest.of(b"the blob"))
    await upload.close()
    with pytest.raises(UploadBusy):
        late.open()
    late.let_go()
    assert await get(files, key, 8) == b"the blob"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: os.truncate(path, len(LARGE) - 1), "in place of"),
        (lambda path: path.write_bytes(b""), "in place of"),
        (lambda path: path.write_bytes(LARGE + b"!"), "in place of"),
    ],
)
async def test_a_damaged_blob_gives_no_byte(files: FilesystemStore, data: Path, damage, words: str):
    key = await put(files, LARGE)
    damage(data / "blobs" / key)
    before = descriptors()
    with pytest.raises(Damage, match=words):
        await anext(files.read(key, len(LARGE), 0, 10))
    assert descriptors() == before


async def test_a_blob_that_becomes_shorter_while_it_is_read_ends_in_an_error(files: FilesystemStore, data: Path):
    key = await put(files, LARGE)
    reading = files.read(key, len(LARGE), 0, len(LARGE))
    assert await anext(reading) == LARGE[:PIECE]
    os.truncate(data / "blobs" / key, PIECE)
    with pytest.raises(Damage, match="early"):
        await anext(reading)


async def test_a_read_that_is_left_or_cancelled_keeps_no_file_open(files: FilesystemStore):
    key = await put(files, LARGE)
    before = descriptors()
    reading = files.read(key, len(LARGE), 0, len(LARGE))
    await anext(reading)
    await reading.aclose()
    for _ in range(20):
        reading = files.read(key, len(LARGE), 0, len(LARGE))
        opening = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert descriptors() == before


async def test_a_full_disk_is_a_full_storage_and_the_upload_is_let_go(files: FilesystemStore, data: Path):
    session = upload_id()
    (data / "uploads" / session).symlink_to("/dev/full")
    for _ in range(2):
        upload = await files.open_upload(session)
        with pytest.raises(StorageFull, match="the disk of the registry is full"):
            await upload.write(LARGE)
        await upload.write(b"buffered")
        with pytest.raises(StorageFull):
            await upload.close()


async def test_after_a_failed_fsync_the_store_says_so_until_it_is_started_again(files: FilesystemStore, data: Path):
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    working, files._fsync = files._fsync, fail
    with pytest.raises(OSError, match="Input/output error"):
        await put(files, LARGE)
    files._fsync = working
    with pytest.raises(OSError, match="an fsync failed"):
        await files.check()
    assert left(data) == ["uploads"]
    await FilesystemStore(data, durable=False).check()


PUSH = """
    import asyncio, sys
    from pathlib import Path
    from charthouse.composition import open_registry
    from charthouse.core import Caller
    from charthouse.names import Digest, RepositoryName
    from charthouse.settings import load

    async def pieces(content):
        yield content

    async def main():
        registry = await open_registry(load({"data": Path(sys.argv[1])}, environ={}))
        one = bytes(20_000)
        same_folder = (bytes(20_000) + b"%d" % n for n in range(9999))
        other = next(c for c in same_folder if Digest.of(c).hex[:2] == Digest.of(one).hex[:2])
        for content in (one, other):
            await registry.push_blob(RepositoryName("a/b"), Caller(), Digest.of(content), pieces(content))
        await registry.close()

    asyncio.run(main())
"""


def test_a_blob_is_safe_on_disk_before_it_is_named_in_sql(tmp_path: Path):
    """The system calls of a real process: file, rename, folder, new folder's parent, then the database's log."""
    data = tmp_path / "data"
    _, calls = faults.strace(tmp_path / "log", PUSH, data, calls=["fsync", "fdatasync", "rename", "renameat2"])
    steps = [(call.name.removeprefix("fdata").removeprefix("f"), *map(kind(data), call.paths())) for call in calls]
    pushes = [index for index, step in enumerate(steps) if step == ("sync", "upload")]
    for begin, folders in zip(pushes, (["folder of ab", "folder of sha256"], ["folder of ab"]), strict=True):
        safe = [("sync", "upload"), ("rename", "upload", "blob"), *[("sync", folder) for folder in folders]]
        assert steps[begin : begin + len(safe) + 1] == [*safe, ("sync", "log")]
    assert {("sync", "folder of sha256"), ("sync", "blobs"), ("sync", ".")} <= set(steps[: pushes[0]])


def kind(data: Path) -> Callable[[str], str]:
    def kind(path: str) -> str:
        parts = Path(path).relative_to(data).parts
        if parts[:1] == ("blobs",) and len(parts) > 1:
            return ("folder of sha256" if parts[1] == "sha256" else parts[1], "folder of ab", "blob")[len(parts) - 2]
        if parts[:1] == ("uploads",):
            return "upload"
        return "log" if parts == (f"{DATABASE_NAME}-wal",) else "/".join(parts) or "."

    return kind


# --- through the registry ---------------------------------------------------------------------------------------------


async def pieces(*found: bytes) -> AsyncIterator[bytes]:
    for piece in found:
        await asyncio.sleep(0)
        yield piece


async def content_of(registry: Registry, digest: Digest) -> bytes:
    blob = await registry.pulls.get_blob(REPOSITORY, digest)
    return b"".join([piece async for piece in blob.read(0, blob.size)])


async def test_two_uploads_of_one_digest_at_once_both_succeed_and_one_file_remains(registry, settings: Settings):
    digest = Digest.of(LARGE)
    repositories = [RepositoryName(f"team-{letter}/app") for letter in "aabbc"]
    await asyncio.gather(
        *[registry.push_blob(name, CALLER, digest, pieces(LARGE[:PIECE], LARGE[PIECE:])) for name in repositories]
    )
    for name in repositories:
        blob = await registry.pulls.get_blob(name, digest)
        assert b"".join([piece async for piece in blob.read(0, blob.size)]) == LARGE
    assert left(settings.data) == ["blobs"]
    await registry.push_blob(REPOSITORY, CALLER, digest, pieces(LARGE))
    assert left(settings.data) == ["blobs"]


async def test_a_session_survives_a_restart_and_goes_on_at_another_worker(settings: Settings, clock):
    digest = Digest.of(LARGE)
    registry = await open_registry(settings, clock=clock, durable=False)
    session = await registry.start_upload(REPOSITORY, CALLER)
    assert await registry.append(REPOSITORY, session, CALLER, pieces(LARGE[:1000]), None) == 1000
    await registry.close()
    one = await open_registry(settings, clock=clock, durable=False)
    other = await open_registry(settings, clock=clock, durable=False)
    assert await one.forget_stale_uploads() == 0
    assert await one.upload_offset(REPOSITORY, session, CALLER) == 1000
    await one.append(REPOSITORY, session, CALLER, pieces(LARGE[1000:PIECE]), (1000, PIECE - 1))
    await other.finish_upload(REPOSITORY, session, CALLER, digest, pieces(LARGE[PIECE:]))
    assert await content_of(one, digest) == LARGE
    with pytest.raises(BlobUploadUnknown):
        await one.upload_offset(REPOSITORY, session, CALLER)
    assert left(settings.data) == ["blobs", "uploads.ended"]
    await one.close()
    await other.close()


async def test_an_unfinished_upload_goes_after_the_setting_by_the_registrys_clock(registry, settings: Settings, clock):
    session = await registry.start_upload(REPOSITORY, CALLER)
    await registry.append(REPOSITORY, session, CALLER, pieces(LARGE), None)
    clock.now += settings.upload_expiry - 1
    assert await registry.forget_stale_uploads() == 0
    clock.now += 2
    assert await registry.forget_stale_uploads() == 1
    assert left(settings.data) == []


async def test_another_request_on_the_same_upload_is_told_to_wait(registry):
    session = await registry.start_upload(REPOSITORY, CALLER)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        begun.set()
        await go_on.wait()

    writing = asyncio.ensure_future(registry.append(REPOSITORY, session, CALLER, slow(), None))
    await begun.wait()
    with pytest.raises(BlobUploadInvalid, match="wait for its answer"):
        await registry.append(REPOSITORY, session, CALLER, pieces(b"second"), None)
    go_on.set()
    assert await writing == 5


async def test_nothing_is_left_of_what_was_refused(registry, settings: Settings):
    wrong = Digest.of(b"something else")
    session = await registry.start_upload(REPOSITORY, CALLER)
    with pytest.raises(Exception, match="the content has the digest"):
        await registry.push_blob(REPOSITORY, CALLER, wrong, pieces(LARGE))
    await registry.append(REPOSITORY, session, CALLER, pieces(LARGE), None)
    with pytest.raises(Exception, match="the content has the digest"):
        await registry.finish_upload(REPOSITORY, session, CALLER, wrong, pieces(b"end"))
    with pytest.raises(Exception, match="the chunk begins at byte"):
        await registry.append(REPOSITORY, await registry.start_upload(REPOSITORY, CALLER), CALLER, pieces(b"x"), (7, 7))
    assert left(settings.data) == []


async def test_a_damaged_blob_is_a_500_with_an_error_body_and_an_alarm(client, settings: Settings, caplog):
    digest = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    pushed = await client.post(f"/v2/team-a/app/blobs/uploads/?digest={digest}", content=LARGE)
    assert pushed.status_code == 201
    (path,) = (path for path in (settings.data / "blobs").rglob("*") if path.is_file())
    os.truncate(path, 1000)
    answer = await client.get(f"/v2/team-a/app/blobs/{digest}")
    assert answer.status_code == 500
    assert answer.json()["errors"][0]["code"] == "BLOB_UNKNOWN"
    assert "has 1,000 bytes in place of" in answer.json()["errors"][0]["message"]
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
