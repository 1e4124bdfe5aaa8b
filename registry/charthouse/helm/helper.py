"""The process that a hostile archive may take with it.

Such an archive can cost seconds and hundreds of MiB inside of one call of the YAML parser, where no thread can be
stopped. So a fresh interpreter (`python -m charthouse.helm.helper`) reads it, started when first needed; it limits
itself, its parent watches it, and it ends when its input does: with its parent.

A request is a line of JSON and then the archive's bytes, if they are not in a file; an answer is a line too: one of
three words, and what belongs to it.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from charthouse.helm.archive import Limits
from charthouse.helm.inspection import inspect

CPU_LIMIT = 2.0  # seconds for one archive
MEMORY_LIMIT = 256 * 1024 * 1024  # bytes of address space
WALL_LIMIT = 60.0  # seconds, should the helper not even get to compute

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_READY = b"ready\n"
_FOUND, _LOST, _MISSING = b"found", b"lost", b"missing"  # and the inspection as JSON, the reason, the error
_TICK = 0.05  # seconds between two looks at the helper
_RETIRE = 64 * 1024 * 1024  # bytes of memory, above which the helper is not used again


class HelperMissing(RuntimeError):
    """The helper does not start: a fault of the installation, and of no archive."""


class HelperLost(Exception):
    """It took more than `limit`, and has ended."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class Helper:
    """One process at a time, for one archive after the other. Thread-safe; blocks, so call it in a thread.

    `gives_way` lets whoever else wants the processor have it.
    """

    def __init__(
        self, *, cpu_limit: float = CPU_LIMIT, memory_limit: int = MEMORY_LIMIT, gives_way: bool = False
    ) -> None:
        self._cpu_limit = cpu_limit
        self._memory_limit = memory_limit
        self._gives_way = gives_way
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, source: bytes | Path, limits: Limits, *, linting: bool) -> str:
        """JSON of an Inspection. Raises HelperLost, HelperMissing, and OSError when the file cannot be read."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the helper is closed")
            if self._process is None or self._process.has_ended():
                self._end()
                self._process = _Process(self._cpu_limit, self._memory_limit, gives_way=self._gives_way)
            try:
                return self._process.ask(source, limits, linting=linting)
            except _Lost as lost:
                self._end()
                raise HelperLost(self._limit(lost)) from None

    def rest(self) -> None:
        """Ends the process until it is needed again."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """Ends the process; nothing can be asked afterwards."""
        with self._lock:
            self._closed = True
            self._end()

    @property
    def pid(self) -> int | None:
        """Of the process, when there is one."""
        process = self._process
        return None if process is None or process.has_ended() else process.pid

    def _limit(self, lost: "_Lost") -> str:
        limits = {
            "cpu": f"{self._cpu_limit:g} s of CPU",
            "memory": f"{self._memory_limit // 1024 // 1024} MiB of memory",
        }
        return limits.get(lost.why, " or ".join(limits.values()))

    def _end(self) -> None:
        if self._process:
            self._process.end()
            self._process = None


class _Lost(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Process:
    """Seen from its parent. One request at a time."""

    def __init__(self, cpu_limit: float, memory_limit: int, *, gives_way: bool = False) -> None:
        # Secrets stay here, and nothing is imported from the folder the server was started in.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-P", "-m", "charthouse.helm.helper", str(cpu_limit), str(memory_limit)]
        command += ["gives-way"] if gives_way else []
        self._popen = subprocess.Popen(  # noqa: S603 - this very interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._watch = _Watch(self._popen, cpu_limit)
        if self._exchange(b"") != _READY:
            self.end()
            raise HelperMissing(f"{' '.join(command)} does not start")
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def has_ended(self) -> bool:
        return self._watch.killed or self._popen.poll() is not None

    def ask(self, source: bytes | Path, limits: Limits, *, linting: bool) -> str:
        """JSON of an Inspection. Raises _Lost."""
        content = source if isinstance(source, bytes) else b""
        path = "" if isinstance(source, bytes) else str(source.absolute())
        request = {"path": path, "size": len(content), "linting": linting, "limits": _values(limits)}
        with self._watch.watching():
            answer = self._exchange(json.dumps(request).encode() + b"\n" + content)
        if not answer.endswith(b"\n"):
            raise _Lost("cpu" if self._watch.killed or self._popen.wait() == -_SIGXCPU else "either")
        word, _, found = answer.rstrip(b"\n").partition(b" ")
        if word == _LOST:
            raise _Lost(found.decode())
        if word == _MISSING:
            raise OSError(found.decode())
        return found.decode()

    def _exchange(self, request: bytes) -> bytes:
        """The answer; nothing, or a part of it, when the process has ended."""
        assert self._popen.stdin  # noqa: S101 - for the types: both are pipes
        assert self._popen.stdout  # noqa: S101
        try:
            self._popen.stdin.write(request)
            self._popen.stdin.flush()
            return self._popen.stdout.readline()
        except OSError:
            return b""

    def end(self) -> None:
        self._watch.end()
        self._popen.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):  # what was still to be written goes nowhere
                pipe.close()  # type: ignore[union-attr] # both are pipes
        self._popen.wait()


_SIGXCPU = 24


def _values(limits: Limits) -> list[int]:
    return [limits.total, limits.file, limits.members]


class _Watch(threading.Thread):
    """Kills the helper when one request costs it too much: the limit it sets itself counts whole seconds only.

    It looks every 50 ms while there are requests: most are answered before it looks.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", cpu_limit: float) -> None:
        super().__init__(daemon=True, name="charthouse-inspection")
        self._process = process
        self._cpu_limit = cpu_limit
        self._asked = threading.Event()
        self._ending = threading.Event()
        self._guard = threading.Lock()  # no request is killed for the one before it
        self._request = 0  # its number, which is odd while it runs
        self.killed = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self._request += 1
        self._asked.set()
        try:
            yield
        finally:
            with self._guard:
                self._request += 1
                self._asked.clear()

    def run(self) -> None:
        while not self._ending.is_set():
            self._asked.wait()
            request = self._request
            begin, cpu_begin = time.monotonic(), _cpu_seconds(self._process.pid)
            while request % 2 and self._request == request and not self._ending.wait(_TICK):
                if self._takes_too_much(begin, cpu_begin):
                    self._kill(request)

    def _takes_too_much(self, begin: float, cpu_begin: float) -> bool:
        used = _cpu_seconds(self._process.pid) - cpu_begin
        return used > self._cpu_limit or time.monotonic() - begin > WALL_LIMIT

    def _kill(self, request: int) -> None:
        with self._guard:
            if self._request == request:
                self.killed = True
                self._process.kill()

    def end(self) -> None:
        self._ending.set()
        self._asked.set()
        if self.is_alive():
            self.join()


