"""What a provenance file says, and who signed it; real helm signs and verifies the same."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from charthouse.helm import signature_packets
from charthouse.helm.provenance import ProvenanceInvalid, parse, verify
from charthouse.names import Digest
from helm.charts import chart, provenance_text, unsigned
from support.tools import Tool

pysequoia = pytest.importorskip("pysequoia", reason="the extra provenance is not installed")
from pysequoia.packet import PacketPile  # noqa: E402 - after the check that it is there

ARCHIVE = chart()
LINE = f"  app-1.2.3.tgz: {Digest.of(ARCHIVE)}\n"


class Signer:
    """A key that the test makes. RSA, as helm's keyrings have."""

    def __init__(self, name: str) -> None:
        self.key = pysequoia.Tsk.generate(
            user_id=name, cipher_suite=pysequoia.CipherSuite.RSA2k, profile=pysequoia.Profile.RFC4880
        )
        self.keyring = bytes(self.key.extract_certificate())
        self.fingerprint = self.key.extract_certificate().fingerprint.upper()

    def sign(self, text: bytes) -> bytes:
        return bytes(pysequoia.sign(self.key.signer(), text, mode=pysequoia.SignatureMode.CLEAR))


@pytest.fixture(scope="module")
def ada() -> Signer:
    return Signer("Ada <ada@example.com>")


@pytest.fixture(scope="module")
def eve() -> Signer:
    return Signer("Eve <eve@example.com>")


@pytest.fixture(scope="module")
def signed(ada: Signer) -> bytes:
    return ada.sign(provenance_text(LINE))


# What it says


def test_the_files_and_their_digests_are_read(signed: bytes) -> None:
    assert parse(signed).files == {"app-1.2.3.tgz": Digest.of(ARCHIVE)}


def test_lines_that_begin_with_a_dash_are_read_as_they_were(ada: Signer) -> None:
    content = ada.sign(provenance_text("- a\n", b"keywords:\n- a\n"))
    assert b"\n- - a" in content
    with pytest.raises(ProvenanceInvalid, match="no checksums under 'files'"):
        parse(content)  # a list, as it was before it was signed
    assert verify(ada.sign(provenance_text(LINE, b"keywords:\n- a\n")), [ada.keyring]).state == "verified"


def test_line_ends_of_windows_are_line_ends(signed: bytes) -> None:
    assert parse(signed.replace(b"\n", b"\r\n")) == parse(signed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no clear-signed text"),
        (unsigned("  a: b").partition(b"-----BEGIN PGP SIGNATURE")[0], "it is no clear-signed text"),
        (unsigned("  a: b").replace(b"Hash: SHA512", b"Comment: x"), "its header has other lines than Hash:"),
        (unsigned("  a: b").replace(b"...", b"---"), "it has no line '...'"),
        (unsigned("  a: ["), "its checksums are not valid YAML"),
        (unsigned("  - a").replace(b"- -", b"-"), "it has no checksums under 'files'"),
        (unsigned("  a: [b]"), "it has no checksums under 'files'"),
        (b"x" * 3_000_000, "it has 3,000,000 bytes"),
    ],
)
def test_what_is_no_provenance_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ProvenanceInvalid, match=re.escape(message)):
        parse(content)


@settings(deadline=None)
@given(st.binary() | st.text(alphabet="-=PGSIGNED MESSAGBEGINRTU\nHash:. ").map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for each in (content, unsigned("  a: b").replace(b"a: b", content)):
        try:
            parse(each)
        except ProvenanceInvalid:
            assert verify(each, []).state == "bad"


# Who signed it


def test_a_signature_of_a_key_at_hand_is_verified(signed: bytes, ada: Signer, eve: Signer) -> None:
    for keyrings in ([ada.keyring], [eve.keyring, ada.keyring], [eve.keyring + ada.keyring], [b"broken", ada.keyring]):
        found = verify(signed, keyrings)
        assert (found.state, found.signer, found.user_ids) == ("verified", ada.fingerprint, ("Ada <ada@example.com>",))
    armored = str(ada.key.extract_certificate()).encode()
    assert verify(signed, [armored]).state == "verified"


def test_a_signature_of_another_key_is_unknown(signed: bytes, ada: Signer, eve: Signer) -> None:
    for keyrings in ([], [eve.keyring], [b"broken"]):
        found = verify(signed, keyrings)
        assert found.state == "unknown key"
        assert re.fullmatch(r"signed by the key [0-9A-F]{16}, which is in no keyring", found.message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"name: app", b"name: apq"),
        (b"sha256:", b"sha512:"),
        (b"app-1.2.3.tgz", b"app-1.2.4.tgz"),
        (b"\n...\n", b"\n...\nx: y\n"),
    ],
)
def test_a_signed_text_that_was_changed_is_bad(signed: bytes, ada: Signer, old: bytes, new: bytes) -> None:
    assert old in signed
    found = verify(signed.replace(old, new), [ada.keyring])
    assert (found.state, found.message) == ("bad", "Signature verification failed: no valid signatures found.")


def test_a_signature_that_was_changed_is_bad(signed: bytes, ada: Signer, eve: Signer) -> None:
    begin = signed.index(b"-----BEGIN PGP SIGNATURE")
    other = ada.sign(provenance_text("  other.tgz: sha256:1\n"))
    assert verify(signed[:begin] + other[other.index(b"-----BEGIN PGP SIGNATURE") :], [ada.keyring]).state == "bad"
    assert verify(unsigned(LINE), [ada.keyring]).state == "bad"


