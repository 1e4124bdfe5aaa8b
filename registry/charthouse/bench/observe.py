"""What a registry on this machine uses, from /proc: the processes that listen on its port, and their children."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_LISTENS = "0A"  # the state in /proc/net/tcp
_PROC = Path("/proc")
_KIB = 1024
LOOK_EVERY = 0.2  # seconds
IDLE = 0.1  # of a processor: the kernel counts in hundredths of a second


@dataclass(frozen=True, slots=True)
class Processes:
    """Those that listen, and all below them at the moment of the question. `listeners` is empty where nothing can be
    seen: another machine, another user's processes, no Linux."""

    listeners: tuple[int, ...]

    @classmethod
    def listening_on(cls, port: int) -> "Processes":
        sockets = set(_listening_sockets(port))
        return cls(tuple(pid for pid in _pids() if sockets & set(_open_files(pid))))

    @property
    def cpu(self) -> float | None:
        """User and system seconds so far, children that have ended included."""
        if not self.listeners:
            return None
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.family()) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int | None:
        """Resident bytes."""
        if not self.listeners:
            return None
        return resident(self.family())

    def wait_until_idle(self, most: float) -> None:
        """Until what was put off is done, at most so many seconds: nobody's work is left to the next one's phase."""
        give_up = time.monotonic() + most
        before = self.cpu
        while before is not None and time.monotonic() < give_up:
            time.sleep(LOOK_EVERY)
            after = self.cpu or before
            if after - before <= IDLE * LOOK_EVERY:
                return
            before = after

    def family(self) -> list[int]:
        parents = {pid: _stat(pid)[1] for pid in _pids()}
        return [pid for pid in parents if _is_below(pid, self.listeners, parents)]


def resident(pids: Iterable[int]) -> int:
    """Bytes."""
    return sum(_resident(pid) for pid in pids)


def disk_usage(folder: Path) -> int:
    """Bytes in whole blocks, as a disk counts them."""
    return sum(_blocks(path) for path in folder.rglob("*"))


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _listening_sockets(port: int) -> Iterator[str]:
    for table in (_PROC / "net/tcp", _PROC / "net/tcp6"):
        for line in _lines(table)[1:]:
            columns = line.split()
            if columns[3] == _LISTENS and int(columns[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{columns[9]}]"


def _pids() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()] if _PROC.exists() else []


def _open_files(pid: int) -> Iterator[str]:
    try:
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            yield str(descriptor.readlink())
    except OSError:
        return


def _is_below(pid: int, ancestors: Sequence[int], parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid in ancestors:
            return True
        pid = parents[pid]
    return False


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/PID/stat from the state on, which counts as 0: [1] is the parent, [11:15] the CPU ticks."""
    lines = _lines(_PROC / str(pid) / "stat")
    if not lines:
        return [0] * 15
    return [0, *map(int, lines[0].rpartition(") ")[2].split()[1:15])]


def _resident(pid: int) -> int:
    found = [line for line in _lines(_PROC / str(pid) / "status") if line.startswith("VmRSS:")]
    return int(found[0].split()[1]) * _KIB if found else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
