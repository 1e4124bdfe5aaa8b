"""How much of each: `DURABILITY=small` (make test), `ci` (.ci/run) or `soak` (make soak)."""

import os
import random
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Size:
    kills: int  # cycles for each number of workers
    kills_postgres: int
    cuts: int  # of power
    cuts_postgres: int
    points: int  # system calls at which a process is killed or fails, for each database
    clients: int  # of the histories of tags
    operations: int  # for each of them
    jumps: int  # of the clock
    steps: int  # of the stateful model
    questions: int  # to each operation that OpenAPI describes
    rots: int  # files of blobs that are damaged
    fills: int  # of the disk
    seconds_of_collection: int  # beside ten clients


SIZES = {
    "small": Size(
        kills=1,
        kills_postgres=1,
        cuts=1,
        cuts_postgres=1,
        points=2,
        clients=3,
        operations=40,
        jumps=1,
        steps=1_000,
        questions=6,
        rots=2,
        fills=1,
        seconds_of_collection=1,
    ),
    "ci": Size(
        kills=25,
        kills_postgres=5,
        cuts=20,
        cuts_postgres=5,
        points=40,
        clients=4,
        operations=500,
        jumps=10,
        steps=5_000,
        questions=40,
        rots=20,
        fills=1,
        seconds_of_collection=60,
    ),
    "soak": Size(
        kills=1_000,
        kills_postgres=1_000,
        cuts=500,
        cuts_postgres=500,
        points=10_000,
        clients=16,
        operations=20_000,
        jumps=500,
        steps=500_000,
        questions=1_000,
        rots=500,
        fills=20,
        seconds_of_collection=3 * 3600,
    ),
}


def size() -> Size:
    name = os.environ.get("DURABILITY", "small")
    if name not in SIZES:
        raise pytest.UsageError(f"DURABILITY={name}: say one of {', '.join(SIZES)}")
    return SIZES[name]


def seed() -> int:
    """Chance, or what `CHARTHOUSE_SEED` says: to throw the same dice again."""
    return int(os.environ.get("CHARTHOUSE_SEED") or random.SystemRandom().randrange(10**9))
