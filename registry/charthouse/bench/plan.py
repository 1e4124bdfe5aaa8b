"""What is measured, in which order: each method of `Plan` yields groups of phases that are run side by side.

A phase is one stretch of load on one registry. It fills a row of the report, or two when pulls and pushes run together.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from charthouse.bench import charts, large, wrk
from charthouse.bench.charts import Package, Stored
from charthouse.bench.session import Registry, Sample, Session
from charthouse.bench.work import (
    SMALL,
    ChartBlobs,
    Listing,
    ManifestsByTag,
    Pulls,
    Pushes,
    PushOne,
    RealPushes,
    Referrers,
    Tags,
    Work,
)

RATE, MILLISECONDS, MEGABYTES = "/s", "ms", "MB/s"
LARGE_REPEATS = 3  # transfers in a phase: they fill the disk, and more of them are not more exact
PAGE = 1000

# The words for --only, in the order of the run. `memory` comes first of all: a registry is fresh only once.
WORDS = (
    "memory",
    "manifests",
    "blobs",
    "pulls",
    "plain",
    "pushes",
    "checks",
    "real",
    "versions",
    "repositories",
    "tags",
    "referrers",
    "large",
    "mixed",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. `seconds` for a phase; `large` and `flow` in MiB."""

    seconds: float = 10
    connections: int = 16
    versions: tuple[int, ...] = (10, 2_000, 10_000)
    repositories: int = 10_000
    tags: int = 10_000
    referrers: int = 1_000
    large: int = 100
    requests: int = 100_000  # before memory is looked at again
    flow: int = 1024  # while memory is looked at
    use_wrk: bool = False
    charts: tuple[str, ...] = ()  # archives of real charts


@dataclass(frozen=True, slots=True)
class Row:
    """`against` names the row of the same group that this one's value is also given as a share of."""

    name: str
    unit: str = RATE
    against: str = ""


@dataclass(frozen=True, slots=True)
class Phase:
    rows: Sequence[Row]
    measure: Callable[[Registry], list[Sample]]  # a sample for each row; raises Refused


