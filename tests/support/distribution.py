"""The real distribution as a process."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from support.tools import find

LISTENING = re.compile(r'"listening on (127\.0\.0\.1:\d+)"')
PATIENCE = 30  # seconds


@contextlib.contextmanager
def serving(configuration: Path) -> Iterator[str]:
    """Its host and port, of a configuration that has it log JSON and listen on a free port of 127.0.0.1."""
    command = [find("distribution"), "serve", configuration]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        found = next(filter(None, map(LISTENING.search, process.stderr)), None)
        guard.cancel()
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        try:
            assert found, "distribution ended before it was listening"
            yield found[1]
        finally:
            process.kill()
            rest.join()
