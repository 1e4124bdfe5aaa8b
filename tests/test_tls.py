"""TLS: certificates of our own and given ones, taken anew while the server runs, and both protocols on one port."""

import json
import logging
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charthouse import processes
from charthouse.certificates import AUTHORITY_LIFE, LOCAL_NAMES, SERVER_LIFE, self_signed
from charthouse.locks import family_lock
from charthouse.processes import Workers
from charthouse.server import build_app
from charthouse.settings import SettingsError, load
from charthouse.tls import Tls, load_context
from support.process import PATIENCE, Running, eventually, is_alive, receive_all, receive_answer

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NOW = 1_800_000_000.0
DAY = 86400


def names_in(certificate: Path) -> set[str]:
    words = ["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"]
    line = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[1]
    found = (word.strip().partition(":")[2] for word in line.split(","))
    return {"::1" if name == "0:0:0:0:0:0:0:1" else name for name in found}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Certificates of our own


def test_the_authority_and_the_server_are_what_a_strict_client_wants(tmp_path: Path):
    files = self_signed(tmp_path / "tls", ["charts.example.com", "192.0.2.7", "münchen.example"], NOW)
    verify = ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW)), "-purpose", "sslserver", "-CAfile"]
    subprocess.run([*verify, files.authority, files.server], check=True, capture_output=True)
    own = {"charts.example.com", "192.0.2.7", "xn--mnchen-3ya.example"}
    assert names_in(files.server) == {*LOCAL_NAMES, *own}
    assert mode_of(tmp_path / "tls") == 0o700
    assert mode_of(tmp_path / "tls/ca.key") == mode_of(files.server) == 0o600
    assert mode_of(files.authority) == 0o644


def test_two_installations_share_nothing(tmp_path: Path):
    one, other = (self_signed(tmp_path / name, [], NOW) for name in ("one", "other"))
    assert one.authority.read_bytes() != other.authority.read_bytes()
    words = ["openssl", "x509", "-noout", "-subject", "-in"]
    assert len({subprocess.check_output([*words, files.authority]) for files in (one, other)}) == 2


def test_what_is_good_stays_and_what_nears_its_end_is_made_anew(tmp_path: Path):
    files = self_signed(tmp_path, [], NOW)
    authority, server = files.authority.read_bytes(), files.server.read_bytes()
    self_signed(tmp_path, [], NOW + (SERVER_LIFE.days - 31) * DAY)
    assert files.server.read_bytes() == server
    self_signed(tmp_path, [], NOW + (SERVER_LIFE.days - 29) * DAY)
    assert files.server.read_bytes() != server
    assert files.authority.read_bytes() == authority
    self_signed(tmp_path, [], NOW + (AUTHORITY_LIFE.days - 1) * DAY)
    assert files.authority.read_bytes() != authority


@pytest.mark.parametrize("damage", ["names", "authority", "half", "gone", "junk"])
def test_a_certificate_that_does_not_fit_is_made_anew(tmp_path: Path, damage: str):
    folder = tmp_path / "tls"
    before = self_signed(folder, [], NOW).server.read_bytes()
    names = ["charts.example.com"] if damage == "names" else []
    if damage == "authority":
        (folder / "ca.key").unlink()
    elif damage == "half":
        (folder / "server.pem").write_bytes(before[:300])
    elif damage == "gone":
        (folder / "server.pem").unlink()
    elif damage == "junk":
        (folder / "ca.pem").write_bytes(b"\0")
    files = self_signed(folder, names, NOW)
    assert files.server.read_bytes() != before
    subprocess.run(
        ["openssl", "verify", "-attime", str(int(NOW)), "-CAfile", files.authority, files.server], check=True
    )


