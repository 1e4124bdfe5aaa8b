"""A disk of its own that loses power: ext4 in a file, whose copy is what a cut leaves behind.

What the system has not written to the disk yet is lost with the copy: the pages and the names of files that nobody
synced. The journal is not written by itself for five minutes, so that nothing is safe by chance. A write that has come
to the disk counts as safe: what a drive loses of its own cache is not shown.
"""

import contextlib
import filecmp
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.process import eventually
from support.tools import find_installed, missing

OPTIONS = "loop,commit=300,noatime"
TRIES = 20


def demand(folder: Path) -> None:
    """Skips the test where no disk can be made and mounted, which is tried in that folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("root", "only root can mount a file system")
    if not Path("/dev/loop-control").exists():
        missing("/dev/loop-control", "no file can be mounted here")
    make(folder / "trial", 8)
    try:
        with mounted(folder / "trial", folder / "trial.mounted"):
            pass
    except AssertionError as error:  # in a container that may not
        missing("mount -o loop", str(error))


def make(image: Path, megabytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", image)


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    _run("mount", "-o", OPTIONS, image, folder)
    try:
        yield folder
    finally:
        _run("umount", folder)


def copy(image: Path, target: Path) -> None:
    """As it is at one moment: it is copied again when it changed meanwhile."""
    for _ in range(TRIES):
        _run("cp", "--sparse=always", image, target)
        if filecmp.cmp(image, target, shallow=False):
            return
    raise AssertionError(f"{image} changes all the time, though nobody writes to it")


def freeze(*pids: int) -> None:
    """At once; system calls that had begun are done when `wait_until_frozen` returns. One may have ended meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def wait_until_frozen(*pids: int) -> None:
    for pid in pids:
        eventually(lambda pid=pid: _states(pid) <= {"T", "Z"})


def thaw(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """Of all its threads."""
    found = Path(f"/proc/{pid}/task").glob("*/stat")
    return {path.read_text().rpartition(")")[2].split()[0] for path in found}


def _run(program: str, *arguments: object) -> None:
    command = [find_installed(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program}: {done.stderr}"
