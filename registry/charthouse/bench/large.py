"""Large blobs, one connection at a time: what is timed is the transfer, not the making and checking of the bytes."""

import hashlib
import socket
import time
from concurrent.futures import Future

from charthouse.bench.charts import MIB, LargeBlob
from charthouse.bench.client import PIECE, Origin, Refused, Response, parse
from charthouse.bench.session import Registry, Session
from charthouse.bench.work import ACCEPTED, CREATED, OK, expect, upload_path


def push(origin: Origin, blob: LargeBlob) -> float:
    """Seconds from the first byte sent to the answer."""
    digest = blob.digest
    with origin.connect() as connection:
        connection.sendall(origin.request("POST", f"{blob.repository}/blobs/uploads/", b""))
        path = upload_path(_answer(connection, ACCEPTED, "POST of a large blob"), digest)
        length = f"Content-Type: application/octet-stream\r\nContent-Length: {blob.size * MIB}\r\n"
        request = origin.request("PUT", path, headers=length)
        began = time.perf_counter()
        connection.sendall(request)
        for piece in blob.pieces():
            connection.sendall(piece)
        _answer(connection, CREATED, "PUT of a large blob")
        return time.perf_counter() - began


def pull(origin: Origin, blob: LargeBlob) -> float:
    """Seconds from the request to the last byte."""
    digest = blob.digest
    request = origin.request("GET", f"{blob.repository}/blobs/{digest}")
    content = memoryview(bytearray(blob.size * MIB))
    with origin.connect() as connection:
        began = time.perf_counter()
        connection.sendall(request)
        taken = _receive_start(connection, content)
        while taken < len(content):
            count = connection.recv_into(content[taken:])
            if count == 0:
                raise Refused(f"the registry ended a blob of {len(content):,} bytes after {taken:,}")
            taken += count
        elapsed = time.perf_counter() - began
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise Refused("a large blob came back with other bytes than were pushed")
    return elapsed


def _receive_start(connection: socket.socket, content: memoryview) -> int:
    """Takes the response's head, and into `content` what came with it. Returns how many bytes that was."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, start = received.partition(b"\r\n\r\n")
    if int(head[9:12]) != OK:
        raise Refused(f"GET of a large blob was answered {int(head[9:12])}")
    content[: len(start)] = start
    return len(start)


def _answer(connection: socket.socket, status: int, what: str) -> Response:
    received = b""
    while (response := parse(received, is_head=False)) is None:
        received += _some(connection)
    expect(response, what, status)
    return response


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(PIECE)
    if not data:
        raise ConnectionError("the registry closed the connection before it had answered")
    return data


def start_push(session: Session, registry: Registry, size: int) -> "Future[float]":
    blob = LargeBlob(f"{session.namespace}/large", f"{session.namespace} {session.next_phase()}", size)
    registry.large.append(blob)
    return session.submit(push, registry.origin, blob)


def start_pull(session: Session, registry: Registry, size: int) -> "Future[float]":
    """Of the first blob that was pushed; of a new one when there is none."""
    if not registry.large:
        start_push(session, registry, size).result()
    return session.submit(pull, registry.origin, registry.large[0])
