"""`charthouse serve` as a process: start, end, workers."""

import json
import os
import resource
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charthouse.locks import family_lock
from charthouse.server import MOST_FILES
from support.process import Running, eventually, is_alive, receive_all, stop, workers_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that only talk to it."""
    running = Running(tmp_path_factory.mktemp("shared"), {})
    yield running.wait_until_ready()
    stop(running)


# Start


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_answers_before_the_line_that_says_so(start: Callable[..., Running], tmp_path: Path, workers: int):
    hold = tmp_path / "data" / "hold"
    hold.parent.mkdir()
    hold.touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(port=port, workers=workers)
    eventually(lambda: len(server.started()) == workers)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    hold.unlink()
    server.wait_until_ready()
    assert server.port == port
    assert int(server.get("/pid")) in server.started()


def test_port_0_is_one_free_port_on_both_loopback_addresses(server: Running):
    with socket.create_connection(("::1", server.port)) as client:
        client.sendall(b"GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")


def test_the_banner_gives_the_commands_for_this_server(server: Running):
    eventually(lambda: "helm install" in server.said())
    said = server.said()
    assert f"http://127.0.0.1:{server.port}, http://[::1]:{server.port}\n" in said
    assert f"{server.data} (SQLite {sqlite3.sqlite_version})\n" in said
    assert "anyone on this machine\n" in said
    assert f"helm push mychart-1.0.0.tgz oci://localhost:{server.port} --plain-http\n" in said
    assert f"helm install myrelease oci://localhost:{server.port}/mychart --version 1.0.0 --plain-http\n" in said


def test_a_url_of_an_ipv6_address_has_brackets(start: Callable[..., Running]):
    server = start(host="::1")
    assert server.process.stdout
    assert server.process.stdout.readline().startswith("listening on http://[::1]:")


def test_the_banner_does_not_tell_the_password_of_the_database(start: Callable[..., Running]):
    server = start(database="postgresql://anna:geheim@db.example/charts").wait_until_ready()
    eventually(lambda: "helm install" in server.said())
    assert "PostgreSQL db.example/charts\n" in server.said()
    assert "geheim" not in server.said()


def test_a_taken_port_is_one_line(start: Callable[..., Running]):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start(port=port)
        assert server.wait() == 2
    assert server.said() == (
        f"charthouse: port {port} on 127.0.0.1 is taken: choose another with --port or CHARTHOUSE_PORT,"
        " or 0 for a free one\n"
    )


def test_a_second_server_on_the_folder_says_so(start: Callable[..., Running]):
    start().wait_until_ready()
    second = start()
    assert second.wait() == 2
    assert second.said().startswith("charthouse: another server runs on the data folder ")
    assert second.said().count("\n") == 1


def test_a_server_waits_for_the_workers_of_one_that_was_killed(start: Callable[..., Running], tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    with family_lock(data):
        server = start()
        eventually((data / "start.lock").exists)
    server.wait_until_ready()


@pytest.mark.provokes("EOFError", surely=False)  # in a worker that had not read yet what it shall do
def test_a_worker_that_is_just_starting_does_not_keep_the_next_server_from_its_port(start: Callable[..., Running]):
    """It was spawned, knows nothing yet, and its parent is killed: it has the port for as long as it has the lock."""
    server = start(workers=2).wait_until_ready()
    before = workers_of(server.process.pid)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: set(workers_of(server.process.pid)) - set(before))
    server.process.kill()
    server.process.wait()
    start(port=server.port).wait_until_ready()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_holds_the_lock_of_the_folder(start: Callable[..., Running], workers: int):
    server = start(workers=workers).wait_until_ready()
    path = family_lock(server.data).path
    for process in server.started() | {server.process.pid}:
        assert path in [file.readlink() for file in Path(f"/proc/{process}/fd").iterdir()]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_process_may_open_as_many_files_as_the_system_lets_it(start: Callable[..., Running], workers: int):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        server = start(workers=workers).wait_until_ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    limits = {resource.prlimit(process, resource.RLIMIT_NOFILE) for process in server.started()}
    assert limits == {(min(before[1], MOST_FILES), before[1])}


@pytest.mark.parametrize("data", ["/proc/charts", "a-file", "a-file/inside"])
def test_a_folder_that_cannot_be_written_is_one_line_with_the_command_that_helps(
    start: Callable[..., Running], tmp_path: Path, data: str
):
    (tmp_path / "a-file").touch()
    server = start(data=str(tmp_path / data))
    assert server.wait() == 2
    line = server.said()
    assert line.startswith(f"charthouse: cannot write to the data folder {tmp_path / data}: ")
    assert f"this process is user {os.getuid()}: sudo chown -R {os.getuid()} {tmp_path / data}" in line
    assert line.count("\n") == 1


def test_other_machines_are_served_only_when_that_was_said(start: Callable[..., Running]):
    server = start(host="0.0.0.0")
    assert server.wait() == 2
    assert server.said() == (
        "charthouse: --host 0.0.0.0 can be reached from other machines, and there are no users yet: make"
        " them with `charthouse init`, give --open-to-everyone to let anyone push, or leave --host at 127.0.0.1"
        " and ::1\n"
    )
    start(host="0.0.0.0", open_to_everyone=True).wait_until_ready()


def test_a_public_url_on_loopback_is_for_others_too(start: Callable[..., Running]):
    flags = {"public_url": "https://charts.example.com"}
    server = start(**flags)
    assert server.wait() == 2
    assert server.said() == (
        "charthouse: --public-url https://charts.example.com says that others reach this registry, and there are no"
        " users yet: make them with `charthouse init`, or give --open-to-everyone to let anyone push\n"
    )
    start(**flags, open_to_everyone=True).wait_until_ready()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_database_that_cannot_be_used_is_one_line(start: Callable[..., Running], tmp_path: Path, workers: int):
    fail = tmp_path / "data" / "fail"
    fail.parent.mkdir()
    fail.touch()
    server = start(workers=workers)
    assert server.wait() == 2
    assert server.said() == "charthouse: the database is newer than this program\n"


# End


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish_and_the_exit_status_is_0(
    start: Callable[..., Running], workers: int, number: int
):
    server = start(workers=workers).wait_until_ready()
    with server.connect() as client:
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # it runs
        server.process.send_signal(number)
        eventually(lambda: is_refused(server.port))
        client.sendall(b"body")
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")
    assert server.wait() == 0
    assert (server.data / "ended").exists()


def is_refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_ends_at_once(start: Callable[..., Running], workers: int):
    server = start(workers=workers).wait_until_ready()
    with server.connect() as client:
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: is_refused(server.port))
        assert server.end(signal.SIGINT) == 130
        eventually(lambda: not any(is_alive(process) for process in server.started()))


def test_the_lines_of_the_last_requests_are_written_before_it_ends(start: Callable[..., Running]):
    server = start().wait_until_ready()
    server.get("/last")
    server.end()
    assert json.loads(server.said().splitlines()[-1])["path"] == "/last"


# Workers


def test_workers_end_with_a_killed_parent_and_a_restart_on_the_port_works_at_once(start: Callable[..., Running]):
    server = start(workers=2).wait_until_ready()
    before = server.started()
    with server.connect() as client:  # a request that runs keeps nobody alive
        client.sendall(b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        again = start(port=server.port, workers=2).wait_until_ready()
    assert not any(is_alive(process) for process in before)
    assert int(again.get("/pid")) in again.started() - before


def test_a_worker_that_was_killed_is_replaced(start: Callable[..., Running]):
    server = start(workers=2).wait_until_ready()
    first = server.started()
    killed = int(server.get("/pid"))
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(server.started()) == 3)
    (new,) = server.started() - first
    (other,) = first - {killed}
    os.kill(other, signal.SIGSTOP)
    assert int(server.get("/pid")) == new
    os.kill(other, signal.SIGCONT)
    assert f"worker {killed} ended with status -9: starting another" in server.said()
    assert server.end() == 0


# The log


@pytest.mark.provokes("a fault of our own")
def test_a_request_is_one_line_and_what_went_wrong_has_the_same_id(start: Callable[..., Running]):
    server = start().wait_until_ready()
    answer = json.loads(server.get("/boom?secret=1"))
    server.end()
    lines = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    (error,) = [line for line in lines if line.get("level") == "error"]
    (request,) = [line for line in lines if line.get("path") == "/boom"]
    assert request["status"] == 500
    assert error["traceback"].endswith("RuntimeError: a fault of our own")
    assert error["request_id"] == request["request_id"]
    assert request["request_id"] in answer["errors"][0]["message"]
    assert "secret" not in server.said()
