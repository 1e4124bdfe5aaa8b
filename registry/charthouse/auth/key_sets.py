"""The keys that another issuer signs with: a JWK set (RFC 7517), of a file or of a URL.

What cannot be read or fetched leaves those of before as they are, and is said once.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from charthouse import __version__
from charthouse.auth.issuers import Issuer, is_local
from charthouse.auth.keys import stamp_of
from charthouse.auth.tokens import Key, KeyInvalid, key
from charthouse.clocks import Clock
from charthouse.settings import SettingsError

log = logging.getLogger(__name__)

SIZE_LIMIT = 64 * 1024  # bytes
FRESH = 600  # seconds that fetched keys are taken for those of now
PAUSE = 60  # seconds between two fetches, whatever came of the first
STALE = 24 * 3600  # seconds that keys count when no others can be fetched
STEP = 5.0  # seconds that a connection may keep silent
PATIENCE = 10.0  # seconds for all of it

_PUBLIC = ("kty", "crv", "x", "y", "n", "e", "kid", "use", "alg")


class KeysUnavailable(Exception):
    """One line that says why an issuer's keys could not be had."""


class KeySet(Protocol):
    @property
    def version(self) -> int:
        """Another one after every change: what was verified before has to be verified again."""

    async def look_for(self, kid: str) -> None:
        """Fetches, if that may bring the key."""

    def find(self, kid: str) -> Key | None: ...

    def close(self) -> None: ...


def parse(content: bytes) -> Mapping[str, Key]:
    """By `kid`. Keys of kinds that are not accepted are passed over. Raises KeysUnavailable when none is left."""
    if len(content) > SIZE_LIMIT:
        raise KeysUnavailable(f"they have more than {SIZE_LIMIT:,} bytes")
    try:
        listed = json.loads(content)["keys"]
    except Exception:  # noqa: BLE001 - json raises RecursionError too, and what stands there may be anything
        raise KeysUnavailable('they are no JWK set, {"keys": […]}') from None
    found: dict[str, Key] = {}
    why = "it is empty"
    for each in listed if isinstance(listed, list) else ():
        try:
            usable = key({name: each[name] for name in _PUBLIC if name in each} if isinstance(each, dict) else {})
            found.setdefault(usable.kid, usable)
        except KeyInvalid as error:
            why = str(error)
    if not found:
        raise KeysUnavailable(f"the JWK set has no key that counts: {why}")
    return found


class KeyFile:
    """Read again when it changes."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._stamp: tuple[int, ...] | None = None
        self._keys: Mapping[str, Key] = {}
        self._version = 0

    @property
    def version(self) -> int:
        self._follow()
        return self._version

    async def look_for(self, kid: str) -> None:
        """It is looked at with every token."""

    def find(self, kid: str) -> Key | None:
        self._follow()
        return self._keys.get(kid)

    def close(self) -> None:
        """Nothing is held."""

    def read(self) -> Mapping[str, Key]:
        """Raises KeysUnavailable."""
        try:
            with self._path.open("rb") as file:
                return parse(file.read(SIZE_LIMIT + 1))
        except OSError as error:
            raise KeysUnavailable(error.strerror or str(error)) from None

    def _follow(self) -> None:
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self.read()
            self._version += 1
        except KeysUnavailable as error:
            log.error("the keys of the issuer %s stay as they were: %s: %s", self._name, self._path, error)  # noqa: TRY400


class KeyUrl:
    """Fetched when a token comes and they are not fresh, or it names one that is not there; never by two at once."""

    def __init__(self, url: str, name: str, clock: Clock) -> None:
        self._url = url
        self._name = name
        self._clock = clock
        self._keys: Mapping[str, Key] = {}
        self._content = b""
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Future[None] | None = None
        self._fault = ""  # that was said
        self.version = 0

    async def look_for(self, kid: str) -> None:
        """Nobody waits for an issuer that did not answer last time, unless there is nothing else."""
        is_known = self.find(kid) is not None
        if is_known and self._clock() - self._fetched_at <= FRESH:
            return
        fetching = self._refresh()
        if fetching is not None and not (is_known and self._fault):
            await asyncio.shield(fetching)

    def find(self, kid: str) -> Key | None:
        return self._keys.get(kid) if self._clock() - self._fetched_at <= STALE else None

    def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()

    def _refresh(self) -> "asyncio.Future[None] | None":
        """The fetch that is on its way, or begins now; None when the last one was just now."""
        if self._fetching is None and self._clock() - self._tried_at >= PAUSE:
            self._tried_at = self._clock()
            self._fetching = asyncio.ensure_future(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            content = await _in_a_thread(lambda: fetch(self._url))
            keys = parse(content)
        except Exception as error:  # noqa: BLE001 - whatever it is, tokens are refused and the registry goes on
            self._say(f"cannot be fetched from {self._url}, and stay as they were: {error}")
        else:
            self._say("")
            self._fetched_at = self._clock()
            if content != self._content:
                self._content, self._keys = content, keys
                self.version += 1
        finally:
            self._fetching = None

    def _say(self, fault: str) -> None:
        """What goes on for long is one line, and its end another one."""
        if fault and fault != self._fault:
            log.error("the keys of the issuer %s %s", self._name, fault)
        elif self._fault and not fault:
            log.info("the keys of the issuer %s are fetched again", self._name)
        self._fault = fault


def open_key_set(location: str | Path, name: str, clock: Clock) -> KeySet:
    """`name` is the issuer's, for the log; `clock` is one that nobody sets."""
    return KeyFile(location, name) if isinstance(location, Path) else KeyUrl(location, name, clock)


def check(issuers: Iterable[Issuer]) -> None:
    """Before a server starts, of files alone: an issuer that does not answer now may later. Raises SettingsError."""
    for each in issuers:
        if isinstance(each.jwks, Path):
            try:
                KeyFile(each.jwks, each.name).read()
            except KeysUnavailable as error:
                raise SettingsError(f"[[issuers]] {each.name}: jwks {each.jwks} cannot be used: {error}") from None


def fetch(url: str) -> bytes:
    """Blocks. From that host alone: no redirects are followed. Raises KeysUnavailable."""
    proxies: dict[str, str] | None = {} if is_local(urlsplit(url)) else None  # None is those of the environment
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(proxies))
    headers = {"Accept": "application/json", "User-Agent": f"charthouse/{__version__}"}
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=STEP) as answer:  # noqa: S310 - its scheme was checked
            return _read(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise KeysUnavailable(f"it answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)  # urllib wraps what happened
        raise KeysUnavailable(str(why) or type(error).__name__) from None


def _read(answer: IO[bytes]) -> bytes:
    content = bytearray()
    while len(content) <= SIZE_LIMIT and (piece := answer.read(SIZE_LIMIT)):
        content += piece
    return bytes(content)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """The answer then counts as the error that its status is not."""


async def _in_a_thread(work: Callable[[], bytes]) -> bytes:
    """In one that nobody waits for at the end: a name server can be silent for minutes. Raises KeysUnavailable."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bytes] = loop.create_future()

    def settle(content: bytes, error: Exception | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(content)
        else:
            result.set_exception(error)

    def run() -> None:
        content, fault = b"", None
        try:
            content = work()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            fault = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, content, fault)

    threading.Thread(target=run, name="charthouse-key-set", daemon=True).start()
    try:
        return await asyncio.wait_for(result, PATIENCE)
    except TimeoutError:
        raise KeysUnavailable(f"no whole answer came within {PATIENCE:.0f} seconds") from None
