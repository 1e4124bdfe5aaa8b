"""The real command as a child process: `charthouse serve`."""

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from charthouse.composition import open_existing
from charthouse.core import Caller
from charthouse.manifest import OCI_MANIFEST
from charthouse.names import RepositoryName, Tag
from charthouse.settings import PREFIX, Settings, load
from support.forked import Process
from support.unhandled import look_through

READY = re.compile(r"listening on https?://127\.0\.0\.1:(\d+)\n")
BLOBS = {
    "application/vnd.cncf.helm.config.v1+json": "config",
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip": "chart",
    "application/vnd.cncf.helm.chart.provenance.v1.prov": "prov",
}
PATIENCE = 40  # seconds: a request may take 30 to finish after SIGTERM


@dataclass(frozen=True)
class Server:
    port: int
    settings: Settings  # of its data and database, for whoever looks into them beside it
    log: Path
    authority: Path | None = None  # what its certificate is trusted by, when it speaks TLS

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """What no client has a command for. `path` is the one after /v2/; the answer is no error."""
        scheme = "https" if self.authority else "http"
        context = ssl.create_default_context(cafile=self.authority)
        url = f"{scheme}://{self.host}/v2/{path}"
        answer = httpx.request(method, url, verify=context, trust_env=False, **options)
        print(f"{method} {path} {answer.status_code}")
        answer.raise_for_status()
        return answer

    def digests(self, repository: str, reference: str) -> dict[str, str]:
        """Of a chart: its `manifest`, and its `config`, `chart` and `prov` where there are such blobs."""
        manifest = self.request("GET", f"{repository}/manifests/{reference}", headers={"Accept": OCI_MANIFEST})
        described = [manifest.json()["config"], *manifest.json()["layers"]]
        blobs = {BLOBS[descriptor["mediaType"]]: descriptor["digest"] for descriptor in described}
        return {"manifest": manifest.headers["docker-content-digest"], **blobs}

    def tags(self, repository: str) -> list[str]:
        found: list[str] = self.request("GET", f"{repository}/tags/list").json()["tags"]
        return found

    def digest(self, repository: str, reference: str) -> str:
        return self.request("HEAD", f"{repository}/manifests/{reference}").headers["docker-content-digest"]

    def add_tags(self, repository: str, reference: str, tags: Sequence[str]) -> None:
        """More names for a manifest than anybody would push one by one: beside the server, as the command line does."""
        manifest = self.request("GET", f"{repository}/manifests/{reference}", headers={"Accept": OCI_MANIFEST})

        async def push() -> None:
            registry = await open_existing(dataclasses.replace(self.settings, names="warn"))
            try:
                await registry.push_manifest(
                    RepositoryName.parse(repository),
                    Tag.parse(reference),
                    manifest.content,
                    manifest.headers["content-type"],
                    Caller(),
                    [Tag.parse(tag) for tag in tags],
                )
            finally:
                await registry.close()

        asyncio.run(push())


@contextlib.contextmanager
def serving(folder: Path, *flags: str, database: str = "", authority: Path | None = None) -> Iterator[Server]:
    """A server on a free port with its data and log in `folder`. It must end with 0 when it is told to."""
    stored = ["--data", str(folder / "data"), *(["--database", database] if database else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    log = folder / "server.log"
    with log.open("wb") as lines:
        process = Process(
            "serve", "--port", "0", *stored, *flags, stdout=subprocess.PIPE, stderr=lines, env=environment
        )
        with process:
            port = _wait_until_ready(process, log)
            rest = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, lines))
            rest.start()
            try:
                yield Server(port, load({"data": folder / "data", "database": database}, environ={}), log, authority)
            finally:
                status = _stop(process)
                rest.join()
                look_through(log.read_bytes())
    assert status == 0, f"the server ended with {status}: {log.read_text()}"


def _wait_until_ready(process: Process, log: Path) -> int:
    """The port from the line that says so. A server that says nothing is killed, which ends its output."""
    assert process.stdout is not None
    guard = threading.Timer(PATIENCE, process.kill)
    guard.start()
    try:
        for line in process.stdout:
            if match := READY.fullmatch(line.decode()):
                return int(match[1])
    finally:
        guard.cancel()
    raise AssertionError(f"the server ended before it was ready: {log.read_text()}")


def _stop(process: Process) -> int:
    process.terminate()
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
