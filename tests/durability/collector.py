"""Garbage collection in a process of its own, a pass for each line that it is given; and how a test sees it.

It lives a year from now, as `stored.look` does: so everything is over its grace, and no clock was set between the two.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from charthouse import clocks
from charthouse.blobs import filesystem
from charthouse.composition import open_registry
from charthouse.core import Registry
from charthouse.settings import Settings, load
from durability import mutants
from durability.server import MUTANT, TESTS
from durability.stored import A_YEAR

READY = "ready"


# The program


async def collect(flags: dict[str, Any]) -> None:
    mutants.apply(os.environ.get(MUTANT, ""))
    filesystem.THREADS = 1  # then it does the same calls each time
    registry = await open_registry(load(flags, environ={}), clock=lambda: time.time() + A_YEAR, steady=clocks.steady)
    try:
        await registry.collector.run()
        print(READY, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(await _once(registry), flush=True)
    finally:
        await registry.close()


async def _once(registry: Registry) -> str:
    try:
        return f"removed {await registry.collector.run()}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says what it may be
        return f"{type(error).__name__}: {error}"


# As a test sees it


class CollectorProcess:
    def __init__(self, settings: Settings, log: Path) -> None:
        flags = {"data": str(settings.data), "database": settings.database, "untagged_expiry": 3600}
        with log.open("ab") as lines:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "durability.collector", json.dumps(flags)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=lines,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                text=True,
            )
        assert self._says() == READY

    @property
    def pid(self) -> int:
        return self._process.pid

    def _says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self) -> str:
        """What became of a pass; "" when the process was killed in it."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._says()

    def stop(self) -> None:
        """Whatever state it is in."""
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    asyncio.run(collect(json.loads(sys.argv[1])))
