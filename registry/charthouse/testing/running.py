"""A registry for tests in a process of its own: around a command (`charthouse exec`), or until it is told to stop."""

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from charthouse.settings import FROM_FLAGS, Settings, SettingsError
from charthouse.testing.options import load_options
from charthouse.testing.records import Request, as_json_line
from charthouse.testing.registries import Registries, StartedRegistry, describe
from charthouse.testing.registry import Registry

PREFIX = "CHART_REGISTRY_"  # another one than the settings', so that a charthouse inside works
NOT_FOUND, NOT_EXECUTABLE, KILLED = 127, 126, 128  # as shells give them; KILLED and the signal's number
FORWARDED = [name for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]

# Where Go looks for the system's certificates when SSL_CERT_FILE says nothing (crypto/x509, root_linux.go).
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")


def run(command: Sequence[str], log: Path | None, **options: Any) -> int:
    """The command's exit status, beside a registry that is there for it alone. `options` are those of the command line,
    where None is not given."""
    settings = load_options(options, FROM_FLAGS)
    token = settings.control_token or secrets.token_urlsafe(24)
    registries = Registries(token)
    registry = registries.reserve(given=settings)

    def start() -> None:
        registry.start()
        registries.control()

    try:
        if settings.seed is not None:
            start()  # what is wrong with the seed is said before the command runs
        with _folder() as folder, _logged(registry, log):
            environ = os.environ | environment(registry, token, folder)
            return _run(command, environ, meanwhile=start if settings.seed is None else None)
    finally:
        registries.end_all()


def _run(command: Sequence[str], environ: Mapping[str, str], meanwhile: Callable[[], None] | None) -> int:
    """`meanwhile` is done while the command begins: what that asks until then waits for its answer."""
    with _signals() as pass_on_to:
        try:
            process = subprocess.Popen(command, env=environ)  # noqa: S603 - what the user wants to run
        except OSError as error:
            sys.stderr.write(f"charthouse: cannot run {command[0]}: {error.strerror}\n")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        pass_on_to(process)
        try:
            if meanwhile is not None:
                meanwhile()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        status = process.wait()
    return KILLED - status if status < 0 else status


@contextlib.contextmanager
def _signals() -> Iterator[Callable[["subprocess.Popen[bytes]"], None]]:
    """Signals that come to us go to the command, those too that come before it has started."""
    came: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def catch(number: int, _: object) -> None:
        if number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty():
            return  # Ctrl+C: the terminal has sent it to the command as well
        for process in started:
            process.send_signal(number)
        if not started:
            came.append(number)

    def pass_on_to(process: "subprocess.Popen[bytes]") -> None:
        started.append(process)
        for number in came:
            process.send_signal(number)

    before = {name: signal.signal(getattr(signal, name), catch) for name in FORWARDED}
    try:
        yield pass_on_to
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def environment(registry: Registry, token: str, folder: Path) -> dict[str, str]:
    """What clients find the registry by. Their configuration is written to `folder`."""
    found = describe(registry)
    config = folder / "config.json"
    config.write_text(json.dumps(_credentials(registry, found)))
    variables = {
        "HOST": found.host,
        "URL": found.url,
        "USERNAME": found.username,
        "PASSWORD": found.password,
        "CA_FILE": found.ca_file,
        "CLIENT_CERT_FILE": found.client_cert_file,
        "CLIENT_KEY_FILE": found.client_key_file,
        "CONTROL_URL": found.control_url,
        "CONTROL_TOKEN": token,
    }
    environ = {PREFIX + name: value for name, value in variables.items()}
    environ |= {"HELM_REGISTRY_CONFIG": str(config), "DOCKER_CONFIG": str(folder)}
    if found.ca_file:
        bundle = str(_bundle(registry.ca_file, folder))
        environ |= {"SSL_CERT_FILE": bundle, "CURL_CA_BUNDLE": bundle, "REQUESTS_CA_BUNDLE": bundle}
        environ["NODE_EXTRA_CA_CERTS"] = found.ca_file
        if sys.platform in ("darwin", "win32"):
            sys.stderr.write(f"charthouse: Go programs here need --ca-file {found.ca_file}\n")
    return environ


def _credentials(registry: Registry, found: StartedRegistry) -> dict[str, Any]:
    """Docker's config.json, which Helm reads too: for all names that the registry has on this machine."""
    if not found.username:
        return {"auths": {}}
    auth = {"auth": base64.b64encode(f"{found.username}:{found.password}".encode()).decode()}
    return {"auths": dict.fromkeys({found.host, f"127.0.0.1:{registry.port}", f"localhost:{registry.port}"}, auth)}


def _bundle(authority: Path, folder: Path) -> Path:
    """The system's certificates and the registry's authority."""
    bundle = folder / "ca-bundle.pem"
    known = (os.environ.get("SSL_CERT_FILE"), *_BUNDLES, ssl.get_default_verify_paths().cafile)
    system = next((Path(path) for path in known if path and Path(path).is_file()), None)
    bundle.write_bytes((system.read_bytes() + b"\n" if system else b"") + authority.read_bytes())
    return bundle


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="charthouse-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _logged(registry: Registry, path: Path | None) -> Iterator[None]:
    """Each request is a line of JSON as soon as it is over, or all of them a HAR at the end; and a summary."""
    if path is None:
        yield
        return
    seen: list[Request] = []
    is_har = path.suffix == ".har"
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--log {path} cannot be written: {error.strerror}") from None
    with file:

        def listen(request: Request) -> None:
            seen.append(request)
            if not is_har:
                file.write(as_json_line(request) + "\n")
                file.flush()

        registry.listener = listen
        try:
            yield
        finally:
            registry.listener = None
            if is_har:
                from charthouse.testing import har

                json.dump(har.document(seen, registry.url), file, indent=1)
            sys.stderr.write(f"charthouse: {_summary(seen)}; see {path}\n")


def _summary(requests: Sequence[Request]) -> str:
    counts = Counter(request.status or "no answer" for request in requests)
    of_status = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items(), key=str))
    return f"{len(requests)} requests" + (f" ({of_status})" if counts else "")


def serve(settings: Settings) -> int:
    """Until SIGTERM or Ctrl+C."""
    token = settings.control_token or secrets.token_urlsafe(24)
    registries = Registries(token)
    stopped = threading.Event()
    registry = registries.start(given=settings)
    try:
        for name in ("SIGTERM", "SIGINT"):
            signal.signal(getattr(signal, name), lambda *_: stopped.set())
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, describe(registry), token)
        sys.stdout.write(f"listening on {registry.url}\n")
        sys.stdout.flush()
        while not stopped.wait(3600):
            pass
    finally:
        registries.end_all()
    return 0


def _write_ready(path: Path, found: StartedRegistry, token: str) -> None:
    """In one piece: whoever sees the file sees all of it. For its owner alone."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    values = {**asdict(found), "control_token": token, "pid": os.getpid()}
    for name in ("id", "ca", "client_cert", "client_key"):
        del values[name]
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
            json.dump(values, file)
        part.replace(path)
    except OSError as error:
        raise SettingsError(f"--ready-file {path} cannot be written: {error.strerror}") from None
