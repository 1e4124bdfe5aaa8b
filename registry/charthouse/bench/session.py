"""A run of the benchmark: the registries, the processes that load them, what was pushed, and deleting it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from charthouse.bench.charts import LargeBlob, Stored
from charthouse.bench.client import Operation, Origin, Refused, Tally, drive
from charthouse.bench.observe import Processes, resident
from charthouse.bench.work import OK, Deletes, Share, Work, expect

T = TypeVar("T")

SETTLING = 60  # seconds that a registry may go on after a phase
CLEANING_LIMIT = 300  # seconds for each registry; some delete as slowly as they push
WATCH_EVERY = 0.02  # seconds between two looks at a registry's memory
_FEW = 100  # below so many operations the slowest is as good a p99 as any

Load = tuple[Work, int]  # on so many connections


@dataclass(frozen=True, slots=True)
class Sample:
    """One kind of operation in one phase. Seconds; `cpu` is the registry's for 1,000 operations, and for what it put
    off until they were done."""

    rate: float
    median: float
    p99: float
    count: int
    client: float  # of a core: what the busiest load process used
    cpu: float | None = None


@dataclass(slots=True)
class Outcome:
    """What a load process did; `refusal` is why it ended early, or ""."""

    tallies: list[Tally]
    made: list[Stored]
    client: float
    refusal: str = ""


@dataclass(slots=True)
class Registry:
    name: str
    origin: Origin
    processes: Processes
    data: Path | None = None
    made: list[Stored] = field(default_factory=list)
    large: list[LargeBlob] = field(default_factory=list)
    _filled: dict[str, list[Stored] | Refused] = field(default_factory=dict)

    def stored(self, repository: str) -> list[Stored]:
        """What `Session.fill` pushed there. Raises Refused when that failed."""
        found = self._filled[repository]
        if isinstance(found, Refused):
            raise found
        return found

    def note_filled(self, repository: str, found: list[Stored] | Refused) -> None:
        self._filled[repository] = found

    def is_filled(self, repository: str) -> bool:
        return repository in self._filled

    def paths_made(self) -> Iterator[list[str]]:
        """What to delete, in this order: manifests with a subject, other manifests, blobs."""
        yield _distinct(f"{one.repository}/manifests/{one.manifest}" for one in self.made if not one.tag)
        yield _distinct(f"{one.repository}/manifests/{one.manifest}" for one in self.made if one.tag)
        yield _distinct(f"{one.repository}/blobs/{digest}" for one in self.made for digest in one.blobs)
        yield _distinct(f"{blob.repository}/blobs/{blob.digest}" for blob in self.large)


class Session:
    def __init__(
        self,
        registries: Sequence[Registry],
        pool: ProcessPoolExecutor,
        *,
        namespace: str,
        processes: int,
        fill_limit: float,
        say: Callable[[str], None],
    ) -> None:
        self.registries = registries
        self.namespace = namespace
        self.notes: list[str] = []
        self.say = say
        self._pool = pool
        self._processes = processes
        self._fill_limit = fill_limit
        self._phase = 0

    def next_phase(self) -> int:
        """A number that no push of this session has in its version yet."""
        self._phase += 1
        return self._phase

    def submit(self, call: Callable[..., T], *arguments: object) -> "Future[T]":
        return self._pool.submit(call, *arguments)

    def load(self, registry: Registry, loads: Sequence[Load], seconds: float) -> list[Sample]:
        """One phase: a sample for each load. Raises Refused."""
        before = registry.processes.cpu
        outcomes = self._run(registry, loads, seconds)
        after = registry.processes.cpu
        cpu = None if before is None or after is None or len(loads) > 1 else after - before
        client = max(outcome.client for outcome in outcomes)
        return [_sample([outcome.tallies[at] for outcome in outcomes], client, cpu) for at in range(len(loads))]

    def fill(self, repository: str, count: int, work: Work, connections: int) -> None:
        """Pushes into every registry, once for each repository; whoever is too slow for the limit has less."""
        for registry in self.registries:
            if registry.is_filled(repository):
                continue
            self.say(f"filling {registry.name}: {count:,} in {repository}")
            already = len(registry.made)
            began = time.monotonic()
            try:
                self._run(registry, [(work, connections)], self._fill_limit)
            except Refused as refusal:
                registry.note_filled(repository, refusal)
                continue
            made = registry.made[already:]
            registry.note_filled(repository, made)
            if len(made) < count:
                self.notes.append(
                    f"{registry.name} took {len(made):,} of {count:,} pushes to {repository}"
                    f" in {time.monotonic() - began:.0f} s: it is measured with these"
                )

    def watch_memory(self, registry: Registry, running: "Future[float]") -> int:
        """The most resident bytes seen until `running` has ended. Raises what that raised."""
        pids = registry.processes.family()
        most = resident(pids)
        while not wait([running], timeout=WATCH_EVERY).done:
            most = max(most, resident(pids))
        running.result()
        return max(most, resident(pids))

    def clean(self, registry: Registry, connections: int) -> None:
        """Deletes what was pushed. A fault is a note: the figures are there already."""
        self.say(f"deleting what was pushed to {registry.name}")
        deadline = time.monotonic() + CLEANING_LIMIT
        try:
            for paths in registry.paths_made():
                left = deadline - time.monotonic()
                outcome = self._run(registry, [(Deletes(paths), connections)], left) if paths and left > 0 else []
                if paths and sum(len(one.tallies[0].latencies) for one in outcome) < len(paths):
                    raise Refused(f"it took more than {CLEANING_LIMIT} s")
        except Refused as refusal:
            self.notes.append(f"not all of {self.namespace} could be deleted from {registry.name}: {refusal}")

    def _run(self, registry: Registry, loads: Sequence[Load], seconds: float) -> list[Outcome]:
        """The loads, their connections dealt out to the processes, and what the registry puts off meanwhile."""
        dealt = [[(work, _part(count, self._processes, at)) for work, count in loads] for at in range(self._processes)]
        busy = [part for part in dealt if any(count for _, count in part)]
        running = [
            self.submit(run_share, registry.origin, part, seconds, number, len(busy))
            for number, part in enumerate(busy)
        ]
        outcomes = [one.result() for one in running]
        registry.processes.wait_until_idle(SETTLING)
        for outcome in outcomes:
            registry.made += outcome.made
        refusals = [outcome.refusal for outcome in outcomes if outcome.refusal]
        if refusals:
            raise Refused(refusals[0])
        return outcomes


def run_share(origin: Origin, loads: Sequence[Load], seconds: float, number: int, of: int) -> Outcome:
    """In a load process. What was made is known even when the registry refuses in the middle."""
    share = Share(number, of, [])
    prepared = [(work.operations(origin, share), connections) for work, connections in loads]
    began, used = time.perf_counter(), time.process_time()
    try:
        tallies = drive(origin, prepared, seconds)
    except (Refused, OSError) as error:
        return Outcome([], share.made, 0.0, str(error))
    client = (time.process_time() - used) / (time.perf_counter() - began)
    return Outcome(tallies, share.made, client)


def require_answer(name: str, origin: Origin) -> None:
    """Raises Refused or OSError unless the registry answers at /v2/."""

    def ask() -> Operation:
        expect((yield origin.request("GET", "/v2/")), f"GET /v2/ of {name}", OK)

    drive(origin, [(iter([ask()]), 1)], 1.0)


def _distinct(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _part(count: int, processes: int, at: int) -> int:
    return count // processes + (at < count % processes)


def _sample(tallies: Sequence[Tally], client: float, cpu: float | None) -> Sample:
    latencies = sorted(latency for tally in tallies for latency in tally.latencies)
    count = len(latencies)
    if not count:
        raise Refused("no operation ended in time")
    return Sample(
        rate=sum(len(tally.latencies) / tally.elapsed for tally in tallies),
        median=latencies[count // 2],
        p99=latencies[-1 if count < _FEW else int(count * 0.99)],
        count=count,
        client=client,
        cpu=None if cpu is None else cpu / count * 1000,
    )
