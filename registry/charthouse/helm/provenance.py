"""Provenance files: what one says of a chart, and, given keys, who says so.

A `.prov` is a clear-signed text: Chart.yaml, a line `...`, and under `files` the SHA-256 of each archive. What it says
can be compared with the chart without any key; `verify` asks pysequoia (the extra `provenance`), never gpg.
Source: helm.sh/helm/v4 v4.3.1, pkg/provenance/sign.go; ProtonMail/go-crypto, openpgp/clearsign; RFC 9580, 7.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from charthouse.helm import documents, signature_packets

if TYPE_CHECKING:
    from pysequoia import Cert

PROVENANCE_LIMIT = 2 * 1024 * 1024  # bytes: a Chart.yaml of 1 MiB, escaped and signed

_MESSAGE = re.compile(rb"^-----BEGIN PGP SIGNED MESSAGE-----[ \t]*+\r?\n", re.MULTILINE)
_HEADERS = re.compile(rb"((?:[^\r\n]++\r?\n)*+)\r?\n")
_SIGNATURE = re.compile(rb"^-----BEGIN PGP SIGNATURE-----", re.MULTILINE)
_ALLOWED = re.compile(rb"(?:Hash: [\x21-\x7e, ]+\r?\n)*")
_DASH = re.compile(rb"^- ", re.MULTILINE)
_LIMITS = documents.Limits(nodes=10_000)


class ProvenanceInvalid(ValueError):
    """The file is no provenance file that Helm could read."""


class VerifierMissing(RuntimeError):
    """Signatures cannot be verified: the extra is not installed."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """`files` maps each file's name to `sha256:<hex>`, as it stands there."""

    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verification:
    """`verified`: signed by a key at hand; `unknown key`: signed by another; `bad`: signed by nobody, or changed since.

    `signer` is the fingerprint of the certificate, or the ids of the unknown keys; `user_ids` name its owner.
    """

    state: Literal["verified", "unknown key", "bad"]
    signer: str = ""
    user_ids: tuple[str, ...] = ()
    message: str = ""


def parse(content: bytes) -> Provenance:
    """What the file says; the signature is not looked at. Raises ProvenanceInvalid."""
    if len(content) > PROVENANCE_LIMIT:
        raise ProvenanceInvalid(f"it has {len(content):,} bytes, at most {PROVENANCE_LIMIT:,} are allowed")
    _, begin, end = _parts(content)
    return _read(_DASH.sub(b"", content[begin:end]))


def _parts(content: bytes) -> tuple[int, int, int]:
    """Where the first clear-signed message begins, the text in it, and its signature. Raises ProvenanceInvalid."""
    message = _MESSAGE.search(content)
    headers = _HEADERS.match(content, message.end()) if message else None
    signature = _SIGNATURE.search(content, headers.end()) if headers else None
    if not message or not headers or not signature:
        raise ProvenanceInvalid("it is no clear-signed text")
    if not _ALLOWED.fullmatch(headers[1]):
        raise ProvenanceInvalid("its header has other lines than Hash:, which are not signed")
    return message.start(), headers.end(), signature.start()


def _read(signed: bytes) -> Provenance:
    parts = signed.replace(b"\r\n", b"\n").split(b"\n...\n")
    if len(parts) == 1:
        raise ProvenanceInvalid("it has no line '...' between Chart.yaml and the checksums")
    try:
        sums = documents.load(parts[1], _LIMITS)
    except documents.DocumentInvalid as error:
        raise ProvenanceInvalid(f"its checksums are not valid YAML: {error.message}") from None
    files = sums.get("files") if isinstance(sums, dict) else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ProvenanceInvalid("it has no checksums under 'files'")
    return Provenance(dict(files))


@dataclass(frozen=True, slots=True)
class Certificate:
    """A public key as keyrings hold it."""

    fingerprint: str
    user_ids: tuple[str, ...]
    content: bytes


