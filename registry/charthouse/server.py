"""`charthouse serve`: what has to be right before it starts, and what it says then."""

import asyncio
import errno
import functools
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from charthouse import __version__
from charthouse.addresses import bind, url_of
from charthouse.errors import DatabaseError
from charthouse.locks import FileLock, family_lock, server_lock
from charthouse.processes import Application, Build, Workers, serve_here
from charthouse.request_log import LineWriter, start_logging
from charthouse.settings import DATABASE_NAME, PASSWORD_FILE, Settings, SettingsError
from charthouse.tls import Tls, open_tls

MOST_FILES = 65536  # open at once in a process
SERVER_PATIENCE = 1.0  # seconds that a server that was told to end may take
FAMILY_PATIENCE = 15.0  # seconds that the workers of one that was killed may take, on a machine with much to do
LOCK_PAUSE = 0.05  # seconds


def build_app(settings: Settings) -> Application:
    from charthouse.app import create_app  # the parent of several workers does without the web framework

    return create_app(settings)


def is_closed(settings: Settings) -> bool:
    """Whether there are users. Where nothing is yet, nobody is, and nothing is made to find that out.

    Raises SettingsError for an htpasswd file, or a file of an issuer's keys, that cannot be read.
    """
    if settings.htpasswd:
        from charthouse.auth.htpasswd import Htpasswd

        Htpasswd(settings.htpasswd).check()
    if settings.issuers:
        from charthouse.auth import key_sets

        key_sets.check(settings.issuers)
    if settings.is_closed:
        return True
    if settings.ephemeral:
        return settings.auth != "none" or settings.mtls
    if not settings.database and not (settings.data / DATABASE_NAME).exists():
        return False
    from charthouse.composition import has_users  # the parent of several workers needs no more of it

    return asyncio.run(has_users(settings))


def serve(settings: Settings, build: Build = build_app, is_closed: Callable[[Settings], bool] = is_closed) -> int:
    """Serves until SIGTERM or Ctrl+C. Returns the exit status."""
    lines = LineWriter(sys.stderr)
    start_logging(lines, time.time)
    _allow_many_connections()
    try:
        with ExitStack() as held:
            closed = is_closed(settings)
            if not closed:
                _refuse_strangers(settings)
            if settings.ephemeral:
                from charthouse.testing.running import serve as serve_ephemeral  # nothing of it in a normal server

                return serve_ephemeral(settings)
            _make_data_folder(settings.data)
            held.enter_context(_lock(server_lock(settings.data), SERVER_PATIENCE, "another server runs"))
            family = held.enter_context(
                _lock(family_lock(settings.data), FAMILY_PATIENCE, "a worker of a server that was killed still runs")
            )
            tls = open_tls(settings)
            sockets = [held.enter_context(bound) for bound in bind(settings)]
            announce = functools.partial(_announce, settings, sockets, tls, is_closed=closed)
            if settings.workers == 1:
                return serve_here(settings, build, sockets, lines, announce, tls)
            return Workers(settings, build, sockets, family, announce).run()
    except (SettingsError, DatabaseError) as error:
        sys.stderr.write(f"charthouse: {error}\n")
        return 2
    finally:
        lines.flush()


