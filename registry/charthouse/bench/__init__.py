"""The benchmark: pushes and pulls as Helm does, against any registries side by side.

`run` is the whole of it. `plan.py` says what is measured, `work.py` which requests that is, `client.py` how they are
sent, `report.py` what a person sees.
"""

import ipaddress
import json
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from charthouse.bench import plot, report
from charthouse.bench.charts import MIB
from charthouse.bench.client import Origin, Refused
from charthouse.bench.memory import Memory, measure
from charthouse.bench.observe import Processes, disk_usage
from charthouse.bench.plan import WORDS, Phase, Plan, Sizes
from charthouse.bench.results import Results
from charthouse.bench.session import Registry, Session, require_answer
from charthouse.settings import SettingsError

__all__ = ["WORDS", "Options", "Sizes", "numbers", "quick", "run"]

FILL_LIMIT = 180  # seconds to bring one registry to a size that is to be measured
QUICK = Sizes(
    seconds=0.3, versions=(10, 100), repositories=100, tags=300, referrers=50, large=10, requests=3_000, flow=40
)
QUICK_FILL_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Options:
    """`urls` are `[NAME=]URL`; `data` are the registries' folders in the same order; `only` are words of WORDS."""

    urls: Sequence[str]
    sizes: Sizes = Sizes()  # noqa: RUF009 - it is frozen
    rounds: int = 5
    processes: int = 2
    only: Sequence[str] = WORDS
    data: Sequence[Path] = ()
    fill_limit: float = FILL_LIMIT
    history: Path | None = None
    svg: Path | None = None
    keep: bool = False
    elsewhere: bool = False


def quick(options: Options) -> Options:
    """A minute in all, for CI: it shows that everything runs, not how fast."""
    return replace(options, sizes=replace(QUICK, use_wrk=options.sizes.use_wrk), rounds=1, fill_limit=QUICK_FILL_LIMIT)


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """`10,2000`. Raises SettingsError."""
    found = text.split(",")
    if not all(number.strip().isdecimal() and int(number) > 0 for number in found):
        raise SettingsError(f"{flag} {text}: give whole numbers above 0, separated by commas")
    return tuple(map(int, found))


def run(options: Options) -> None:
    """Measures, prints, and deletes what it pushed. Raises SettingsError for what cannot be measured."""
    registries = [_registry(options, number) for number in range(len(options.urls))]
    _check(options, registries)
    results, memory = Results([registry.name for registry in registries]), dict[str, Memory | None]()
    disk: dict[str, str] = {}
    with _session(options, registries) as session:
        plan = Plan(session, options.sizes)
        try:
            if "memory" in options.only:
                memory = {one.name: measure(session, one, options.sizes, plan) for one in registries}
            for word in (word for word in WORDS if word in options.only and word != "memory"):
                for group in plan.groups(word):
                    _measure(session, group, options.rounds, results)
            disk = {one.name: _disk_used(one) for one in registries if one.data}
        finally:
            for registry in registries:
                if not options.keep:
                    session.clean(registry, options.sizes.connections)
    report.show(results, memory, disk, session.notes)
    if options.history:
        _append(options, results, memory, disk)
    if options.svg:
        options.svg.write_text(plot.draw(results, sorted(options.sizes.versions)), encoding="utf-8")


def _registry(options: Options, number: int) -> Registry:
    name, equals, url = options.urls[number].partition("=")
    if not equals or "://" in name:
        name, url = "", options.urls[number]
    origin = Origin.parse(url)
    if not options.elsewhere and not _is_loopback(origin.host):
        raise SettingsError(
            f"{origin.host} is not this machine: give --yes to load it with everything the benchmark has, and to write"
            " and delete in a namespace of its own there"
        )
    data = options.data[number] if number < len(options.data) else None
    here = Processes.listening_on(origin.port) if _is_loopback(origin.host) else Processes(())
    return Registry(name or f"{origin.host}:{origin.port}", origin, here, data)


def _check(options: Options, registries: Sequence[Registry]) -> None:
    unknown = [word for word in options.only if word not in WORDS]
    if unknown:
        raise SettingsError(f"--only {unknown[0]}: there is {', '.join(WORDS)}")
    names = [registry.name for registry in registries]
    if len(set(names)) < len(names):
        raise SettingsError(f"two registries are called {max(names, key=names.count)}: name them, as in a=URL b=URL")
    for registry in registries:
        try:
            require_answer(registry.name, registry.origin)
        except (Refused, OSError) as error:
            raise SettingsError(
                f"no registry answers at {registry.origin.host}:{registry.origin.port}: {error}"
            ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@contextmanager
def _session(options: Options, registries: Sequence[Registry]) -> Iterator[Session]:
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(options.processes, spawn) as pool:
        yield Session(
            registries,
            pool,
            namespace=f"charthouse-bench-{secrets.token_hex(4)}",
            processes=options.processes,
            fill_limit=options.fill_limit,
            say=_say,
        )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _measure(session: Session, group: Sequence[Phase], rounds: int, results: Results) -> None:
    """Side by side: in each round every phase of the group on every registry."""
    for number in range(1, rounds + 1):
        for phase in group:
            for registry in session.registries:
                _measure_once(phase, registry, f"round {number} of {rounds}", results)


def _measure_once(phase: Phase, registry: Registry, when: str, results: Results) -> None:
    """A registry that refused is not asked again."""
    found = [results.of(row) for row in phase.rows]
    if any(registry.name in result.refusals for result in found):
        return
    try:
        samples = phase.measure(registry)
    except (Refused, OSError) as refusal:
        _say(f"{when}: {registry.name}: {found[0].row.name}: {refusal}")
        for result in found:
            result.add(registry.name, None)
            result.refusals[registry.name] = str(refusal)
        return
    for result, sample in zip(found, samples, strict=True):
        result.add(registry.name, sample)
        value, p99 = result.value_of(sample), sample.p99 * 1000
        _say(f"{when}: {registry.name}: {result.row.name}: {value:,.1f} {result.row.unit}, p99 {p99:.1f} ms")


def _disk_used(registry: Registry) -> str:
    """Of all, and of one manifest with its blobs, the large blobs left out."""
    assert registry.data is not None  # noqa: S101 - asked by the caller
    used, manifests = disk_usage(registry.data), len(registry.made)
    small = used - sum(blob.size * MIB for blob in registry.large)
    return f"{used:,} bytes on disk, {small / max(manifests, 1):,.0f} for each of {manifests:,} manifests"


def _append(options: Options, results: Results, memory: dict[str, Memory | None], disk: dict[str, str]) -> None:
    """One line of JSON for the run."""
    assert options.history is not None  # noqa: S101 - asked by the caller
    line = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "registries": results.registries,
        "rounds": options.rounds,
        "sizes": {name: getattr(options.sizes, name) for name in Sizes.__slots__},
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "results": [result.to_json() for result in results.rows.values()],
        "memory": {
            name: None if one is None else {key: getattr(one, key) for key in Memory.__slots__}
            for name, one in memory.items()
        },
        "disk": disk,
    }
    with options.history.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