def test_text_around_the_signed_text_says_nothing(signed: bytes, ada: Signer) -> None:
    """Helm reads the first signed text; a second one after it, or unsigned lines, are not what was verified."""
    lying = b"files:\n  app-1.2.3.tgz: sha256:0\n" + signed + b"\nmore\n"
    assert verify(lying, [ada.keyring]).state == "verified"
    assert parse(lying) == parse(signed)


def test_a_key_that_was_no_longer_valid_when_it_signed_does_not_verify() -> None:
    key = pysequoia.Tsk.generate(user_id="Old")
    certificate, signed = (
        key.extract_certificate(),
        bytes(pysequoia.sign(key.signer(), provenance_text(LINE), mode=pysequoia.SignatureMode.CLEAR)),
    )
    assert verify(signed, [bytes(certificate)]).state == "verified"
    revoked = pysequoia.Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(key.certifier())))
    assert revoked.is_revoked
    assert verify(signed, [bytes(revoked)]).state == "bad"


# What Go wrote


def test_a_number_written_with_the_keys_length_is_written_anew(signed: bytes, ada: Signer) -> None:
    """golang.org/x/crypto wrote every number as long as the key: half of Helm's old signatures begin with a 0."""
    begin = signed.index(b"-----BEGIN PGP SIGNATURE")
    packets = b"".join(map(bytes, PacketPile.from_bytes(signed[begin:])))
    longer = as_go_wrote(packets)
    assert longer != packets
    assert signature_packets.repaired(longer) == signature_packets.repaired(packets)
    old = signed[:begin] + str(pysequoia.armor(longer, pysequoia.ArmorKind.Signature)).encode()
    assert verify(old, [ada.keyring]).state == "verified"


def as_go_wrote(packets: bytes) -> bytes:
    """The one number of the signature, with eight zero bits before it."""
    body = signature_packets.repaired(packets)[6:]
    at = len(body) - 2 - (2048 // 8)
    while int.from_bytes(body[at : at + 2], "big") + 7 >> 3 != len(body) - at - 2:
        at += 1
    number = b"\0" + body[at + 2 :]
    body = body[:at] + (8 * len(number)).to_bytes(2, "big") + number
    return b"\xc2\xff" + len(body).to_bytes(4, "big") + body


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_packets_are_written_anew_or_refused(content: bytes) -> None:
    for each in (content, b"\xc2\x20\x04" + content, b"\x88\x20\x04" + content):
        with contextlib.suppress(ValueError):
            signature_packets.repaired(each)


# The real helm


@pytest.fixture
def keyrings(tmp_path: Path, ada: Signer) -> Path:
    (tmp_path / "secring.gpg").write_bytes(bytes(ada.key))
    (tmp_path / "pubring.gpg").write_bytes(ada.keyring)
    return tmp_path


def test_what_helm_signs_is_verified_here(helm: Tool, helm_source: Path) -> None:
    """With Helm's own test key: helm signs with the primary key, which the keys that pysequoia makes do not allow."""
    testdata = helm_source / "pkg/provenance/testdata"
    (helm.home / "app").mkdir()
    (helm.home / "app" / "Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.2.3\nkeywords:\n- dash\n")
    helm("package", "app", "--sign", "--key", "helm-test", "--keyring", testdata / "helm-test-key.secret")
    content = (helm.home / "app-1.2.3.tgz.prov").read_bytes()
    assert parse(content).files == {"app-1.2.3.tgz": Digest.of((helm.home / "app-1.2.3.tgz").read_bytes())}
    found = verify(content, [(testdata / "helm-test-key.pub").read_bytes()])
    assert (found.state, found.signer) == ("verified", "5E615389B53CA37F0EE60BD3843BBF981FC18762")


def test_a_signature_that_an_old_helm_wrote_is_verified(helm_source: Path) -> None:
    testdata = helm_source / "pkg/provenance/testdata"
    content = (testdata / "hashtest-1.2.3.tgz.prov").read_bytes()
    assert verify(content, [(testdata / "helm-test-key.pub").read_bytes()]).state == "verified"
    assert parse(content).files == {"hashtest-1.2.3.tgz": Digest.of((testdata / "hashtest-1.2.3.tgz").read_bytes())}


def test_what_is_signed_here_is_verified_by_helm_and_what_is_changed_is_not(
    helm: Tool, keyrings: Path, signed: bytes, ada: Signer, eve: Signer
) -> None:
    (helm.home / "app-1.2.3.tgz").write_bytes(ARCHIVE)
    (keyrings / "eve.gpg").write_bytes(eve.keyring)
    for content, keyring, state in (
        (signed, "pubring.gpg", "verified"),
        (signed.replace(b"\n", b"\r\n"), "pubring.gpg", "verified"),
        (b"before\n" + signed + b"after\n", "pubring.gpg", "verified"),
        (signed, "eve.gpg", "unknown key"),
        (signed.replace(b"name: app", b"name: apq"), "pubring.gpg", "bad"),
    ):
        (helm.home / "app-1.2.3.tgz.prov").write_bytes(content)
        helm("verify", "app-1.2.3.tgz", "--keyring", keyrings / keyring, status=0 if state == "verified" else 1)
        assert verify(content, [(keyrings / keyring).read_bytes()]).state == state
