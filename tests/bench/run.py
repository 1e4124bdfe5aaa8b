"""`make bench`: `charthouse bench` against a registry started for it, and against those it can be compared with.

distribution is one of them when `.ci/tools distribution` has built it; $BENCH_PEERS names further ones that run
already: BENCH_PEERS='zot=http://127.0.0.1:5001 olareg=http://127.0.0.1:5002'. Options are those of `charthouse bench`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.server import serving

TOOLS = Path(os.environ.get("CI_TOOLS") or Path.home() / ".cache/charthouse/tools")
HISTORY = Path(os.environ.get("CI_ARTIFACTS") or "/tmp") / "charthouse-bench.jsonl"
PATIENCE = 30  # seconds for a registry to start

# The defaults of its example, with deletes, a log of the requests like ours, and nothing that calls home.
DISTRIBUTION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
  cache: {{blobdescriptor: inmemory}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="charthouse-bench-") as folder, contextlib.ExitStack() as running:
        server = running.enter_context(serving(Path(folder)))
        urls = [f"charthouse=http://127.0.0.1:{server.port}"]
        data = ["--data", str(server.settings.data)]
        for binary in sorted(TOOLS.glob("distribution@*/registry")):
            port = running.enter_context(distribution(binary, Path(folder)))
            urls.append(f"distribution=http://127.0.0.1:{port}")
            data += ["--data", str(Path(folder) / "distribution")]
        urls += os.environ.get("BENCH_PEERS", "").split()
        command = [sys.executable, "-m", "charthouse", "bench", *urls, *data, "--json", str(HISTORY), *options]
        return subprocess.run(command, check=False).returncode


@contextlib.contextmanager
def distribution(binary: Path, folder: Path) -> Iterator[int]:
    """distribution on a free port, with its data and its log in the folder."""
    port = _free_port()
    config = folder / "distribution.yml"
    config.write_text(DISTRIBUTION.format(data=folder / "distribution", port=port))
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (
        (folder / "distribution.log").open("wb") as log,
        subprocess.Popen([binary, "serve", config], stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            _wait_until_connected(port)
            yield port
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_connected(port: int) -> None:
    """It says nothing when it is ready."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
