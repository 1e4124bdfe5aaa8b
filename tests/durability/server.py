"""The real `charthouse serve` as a process that is killed and started again on its port.

The server is `main`, in a process of its own: with a mutant of the registry, if one is named, and with a clock that a
file moves, if there is one.
"""

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charthouse import clocks
from charthouse.app import create_app
from charthouse.blobs import filesystem
from charthouse.processes import Application
from charthouse.server import serve
from charthouse.settings import Settings, load
from durability import mutants
from durability.client import Client
from durability.ledger import Ledger
from support.forked import Process
from support.process import children, workers_of

TESTS = Path(__file__).parents[1]
MUTANT, CLOCK = "DURABILITY_MUTANT", "DURABILITY_CLOCK"
ONE_THREAD = "DURABILITY_ONE_THREAD"  # for the blobs: then each thread does the same calls each time
_OFFSET = struct.Struct("<d")
PATIENCE = 60  # seconds


# The program


def build(settings: Settings) -> Application:
    """In each worker anew: they inherit the environment."""
    mutants.apply(os.environ.get(MUTANT, ""))
    if ONE_THREAD in os.environ:
        filesystem.THREADS = 1
    file = os.environ.get(CLOCK)
    return create_app(settings, clock=_moved_by(Path(file)) if file else time.time, steady=clocks.steady)


def _moved_by(file: Path) -> Callable[[], float]:
    return lambda: time.time() + float(_OFFSET.unpack(file.read_bytes())[0])


def main() -> int:
    return serve(load(json.loads(sys.argv[1]), environ={}), build)


# The server as a test sees it


class Server:
    """`database` is "" for SQLite; `clock` is a file that `set_clock` writes."""

    def __init__(
        self, folder: Path, *, database: str = "", clock: Path | None = None, one_thread: bool = False, **flags: Any
    ) -> None:
        self.data = folder / "data"
        self.database = database
        self.port = 0
        self._folder = folder
        self._flags = {"data": str(self.data), "database": database, **flags}
        self._environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        if clock:
            self._environment[CLOCK] = str(clock)
        if one_thread:
            self._environment[ONE_THREAD] = "1"
        self._process: Process | None = None

    @property
    def workers(self) -> int:
        found = self._flags.get("workers", 1)
        assert isinstance(found, int)
        return found

    @property
    def log(self) -> Path:
        return self._folder / "server.log"

    @property
    def settings(self) -> Settings:
        return load({name: value for name, value in self._flags.items() if name != "port"}, environ={})

    def start(self) -> "Server":
        """Ready when this returns: on the port that it had before."""
        arguments = json.dumps({**self._flags, "port": self.port})
        with self.log.open("ab") as log:
            self._process = Process(
                arguments,
                program="durability.server:main",
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on http://"), f"it did not start: {self.log.read_text()[-2000:]}"
        self.port = int(line.rpartition(":")[2])
        return self

    def client(self) -> Client:
        return Client(self.port)

    def lost(self, ledger: Ledger, dice: random.Random | None = None) -> list[str]:
        """What it says that cannot be: see `Ledger.check`."""
        with self.client() as client:
            return ledger.check(client, dice)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def worker_pids(self) -> list[int]:
        return workers_of(self.pid)

    def processes(self) -> list[int]:
        return [self.pid, *self.worker_pids()]

    def kill(self, *pids: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.pid in pids:
            self.wait()

    def wait(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        status = self._process.wait(PATIENCE)
        self._process.stdout.close()
        return status

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """As a system does that shuts down."""
        if self.is_running():
            assert self._process is not None
            self._process.terminate()
            self.wait()

    def stop(self) -> None:
        """Whatever state it is in: after a test."""
        if self.is_running():
            self.kill(*reversed(self.processes()))
        elif self._process:
            self.wait()


def family(pid: int) -> list[int]:
    """A process and its children, such as a PostgreSQL's."""
    return [pid, *children(pid)]


def set_clock(file: Path, seconds: float) -> None:
    """How far the server's clock is ahead of this machine's. Whole or not at all, for those who read it now."""
    beside = file.with_name(file.name + ".new")
    beside.write_bytes(_OFFSET.pack(seconds))
    beside.rename(file)