class Plan:
    def __init__(self, session: Session, sizes: Sizes) -> None:
        self._session = session
        self._sizes = sizes

    def groups(self, word: str) -> "Iterator[list[Phase]]":
        """What one of WORDS stands for. What it needs is pushed when its turn has come."""
        found: Iterator[list[Phase]] = getattr(self, word)()
        return found

    def ten_versions(self, registry: Registry) -> Sequence[Stored]:
        return registry.stored(self._fill_versions(SMALL))

    def manifests(self) -> Iterator[list[Phase]]:
        ten = self._fill_versions(SMALL)
        yield [self._phase(Row("manifest by tag, GET"), lambda registry: ManifestsByTag(registry.stored(ten)))]
        if self._sizes.use_wrk:
            yield [self._wrk(ten, "manifest by tag, GET, by wrk", lambda one: f"manifests/{one.tag}")]

    def blobs(self) -> Iterator[list[Phase]]:
        ten = self._fill_versions(SMALL)
        yield [self._phase(Row("chart blob (5 KB), GET"), lambda registry: ChartBlobs(registry.stored(ten)))]
        if self._sizes.use_wrk:
            yield [self._wrk(ten, "chart blob (5 KB), GET, by wrk", lambda one: f"blobs/{one.blobs[-1]}")]

    def pulls(self) -> Iterator[list[Phase]]:
        ten = self._fill_versions(SMALL)
        yield [self._phase(Row("pulls"), lambda registry: Pulls(registry.stored(ten)))]

    def plain(self) -> Iterator[list[Phase]]:
        yield [self._phase(Row("pushes of plain artifacts"), lambda _: self._small_pushes(charts.plain))]

    def pushes(self) -> Iterator[list[Phase]]:
        yield [self._phase(Row("pushes of charts"), lambda _: self._small_pushes())]

    def checks(self) -> Iterator[list[Phase]]:
        """What the rules cost: the same bytes as a chart and as no chart."""
        plain, chart = Row("pushes of artifacts of 20 KB"), "pushes of charts of 20 KB"
        yield [
            self._phase(plain, lambda _: self._small_pushes(charts.plain_of_20_kb)),
            self._phase(Row(chart, against=plain.name), lambda _: self._small_pushes(charts.chart_of_20_kb)),
        ]

    def real(self) -> Iterator[list[Phase]]:
        """Somebody's charts, where `--charts` names them."""
        paths = self._sizes.charts

        def pushes(*, as_charts: bool) -> Work:
            return RealPushes(self._repository(f"real-{self._session.next_phase()}"), paths, as_charts)

        if paths:
            image, chart = Row(f"pushes of {len(paths)} images"), f"pushes of {len(paths)} real charts"
            yield [
                self._phase(image, lambda _: pushes(as_charts=False)),
                self._phase(Row(chart, against=image.name), lambda _: pushes(as_charts=True)),
            ]

    def versions(self) -> Iterator[list[Phase]]:
        """Pulls at all sizes side by side; then pushes, which make the repositories grow."""
        sizes = sorted(self._sizes.versions)
        for count in sizes:
            self._fill_versions(count)
        yield [self._at_versions("pulls", count, sizes[0]) for count in sizes]
        yield [self._at_versions("pushes", count, sizes[0]) for count in sizes]

    def _at_versions(self, verb: str, count: int, least: int) -> Phase:
        repository = self._fill_versions(count)

        def work(registry: Registry) -> Work:
            stored = registry.stored(repository)
            if verb == "pulls":
                return Pulls(stored)
            return self._small_pushes() if count <= SMALL else Pushes(repository, self._session.next_phase())

        against = "" if count == least else f"{verb} at {least:,} versions"
        return self._phase(Row(f"{verb} at {count:,} versions", against=against), work)

    def repositories(self) -> Iterator[list[Phase]]:
        """Pulls and pushes with many repositories there, and a page of the catalog."""
        ten, count = self._fill_versions(SMALL), self._sizes.repositories
        many = self._repository("repositories")
        fill = Pushes(many, self._session.next_phase(), per_repository=1, count=count)
        self._session.fill(many, count, fill, self._sizes.connections)
        few, all_of_them = Row("pulls from one repository"), f"pulls from {count:,} repositories"
        yield [
            self._phase(few, lambda registry: Pulls(registry.stored(ten))),
            self._phase(Row(all_of_them, against=few.name), lambda registry: Pulls(registry.stored(many))),
        ]
        yield [self._phase(Row(f"pushes beside {count:,} repositories"), lambda _: self._small_pushes())]
        row = Row(f"catalog of {count:,}, a page of {min(PAGE, count):,}", MILLISECONDS)
        yield [self._phase(row, lambda registry: _page_of_catalog(registry.stored(many)), connections=1)]

    def tags(self) -> Iterator[list[Phase]]:
        package, count = self._one("tags", charts.plain), self._sizes.tags
        path = f"{package.stored.repository}/tags/list"
        self._session.fill(path, count, Tags(package, count), self._sizes.connections)
        row = Row(f"tags/list of {count:,}", MILLISECONDS)
        yield [self._phase(row, lambda registry: Listing(path, "tags", len(registry.stored(path))), connections=1)]

    def referrers(self) -> Iterator[list[Phase]]:
        subject, count = self._one("referrers", charts.chart), self._sizes.referrers
        path = f"{subject.stored.repository}/referrers/{subject.stored.manifest}"
        self._session.fill(path, count, Referrers(subject, count), self._sizes.connections)
        row = Row(f"referrers of {count:,}", MILLISECONDS)
        yield [self._phase(row, lambda registry: Listing(path, "manifests", len(registry.stored(path))), connections=1)]

    def large(self) -> Iterator[list[Phase]]:
        size = self._sizes.large
        yield [Phase([Row(f"blob of {size:,} MiB, up", MEGABYTES)], self._transfers(large.start_push))]
        yield [Phase([Row(f"blob of {size:,} MiB, down", MEGABYTES)], self._transfers(large.start_pull))]

    def mixed(self) -> Iterator[list[Phase]]:
        """Half of the connections pull while the other half pushes, against the same number of them alone."""
        ten = self._fill_versions(SMALL)
        kinds: tuple[tuple[str, Callable[[Sequence[Stored]], Work]], ...] = (
            ("pulls", Pulls),
            ("manifests", ManifestsByTag),
            ("blobs", ChartBlobs),
        )
        for name, kind in kinds:
            yield list(self._quiet_and_mixed(ten, name, kind))

    def _quiet_and_mixed(self, ten: str, name: str, kind: Callable[[Sequence[Stored]], Work]) -> Iterator[Phase]:
        half = max(self._sizes.connections // 2, 1)
        quiet, quiet_pushes = Row(f"{name}, {half} alone"), Row(f"pushes, {half} alone (beside {name})")
        yield self._phase(quiet, lambda registry: kind(registry.stored(ten)), connections=half)
        yield self._phase(quiet_pushes, lambda _: self._small_pushes(), connections=half)

        def together(registry: Registry) -> list[Sample]:
            loads = [(kind(registry.stored(ten)), half), (self._small_pushes(), half)]
            return self._session.load(registry, loads, self._sizes.seconds)

        rows = (
            Row(f"{name}, {half} while {half} push", against=quiet.name),
            Row(f"pushes, {half} while {half} get {name}", against=quiet_pushes.name),
        )
        yield Phase(rows, together)

    def _phase(self, row: Row, work: Callable[[Registry], Work], connections: int = 0) -> Phase:
        count = connections or self._sizes.connections
        return Phase(
            [row], lambda registry: self._session.load(registry, [(work(registry), count)], self._sizes.seconds)
        )

    def _wrk(self, filled: str, name: str, path: Callable[[Stored], str]) -> Phase:
        def measure(registry: Registry) -> list[Sample]:
            one = registry.stored(filled)[0]
            return [wrk.load(registry, f"{one.repository}/{path(one)}", self._sizes.connections, self._sizes.seconds)]

        return Phase([Row(name)], measure)

    def _transfers(
        self, start: Callable[[Session, Registry, int], "Future[float]"]
    ) -> Callable[[Registry], list[Sample]]:
        def measure(registry: Registry) -> list[Sample]:
            size = self._sizes.large
            seconds = sorted(start(self._session, registry, size).result() for _ in range(LARGE_REPEATS))
            median = seconds[LARGE_REPEATS // 2]
            return [Sample(size * charts.MIB / 1e6 / median, median, seconds[-1], LARGE_REPEATS, client=0)]

        return measure

    def _repository(self, name: str) -> str:
        return f"{self._session.namespace}/{name}"

    def _small_pushes(self, make: Callable[[str, str], Package] = charts.chart) -> Pushes:
        """Into repositories of which none grows beyond ten versions."""
        return Pushes(self._repository("small"), self._session.next_phase(), make, per_repository=SMALL)

    def _fill_versions(self, count: int) -> str:
        repository = self._repository(f"versions-{count}")
        work = Pushes(repository, self._session.next_phase(), count=count)
        self._session.fill(repository, count, work, self._sizes.connections)
        return repository

    def _one(self, name: str, make: Callable[[str, str], Package]) -> Package:
        package = make(f"{self._repository(name)}/{charts.NAME}", "1.0.0")
        self._session.fill(package.stored.repository, 1, PushOne(package), 1)
        return package


def _page_of_catalog(stored: Sequence[Stored]) -> Listing:
    """The first: where `last` is no repository that exists, zot and distribution leave out what comes after it."""
    count = min(PAGE, len(stored))
    return Listing(f"_catalog?n={count}", "repositories", count, whole=False)
