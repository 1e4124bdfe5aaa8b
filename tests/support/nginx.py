"""A real nginx in front of a registry, with the server block of docs/recipes.md."""

import contextlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from charthouse.certificates import Files
from support.tools import ROOT, find_installed

PATIENCE = 30  # seconds until it listens
_AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


@dataclass(frozen=True)
class Nginx:
    port: int
    authority: Path

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=self.authority)
        return httpx.Client(base_url=f"https://{self.host}", verify=context, trust_env=False)

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return ssl.create_default_context(cafile=self.authority).wrap_socket(plain, server_hostname="localhost")


def documented() -> str:
    """The server block of the recipe."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE | re.DOTALL)
    return block


@contextlib.contextmanager
def in_front(upstream: int, folder: Path, files: Files) -> Iterator[Nginx]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = documented()
    for written, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/nginx/tls.crt", str(files.server)),
        ("/etc/nginx/tls.key", str(files.server)),
        ("http://127.0.0.1:5000;", f"http://127.0.0.1:{upstream};"),
    ):
        assert server.count(written) == 1
        server = server.replace(written, here)
    configuration = folder / "nginx.conf"
    configuration.write_text(_AROUND.format(folder=folder, server=server))
    with subprocess.Popen([find_installed("nginx"), "-c", configuration, "-e", "stderr"]) as process:
        try:
            _wait(process, port)
            yield Nginx(port, files.authority)
        finally:
            process.terminate()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "nginx ended: see what it wrote above"
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < give_up
        time.sleep(0.01)
