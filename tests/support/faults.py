"""Real faults: files that may not grow, system calls that fail, processes that hold a lock or are killed."""

import contextlib
import os
import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.tools import find_installed

PATIENCE = 60  # seconds until a child is taken for stuck


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def run(code: str, *arguments: object, returncode: int = 0) -> str:
    """What the code prints in a process of its own."""
    child = subprocess.run(python(code, *arguments), capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert child.returncode == returncode, child.stderr
    return child.stdout


class Child:
    """A process that says a line when it is ready, and waits for one (`input()`) before it goes on."""

    def __init__(self, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            python(code, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def ended(self) -> int:
        return self._process.wait(PATIENCE)


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[Child]:
    process = Child(code, *arguments)
    try:
        yield process
    finally:
        process._process.kill()
        process._process.communicate()


# In every process that writes: takes the lock, says so, and lets go when told.
HOLD_LOCK = """
    import sys
    from pathlib import Path
    from charthouse.locks import FileLock
    with FileLock(Path(sys.argv[1])):
        print("held", flush=True)
        input()
"""


@contextlib.contextmanager
def lock_held(path: Path) -> Iterator[Child]:
    """By another process, until it is told to go on."""
    with child(HOLD_LOCK, path) as holder:
        assert holder.says() == "held"
        yield holder


def waiting_for(path: Path) -> int:
    """Threads and processes that wait for a lock on the file."""
    return sum("->" in line for line in _locks(path))


def locked(path: Path) -> list[str]:
    """What this process has locked of the file: kind, for what, first and last byte."""
    fields = [line.split() for line in _locks(path) if "->" not in line]
    return [" ".join((each[1], *each[3:4], *each[6:])) for each in fields if each[4] == str(os.getpid())]


def _locks(path: Path) -> list[str]:
    """The system's lines about a file, with those who wait."""
    lines = Path("/proc/locks").read_text().splitlines()
    return [line for line in lines if f":{path.stat().st_ino} " in line]


@contextlib.contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """A write of this process past that size of a file fails with EFBIG, which SQLite reports as SQLITE_IOERR_WRITE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass(frozen=True)
class Call:
    """A system call as strace writes it: descriptors with their paths."""

    name: str
    arguments: str
    result: str

    def paths(self) -> list[str]:
        return re.findall(r'[<"](/[^>"]*)[>"]', self.arguments)


_CALL = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)\)\s+= (.*)$")


def strace(
    log: Path, code: str, *arguments: object, calls: Sequence[str], inject: Sequence[str] = (), path: Path | None = None
) -> tuple[str, list[Call]]:
    """What the code prints, and its system calls of these names, in order; `inject` as in strace's manual."""
    command = [
        str(find_installed("strace")),
        "-f",
        "-y",
        "-s",
        "64",
        "-e",
        f"trace={','.join(calls)}",
        "-o",
        str(log),
        "--seccomp-bpf",
    ]
    command += [f"--inject={fault}" for fault in inject] + (["-P", str(path)] if path else [])
    child = subprocess.run(
        [*command, *python(code, *arguments)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert child.returncode == 0, child.stderr
    return child.stdout, [Call(*match.groups()) for match in map(_CALL.match, _joined(log)) if match]


def _joined(log: Path) -> Iterator[str]:
    """Lines of calls that another thread interrupted, put together, at the place where they ended."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
        elif rest.startswith("<..."):
            yield begun.pop(thread, "") + rest.partition("resumed>")[2]
        else:
            yield rest
