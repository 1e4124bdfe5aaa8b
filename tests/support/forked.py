"""`charthouse …` as a process that has its imports already, which are most of the half second that a start costs.

`support/forking.py` is the process that it begins as a fork of. It has the words, variables, folder, streams and limits
that it is given, and ends as any program does. When and what a command imports, and whether it starts where it is
installed, is seen on real starts by the tests of that.
"""

import atexit
import contextlib
import functools
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

CHARTHOUSE = "charthouse.__main__:main"  # a function that takes its words from sys.argv and gives the status
LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})


class Process:
    """As subprocess.Popen, of which the tests use no more. The standard input is empty."""

    def __init__(
        self,
        *words: object,
        program: str = CHARTHOUSE,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        text: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self.stdout: IO[Any] | None = None
        with contextlib.ExitStack() as ours:
            if stdout == subprocess.PIPE:
                ending, stdout = os.pipe()
                self.stdout = os.fdopen(ending, "r" if text else "rb")
                ours.callback(os.close, stdout)
            streams = [ours.enter_context(Path(os.devnull).open()), 1 if stdout is None else stdout, stderr or 2]
            request = {
                "program": program,
                "words": [str(word) for word in words],
                "folder": str(cwd or Path.cwd()),
                "variables": dict(os.environ if env is None else env),
                "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
            }
            self._told = _fork(request, [stream if isinstance(stream, int) else stream.fileno() for stream in streams])
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            waiting = select.poll()  # select() has no room for the numbers of a process with many open files
            waiting.register(self._told)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("charthouse", timeout or 0)
            with self._told:
                self.returncode = os.waitstatus_to_exitcode(int(self._told.readline()))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stdout:
            self.stdout.close()
        self.wait()


def run(
    *words: object, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """A command to its end, and what it said."""
    from support.unhandled import look_through  # `support/process.py` does not know it where it is a program

    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = Process(*words, cwd=cwd, env=env, stdout=output, stderr=errors)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        for stream in (output, errors):
            stream.seek(0)
        done = subprocess.CompletedProcess([*map(str, words)], status, output.read(), errors.read())
    look_through(done.stderr)
    return done


@functools.cache
def _forking(_: int) -> socket.socket:
    """A connection to the process that forks, one for each process of the tests. It ends when the connection does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forking.py"), str(theirs.fileno())],
            env={"PATH": os.environ["PATH"]},
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _fork(request: dict[str, Any], streams: list[int]) -> IO[str]:
    """Where the new process's number is told and, when it has ended, its status: a line each."""
    ours, theirs = os.pipe()
    socket.send_fds(_forking(os.getpid()), [json.dumps(request).encode()], [*streams, theirs])
    os.close(theirs)
    return os.fdopen(ours)