def _cpu_seconds(pid: int) -> float:
    """CPU that a process has used; 0 where the system does not say, and the helper's own limit must do."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The process itself


def main(cpu_limit: float, memory_limit: int, *, gives_way: bool) -> None:
    """Answers requests until there are no more."""
    if gives_way and hasattr(os, "nice"):
        os.nice(10)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    _limit_memory(memory_limit)
    answers.write(_READY)
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        _limit_cpu(cpu_limit)
        word, text, goes_on = _answer(request, requests)
        answers.write(word + b" " + text.encode() + b"\n")
        answers.flush()
        if not goes_on:
            return


@contextlib.contextmanager
def opened(source: bytes | Path) -> Any:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with source.open("rb") as stream:
            yield stream


def _answer(request: dict[str, Any], requests: IO[bytes]) -> tuple[bytes, str, bool]:
    """And whether the process may be used again: what took much memory may not give all of it back."""
    try:
        content = requests.read(request["size"])
        with opened(Path(request["path"]) if request["path"] else content) as stream:
            found = inspect(stream, Limits(*request["limits"]), linting=request["linting"])
        return _FOUND, found.to_json(), _peak_memory() < _RETIRE
    except MemoryError:
        return _LOST, "memory", False
    except OSError as error:
        return _MISSING, str(error), True


def _limit_memory(memory_limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limit, macOS refuses it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))


def _limit_cpu(cpu_limit: float) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + cpu_limit) + 1, hard))


def _peak_memory() -> int:
    """In bytes. Not `ru_maxrss`, in which Linux counts the parent's; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), gives_way="gives-way" in sys.argv)
