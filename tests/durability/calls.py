"""System calls of a running server, one thread at a time: watched, failed, or made its last."""

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.tools import find_installed

WATCHED = ("fsync", "fdatasync", "rename", "unlink", "write", "pwrite64", "ftruncate", "mkdir")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (.*)$")


@dataclass(frozen=True)
class Point:
    """The `count`-th call of that name by one thread of the server: the one that writes the database, or the blobs."""

    thread: str
    call: str
    count: int


class Watched:
    """A thread under strace; with `fault`, as strace's manual has it, one of its calls is spoiled."""

    def __init__(self, thread_id: int, log: Path, fault: str | None = None) -> None:
        command = [find_installed("strace"), "-p", str(thread_id), "-y", "-s", "200", "-o", str(log)]
        command += ["-e", f"trace={','.join(WATCHED)}", *([f"--inject={fault}"] if fault else [])]
        self._log = log
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line.endswith("attached\n"), line

    def end(self) -> list[tuple[str, str, str]]:
        """Lets go of the thread. Name, arguments and result of its calls."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate()
        matches = (_CALL.match(line) for line in self._log.read_text().splitlines())
        return [(match[1], match[2], match[3]) for match in matches if match]


Calls = list[tuple[str, str, str]]


def watch(pid: int, folder: Path, work: Callable[[], object]) -> dict[int, Calls]:
    """What the threads of a process call while that is done. Without the first, which has the connections."""
    threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir() if int(path.name) != pid]
    watched = {thread: Watched(thread, folder / f"strace.{thread}") for thread in threads}
    try:
        work()
    finally:
        found = {thread: each.end() for thread, each in watched.items()}
    return found


def kind_of(calls: Calls) -> str:
    """Of the thread that made them: "" for one of which nothing is wanted."""
    names = {name for name, _, _ in calls}
    return "database" if "pwrite64" in names else "blobs" if names & {"rename", "unlink"} else ""


def points(calls: Calls, thread: str, folder: Path) -> Iterator[Point]:
    """Those that change something in the folder."""
    counts: Counter[str] = Counter()
    for name, arguments, _ in calls:
        counts[name] += 1
        if str(folder) in arguments:
            yield Point(thread, name, counts[name])