def test_what_is_no_host_cannot_be_in_a_certificate(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'a\.\.b' is no host name"):
        self_signed(tmp_path, ["a..b"], NOW)


# Given files, and what becomes of them


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, "first")


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate and its key in files of their own; what stood in them before is replaced."""
    text = self_signed(folder / name, [], time.time()).server.read_text()
    middle = text.index("-----BEGIN CERTIFICATE-----")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    key.write_text(text[:middle])
    certificate.write_text(text[middle:])
    return certificate, key


def test_a_file_that_is_not_there_is_one_line(pair: tuple[Path, Path]):
    certificate, key = pair
    key.unlink()
    with pytest.raises(SettingsError, match=rf"^--tls-key {key} cannot be read: No such file or directory$"):
        load_context(certificate, key)
    with pytest.raises(SettingsError, match=rf"^--tls-cert {key.parent} cannot be read: Is a directory$"):
        load_context(key.parent, key)


def test_files_that_hold_something_else_are_one_line(pair: tuple[Path, Path]):
    certificate, key = pair
    with pytest.raises(SettingsError, match=rf"^--tls-cert {key} holds no certificate in PEM form$"):
        load_context(key, key)
    with pytest.raises(SettingsError, match=rf"^--tls-key {certificate} holds no private key in PEM form$"):
        load_context(certificate, certificate)
    certificate.write_text(certificate.read_text().replace("M", "!"))
    with pytest.raises(SettingsError, match=rf"^--tls-cert {certificate} and --tls-key {key} cannot be used: .*$"):
        load_context(certificate, key)


def test_a_key_of_another_certificate_is_one_line(pair: tuple[Path, Path], tmp_path: Path):
    certificate, key = pair
    other = tmp_path / "other.key"
    shutil.copy(key, other)
    write_pair(tmp_path, "second")
    line = rf"^--tls-key {other} is not the key of the certificate in --tls-cert {certificate}$"
    with pytest.raises(SettingsError, match=line):
        load_context(certificate, other)


def test_a_key_with_a_password_is_one_line_and_nobody_is_asked_for_it(pair: tuple[Path, Path]):
    certificate, key = pair
    subprocess.run(["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", key], check=True)
    with pytest.raises(SettingsError, match=rf"^--tls-key {key} is protected by a password: give one without$"):
        load_context(certificate, key)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"tls_cert": "a.crt"}, "a.crt is one half of a pair: give --tls-key as well"),
        ({"tls_key": "a.key"}, "a.key is one half of a pair: give --tls-cert as well"),
        (
            {"tls": "self-signed", "tls_cert": "a.crt", "tls_key": "a.key"},
            "--tls self-signed makes a certificate, and a.crt is one: give one of the two",
        ),
        ({"tls_cert": "/a.crt", "tls_key": "/a.key"}, "--tls-cert /a.crt cannot be read: No such file or directory"),
        (
            {"tls": "self-signed", "public_url": "https://a..b", "open_to_everyone": True},
            "--tls self-signed cannot make a certificate: 'a..b' is no host name",
        ),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_cannot_be_are_one_line(start: Callable[..., Running], workers: int, flags: dict, line: str):
    server = start(workers=workers, **flags)
    assert server.wait() == 2
    assert server.said() == f"charthouse: {line}\n"


def test_a_pair_is_taken_when_both_files_are_as_they_were_a_second_ago(pair: tuple[Path, Path], caplog):
    tls = Tls(*pair)
    first = tls.context
    write_pair(pair[0].parent, "second")
    tls.refresh()
    assert tls.context is first
    with caplog.at_level(logging.INFO):
        tls.refresh()
        tls.refresh()
    assert tls.context is not first
    assert [record.getMessage() for record in caplog.records] == [
        f"new connections get the certificate that is now in {pair[0]}"
    ]


@pytest.mark.parametrize("damage", ["gone", "mismatch", "empty"])
def test_a_broken_pair_is_one_line_and_the_one_before_it_stays(pair: tuple[Path, Path], caplog, damage: str):
    certificate, key = pair
    tls = Tls(certificate, key)
    first = tls.context
    old = key.read_bytes()
    if damage == "gone":
        key.unlink()
    elif damage == "empty":
        certificate.write_text("")
    else:
        write_pair(certificate.parent, "second")
        key.write_bytes(old)
    for _ in range(5):
        tls.refresh()
    assert tls.context is first
    (record,) = caplog.records
    assert record.getMessage().endswith("; the certificate before it stays")
    write_pair(certificate.parent, "third")
    tls.refresh()
    tls.refresh()
    assert tls.context is not first


def test_a_worker_that_dies_beside_a_broken_pair_is_replaced_when_the_pair_is_mended(
    start: Callable[..., Running], pair: tuple[Path, Path]
):
    server = start(workers=2, tls_cert=str(pair[0]), tls_key=str(pair[1])).wait_until_ready()
    first = server.started()
    content = pair[1].read_bytes()
    pair[1].write_text("")
    os.kill(min(first), signal.SIGKILL)
    eventually(lambda: server.said().count("starting another") == 2)  # that one, and one that could not start
    assert is_alive(max(first))
    pair[1].write_bytes(content)
    eventually(lambda: len(server.started()) == 3)
    assert server.end() == 0


def test_workers_that_cannot_start_are_started_less_and_less_often_and_a_signal_waits_for_none(
    monkeypatch, tmp_path: Path
):
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        slept[-1] += seconds

    monkeypatch.setattr(processes.time, "sleep", sleep)
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    workers = Workers(load({}, environ={}), build_app, [], family_lock(tmp_path), lambda: None)
    for _ in range(8):
        slept.append(0.0)
        workers._wait_a_while()
    assert [round(seconds) for seconds in slept] == [1, 2, 4, 8, 16, 30, 30, 30]
    workers._stop()
    slept.append(0.0)
    workers._wait_a_while()
    assert slept[-1] == 0


def test_a_certificate_of_our_own_is_renewed_while_the_server_runs(tmp_path: Path, clock: Any):
    tls = Tls.self_signed(tmp_path, clock=clock)
    first = tls.context
    for _ in range(3):
        tls.refresh()
    assert tls.context is first
    clock.now += (SERVER_LIFE.days - 29) * DAY
    for _ in range(3):
        tls.refresh()
    assert tls.context is not first


def test_nothing_older_than_tls_1_2_is_spoken(pair: tuple[Path, Path]):
    assert load_context(*pair).minimum_version is ssl.TLSVersion.TLSv1_2


# A server


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def connect(server: Running, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    return context.wrap_socket(plain, server_hostname=name)


@pytest.mark.parametrize("workers", [1, 2])
def test_one_port_speaks_both_and_the_application_knows_which(start: Callable[..., Running], workers: int):
    server = start(tls="self-signed", workers=workers).wait_until_ready()
    plain = json.loads(server.ask(LAST).partition(b"\r\n\r\n")[2])
    assert plain["scheme"] == "http"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(server.authority)
        context.maximum_version = version
        for name in LOCAL_NAMES:
            with connect(server, context, name) as client:
                client.sendall(GET)
                assert json.loads(receive_answer(client))["scheme"] == "https"


def test_the_banner_says_how_to_trust_it(start: Callable[..., Running]):
    server = start(tls="self-signed").wait_until_ready()
    eventually(lambda: "trust:" in server.said())
    said = server.said()
    assert f"https://127.0.0.1:{server.port}, https://[::1]:{server.port}\n" in said
    assert f"helm push mychart-1.0.0.tgz oci://localhost:{server.port} --ca-file {server.authority}\n" in said
    assert f"export SSL_CERT_FILE={server.authority} in place of --ca-file\n" in said


def test_the_authority_is_the_same_after_a_restart_and_the_names_are_those_that_are_configured(
    start: Callable[..., Running],
):
    server = start(tls="self-signed").wait_until_ready()
    authority = server.authority.read_bytes()
    assert server.end() == 0
    again = start(tls="self-signed", host_name="charts.test", port=server.port).wait_until_ready()
    assert again.authority.read_bytes() == authority
    with connect(again, trusting(again.authority), "charts.test") as client:
        client.sendall(GET)
        receive_answer(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_certificate_counts_for_new_connections_and_those_that_are_open_go_on(
    start: Callable[..., Running], pair: tuple[Path, Path], workers: int
):
    certificate, key = pair
    folder = certificate.parent
    server = start(tls_cert=str(certificate), tls_key=str(key), workers=workers).wait_until_ready()
    old, new = (trusting(self_signed(folder / name, [], time.time()).authority) for name in ("first", "second"))
    with connect(server, old) as client:
        client.sendall(GET)
        receive_answer(client)
        write_pair(folder, "second")
        eventually(lambda: server.said().count("new connections get the certificate") == workers)
        client.sendall(GET)
        assert json.loads(receive_answer(client))["scheme"] == "https"
    with connect(server, new) as client:
        client.sendall(GET)
        receive_answer(client)


def test_plain_http_on_a_port_that_speaks_tls_is_400_with_a_sentence(
    start: Callable[..., Running], pair: tuple[Path, Path]
):
    server = start(tls_cert=str(pair[0]), tls_key=str(pair[1])).wait_until_ready()
    for request in (GET, b"G", b"\0\1\2"):
        answer = server.ask(request)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert "this port speaks TLS" in json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["message"]
    server.end()
    (hint,) = [line for line in server.said().splitlines() if "tried plain HTTP" in line]
    assert "--plain-http" in hint
    assert not [line for line in server.said().splitlines() if '"path"' in line]  # nothing reached the application


def test_from_other_machines_nothing_but_tls_is_taken(start: Callable[..., Running]):
    address = address_of_this_machine()
    server = start(tls="self-signed", host="0.0.0.0", host_name=address, open_to_everyone=True).wait_until_ready()
    assert server.ask(LAST).startswith(b"HTTP/1.1 200 ")
    request = LAST.replace(b"localhost", address.encode())
    with socket.create_connection((address, server.port), PATIENCE) as client:
        client.sendall(request)
        assert receive_all(client).startswith(b"HTTP/1.1 400 ")
    plain = socket.create_connection((address, server.port), PATIENCE)
    with trusting(server.authority).wrap_socket(plain, server_hostname=address) as client:
        client.sendall(request)
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")


def address_of_this_machine() -> str:
    """One that others could use. No packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anybody:
        try:
            anybody.connect(("203.0.113.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(anybody.getsockname()[0])


def test_a_client_that_does_not_trust_the_certificate_leaves_a_hint(start: Callable[..., Running]):
    server = start(tls="self-signed").wait_until_ready()
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server, ssl.create_default_context())
    eventually(lambda: "does not trust" in server.said())
    server.end()
    (hint,) = [line for line in server.said().splitlines() if "does not trust" in line]
    assert f"UNKNOWN_CA): give helm or oras --ca-file {server.authority}, or name it in SSL_CERT_FILE" in hint


def test_a_client_that_speaks_too_old_a_tls_leaves_the_reason(start: Callable[..., Running]):
    server = start(tls="self-signed").wait_until_ready()
    hello = b"\x03\x01" + bytes(32) + b"\0" + b"\0\x02\xc0\x13" + b"\x01\0"  # of TLS 1.0, with one cipher
    record = b"\x01" + len(hello).to_bytes(3, "big") + hello
    assert server.ask(b"\x16\x03\x01" + len(record).to_bytes(2, "big") + record).startswith(b"\x15")  # an alert
    eventually(lambda: "a client's TLS failed: UNSUPPORTED_PROTOCOL" in server.said())


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x03\x01\xff\xff" + bytes(70000), b"\x03\x01\x00\x04junk", bytes(range(256))],
    ids=["nothing", "huge", "short", "anything"],
)
def test_junk_in_place_of_a_hello_ends_the_connection_and_nothing_else(start: Callable[..., Running], junk: bytes):
    server = start({"HEADER_TIMEOUT": 0.2}, tls="self-signed").wait_until_ready()
    with server.connect() as client:
        client.sendall(b"\x16" + junk)
        client.shutdown(socket.SHUT_WR)
        receive_all(client)
    assert server.ask(LAST).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in server.said()