def certificates(keyring: bytes) -> list[Certificate]:
    """Those of a keyring, binary or armored. Raises ProvenanceInvalid, VerifierMissing."""
    _demand_verifier()
    found = _certificates(keyring)
    if not found:
        raise ProvenanceInvalid("it holds no OpenPGP certificate; export one with gpg --export KEY")
    if any("Secret" in str(packet.tag) for packet in _packets(keyring)):
        raise ProvenanceInvalid("it holds a secret key, which belongs to nobody else; export with gpg --export KEY")
    return [Certificate(each.fingerprint.upper(), _user_ids(each), bytes(each)) for each in found]


def _packets(content: bytes) -> "Iterable[Any]":
    from pysequoia.packet import PacketPile  # as in verify

    return PacketPile.from_bytes(content)


def _user_ids(certificate: "Cert") -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(user_id) for user_id in certificate.user_ids))


def _demand_verifier() -> None:
    try:
        # Only here: the extra is large, and most registries verify nothing.
        import pysequoia  # noqa: F401 - whether it is there
    except ImportError:
        raise VerifierMissing("signatures cannot be verified: install charthouse[provenance]") from None


def verify(content: bytes, keyrings: Sequence[bytes]) -> Verification:
    """Who signed the file, of the keys in `keyrings` (each binary or armored, of any number of certificates).

    Whether it is about the chart is `parse`'s matter. Raises VerifierMissing.
    """
    _demand_verifier()
    import pysequoia  # as there

    known = [certificate for keyring in keyrings for certificate in _certificates(keyring)]
    try:
        said = parse(content)
        message, issuers = _message(content)
    except ProvenanceInvalid as error:
        return Verification("bad", message=str(error))
    if issuers.isdisjoint(_key_ids(known)):
        ids = ", ".join(sorted(issuers))
        return Verification("unknown key", ids, message=f"signed by the key {ids}, which is in no keyring")
    try:
        result = pysequoia.verify(message, lambda _: known)
    except Exception as error:  # noqa: BLE001 - what the library raises is no part of its interface
        return Verification("bad", ", ".join(sorted(issuers)), message=_first_line(error))
    return _signed(result, said, known)


def _certificates(keyring: bytes) -> "list[Cert]":
    import pysequoia  # as in verify

    try:
        return pysequoia.Cert.split_bytes(keyring)
    except Exception:  # noqa: BLE001 - as in verify; a broken keyring knows no key
        return []


def _key_ids(certificates: "Sequence[Cert]") -> set[str]:
    packets = (packet for each in certificates for packet in _packets(bytes(each)))
    return {packet.key_id.upper() for packet in packets if packet.key_id}


def _message(content: bytes) -> tuple[bytes, set[str]]:
    """The clear-signed text alone, and the ids of the keys that its signatures name.

    Helm ignores what stands before the text, and takes the numbers of a signature as Go wrote them for years: with the
    length of the key in place of their own (golang.org/x/crypto/openpgp). Sequoia takes neither.
    """
    import pysequoia  # as in verify
    from pysequoia.packet import PacketPile

    begin, _, end = _parts(content)
    try:
        packets = b"".join(map(bytes, PacketPile.from_bytes(content[end:])))
        signatures = signature_packets.repaired(packets)
        ids = {packet.issuer_key_id for packet in PacketPile.from_bytes(signatures)}
        armored = pysequoia.armor(signatures, pysequoia.ArmorKind.Signature)
    except Exception as error:  # noqa: BLE001 - as in verify
        raise ProvenanceInvalid(f"its signature cannot be read: {_first_line(error)}") from None
    return content[begin:end] + str(armored).encode(), {each.upper() for each in ids if each}


def _first_line(error: Exception) -> str:
    """Without the backtrace that the library appends."""
    return (str(error).splitlines() or [""])[0]


def _signed(result: Any, said: Provenance, certificates: "Sequence[Cert]") -> Verification:
    """Only what the library itself took for signed counts, should it read the text in another way than `parse`."""
    try:
        same = _read(bytes(result.bytes or b"")) == said
    except ProvenanceInvalid:
        same = False
    if not same or not result.valid_sigs:
        return Verification("bad", message="the signed text is not what the file says")
    fingerprint = str(result.valid_sigs[0].certificate)
    signer = next(each for each in certificates if each.fingerprint == fingerprint)
    return Verification("verified", fingerprint.upper(), _user_ids(signer))
