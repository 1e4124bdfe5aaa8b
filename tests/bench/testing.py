"""What a registry for tests costs: PYTHONPATH=tests .venv/bin/python tests/bench/testing.py, a line for each figure."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

TIMES = 30
ALIVE = 200
_FIRST = """
import time
begin = time.perf_counter()
from charthouse.testing import Registry
imported = time.perf_counter()
with Registry():
    print(imported - begin, time.perf_counter() - imported)
"""


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def report(name: str, figures: list[float]) -> None:
    print(f"{name:32} {statistics.median(figures):8.1f} ms ({min(figures):.1f}-{max(figures):.1f})")


def fresh(*words: str) -> str:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


def main() -> None:
    first = [[float(each) * 1000 for each in fresh("-c", _FIRST).split()] for _ in range(5)]
    report("imports", [each[0] for each in first])
    report("first ready after the imports", [each[1] for each in first])
    began = []
    for _ in range(5):
        begin = time.time()
        began.append((float(fresh("-m", "charthouse", "exec", "--", "date", "+%s.%N")) - begin) * 1000)
    report("exec until the command runs", began)

    from charthouse.testing import Registry, make_chart

    with Registry() as kept:
        registries = [Registry() for _ in range(TIMES)]
        report("every further one ready", [milliseconds(registry.start) for registry in registries])
        chart = make_chart("app", "1.0.0")
        report("push", [milliseconds(partial(registry.push, chart)) for registry in registries])
        report("reset", [milliseconds(registry.reset) for registry in registries])
        report("end", [milliseconds(registry.end) for registry in registries])
        with ExitStack() as alive:
            report(f"{ALIVE} started", [milliseconds(lambda: [alive.enter_context(Registry()) for _ in range(ALIVE)])])
            report(f"{ALIVE} ended", [milliseconds(alive.close)])
        kept.reset()


if __name__ == "__main__":
    main()
