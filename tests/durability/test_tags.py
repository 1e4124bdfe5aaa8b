"""Tags are registers: what several processes put, get and delete at once can be told as one story, with kills in it."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charthouse.names import Digest
from durability import tag_client
from durability.linearizable import DELETE, GET, PUT, Request, is_linearizable
from durability.server import TESTS, Server
from durability.sizes import Size

KILL_EVERY = 600  # requests, of all clients


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
def test_each_tag_can_be_told_as_one_story(
    serve: Callable[..., Server], database_url: str, tmp_path: Path, dice: random.Random, size: Size, did
):
    server = serve(database=database_url, workers=2)
    prepare(server)
    counts = Counter[str]()
    histories: dict[str, list[Request]] = defaultdict(list)
    total = size.clients * size.operations
    kills = {round(total * number / (total // KILL_EVERY + 2)) for number in range(1, total // KILL_EVERY + 2)}
    for number, line in enumerate(told(server, dice, size), 1):
        histories[line["tag"]].append(request_of(line))
        counts[line["kind"] if line["end"] else f"{line['kind']} without an answer"] += 1
        if number in kills:
            counts[f"kills of {kill(server, dice)}"] += 1
    wrong = [
        tag for tag, history in histories.items() if not is_linearizable([each for each in history if counts_for(each)])
    ]
    did(
        f"tags, {'PostgreSQL' if database_url else 'SQLite'}: {size.clients} clients, {total:,} requests to "
        f"{len(histories)} tags, {dict(sorted(counts.items()))}, {len(wrong)} histories that cannot be"
    )
    assert sum(map(len, histories.values())) == total
    assert not wrong, "\n".join(map(str, sorted(histories[wrong[0]], key=lambda each: each.begin)))


def counts_for(request: Request) -> bool:
    return request.kind != GET or request.is_answered


def prepare(server: Server) -> None:
    with server.client() as client:
        url = f"/v2/{tag_client.REPOSITORY}/blobs/uploads/?digest={Digest.of(b'{}')}"
        assert client("POST", url, b"{}").status == 201


def told(server: Server, dice: random.Random, size: Size) -> Iterator[dict[str, object]]:
    """What the clients say while they work."""
    reading, writing = os.pipe()
    program = [sys.executable, "-m", "durability.tag_client", str(server.port)]
    clients = [
        subprocess.Popen(
            [*program, str(number), str(dice.randrange(10**9)), str(size.operations)],
            stdout=writing,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        for number in range(size.clients)
    ]
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        yield from map(json.loads, lines)
    assert [client.wait() for client in clients] == [0] * size.clients


def request_of(line) -> Request:
    end = math.inf if line["end"] is None else line["end"]
    found = line["found"] if line["kind"] == DELETE and line["end"] else None
    return Request(line["kind"], line["value"], line["begin"], end, found)


def kill(server: Server, dice: random.Random) -> str:
    processes = server.processes()
    who = dice.choice(["parent", "worker", "all"] if len(processes) > 1 else ["parent"])
    server.kill(
        *{"parent": processes[:1], "worker": dice.sample(processes[1:], len(processes) > 1), "all": processes}[who]
    )
    if who != "worker":
        server.start()
    return who


# The checker itself


def put(value: str, begin: float, end: float = math.inf) -> Request:
    return Request(PUT, value, begin, end)


def get(value: str | None, begin: float, end: float) -> Request:
    return Request(GET, value, begin, end)


def delete(begin: float, end: float = math.inf, *, found: bool | None = True) -> Request:
    return Request(DELETE, None, begin, end, found)


GOOD = {
    "one after the other": [
        put("a", 0, 1),
        get("a", 2, 3),
        put("b", 4, 5),
        get("b", 6, 7),
        delete(8, 9),
        get(None, 10, 11),
    ],
    "two at once, either may be last": [put("a", 0, 9), put("b", 0, 9), get("a", 10, 11)],
    "seen before it was answered": [put("a", 0, 10), get("a", 1, 2), get("a", 3, 4)],
    "not seen until then": [put("a", 0, 10), get(None, 1, 2), get("a", 3, 4)],
    "without an answer, and never seen": [put("a", 0), get(None, 1, 2), get(None, 3, 4)],
    "without an answer, and seen late": [put("a", 0), get(None, 1, 2), put("b", 3, 4), get("a", 5, 6)],
    "a delete without an answer": [put("a", 0, 1), delete(2, found=None), get("a", 3, 4), get(None, 5, 6)],
    "nothing to delete": [delete(0, 1, found=False), put("a", 0.5, 2), get("a", 3, 4)],
    "deleted between two puts": [put("a", 0, 9), put("b", 0, 9), delete(0, 9), get("b", 10, 11)],
}
BAD = {
    "an acknowledged put is lost": [put("a", 0, 1), get(None, 2, 3)],
    "a read is older than an acknowledged put": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "what was seen is unseen": [put("a", 0), get("a", 1, 2), get(None, 3, 4)],
    "two reads turn back": [put("a", 0, 1), put("b", 2, 9), get("b", 3, 4), get("a", 5, 6)],
    "two writes in two orders": [put("a", 0, 9), put("b", 0, 9), get("a", 10, 11), get("b", 12, 13)],
    "deleted twice": [put("a", 0, 1), delete(2, 3), delete(4, 5)],
    "a delete comes back": [put("a", 0, 1), delete(2, 3), get("a", 4, 5)],
    "a delete of what is there finds nothing": [put("a", 0, 1), delete(2, 3, found=False)],
    "seen before it was begun": [get("a", 0, 1), put("a", 2, 3)],
    "what nobody put": [put("a", 0, 1), get("b", 2, 3)],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_a_history_that_can_be_is_accepted(history: list[Request]):
    assert is_linearizable(history)


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_a_history_that_cannot_be_is_found(history: list[Request]):
    assert not is_linearizable(history)


def test_the_search_agrees_with_trying_every_order(dice: random.Random, did):
    found = Counter(compare(dice) for _ in range(400))
    did(f"checker: {found[True]} random histories that can be and {found[False]} that cannot, as by trying every order")
    assert min(found[True], found[False]) > 50


def compare(dice: random.Random) -> bool:
    history = [random_request(dice) for _ in range(dice.randint(2, 5))]
    expected = any(is_a_story(order) for some in subsets(history) for order in itertools.permutations(some))
    assert is_linearizable(history) == expected, history
    return expected


def random_request(dice: random.Random) -> Request:
    begin = dice.randrange(10)
    end = begin + dice.randint(1, 5)
    kind = dice.choice([PUT, GET, DELETE])
    if kind == GET:
        return get(dice.choice([None, "a", "b"]), begin, end)
    is_answered = dice.random() < 0.8
    if kind == PUT:
        return put(dice.choice("ab"), begin, end if is_answered else math.inf)
    return delete(begin, end if is_answered else math.inf, found=dice.choice([True, False]) if is_answered else None)


def subsets(history: list[Request]) -> Iterator[list[Request]]:
    """Those without an answer may be missing."""
    certain = [each for each in history if each.is_answered]
    others = [each for each in history if not each.is_answered]
    for count in range(len(others) + 1):
        for some in itertools.combinations(others, count):
            yield [*certain, *some]


def is_a_story(order: tuple[Request, ...]) -> bool:
    state: str | None = None
    for number, request in enumerate(order):
        is_possible, state = request.after(state)
        if not is_possible or any(later.end < request.begin for later in order[number + 1 :]):
            return False
    return True
