"""TLS: the certificate that new connections get, and a connection inside it.

One port can speak both TLS and plain HTTP, because a client says which by its first byte. The event loops' own TLS
cannot begin with bytes that have been read already, so `TlsTransport` does it over `ssl.SSLObject`; that also lets the
limits of `http_protocol.py` see what a client really takes and sends.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from charthouse.settings import Settings, SettingsError

log = logging.getLogger(__name__)

HANDSHAKE = b"\x16"  # the first byte of a client that speaks TLS: RFC 8446, 5.1
RENEWAL_EVERY = 3600.0  # seconds between two looks at whether a certificate of our own nears its end
_READ_SIZE = 256 * 1024  # bytes, at most, that are deciphered at once

_Stamp = tuple[tuple[int, int, int], ...]


class Tls:
    """`context` is the one for new connections; connections that there are keep theirs."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        authority: Path | None = None,
        renew: Callable[[], object] | None = None,
        plain_on_loopback: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`authority` is what clients have to be told to trust. Raises SettingsError."""
        self.authority = authority
        self.plain_on_loopback = plain_on_loopback
        self.clients: Path | None = None  # the authority whose certificates clients have to show
        self._files = (certificate, key)
        self._renew = renew
        self._clock = clock
        self._renewed = clock()
        self._loaded = self._seen = self._stamp()
        self.context = load_context(certificate, key)

    @classmethod
    def self_signed(cls, folder: Path, names: Iterable[str] = (), clock: Callable[[], float] = time.time) -> Self:
        """With an authority and a certificate for this machine and `names`, in `folder`, made when they are missing."""
        from charthouse.certificates import self_signed  # 50 ms that only these pay

        names = tuple(names)
        files = self_signed(folder, names, clock())
        return cls(
            files.server,
            files.server,
            authority=files.authority,
            renew=lambda: self_signed(folder, names, clock()),
            plain_on_loopback=True,
            clock=clock,
        )

    def demanding(self, clients: Path) -> Self:
        """Every client has to show a certificate of that authority from now on, and none speaks plain HTTP."""
        self.clients = clients
        self.plain_on_loopback = False
        self.context = self._load()
        return self

    def refresh(self) -> None:
        """Called every second: takes what has changed. The two files may be written one after the other, so they have
        to be as they were a second ago."""
        self._renew_in_time()
        stamp = self._stamp()
        if stamp != self._loaded and stamp == self._seen:
            self._loaded = stamp
            self._reload()
        self._seen = stamp

    def _renew_in_time(self) -> None:
        now = self._clock()
        if self._renew and abs(now - self._renewed) > RENEWAL_EVERY:
            self._renewed = now
            try:
                self._renew()
            except OSError as error:
                log.error("the certificate cannot be renewed: %s", error)  # noqa: TRY400 - it says all there is

    def _reload(self) -> None:
        try:
            self.context = self._load()
        except SettingsError as error:
            log.error("%s; the certificate before it stays", error)  # noqa: TRY400 - a person's fault, not ours
        else:
            log.info("new connections get the certificate that is now in %s", self._files[0])

    def _load(self) -> ssl.SSLContext:
        context = load_context(*self._files)
        if self.clients is not None:
            context.load_verify_locations(self.clients)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _stamp(self) -> _Stamp:
        return tuple(map(_stamp, self._files))


def open_tls(settings: Settings) -> Tls | None:
    """What the settings say; None is plain HTTP. Raises SettingsError."""
    given = [path for path in (settings.tls_cert, settings.tls_key) if path]
    if settings.tls == "self-signed":
        if given:
            raise SettingsError(f"--tls self-signed makes a certificate, and {given[0]} is one: give one of the two")
        return _self_signed(settings)
    if settings.tls_cert and settings.tls_key:
        return Tls(settings.tls_cert, settings.tls_key)
    if given:
        missing = "--tls-key" if settings.tls_cert else "--tls-cert"
        raise SettingsError(f"{given[0]} is one half of a pair: give {missing} as well")
    return None


def _self_signed(settings: Settings) -> Tls:
    addresses = [address for address in settings.host if address not in ("0.0.0.0", "::")]  # noqa: S104 - not bound
    try:
        return Tls.self_signed(settings.data.absolute() / "tls", [*addresses, *settings.own_names])
    except ValueError as error:
        raise SettingsError(f"--tls self-signed cannot make a certificate: {error}") from None
    except OSError as error:
        raise SettingsError(f"--tls self-signed cannot make a certificate in the data folder: {error}") from None


def load_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises SettingsError: one line about the files."""
    for flag, path, mark in (("cert", certificate, b"CERTIFICATE-----"), ("key", key, b"PRIVATE KEY-----")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"--tls-{flag} {path} cannot be read: {error.strerror}") from None
        if mark not in content:
            what = "certificate" if flag == "cert" else "private key"
            raise SettingsError(f"--tls-{flag} {path} holds no {what} in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_ask_nobody)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(_why_not(certificate, key, error)) from None
    return context


def _ask_nobody() -> str:
    """In place of OpenSSL's question on the terminal."""
    raise ValueError("encrypted")


def _why_not(certificate: Path, key: Path, error: Exception) -> str:
    if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
        return f"--tls-key {key} is protected by a password: give one without"
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"--tls-key {key} is not the key of the certificate in --tls-cert {certificate}"
    return f"--tls-cert {certificate} and --tls-key {key} cannot be used: {error}"


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """A connection inside TLS: the protocol of the socket's transport, and the transport of the protocol within."""

    def __init__(
        self,
        socket: asyncio.Transport,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        on_failure: Callable[[ssl.SSLError], None],
    ) -> None:
        super().__init__()
        self._socket = socket
        self._protocol = protocol
        self._on_failure = on_failure
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False  # the handshake is done
        self._has_ended = False  # we have said that nothing more comes from us
        socket.set_protocol(self)

    # From the socket

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            self._protocol.data_received(data)  # counts it, and reads it no more
            return
        self._incoming.write(data)
        try:
            self._read()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._socket.close()
            self._on_failure(error)

    def _read(self) -> None:
        if not self._is_open:
            self._tls.do_handshake()
            self._is_open = True
            self._flush()
        while not self._has_ended:
            if data := self._tls.read(_READ_SIZE):
                self._protocol.data_received(data)
            else:
                self.close()  # the client has said that nothing more comes

    def _flush(self) -> None:
        if self._outgoing.pending and not self._socket.is_closing():
            self._socket.write(self._outgoing.read())

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = True
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # From the protocol within

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_ended or not self._is_open:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:
            self.abort()
        self._flush()

    def write_eof(self) -> None:
        self._end()
        if not self._socket.is_closing():
            self._socket.write_eof()

    def close(self) -> None:
        self._end()
        self._socket.close()

    def _end(self) -> None:
        """Each side says so inside TLS before it closes: RFC 8446, 6.1."""
        if self._is_open and not self._has_ended:
            with contextlib.suppress(ssl.SSLError):  # the client has not said the same yet, and need not
                self._tls.unwrap()
            self._flush()
        self._has_ended = True

    def abort(self) -> None:
        self._has_ended = True
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = {"ssl_object": self._tls, "sslcontext": self._tls.context}
        return own.get(name) or self._socket.get_extra_info(name, default)
