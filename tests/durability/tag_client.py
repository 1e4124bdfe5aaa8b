"""A client process that puts, gets and deletes a few tags, and prints what it asked and what it was told, a line each.

It goes on while the server is killed and started again. Each line is whole: many clients share a pipe.
"""

import json
import os
import random
import sys
import time

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from durability.client import Answer, Client, NoAnswer
from durability.linearizable import DELETE, GET, PUT
from support.requests import image

REPOSITORY = "shared/app"
TAGS = 5  # at a time
ROUND = 60  # requests of a client until it goes on to other tags, so that no history is too long to be searched
PAUSE = 0.05  # seconds before a server that is not there is asked again


def main(port: int, name: str, seed: int, operations: int) -> None:
    dice = random.Random(seed)
    client = Client(port)
    for number in range(operations):
        tag = f"t{number // ROUND}-{dice.randrange(TAGS)}"
        (kind,) = dice.choices([PUT, GET, DELETE], [4, 5, 2])
        body = image(b"{}", annotations={"by": f"{name}.{number}"})
        begin = time.monotonic_ns()
        answer = ask(client, kind, tag, body)
        line = {"tag": tag, "kind": kind, "begin": begin, "end": time.monotonic_ns(), **told(kind, answer, body)}
        os.write(1, json.dumps(line).encode() + b"\n")
        if answer is None:
            wait_for_server(client)
        if dice.random() < 0.1:
            client.close()  # the next connection may lead to another worker
    client.close()


def wait_for_server(client: Client) -> None:
    while True:
        try:
            client("GET", "/healthz")
        except NoAnswer:
            time.sleep(PAUSE)
        else:
            return


def ask(client: Client, kind: str, tag: str, body: bytes) -> Answer | None:
    try:
        if kind == PUT:
            return client("PUT", f"/v2/{REPOSITORY}/manifests/{tag}", body, content_type=OCI_MANIFEST)
        return client(kind.upper(), f"/v2/{REPOSITORY}/manifests/{tag}", accept=OCI_MANIFEST)
    except NoAnswer:
        return None


def told(kind: str, answer: Answer | None, body: bytes) -> dict[str, object]:
    """In place of an end there is none where nobody knows whether it counts."""
    value = Digest.of(body) if kind == PUT else None
    if answer is None or answer.status >= 500:
        return {"value": value, "end": None, "status": answer.status if answer else 0}
    expected = {PUT: (201,), GET: (200, 404), DELETE: (202, 404)}[kind]
    assert answer.status in expected, (kind, answer)
    if kind == GET and answer.status == 200:
        value = Digest(answer.headers["docker-content-digest"])
    return {"value": value, "found": answer.status != 404}


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
