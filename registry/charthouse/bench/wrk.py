"""wrk, where it is installed: for single requests, as a second opinion of a load program in C that checks no bodies."""

import re
import resource
import shutil
import subprocess
import time

from charthouse.bench.client import Refused
from charthouse.bench.session import Registry, Sample
from charthouse.manifest import OCI_MANIFEST

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def load(registry: Registry, path: str, connections: int, seconds: float) -> Sample:
    """GET of one path on so many connections. Raises Refused."""
    program = shutil.which("wrk")
    if program is None:
        raise Refused("wrk is not installed")
    origin = registry.origin
    headers = [line for line in (*origin.head.splitlines(), f"Accept: {OCI_MANIFEST}") if not line.startswith("Host:")]
    command = [program, "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency"]
    command += [part for header in headers for part in ("-H", header)]
    before, used, began = registry.processes.cpu, _children(), time.perf_counter()
    done = subprocess.run(  # noqa: S603 - the program that the user asked for, without a shell
        [*command, f"http://{origin.host}:{origin.port}/v2/{path}"], capture_output=True, text=True, check=False
    )
    elapsed, after = time.perf_counter() - began, registry.processes.cpu
    if done.returncode or "Non-2xx" in done.stdout:
        raise Refused(f"wrk: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    count = int(_found(r"(\d+) requests in", done.stdout))
    return Sample(
        rate=float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)),
        median=_latency("50%", done.stdout),
        p99=_latency("99%", done.stdout),
        count=count,
        client=(_children() - used) / elapsed,
        cpu=None if before is None or after is None else (after - before) / count * 1000,
    )


def _latency(percentile: str, output: str) -> float:
    number, unit = _found(rf"{percentile}\s+([\d.]+[a-z]+)", output), ""
    for unit in ("us", "ms", "s"):
        if number.endswith(unit):
            break
    return float(number.removesuffix(unit)) * _UNITS[unit]


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    if not found:
        raise Refused(f"wrk said what is not understood: {output!r}")
    return found[1]


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