def _allow_many_connections() -> None:
    """As many open files as this user may have. The limit at first, often 1,024, is for programs that call select();
    slow clients would reach it and shut out the others."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refuse_strangers(settings: Settings) -> None:
    if settings.open_to_everyone:
        return
    if not settings.on_loopback:
        raise SettingsError(
            f"--host {','.join(settings.host)} can be reached from other machines, and there are no users yet: make"
            " them with `charthouse init`, give --open-to-everyone to let anyone push, or leave --host at 127.0.0.1 and"
            " ::1"
        )
    if settings.public_url:
        raise SettingsError(
            f"--public-url {settings.public_url} says that others reach this registry, and there are no users yet:"
            " make them with `charthouse init`, or give --open-to-everyone to let anyone push"
        )


def _make_data_folder(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(data, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(_cannot_write(data, error)) from None


def _cannot_write(data: Path, error: OSError) -> str:
    what = "it is a file, not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    message = f"cannot write to the data folder {data.absolute()}: {what}"
    if hasattr(os, "getuid"):
        user = os.getuid()
        message += f"; this process is user {user}: sudo chown -R {user} {data.absolute()}"
    return f"{message}, or name another folder with --data or CHARTHOUSE_DATA"


def _lock(lock: FileLock, patience: float, who: str) -> FileLock:
    """Held, unless somebody else does not let go of it within `patience` seconds."""
    data = lock.path.parent
    give_up = time.monotonic() + patience
    try:
        while not lock.acquire(blocking=False):
            if time.monotonic() > give_up:
                raise SettingsError(
                    f"{who} on the data folder {data.absolute()}: stop it, or name another folder with --data or"
                    " CHARTHOUSE_DATA"
                )
            time.sleep(LOCK_PAUSE)
    except OSError as error:
        raise SettingsError(_cannot_write(data, error)) from None
    return lock


def _announce(settings: Settings, sockets: list[socket.socket], tls: Tls | None, *, is_closed: bool) -> None:
    urls = [url_of(bound, "https" if tls else "http") for bound in sockets]
    loopback = [url for url in urls if urlsplit(url).hostname in ("127.0.0.1", "::1")]
    sys.stdout.write(f"listening on {(loopback or urls)[0]}\n")
    sys.stdout.flush()
    _print_banner(
        _banner(settings, urls, urlsplit(settings.public_url or (loopback or urls)[0]), tls, is_closed=is_closed)
    )


def _banner(
    settings: Settings, urls: list[str], url: SplitResult, tls: Tls | None, *, is_closed: bool
) -> list[tuple[str, str]]:
    host = f"localhost:{url.port}" if url.hostname in ("127.0.0.1", "::1") else url.netloc
    authority = shlex.quote(str(tls.authority)) if tls and tls.authority and not settings.public_url else ""
    flag = " --plain-http" if url.scheme == "http" else f" --ca-file {authority}" if authority else ""
    is_local = settings.on_loopback and not settings.public_url
    policy = settings.policy if "policy" in settings.origins or not is_closed else "charts"
    return [
        ("address", ", ".join(urls)),
        ("data", f"{settings.data.absolute()}{_database(settings)}"),
        ("who may push", _who_may_push(f"{host}{flag}", is_local=is_local, is_closed=is_closed)),
        ("policy", {"oci": "oci: anything", "charts": "charts: charts and what belongs to them"}[policy]),
        ("push", f"helm push mychart-1.0.0.tgz oci://{host}{flag}"),
        ("install", f"helm install myrelease oci://{host}/mychart --version 1.0.0{flag}"),
        *([("trust", f"on Linux, export SSL_CERT_FILE={authority} in place of --ca-file")] if authority else []),
        *_unread_password(),
    ]


def _unread_password() -> list[tuple[str, str]]:
    """As long as the file is there that `charthouse init` took the administrator's password from."""
    file = os.environ.get(PASSWORD_FILE, "")
    if not file or not Path(file).exists():
        return []
    return [("password", f"the administrator's is in {file}; with Docker: docker compose run --rm password")]


def _who_may_push(host: str, *, is_local: bool, is_closed: bool) -> str:
    if is_closed:
        return f"users who were granted it: helm registry login {host}"
    return "anyone on this machine" if is_local else "anyone who reaches it: there are no users"


def _database(settings: Settings) -> str:
    """Without the URL's user and password."""
    if not settings.database:
        import sqlite3  # not where the database is PostgreSQL

        return f" (SQLite {sqlite3.sqlite_version})"
    url = urlsplit(settings.database)
    return f" (blobs), PostgreSQL {url.hostname or 'locally'}{url.path}"


def _print_banner(entries: list[tuple[str, str]]) -> None:
    title = f"Charthouse {__version__}"
    lines = [(f"  {name + ':':<14}", text) for name, text in entries]
    if not sys.stderr.isatty():
        sys.stderr.write("\n".join([title, *(name + text for name, text in lines), ""]))
        sys.stderr.flush()
        return
    from rich.console import Console  # 50 ms that only a person at a terminal pays
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)  # a command that was folded could not be copied
    console.print(Text(title, "bold"))
    for name, text in lines:
        console.print(Text.assemble((name, "dim"), (text, "cyan" if text.startswith("helm ") else "")))
