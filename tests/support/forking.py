"""The program that has imported what there is and forks whatever `support/forked.py` asks it for.

A request is one message on the connection whose number is its word, with four open files: the three streams of the new
process, and where its number and its status are told.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

LONGEST = 1024 * 1024  # bytes of a request
LATER = (  # what Charthouse imports when it needs it
    "alembic.command",
    "asyncpg",
    "durability.server",
    "jsonschema",
    "passlib.context",
    "referencing.exceptions",
    "rich.console",
    "rich.markup",
    "rich.progress",
    "rich.table",
    "rich.text",
    "support.process",
    "uvloop",
    "yaml",
)


def main(number: int) -> Any:
    sys.path[0] = str(Path(__file__).parents[1])
    _import_all()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C goes to all of us
    request = _forked(socket.socket(fileno=number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return _begin(**request)


def _import_all() -> None:
    package = importlib.import_module("charthouse")
    found = [each.name for each in pkgutil.walk_packages(package.__path__, "charthouse.")]
    for name in (*found, *LATER):
        if name != "charthouse.pytest_plugin":
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is shared stays so


def _forked(connection: socket.socket) -> dict[str, Any]:
    """Returns in each new process, with its request. This one ends here."""
    running: dict[int, tuple[int, int]] = {}  # by what shows that a process has ended: it, and where to tell it
    while True:
        for ready in select.select([connection.fileno(), *running], [], [])[0]:
            if ready in running:
                process, told = running.pop(ready)
                _tell(told, os.waitpid(process, 0)[1])
                os.close(told)
                os.close(ready)
                continue
            message, files, _, _ = socket.recv_fds(connection, LONGEST, 4)
            if not message:
                sys.exit()
            process = os.fork()
            if not process:
                connection.detach()
                _take(files[:3])
                request: dict[str, Any] = json.loads(message)
                return request
            *streams, told = files
            for stream in streams:
                os.close(stream)
            _tell(told, process)
            running[os.pidfd_open(process)] = process, told


def _tell(told: int, what: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked has ended
        os.write(told, f"{what}\n".encode())


def _take(streams: list[int]) -> None:
    """Those three, and nothing else that was open."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))


def _begin(
    program: str, words: list[str], folder: str, variables: dict[str, str], limits: dict[str, tuple[int, int]]
) -> Any:
    """As `python -m` begins it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for limit, both in limits.items():
        resource.setrlimit(int(limit), tuple(both))
    module, _, function = program.partition(":")
    sys.modules["__main__"] = sys.modules[module]  # workers, which start anew, look there for what to import
    sys.argv[:] = [str(sys.modules[module].__file__), *words]
    return getattr(sys.modules[module], function)()


def _end(status: object) -> None:
    """What an interpreter does at its end that can be seen: to take everything to pieces costs more than most commands,
    of a process that shares its memory."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if status is None or isinstance(status, int):
        os._exit(status or 0)


if __name__ == "__main__":
    try:
        status = main(int(sys.argv[1]))
    except SystemExit as ended:
        status = ended.code
    _end(status)
    sys.exit(status)
