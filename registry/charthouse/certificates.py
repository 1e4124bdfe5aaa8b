"""Certificates that a registry makes for itself: an authority of its own, and a server's certificate that it signs.

The one door to `cryptography`. Everything is in one folder: `ca.pem`, what clients are told to trust; `ca.key`; and
`server.pem`, the server's key and certificate, replaced in one piece. No other installation has the same.
"""

import contextlib
import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from charthouse.locks import FileLock

AUTHORITY_LIFE = dt.timedelta(days=3650)
SERVER_LIFE = dt.timedelta(days=90)
RENEWED_BEFORE = dt.timedelta(days=30)  # its end, and a year before the authority's
SKEW = dt.timedelta(days=1)  # clocks of clients that are late

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "host.docker.internal", "host.containers.internal")


@dataclass(frozen=True, slots=True)
class Files:
    authority: Path  # the certificate
    server: Path  # key and certificate


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """What a client shows where that is demanded, in two files as clients want them."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Pair:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def parse(cls, key: bytes, certificate: bytes) -> Self:
        """Raises ValueError, also when the two do not belong together."""
        loaded = load_pem_private_key(key, None)
        pair = x509.load_pem_x509_certificate(certificate)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != pair.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(loaded, pair)

    @property
    def pem_of_key(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pem_of_certificate(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def self_signed(folder: Path, names: Iterable[str], now: float) -> Files:
    """The files in `folder`, for LOCAL_NAMES and `names`, names and addresses.

    The authority is made once. The server's certificate is made anew when it nears its end, when it is for other names,
    or when it is not the authority's. `now` in Unix seconds. Raises OSError; ValueError names what is no host.
    """
    wanted = [_general_name(name) for name in dict.fromkeys((*LOCAL_NAMES, *names))]
    time = dt.datetime.fromtimestamp(now, dt.UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = Files(folder / "ca.pem", folder / "server.pem")
    with FileLock(folder / "make.lock"):
        authority = _authority(files.authority, folder / "ca.key", time)
        if not _is_good(files.server, authority, wanted, time):
            pair = _server(authority, wanted, time)
            _write(files.server, pair.pem_of_key + pair.pem_of_certificate, 0o600)
    return files


def client_files(folder: Path, now: float) -> ClientFiles:
    """A certificate for a client, signed by the authority in `folder`. Raises OSError."""
    time = dt.datetime.fromtimestamp(now, dt.UTC)
    pair = _issue(
        _authority(folder / "ca.pem", folder / "ca.key", time),
        "Charthouse client",
        ExtendedKeyUsageOID.CLIENT_AUTH,
        time,
    )
    files = ClientFiles(folder / "client.pem", folder / "client.key")
    _write(files.certificate, pair.pem_of_certificate, 0o644)
    _write(files.key, pair.pem_of_key, 0o600)
    return files


def _authority(certificate: Path, key: Path, now: dt.datetime) -> _Pair:
    with contextlib.suppress(FileNotFoundError, ValueError):
        pair = _Pair.parse(key.read_bytes(), certificate.read_bytes())
        if now + SERVER_LIFE < pair.certificate.not_valid_after_utc:
            return pair
    pair = _new_authority(now)
    _write(key, pair.pem_of_key, 0o600)
    _write(certificate, pair.pem_of_certificate, 0o644)
    return pair


def _is_good(server: Path, authority: _Pair, names: Sequence[x509.GeneralName], now: dt.datetime) -> bool:
    try:
        pem = server.read_bytes()
        certificate = _Pair.parse(pem, pem).certificate
        certificate.verify_directly_issued_by(authority.certificate)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001 - whatever is wrong with it, another one is made
        return False
    return set(found) == set(names) and now + RENEWED_BEFORE < certificate.not_valid_after_utc


def _new_authority(now: dt.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name that no other has: trust stores tell authorities apart by it.
    name = _name(f"Charthouse authority {secrets.token_hex(4)}")
    certificate = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )
    return _Pair(key, certificate)


def _server(authority: _Pair, names: Sequence[x509.GeneralName], now: dt.datetime) -> _Pair:
    return _issue(authority, "Charthouse", ExtendedKeyUsageOID.SERVER_AUTH, now, names)


def _issue(
    authority: _Pair, name: str, use: x509.ObjectIdentifier, now: dt.datetime, names: Sequence[x509.GeneralName] = ()
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_name(name), authority.certificate.subject, key.public_key(), now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(issuer, critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _Pair(key, builder.sign(authority.key, SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    life: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError:
        raise ValueError(f"{host!r} is no host name") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """In one piece, and with its mode from the beginning."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
