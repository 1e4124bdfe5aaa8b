"""Inspector: small archives are read here and now, all others in one helper process that may be lost.

A hostile archive can cost seconds and hundreds of MiB inside of one call of the YAML parser, where no thread can be
stopped. The helper is a fresh interpreter (`python -m charthouse.helm.isolation`), started when first needed; it limits
itself, its parent watches it, and it ends when its input does: with its parent.

A request is a line of JSON and then the archive's bytes, if they are not in a file; an answer is a line too: one of
three words, and what belongs to it.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from charthouse.helm import archive
from charthouse.helm.archive import Archive, ArchiveInvalid, ArchiveTooLarge, Limits
from charthouse.helm.findings import reject, warn
from charthouse.helm.inspection import Inspection, inspect, look_into, refused
from charthouse.helm.metadata import CHART_YAML, REQUIREMENTS_YAML

SMALL = Limits(total=1024 * 1024, members=500)
SMALL_YAML = 64 * 1024  # bytes
CPU_LIMIT = 2.0  # seconds for one archive
MEMORY_LIMIT = 256 * 1024 * 1024  # bytes of address space
WALL_LIMIT = 60.0  # seconds, should the helper not even get to compute

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_PARSED = (".yaml", ".yml", ".json", ".lock")
_READY = b"ready\n"
_FOUND, _LOST, _MISSING = b"found", b"lost", b"missing"  # and the inspection as JSON, the reason, the error
_TICK = 0.05  # seconds between two looks at the helper
_RETIRE = 64 * 1024 * 1024  # bytes of memory, above which the helper is not used again
_COSTLY = "archive_is_within_limits"
_SKIPPED = "lint_is_within_limits"


class Inspector:
    """Thread-safe; blocks, so call it in a thread."""

    def __init__(
        self,
        limits: Limits = archive.DEFAULT,
        *,
        cpu_limit: float = CPU_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        apart: bool = False,
    ) -> None:
        """`apart` has every archive read in the helper, which gives way to whoever else wants the processor."""
        self._limits = limits
        self._apart = apart
        self._cpu_limit = cpu_limit
        self._memory_limit = memory_limit
        self._helper: _Helper | None = None
        self._lock = threading.Lock()
        self._closed = False

    def inspect(self, source: bytes | Path, *, linting: bool = False) -> Inspection:
        """Never raises because of what the archive holds.

        OSError when its file cannot be read; HelperMissing when there should be a helper and none can be started.
        """
        if self._apart:
            return Inspection.from_json(self._ask(source, linting=linting))
        try:
            with _opened(source) as stream:
                chart = archive.read(stream, _smaller(self._limits))
        except ArchiveTooLarge:
            return Inspection.from_json(self._ask(source, linting=linting))
        except ArchiveInvalid as error:
            return refused(error)
        if _is_work(chart, linting=linting):
            return Inspection.from_json(self._ask(source, linting=linting))
        return look_into(chart, linting=linting)

    def extract(self, archives: Sequence[bytes]) -> list[str]:
        """Each with lint, in the helper, as JSON. Raises HelperMissing."""
        return [self._ask(content, linting=True) for content in archives]

    def close(self) -> None:
        """Ends the helper; nothing can be inspected in it afterwards."""
        with self._lock:
            self._closed = True
            self._end()

    def rest(self) -> None:
        """Ends the helper until it is needed again."""
        with self._lock:
            self._end()

    @property
    def helper(self) -> int | None:
        """The process id of the helper, when there is one."""
        helper = self._helper
        return helper.process.pid if helper and helper.process.poll() is None else None

    def _ask(self, source: bytes | Path, *, linting: bool) -> str:
        """JSON. What takes too long with lint is read without."""
        with self._lock:
            if not linting:
                return self._ask_or_refuse(source)
            try:
                return self._ask_helper(source, linting=True)
            except _HelperLost as lost:
                skipped = warn(f"not checked: doing so takes more than {self._limit(lost)}", rule=_SKIPPED)
                found = Inspection.from_json(self._ask_or_refuse(source))
                return dataclasses.replace(found, lint=(skipped,)).to_json()

    def _ask_or_refuse(self, source: bytes | Path) -> str:
        try:
            return self._ask_helper(source, linting=False)
        except _HelperLost as lost:
            message = f"reading the archive takes more than {self._limit(lost)}"
            return Inspection((reject(message, hint="make it smaller", rule=_COSTLY),)).to_json()

    def _ask_helper(self, source: bytes | Path, *, linting: bool) -> str:
        if self._closed:
            raise RuntimeError("the inspector is closed")
        if self._helper is None or self._helper.has_ended():
            self._end()
            self._helper = _Helper(self._cpu_limit, self._memory_limit, gives_way=self._apart)
        try:
            return self._helper.ask(source, self._limits, linting=linting)
        except _HelperLost:
            self._end()
            raise

    def _limit(self, lost: "_HelperLost") -> str:
        limits = {
            "cpu": f"{self._cpu_limit:g} s of CPU",
            "memory": f"{self._memory_limit // 1024 // 1024} MiB of memory",
        }
        return limits.get(lost.why, " or ".join(limits.values()))

    def _end(self) -> None:
        if self._helper:
            self._helper.end()
            self._helper = None


def _smaller(limits: Limits) -> Limits:
    return Limits(min(limits.total, SMALL.total), limits.file, min(limits.members, SMALL.members))


def _is_work(chart: Archive, *, linting: bool) -> bool:
    """Whether looking into a small archive could cost more than reading it did."""
    if any(len(chart.files.get(name, b"")) > SMALL_YAML for name in (CHART_YAML, REQUIREMENTS_YAML)):
        return True
    if not linting:
        return False
    if "values.schema.json" in chart.files or any(path.endswith(".tgz") for path in chart.files):
        return True
    parsed = (path for path in chart.files if path.endswith(_PARSED) and not path.startswith("templates/"))
    return sum(len(chart.files[path]) for path in parsed) > SMALL_YAML


@contextlib.contextmanager
def _opened(source: bytes | Path) -> Any:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    else:
        with source.open("rb") as stream:
            yield stream


class HelperMissing(RuntimeError):
    """The helper does not start: a fault of the installation, and of no archive."""


class _HelperLost(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Helper:
    """The process, seen from its parent. One request at a time."""

    def __init__(self, cpu_limit: float, memory_limit: int, *, gives_way: bool = False) -> None:
        # Secrets stay here, and nothing is imported from the folder the server was started in.
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        command = [sys.executable, "-P", "-m", "charthouse.helm.isolation", str(cpu_limit), str(memory_limit)]
        command += ["gives-way"] if gives_way else []
        self.process = subprocess.Popen(  # noqa: S603 - this very interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._watch = _Watch(self.process, cpu_limit)
        if self._exchange(b"") != _READY:
            self.end()
            raise HelperMissing(f"{' '.join(command)} does not start")
        self._watch.start()

    def has_ended(self) -> bool:
        return self._watch.killed or self.process.poll() is not None

    def ask(self, source: bytes | Path, limits: Limits, *, linting: bool) -> str:
        """JSON of an Inspection. Raises _HelperLost."""
        content = source if isinstance(source, bytes) else b""
        path = "" if isinstance(source, bytes) else str(source.absolute())
        request = {"path": path, "size": len(content), "linting": linting, "limits": _values(limits)}
        with self._watch.watching():
            answer = self._exchange(json.dumps(request).encode() + b"\n" + content)
        if not answer.endswith(b"\n"):
            raise _HelperLost("cpu" if self._watch.killed or self.process.wait() == -_SIGXCPU else "either")
        word, _, found = answer.rstrip(b"\n").partition(b" ")
        if word == _LOST:
            raise _HelperLost(found.decode())
        if word == _MISSING:
            raise OSError(found.decode())
        return found.decode()

    def _exchange(self, request: bytes) -> bytes:
        """The answer; nothing, or a part of it, when the process has ended."""
        assert self.process.stdin  # noqa: S101 - for the types: both are pipes
        assert self.process.stdout  # noqa: S101
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except OSError:
            return b""

    def end(self) -> None:
        self._watch.end()
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written goes nowhere
                pipe.close()  # type: ignore[union-attr] # both are pipes
        self.process.wait()


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


# The helper


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


def _answer(request: dict[str, Any], requests: IO[bytes]) -> tuple[bytes, str, bool]:
    """And whether the process may be used again: what took much memory may not give all of it back."""
    try:
        content = requests.read(request["size"])
        with _opened(Path(request["path"]) if request["path"] else content) as stream:
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
