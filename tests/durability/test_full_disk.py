"""A disk of 12 MiB that is filled, emptied and filled again, under a running server."""

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from charthouse.reserve import Reserve
from charthouse.settings import Settings
from durability.sizes import Size
from support import forked
from support.requests import image
from support.server import serving
from support.tools import missing

RESERVE = 1024 * 1024
NAME = "team-a/app"
AT_ONCE = 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("root", "only root can mount a file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        missing("mount -t tmpfs", made.stderr)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Somebody else takes every byte."""
    path = folder / "somebody else's"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    yield
    path.unlink(missing_ok=True)


class Client:
    """Each request on a connection of its own: so each worker gets some."""

    def __init__(self, host: str) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=f"http://{host}", trust_env=False, timeout=60, limits=limits)

    def close(self) -> None:
        self._http.close()

    def status(self, method: str, path: str, content: bytes = b"", **headers: str) -> int:
        answer = self._http.request(method, f"/v2/{NAME}/{path}", content=content, headers=headers)
        if answer.status_code == 507:
            (error,) = answer.json()["errors"]
            assert "is full: nothing can be pushed until there is room" in error["message"]
            assert "/" not in error["message"]
        return answer.status_code

    def get(self, path: str) -> bytes:
        answer = self._http.get(f"/v2/{NAME}/{path}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def push_in_chunks(self, content: bytes) -> int:
        """The first status that is no success, else that of the end."""
        begun = self._http.post(f"/v2/{NAME}/blobs/uploads/")
        if begun.status_code != 202:
            return begun.status_code
        half = len(content) // 2
        sent = self._http.patch(begun.headers["location"], content=content[:half])
        if sent.status_code != 202:
            return sent.status_code
        done = self._http.put(sent.headers["location"], params={"digest": Digest.of(content)}, content=content[half:])
        if done.status_code != 201:
            self._http.delete(sent.headers["location"])
        return done.status_code

    def push(self, tag: str, *contents: bytes) -> int:
        """The first status that is no success, else that of the manifest."""
        for content in (b"{}", *contents):
            status = self.status("POST", f"blobs/uploads/?digest={Digest.of(content)}", content)
            if status != 201:
                return status
        return self.status("PUT", f"manifests/{tag}", image(b"{}", *contents), **{"Content-Type": OCI_MANIFEST})


def collect(settings: Settings) -> None:
    """As the command line does, beside the running server."""
    words = ["gc", "--data", str(settings.data), *(["--database", settings.database] if settings.database else [])]
    done = forked.run(*words, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def files(data: Path) -> list[str]:
    found = (data / "blobs").rglob("*"), (data / "uploads").rglob("*")
    return sorted(path.name.partition(".")[0] for paths in found for path in paths if path.is_file())


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_on_a_full_disk_reads_and_deletes_go_on_and_the_next_push_after_it_succeeds(
    small_disk: Path, database_url: str, dice: random.Random, size: Size
):
    refused = 0
    with serving(small_disk, "--disk-reserve", str(RESERVE), database=database_url) as server:
        client, data = Client(server.host), server.settings.data
        kept, doomed = dice.randbytes(20_000), dice.randbytes(20_000)
        for number in range(size.fills):
            assert client.push("kept", kept) == 201
            assert client.push(f"doomed{number}", doomed) == 201
            assert client.push(f"other{number}", kept) == 201
            waste = dice.randbytes(20_000)
            assert client.status("POST", f"blobs/uploads/?digest={Digest.of(waste)}", waste) == 201
            assert client.status("DELETE", f"blobs/{Digest.of(waste)}") == 202
            with filled(small_disk):
                collect(server.settings)
                assert Digest.of(waste).hex not in files(data)
                assert not (data / "reserve").exists()  # SQLite's collection needed its place
            assert client.push("kept", kept) == 201
            before = files(data)
            with filled(small_disk):
                for length in (5_000, 300_000, 3_000_000):
                    assert client.push("new", dice.randbytes(length)) == 507
                    assert client.push_in_chunks(dice.randbytes(length)) == 507
                    refused += 2
                for path in ("manifests/kept", f"manifests/doomed{number}", f"blobs/{Digest.of(kept)}"):
                    assert client.get(path)
                assert client.get(f"blobs/{Digest.of(kept)}") == kept
                assert files(data) == before
                for tag in (f"doomed{number}", f"other{number}"):
                    assert client.status("DELETE", f"manifests/{tag}") == 202
                    assert client.status("HEAD", f"manifests/{tag}") == 404
                assert client.status("DELETE", f"manifests/{Digest.of(image(b'{}', doomed))}") == 202
                assert client.status("DELETE", f"blobs/{Digest.of(doomed)}") == 202
                assert client.get(f"blobs/{Digest.of(kept)}") == kept
                with filled(small_disk):  # what the reserve left
                    assert client.push("new", dice.randbytes(20_000)) == 507
                    assert client.status("HEAD", "manifests/new") == 404
                    assert client.get("manifests/kept") == image(b"{}", kept)
            assert client.push("new", doomed) == 201  # the first after there is room
            assert client.get(f"blobs/{Digest.of(doomed)}") == doomed
            assert (data / "reserve").exists() == (not database_url)
            assert client.status("DELETE", f"manifests/{Digest.of(image(b'{}', doomed))}") == 202
        assert len(files(data)) == 2
        client.close()
        said = server.log.read_text()
    print(f"{size.fills} times full: {refused} pushes refused, 0 files left behind")
    assert "Traceback" not in said, said[-3000:]


def at_once(work: Callable[[int], int]) -> Counter[int]:
    """What that many give that begin together: the statuses of requests, with their numbers."""
    start = threading.Barrier(AT_ONCE)

    def begin(number: int) -> int:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return Counter(threads.map(begin, range(AT_ONCE)))


@contextlib.contextmanager
def watched(path: Path) -> Iterator[set[int]]:
    """The inodes that the file had meanwhile."""
    seen: set[int] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(path.stat().st_ino)

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        try:
            yield seen
        finally:
            is_over.set()
        watching.result()


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_two_workers_share_a_full_disk_and_its_reserve(
    small_disk: Path, database_url: str, dice: random.Random, size: Size
):
    flags = ("--disk-reserve", str(RESERVE), "--workers", "2")
    with serving(small_disk, *flags, database=database_url) as server:
        client, data = Client(server.host), server.settings.data
        kept = dice.randbytes(20_000)
        for number in range(size.fills):
            assert at_once(lambda each, number=number: client.push(f"doomed{number}-{each}", kept)) == {201: AT_ONCE}
            waste = dice.randbytes(20_000)
            assert client.status("POST", f"blobs/uploads/?digest={Digest.of(waste)}", waste) == 201
            assert client.status("DELETE", f"blobs/{Digest.of(waste)}") == 202
            with filled(small_disk):
                assert at_once(lambda each: client.push(f"new{each}", dice.randbytes(300_000))) == {507: AT_ONCE}
                deletes = at_once(
                    lambda each, number=number: client.status("DELETE", f"manifests/doomed{number}-{each}")
                )
                assert deletes == {202: AT_ONCE}
                collect(server.settings)
                assert Digest.of(waste).hex not in files(data)
                assert not (data / "reserve").exists()  # PostgreSQL has none
                with filled(small_disk):  # what the reserve left
                    assert at_once(lambda each: client.push(f"new{each}", dice.randbytes(20_000))) == {507: AT_ONCE}
                assert client.get(f"blobs/{Digest.of(kept)}") == kept
            with watched(data / "reserve") as inodes:
                assert at_once(lambda each: client.push(f"new{each}", kept)) == {201: AT_ONCE}
            assert len(inodes) == (not database_url)
            assert_whole(data, database_url)
        client.close()
        said = server.log.read_text()
    assert "Traceback" not in said, said[-3000:]


def assert_whole(data: Path, database_url: str) -> None:
    """The reserve takes the room that it says, and nothing is beside it."""
    if not database_url:
        status = (data / "reserve").stat()
        assert (status.st_size, status.st_blocks * 512) == (RESERVE, RESERVE)
    assert not (data / "reserve.new").exists()


def test_of_all_that_make_the_reserve_at_once_one_does(tmp_path: Path):
    for _ in range(20):
        (tmp_path / "reserve").unlink(missing_ok=True)
        made = [Reserve(tmp_path, RESERVE) for _ in range(AT_ONCE)]
        assert at_once(lambda each, made=made: made[each].make()) == {True: 1, False: AT_ONCE - 1}
        assert_whole(tmp_path, "")