def test_a_handshake_that_is_not_finished_is_cut_off(start: Callable[..., Running]):
    server = start({"HEADER_TIMEOUT": 0.2}, tls="self-signed").wait_until_ready()
    with server.connect() as client:
        outgoing = ssl.MemoryBIO()
        hello = trusting(server.authority).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        client.sendall(outgoing.read())
        assert receive_all(client).startswith(b"\x16")  # its half of the handshake, and then the end


def test_a_megabyte_comes_and_goes_in_any_pieces(start: Callable[..., Running]):
    server = start(tls="self-signed").wait_until_ready()
    body = os.urandom(500_000).hex().encode()
    head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connect(server, trusting(server.authority)) as client:
        client.sendall(head + body[:1])
        for start_of_piece in range(1, len(body), 77_777):
            client.sendall(body[start_of_piece : start_of_piece + 77_777])
        answer = receive_all(client)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"].encode() == body


def test_an_answer_ends_with_the_word_that_nothing_more_comes(start: Callable[..., Running]):
    """Without it, a client cannot tell an answer's end from a connection that somebody has cut (RFC 8446, 6.1)."""
    server = start(tls="self-signed").wait_until_ready()
    plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    context = trusting(server.authority)
    with context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as client:
        client.sendall(LAST)
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")
